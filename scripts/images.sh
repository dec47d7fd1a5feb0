#!/usr/bin/env bash
# Builds the images of `make images` from what `make build` left in dist/: one line each, and docker's own words only when it
# fails. Tags: oscr/entry, oscr/forge, and oddessentials/oscr-github:sim with the stand-in for GitHub's agent.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

stand_in=actions-runner-sim.tar.gz
# Debian's older docker clients need to be asked for BuildKit.
export DOCKER_BUILDKIT=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# build FOLDER TAG [DOCKER'S ARGUMENTS]
build() {
    local folder=$1 tag=$2 started=$SECONDS
    shift 2
    docker build --file "images/$folder/Dockerfile" --tag "$tag" "$@" . </dev/null >"$log" 2>&1 || {
        cat "$log" >&2
        die "$tag cannot be built"
    }
    say "$tag ($(docker image inspect --format '{{.Size}}' "$tag" | numfmt --to=iec), $((SECONDS - started)) s)"
}

labels=(
    --build-arg "OSCR_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
    --build-arg "OSCR_REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
    --build-arg "OSCR_CREATED=$(git log -1 --format=%cI 2>/dev/null || echo 1970-01-01T00:00:00Z)"
)
base=$(scripts/base-image.sh)

build entry oscr/entry "${labels[@]}"
build forge oscr/forge
build github oddessentials/oscr-github:sim "${labels[@]}" \
    --build-arg "BASE_IMAGE=$base" \
    --build-arg "AGENT_URL=file:///context/sim/$stand_in" \
    --build-arg "AGENT_SHA256=$(cut -d ' ' -f 1 "dist/sim/$stand_in.sha256")"
