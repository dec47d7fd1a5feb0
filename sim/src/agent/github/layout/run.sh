#!/bin/bash
# Stand-in for the official run.sh: starts the helper anew for as long as it says 2.
DIR="$(dirname "$(readlink -f "$0")")"
run() {
    cp -f "$DIR/run-helper.sh.template" "$DIR/run-helper.sh"
    if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
        "$DIR/run-helper.sh" "$@" &
        PID=$!
        trap 'kill -INT -$PID' INT TERM
        wait "$PID"
        trap - INT TERM
        wait "$PID"
    else
        "$DIR/run-helper.sh" "$@"
    fi
}
if [ -n "$RUNNER_MANUALLY_TRAP_SIG" ]; then
    set -m
fi
while :; do
    run "$@"
    code=$?
    if [ "$code" -eq 2 ]; then
        echo "Restarting runner..."
    else
        echo "Exiting runner..."
        exit "$code"
    fi
done
