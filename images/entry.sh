#!/bin/sh
# Puts oscr-entry into an image: the binary of the build's context (dist/, which `make build` fills), or else that of a published image,
# from its registry. Neither FROM nor COPY --from can look whether the context has one, and Docker's older builder asks the registry even
# for a stage that nobody needs. Runs in a stage of a runner image's build:
#
#   entry.sh IMAGE [CONTEXT [PROGRAM]]
#
#   IMAGE     [HOST/]NAME:TAG or [HOST/]NAME[:TAG]@sha256:…; Docker Hub without a host. Asked without credentials, and only if it is needed
#   CONTEXT   the folder that may have oscr-entry
#   PROGRAM   where it goes
#
# What the registry sends is proved by its digests, as Docker does. curl goes by the proxies that the build is given.
set -eu
image=${1:-} context=${2:-/context/entry} program=${3:-/out/usr/local/bin/oscr-entry}
arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# In one line, because it is the last that people see of the build.
give_up() {
    echo "no oscr-entry for this image: $1. Either run \`make build\` first (it needs Rust, and fills dist/), or name a released version or another registry:" \
        "--build-arg OSCR_ENTRY_IMAGE=oddessentials/oscr-entry:VERSION (with Compose, OSCR_ENTRY_IMAGE in .env)" >&2
    exit 1
}

# Runs it, since one for another architecture would end the build a few steps later, in words that help nobody.
install_program() {
    install -D -m 0755 "$1" "$program"
    said=$("$program" --version 2>&1) || give_up "that of $2 does not run on $arch ($said)"
    echo "$said, of $2"
}

if [ -e "$context/oscr-entry" ]; then
    install_program "$context/oscr-entry" dist/
    exit
fi

unavailable() { give_up "dist/ has none, and $image cannot be had: $1"; }

# ------------------------------------------------------------------------------------------------------------- the image's name

name=${image%%@*} digest=''
case $image in *@*) digest=${image#*@} ;; esac
tag=''
case ${name##*/} in *:*) tag=${name##*:} name=${name%:*} ;; esac
host=${name%%/*} repository=${name#*/}
case $host in
"$name") host=docker.io repository=library/$name ;;
*.* | *:* | localhost) ;;
*) host=docker.io repository=$name ;;
esac
case $image in
*[!A-Za-z0-9._/:@-]* | '') give_up "dist/ has none, and OSCR_ENTRY_IMAGE is no name of an image: «$image»" ;;
esac
[ -n "$tag$digest" ] || unavailable "the name has no version"
# Docker Hub's registry has another name than its images; and as Docker does, the machine's own is spoken to without TLS.
case $host in
docker.io | index.docker.io) server=https://registry-1.docker.io ;;
localhost | localhost:* | 127.*) server=http://$host ;;
*) server=https://$host ;;
esac

# ----------------------------------------------------------------------------------------------------------------- the registry

manifests='application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json'
manifests="$manifests, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
echo "Accept: $manifests" >"$work/headers"

# download FILE ARGUMENTS OF CURL: leaves the status in $status.
download() {
    file=$1
    shift
    status=$(curl --silent --show-error --location --connect-timeout 30 --retry 3 --retry-max-time 60 --output "$file" --write-out '%{http_code}' "$@" 2>"$work/error") ||
        unavailable "$(tail -n 1 "$work/error" | sed 's/^curl: ([0-9]*) //')"
}

# A token for anybody, as the registry's refusal says where to get one.
get_token() {
    challenge=$(tr -d '\r' <"$work/answer" | grep -i '^www-authenticate: *bearer ' | tail -n 1)
    [ -n "$challenge" ] || unavailable "$host wants a password"
    field() { echo "$challenge" | sed -n "s/.*[ ,]$1=\"\([^\"]*\)\".*/\1/p"; }
    download "$work/token" --get --data-urlencode "service=$(field service)" --data-urlencode "scope=$(field scope)" "$(field realm)"
    token=$(jq --raw-output '.token // .access_token // empty' "$work/token" 2>/dev/null) || token=''
    [ -n "$token" ] || unavailable "$host gives no token (HTTP $status)"
    echo "Authorization: Bearer $token" >>"$work/headers"
}

ask() { download "$2" --header "@$work/headers" --dump-header "$work/answer" "$server/v2/$repository/$1"; }

# fetch PATH FILE DIGEST: something of the image, which must have that digest unless it is empty.
fetch() {
    ask "$1" "$2"
    if [ "$status" = 401 ] && ! grep -q '^Authorization' "$work/headers"; then
        get_token
        ask "$1" "$2"
    fi
    case $status in
    200) ;;
    401 | 403 | 404) unavailable "$host has no such image, or not for everybody (HTTP $status)" ;;
    *) unavailable "$host answers with HTTP $status" ;;
    esac
    [ -z "$3" ] || [ "sha256:$(sha256sum "$2" | cut -d ' ' -f 1)" = "$3" ] || unavailable "$host sent something else than $3"
}

# about FILTER: what the manifest says, in $said.
about() { said=$(jq --raw-output --arg arch "$arch" "$1" "$work/manifest" 2>/dev/null) || unavailable "$host sent no description of an image"; }

fetch "manifests/${digest:-$tag}" "$work/manifest" "$digest"
about 'has("manifests")'
if [ "$said" = true ]; then
    # The dollar sign is jq's.
    # shellcheck disable=SC2016
    about '[.manifests[] | select(.platform.os == "linux" and .platform.architecture == $arch).digest][0] // empty'
    [ -n "$said" ] || unavailable "it has none for $arch"
    fetch "manifests/$said" "$work/manifest" "$said"
fi
about '.layers | reverse[].digest'
for layer in $said; do
    fetch "blobs/$layer" "$work/layer" "$layer"
    if tar --extract --file "$work/layer" --directory "$work" oscr-entry 2>/dev/null; then
        install_program "$work/oscr-entry" "$image"
        exit
    fi
done
unavailable "it holds no oscr-entry"
