#!/usr/bin/env bash
# try-image.sh IMAGE: ends with 1 unless the official agent of a runner's image runs there and is the release that the image's label says, and
# PID 1 refuses to start without settings.
set -euo pipefail
image=${1:?try-image.sh IMAGE}
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

wanted=$(docker image inspect --format '{{index .Config.Labels "io.github.oddessentials.oscr.agent.version"}}' "$image")
# Before it reads its arguments, the agent makes its log's directory, in a root that its user cannot write.
said=$(docker run --rm --user 1001 --tmpfs /opt/oscr/agent/_diag --entrypoint sh "$image" -c 'exec /opt/oscr/agent/bin/*.Listener --version')
[ "$said" = "$wanted" ] || die "the agent of $image says that it is «$said», and its label says «$wanted»"
status=0
docker run --rm "$image" >/dev/null 2>&1 || status=$?
[ "$status" = 78 ] || die "$image without settings ends with $status, and not with 78"
say "$image: the agent is $said"
