#!/usr/bin/env bash
# systemd must understand examples/oscr.service, and give it more time than Docker gives the runners. Nothing of this machine has a
# say: neither whether Docker is here, nor where.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

unit=examples/oscr.service
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
sed 's,=/usr/bin/docker ,=/bin/true ,' "$unit" >"$folder/oscr.service"
printf '[Service]\nExecStart=/bin/true\n' >"$folder/docker.service"
# What it ignores it only says.
said=$(SYSTEMD_UNIT_PATH=$folder: systemd-analyze verify --man=no "$folder/oscr.service" 2>&1) || said=${said:-no reason is told}
[ -z "$said" ] || die "systemd does not accept $unit: $said"

minutes() { sed -n "s/^ *$1\([0-9]*\)$2\$/\1/p" "$3"; }
stop=$(minutes TimeoutStopSec= min "$unit")
# As Compose's file has it.
# shellcheck disable=SC2016
grace=$(minutes 'stop_grace_period: ${OSCR_STOP_GRACE:-' 'm}' compose.yml)
[ "$stop" -gt "$grace" ] || die "$unit gives runners $stop minutes, and compose.yml $grace"
echo "units: good"
