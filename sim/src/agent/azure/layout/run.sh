#!/bin/bash
# Stand-in for the official run.sh: the listener's own code, and one more turn after an update of an agent for one job.
# shellcheck disable=SC2048,SC2086 # Arguments are split once more, as upstream does it.
if [ "$(id -u)" -eq 0 ] && [ -z "$AGENT_ALLOW_RUNASROOT" ]; then
    echo "Must not run interactively with sudo"
    exit 1
fi
cd "$(dirname "$(readlink -f "$0")")" || exit 1
./bin/Agent.Listener run $*
code=$?
if [ "$code" -eq 4 ]; then
    sleep 5
    exec ./bin/Agent.Listener run $*
fi
exit "$code"
