#!/usr/bin/env bash
# assets.sh FOLDER: beside the binaries that are in FOLDER (oscr-entry-linux-<arch>) the man pages and completions of FOLDER/../share, as
# FOLDER/oscr-entry-share.tar.gz, the checksums of all of them, as FOLDER/SHA256SUMS, and the notes of VERSION, its section of CHANGELOG.md, as
# FOLDER/../notes.md. Of a pre-release it is the section of what is not released yet.
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
[ -s ../share/man/man1/oscr-entry.1 ] || die "there are no man pages"
# Whoever unpacks it as root gets files of root's.
tar --create --gzip --file oscr-entry-share.tar.gz --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --directory .. share
sha256sum oscr-entry-linux-* oscr-entry-share.tar.gz >SHA256SUMS
cd "$OLDPWD"

section=$VERSION
if [[ $VERSION == *-* ]]; then section=Unreleased; fi
awk -v heading="## [$section]" 'index($0, "## [") == 1 { inside = index($0, heading) == 1; next } /^\[.*\]: / { next } inside' CHANGELOG.md >"$folder/../notes.md"
[ -s "$folder/../notes.md" ] || die "CHANGELOG.md says nothing of $section"
