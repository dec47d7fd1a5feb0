#!/usr/bin/env bash
# agent-image.sh [SUFFIX...]: builds the image of GitHub's runner with the agent that AGENT names, a release archive as GitHub ships it or
# «official», the pinned release; without it, with the stand-in. Prints its name. A suffix, such as -docker, has that image built beside.
set -euo pipefail
cd "$(dirname "$0")/.."

image=oddessentials/oscr-github
if [ -n "${AGENT:-}" ]; then
    AGENT_ARCHIVE=$(scripts/agent-archive.sh "$AGENT")
    export AGENT_ARCHIVE
    kind=github-official image=$image:official
else
    kind=github image=$image:${OSCR_SIM_TAG:-sim}
fi
scripts/images.sh "$kind" "${@/#/$kind}"
echo "$image"
