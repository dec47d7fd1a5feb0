#!/usr/bin/env bash
# try.sh OUT: starts what build.sh left in OUT, from the very archives that are published, and ends with 1 unless each image does its work. What
# needs the forge of Azure DevOps is not tried: the agent is asked for its version, and PID 1 for its judgement of no settings.
set -euo pipefail
out=$(realpath "${1:?try.sh OUT}")
: "${VERSION:?}"
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

arch=$(dpkg --print-architecture)
loaded=$(mktemp --directory)
trap 'rm -rf "$loaded"' EXIT
for image in entry github azure-devops; do
    # By a file, since not each skopeo speaks with each daemon.
    skopeo copy --quiet "oci-archive:$out/oscr-$image-$arch.tar" "docker-archive:$loaded/image.tar:oscr-$image:candidate"
    docker load --quiet --input "$loaded/image.tar"
    rm "$loaded/image.tar"
    said=$(docker run --rm "oscr-$image:candidate" --version)
    [ "$said" = "oscr-entry $VERSION" ] || die "oscr-$image says that it is «$said», and not «oscr-entry $VERSION»"
    say "oscr-$image: $said"
done
for provider in github azure-devops; do scripts/try-image.sh "oscr-$provider:candidate"; done
# As users take it: PID 1 of an image of their own.
docker build --quiet --tag oscr-copied:candidate - <<'DOCKERFILE'
FROM oscr-github:candidate
COPY --from=oscr-entry:candidate /oscr-entry /copied
ENTRYPOINT ["/copied", "exec", "--"]
DOCKERFILE
[ "$(docker run --rm oscr-copied:candidate echo works)" = works ] || die "the binary of oscr-entry does not work in another image"
# Jobs, stops and faults with GitHub's runner. There is no Docker for jobs in the image that is published.
dist/sim/official --image oscr-github:candidate --without docker-dind --without docker-socket
