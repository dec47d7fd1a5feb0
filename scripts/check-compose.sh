#!/usr/bin/env bash
# Compose must accept each of our files: as they are, with the example settings, and with every secret given or absent. The
# machine's own .env and COMPOSE_ variables have no say.
set -euo pipefail
cd "$(dirname "$0")/.."
unset COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME COMPOSE_ENV_FILES GITHUB_PAT RUNNER_TOKEN ACCESS_TOKEN GH_PAT CI_PROVIDER ADO_PAT ADO_CLIENT_SECRET AZP_TOKEN

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
# What may be added to it, for each forge.
for file in compose.docker-socket.yml compose.docker-dind.yml compose.docker-own.yml compose.sudo.yml compose.hardened.yml; do
    for provider in github azure-devops; do
        CI_PROVIDER=$provider check "$file with $provider" --env-file .env.example --file compose.yml --file "$file"
    done
done
# Two organisations and two boards: as it is, and with the example settings.
check "compose.boards.yml without .env" --env-file /dev/null --file compose.boards.yml
check "compose.boards.yml" --env-file .env.example --file compose.boards.yml
check "demo/compose.yml" --file demo/compose.yml

# The example must select the service that its first lines promise.
for pair in github:github-runner azure-devops:azure-devops-agent; do
    services=$(CI_PROVIDER=${pair%:*} docker compose --env-file .env.example --file compose.yml config --services)
    [ "$services" = "${pair#*:}" ] || {
        echo ".env.example with CI_PROVIDER=${pair%:*} selects «$services» instead of ${pair#*:}" >&2
        exit 1
    }
done
ADO_PAT=a ADO_CLIENT_SECRET=b AZP_TOKEN=c CI_PROVIDER=azure-devops check "compose.yml with all of Azure DevOps' secrets" \
    --env-file .env.example --file compose.yml
echo "compose files: good"
