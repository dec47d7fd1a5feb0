#!/bin/bash
# The agent of the third forge: one program, which takes one task. `MAILBOX` and `WORK` are written in by the test.
root=$(dirname "$(dirname "$0")")
if [ "$1" = --version ]; then echo 3.0; exit 0; fi
[ "$1" = work ] || exit 64
printf '%s %s %s' "$2" "$(cat "$root/.registration")" "$THIRD_INPUT_KEY" >MAILBOX/.seen && mv MAILBOX/.seen MAILBOX/seen
trap 'exit 130' INT
echo "ready for work"
until [ -e MAILBOX/task ]; do sleep 0.05; done
task=$(cat MAILBOX/task)
rm MAILBOX/task
echo "task $task begins"
cd WORK || exit 1
mkdir -p deep/er && echo left >deep/er/file
until [ -e MAILBOX/finish ]; do sleep 0.05; done
rm MAILBOX/finish
touch MAILBOX/done
echo "task $task ends: succeeded"
echo "ready for work"
if [ -e MAILBOX/linger ]; then until [ -e MAILBOX/leave ]; do sleep 0.05; done; fi
exit 0
