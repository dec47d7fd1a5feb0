#!/usr/bin/env bash
# Builds the images of `make images` from what `make build` left in dist/: one line each, and docker's own words only when it
# fails. In oddessentials/, with the tag that OSCR_SIM_TAG says (sim): oscr-entry, oscr-forge, and oscr-github and oscr-azure-devops with
# the stand-ins for the official agents (and oscr-github:sim-sudo, :sim-docker, :sim-full: with what build arguments add). Arguments: the
# images to build, of those at the end; without any, all that `make test` needs; and github-official, github-official-docker (:official
# and :official-docker), with the archive of GitHub's agent that AGENT_ARCHIVE names, below dist/.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

tag=${OSCR_SIM_TAG:-sim}
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

# runner PROVIDER TAG [DOCKER'S ARGUMENTS]: with the stand-in for its agent.
runner() {
    local provider=$1 suffix=$2 archive=$1-sim.tar.gz
    shift 2
    build runner "oddessentials/oscr-$provider:$tag$suffix" "${labels[@]}" \
        --build-arg "CI_PROVIDER=$provider" \
        --build-arg "BASE_IMAGE=$base" \
        --build-arg "AGENT_URL=file:///context/sim/$archive" \
        --build-arg "AGENT_SHA256=$(cut -d ' ' -f 1 "dist/sim/$archive.sha256")" "$@"
}
# official SUFFIX [DOCKER'S ARGUMENTS]: with GitHub's own agent.
official() {
    local suffix=$1 archive=${AGENT_ARCHIVE:?which archive of the agent} named
    shift
    named=$(basename "$archive" | sed -n 's/.*-\([0-9]*\.[0-9]*\.[0-9]*\)\.tar\.gz$/\1/p')
    # Of the release in the Dockerfile, all is known; of another one, its version at most.
    if [ -n "$named" ] && ! grep -q "^ARG AGENT_VERSION=$named\$" images/runner/Dockerfile; then
        set -- --build-arg "AGENT_VERSION=$named" --build-arg AGENT_RELEASED= "$@"
    fi
    build runner "oddessentials/oscr-github:official$suffix" "${labels[@]}" \
        --build-arg "BASE_IMAGE=$base" \
        --build-arg "AGENT_URL=file:///context/${archive#dist/}" \
        --build-arg "AGENT_SHA256=$(sha256sum "$archive" | cut -d ' ' -f 1)" "$@"
}
[ $# -gt 0 ] || set -- entry forge github azure-devops github-sudo github-docker
for image in "$@"; do
    case $image in
    entry) build entry "oddessentials/oscr-entry:$tag" "${labels[@]}" ;;
    forge) build forge "oddessentials/oscr-forge:$tag" ;;
    github | azure-devops) runner "$image" "" ;;
    # With what jobs may be given besides.
    github-sudo) runner github -sudo --build-arg OSCR_SUDO=true ;;
    github-full)
        # Debian 12 has no Compose that this could be built with.
        [ "$base" != oddessentials/oscr-base:bookworm ] || base=$(scripts/base-image.sh trixie)
        runner github -full --build-arg OSCR_FULL=true
        ;;
    github-docker) runner github -docker --build-arg OSCR_DOCKER=engine ;;
    github-official) official "" ;;
    github-official-docker) official -docker --build-arg OSCR_DOCKER=engine ;;
    *) die "there is no image $image" ;;
    esac
done
