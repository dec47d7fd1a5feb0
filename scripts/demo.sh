#!/usr/bin/env bash
# demo.sh up [github|azure-devops] | down: the demo's images and containers, and the driver that sends jobs and tells what happens.
# AGENT, a release archive of GitHub's runner or «official» for the pinned release, stands in the place of the stand-in.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

project=oscr-demo
replicas=3
# What a person has set for the real runners is not meant for the demo.
unset COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME COMPOSE_ENV_FILES DEMO_PAT

compose() { docker compose --file demo/compose.yml --project-name "$project" "$@"; }

down() { compose down --volumes --remove-orphans --timeout 5; }

up() {
    local provider=$1 service
    case $provider in
    github) service=github-runner ;;
    azure-devops) service=azure-devops-agent ;;
    *) die "CI_PROVIDER is github or azure-devops, not «$provider»" ;;
    esac
    if [ -n "${AGENT:-}" ]; then
        [ "$provider" = github ] || die "AGENT is GitHub's runner: there is no such demo of $provider"
        AGENT_ARCHIVE=$(scripts/agent-archive.sh "$AGENT")
        export AGENT_ARCHIVE OSCR_SIM_TAG=official
        scripts/images.sh forge github-official
    else
        scripts/images.sh forge "$provider"
    fi
    # A demo starts with no past.
    down >/dev/null 2>&1
    trap 'say "the containers are still there to look at: docker compose -p $project logs; \`make demo-down\` removes them"' EXIT
    compose up --detach --quiet-pull --scale "$service=$replicas" forge "$service"
    local address status=0
    address=$(compose port forge 80)
    dist/sim/demo --forge "http://$address" --project "$project" --provider "$provider" || status=$?
    return "$status"
}

case ${1:-} in
up) up "${2:-github}" ;;
down)
    down
    say "removed"
    ;;
*) die "usage: demo.sh up [github|azure-devops] | down" ;;
esac
