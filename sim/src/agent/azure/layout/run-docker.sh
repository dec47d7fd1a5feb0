#!/bin/bash
# Stand-in for the official run-docker.sh: starts the listener anew after each update, and ends with its code otherwise.
# shellcheck disable=SC2048,SC2086 # Arguments are split once more, as upstream does it.
if [ "$(id -u)" -eq 0 ] && [ -z "$AGENT_ALLOW_RUNASROOT" ]; then
    echo "Must not run interactively with sudo"
    exit 1
fi
listener="$(dirname "$(readlink -f "$0")")/bin/Agent.Listener"
service="--startuptype service"
for argument in $*; do
    case "${argument,,}" in
    --once) service="" ;;
    esac
done
while :; do
    "$listener" run $service $*
    code=$?
    echo "Agent exit code $code"
    case "$code" in
    3 | 4) ;;
    *) exit "$code" ;;
    esac
    sleep 5
    for ((second = 0; second < 15; second++)); do
        if [ -x "$listener" ]; then
            break
        fi
        sleep 1
    done
    if [ ! -x "$listener" ]; then
        echo "Failed to update within 20 seconds." >&2
        exit 1
    fi
done
