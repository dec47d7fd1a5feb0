#!/usr/bin/env bash
# official.sh [ARGUMENTS]: the table of scenarios (dist/sim/official) with the agent that AGENT names: a release archive as GitHub ships it,
# or «official», the pinned release. Without it, with the stand-in. Arguments are the table's.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

image=oddessentials/oscr-github
if [ -n "${AGENT:-}" ]; then
    AGENT_ARCHIVE=$(scripts/agent-archive.sh "$AGENT")
    export AGENT_ARCHIVE
    scripts/images.sh github-official github-official-docker
    set -- --image "$image:official" --docker-image "$image:official-docker" "$@"
else
    scripts/images.sh github github-docker
    # What the stand-in does not do.
    set -- --image "$image:${OSCR_SIM_TAG:-sim}" --docker-image "$image:${OSCR_SIM_TAG:-sim}-docker" --without javascript "$@"
fi
say "dist/sim/official $*"
exec dist/sim/official "$@"
