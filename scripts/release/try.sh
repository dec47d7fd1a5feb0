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
# candidate IMAGE: its name here.
candidate() { case $1 in *+*) echo "${1%%+*}:candidate-${1#*+}" ;; *) echo "$1:candidate" ;; esac; }
for archive in "$out"/*-"$arch.tar"; do
    name=$(candidate "$(basename "$archive" "-$arch.tar")")
    # By a file, since not each skopeo speaks with each daemon.
    skopeo copy --quiet "oci-archive:$archive" "docker-archive:$loaded/image.tar:$name"
    docker load --quiet --input "$loaded/image.tar"
    rm "$loaded/image.tar"
    said=$(docker run --rm "$name" --version)
    [ "$said" = "oscr-entry $VERSION" ] || die "$name says that it is «$said», and not «oscr-entry $VERSION»"
    say "$name: $said"
done
# as_job IMAGE SCRIPT: as the account of jobs.
as_job() { docker run --rm --user 1001 --network none --entrypoint sh "$1" -euc "$2" >/dev/null || die "$1: this does not work in a job: $2"; }
for provider in github azure-devops; do
    image=oscr-$provider:candidate
    scripts/try-image.sh "$image"
    as_job "$image" 'git --version; python3 --version; ssh -V; xz --version; LC_ALL=en_US.UTF-8 locale charmap | grep -x UTF-8'
    as_job "$image-full" 'echo "int main(void) { return 0; }" >/tmp/a.c; gcc -o /tmp/a /tmp/a.c; /tmp/a; cmake --version; docker compose version; docker buildx version'
    as_job "$image-docker" 'docker --version; dockerd --version; rootlesskit --version'
    as_job "$image-sudo" 'sudo -n id -u | grep -x 0'
done
# As users take it: PID 1 of an image of their own.
docker build --quiet --tag oscr-copied:candidate - <<'DOCKERFILE'
FROM oscr-github:candidate
COPY --from=oscr-entry:candidate /oscr-entry /copied
ENTRYPOINT ["/copied", "exec", "--"]
DOCKERFILE
[ "$(docker run --rm oscr-copied:candidate echo works)" = works ] || die "the binary of oscr-entry does not work in another image"
# Jobs, stops and faults with GitHub's runner. An engine without root needs what these machines do not allow.
dist/sim/official --image oscr-github:candidate --without docker-dind --without docker-socket
