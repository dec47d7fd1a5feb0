#!/usr/bin/env bash
# assets.sh FOLDER: the checksums of the binaries that are in FOLDER (oscr-entry-linux-<arch>), as FOLDER/SHA256SUMS, and the notes of VERSION,
# its section of CHANGELOG.md, as FOLDER/../notes.md. Of a pre-release it is the section of what is not released yet.
set -euo pipefail
folder=$(realpath "${1:?assets.sh FOLDER}")
: "${VERSION:?}"
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

cd "$folder"
for arch in amd64 arm64; do
    [ -s "oscr-entry-linux-$arch" ] || die "there is no binary for $arch"
    chmod 0755 "oscr-entry-linux-$arch"
done
sha256sum oscr-entry-linux-* >SHA256SUMS
cd "$OLDPWD"

section=$VERSION
if [[ $VERSION == *-* ]]; then section=Unreleased; fi
awk -v heading="## [$section]" 'index($0, "## [") == 1 { inside = index($0, heading) == 1; next } /^\[.*\]: / { next } inside' CHANGELOG.md >"$folder/../notes.md"
[ -s "$folder/../notes.md" ] || die "CHANGELOG.md says nothing of $section"
