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
# A forge's profile has its name.
mapfile -t providers < <(sed -n 's/^    profiles: \[\(.*\)\]$/\1/p' compose.yml)
for provider in "${providers[@]}"; do
    (
        export CI_PROVIDER=$provider "${secrets[@]/%/=x}"
        check "compose.yml with all of $provider's secrets" --env-file .env.example --file compose.yml
    )
done
# What the pages, the example and the files themselves put together, for each forge; what is added also in the other order.
mapfile -t combinations < <(
    grep -ohE 'compose(\.boards)?\.yml(:compose\.[a-z.-]+\.yml)+' README.md docs/*.md .env.example compose*.yml |
        grep -v ':compose\.override\.yml' | sort -u
)
# Grafana is not started without.
export GRAFANA_PASSWORD=x
for combination in "${combinations[@]}"; do
    IFS=: read -ra files <<<"$combination"
    there=(--file "${files[0]}") back=()
    for file in "${files[@]:1}"; do there+=(--file "$file") back=(--file "$file" "${back[@]}"); done
    for provider in "${providers[@]}"; do
        CI_PROVIDER=$provider check "$combination with $provider" --env-file .env.example "${there[@]}"
        [ ${#files[@]} -lt 3 ] ||
            CI_PROVIDER=$provider check "$combination with $provider, turned round" --env-file .env.example "${there[@]:0:2}" "${back[@]}"
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
