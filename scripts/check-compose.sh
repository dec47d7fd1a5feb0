#!/usr/bin/env bash
# Compose must accept each of our files: as they are, with the example settings, and with every secret given or absent. The
# machine's own .env and COMPOSE_ variables have no say.
set -euo pipefail
cd "$(dirname "$0")/.."
unset COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME COMPOSE_ENV_FILES GITHUB_PAT RUNNER_TOKEN ACCESS_TOKEN GH_PAT

check() {
    local what=$1
    shift
    docker compose "$@" config --quiet || {
        echo "docker compose does not accept $what" >&2
        exit 1
    }
}

check "compose.yml without .env" --env-file /dev/null --file compose.yml --profile '*'
check "compose.yml with .env.example" --env-file .env.example --file compose.yml
GITHUB_PAT=a RUNNER_TOKEN=b ACCESS_TOKEN=c GH_PAT=d check "compose.yml with all secrets" --env-file .env.example --file compose.yml
check "compose.docker-socket.yml" --env-file .env.example --file compose.yml --file compose.docker-socket.yml
# Two organisations and two boards: as it is, and with the example settings.
check "compose.boards.yml without .env" --env-file /dev/null --file compose.boards.yml
check "compose.boards.yml" --env-file .env.example --file compose.boards.yml
check "demo/compose.yml" --file demo/compose.yml

# The example must select the service that its first lines promise.
services=$(docker compose --env-file .env.example --file compose.yml config --services)
[ "$services" = github-runner ] || {
    echo ".env.example selects «$services» instead of github-runner" >&2
    exit 1
}
echo "compose files: good"
