#!/usr/bin/env bash
# official.sh [ARGUMENTS]: the table of scenarios (dist/sim/official) with the agent that AGENT names: a release archive as GitHub ships it,
# or «official», the pinned release. Without it, with the stand-in. Arguments are the table's.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

image=$(scripts/agent-image.sh -docker)
# What the stand-in does not do.
[ -n "${AGENT:-}" ] || set -- --without javascript "$@"
set -- --image "$image" --docker-image "$image-docker" "$@"
say "dist/sim/official $*"
exec dist/sim/official "$@"
