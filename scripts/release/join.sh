#!/usr/bin/env bash
# join.sh LAYOUT ARCHIVE…: one image for all architectures, as an OCI layout in the folder LAYOUT, from the OCI archives that build.sh made on
# a machine for each. Prints its digest, which is the same wherever it is pushed. An archive without provenance and SBOM is refused.
set -euo pipefail
layout=${1:?join.sh LAYOUT ARCHIVE…}
shift
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

[ ! -e "$layout" ] || die "$layout is there already"
mkdir -p "$layout"
blob() { echo "$layout/blobs/${1/://}"; }
digest_of() { echo "sha256:$(sha256sum "$1" | cut -d ' ' -f 1)"; }

described='[]'
for archive in "$@"; do
    # What is named by its content may lie in one folder.
    tar --extract --file "$archive" --directory "$layout"
    index=$(jq --raw-output '.manifests | if length == 1 then .[0].digest else error("not one image") end' "$layout/index.json")
    [ "$(digest_of "$(blob "$index")")" = "$index" ] || die "$archive: a blob is not what its name says"
    jq --exit-status '[.manifests[]? | .annotations["vnd.docker.reference.type"] // "image"] | sort == ["attestation-manifest", "image"]' \
        "$(blob "$index")" >/dev/null || die "$archive is not one image with its attestations"
    described=$(jq --slurp --compact-output '.[0] + .[1].manifests' <(echo "$described") "$(blob "$index")")
done
platforms=$(jq --raw-output '[.[] | select(.platform.os != "unknown") | .platform.os + "/" + .platform.architecture] | sort | join(" ")' <<<"$described")
[ "$platforms" = "linux/amd64 linux/arm64" ] || die "an image is for linux/amd64 and linux/arm64, and these archives are for «$platforms»"

type=application/vnd.oci.image.index.v1+json
jq --null-input --compact-output --join-output --arg type "$type" --argjson manifests "$described" \
    '{schemaVersion: 2, mediaType: $type, manifests: $manifests}' >"$layout/joined"
digest=$(digest_of "$layout/joined") size=$(stat --format %s "$layout/joined")
mv "$layout/joined" "$(blob "$digest")"
jq --null-input --arg type "$type" --arg digest "$digest" --argjson size "$size" \
    '{schemaVersion: 2, mediaType: $type, manifests: [{mediaType: $type, digest: $digest, size: $size}]}' >"$layout/index.json"
echo "$digest"
