#!/usr/bin/env bash
# Compose must accept each of our files: as they are, with the example settings, and with every secret given or absent. The
# machine's own .env and COMPOSE_ variables have no say.
set -euo pipefail
cd "$(dirname "$0")/.."
# The variables of the secrets, as compose.yml lists them.
mapfile -t secrets < <(sed -n 's/^    environment: \([A-Z_]*\)$/\1/p' compose.yml)
unset COMPOSE_FILE COMPOSE_PROFILES COMPOSE_PROJECT_NAME COMPOSE_ENV_FILES CI_PROVIDER "${secrets[@]}"

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
for provider in github azure-devops; do
    (
        export CI_PROVIDER=$provider "${secrets[@]/%/=x}"
        check "compose.yml with all of $provider's secrets" --env-file .env.example --file compose.yml
    )
done
# What may be added to it, for each forge.
for file in compose.docker-socket.yml compose.docker-dind.yml compose.docker-own.yml compose.sudo.yml compose.hardened.yml compose.ollama.yml \
    compose.gpu.yml; do
    for provider in github azure-devops; do
        CI_PROVIDER=$provider check "$file with $provider" --env-file .env.example --file compose.yml --file "$file"
    done
done
# And what may be added together, in either order.
for pair in hardened:docker-own hardened:docker-socket hardened:sudo sudo:docker-own sudo:docker-dind sudo:docker-socket ollama:gpu \
    ollama:ollama-gpu ollama:hardened ollama:docker-dind ollama:docker-own ollama:sudo gpu:docker-dind gpu:docker-own; do
    one=compose.${pair%:*}.yml other=compose.${pair#*:}.yml
    for provider in github azure-devops; do
        CI_PROVIDER=$provider check "$one with $other" --env-file .env.example --file compose.yml --file "$one" --file "$other"
        CI_PROVIDER=$provider check "$other with $one" --env-file .env.example --file compose.yml --file "$other" --file "$one"
    done
done
# Two organisations and two boards: as it is, and with the example settings.
check "compose.boards.yml without .env" --env-file /dev/null --file compose.boards.yml
check "compose.boards.yml" --env-file .env.example --file compose.boards.yml
for file in compose.yml compose.boards.yml; do
    GRAFANA_PASSWORD=x check "$file with compose.monitoring.yml" --env-file .env.example --file "$file" --file compose.monitoring.yml
done
check "compose.boards.hardened.yml" --env-file .env.example --file compose.boards.yml --file compose.boards.hardened.yml
check "demo/compose.yml" --file demo/compose.yml

# The example must select the service that its first lines promise.
for pair in github:github-runner azure-devops:azure-devops-agent; do
    services=$(CI_PROVIDER=${pair%:*} docker compose --env-file .env.example --file compose.yml config --services)
    [ "$services" = "${pair#*:}" ] || {
        echo ".env.example with CI_PROVIDER=${pair%:*} selects «$services» instead of ${pair#*:}" >&2
        exit 1
    }
done

# Each runner of compose.boards.yml has one secret, whatever is given to the runner of compose.yml.
boards() { docker compose --env-file .env.example --file compose.boards.yml config "$@"; }
given=$(
    export "${secrets[@]/%/=x}"
    boards | awk '/^  [a-z]/ { service = $1 } $1 ~ /_FILE:$/ && $2 ~ /^\/run\/secrets\// { print service, $1 }'
)
[ "$given" = "$(boards --services | sort | sed 's/$/: GITHUB_PAT_FILE:/')" ] || {
    echo "each service of compose.boards.yml must be given GITHUB_PAT_FILE and no other secret, and these are:" >&2
    echo "$given" >&2
    exit 1
}
echo "compose files: good"
