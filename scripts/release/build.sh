#!/usr/bin/env bash
# build.sh OUT: the images that are published, for this machine's architecture and with the agents' official releases, from what `make build`
# left in dist/: an OCI archive for each, OUT/oscr-<image>-<arch>.tar, with provenance and a list of its packages (SBOM). Nothing is pushed.
# A variant is called by its image: oscr-github+full becomes the tags of oscr-github that end in -full.
# VERSION, COMMIT and CREATED are what the images say of themselves.
set -euo pipefail
out=$(realpath --canonicalize-missing "${1:?build.sh OUT}")
: "${VERSION:?}" "${COMMIT:?}" "${CREATED:?}"
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

arch=$(dpkg --print-architecture)
builder=oscr-release
mkdir -p "$out"
# The daemon's own builder attests nothing.
docker buildx inspect "$builder" >/dev/null 2>&1 || docker buildx create --name "$builder" --driver docker-container >/dev/null
# With the newest base and packages, which a rebuild is made for. What images have in common is built once, and downloaded once by their users.
docker buildx prune --builder "$builder" --all --force >/dev/null

# build IMAGE FOLDER [DOCKER'S ARGUMENTS]
build() {
    local image=$1 folder=$2
    shift 2
    say "oscr-$image for $arch"
    docker buildx build --builder "$builder" --platform "linux/$arch" --pull --file "images/$folder/Dockerfile" \
        --build-arg "OSCR_VERSION=$VERSION" --build-arg "OSCR_REVISION=$COMMIT" --build-arg "OSCR_CREATED=$CREATED" "$@" \
        --attest type=provenance,mode=max --attest type=sbom --output "type=oci,dest=$out/oscr-$image-$arch.tar" .
}
build entry entry
for provider in github azure-devops; do
    build "$provider" runner --build-arg "CI_PROVIDER=$provider"
    build "$provider+full" runner --build-arg "CI_PROVIDER=$provider" --build-arg OSCR_FULL=true
    build "$provider+docker" runner --build-arg "CI_PROVIDER=$provider" --build-arg OSCR_DOCKER=engine
    build "$provider+sudo" runner --build-arg "CI_PROVIDER=$provider" --build-arg OSCR_SUDO=true
done
