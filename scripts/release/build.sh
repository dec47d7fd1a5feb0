#!/usr/bin/env bash
# build.sh OUT: the images that are published, for this machine's architecture and with the agents' official releases, from what `make build`
# left in dist/: an OCI archive for each, OUT/oscr-<image>-<arch>.tar, with provenance and a list of its packages (SBOM). Nothing is pushed.
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

# build IMAGE FOLDER [DOCKER'S ARGUMENTS]
build() {
    local image=$1 folder=$2
    shift 2
    say "oscr-$image for $arch"
    # With the newest base and packages: a rebuild is made for them.
    docker buildx build --builder "$builder" --platform "linux/$arch" --pull --no-cache --file "images/$folder/Dockerfile" \
        --build-arg "OSCR_VERSION=$VERSION" --build-arg "OSCR_REVISION=$COMMIT" --build-arg "OSCR_CREATED=$CREATED" "$@" \
        --attest type=provenance,mode=max --attest type=sbom --output "type=oci,dest=$out/oscr-$image-$arch.tar" .
}
build entry entry
for provider in github azure-devops; do
    build "$provider" runner --build-arg "CI_PROVIDER=$provider"
done
