#!/usr/bin/env bash
# publish.sh FOLDER: GitHub's release of TAG with all files of FOLDER, and FOLDER/../notes.md as its text. It is a draft until all files are
# there, so it can be repeated after a failure. TAGS is what the images got: who has `latest` among them is the latest release here too.
set -euo pipefail
folder=$(realpath "${1:?publish.sh FOLDER}")
: "${TAG:?}" "${TAGS:?}"

latest=false prerelease=false
case " $TAGS " in *" moving:latest "*) latest=true ;; esac
case $TAG in *-*) prerelease=true ;; esac
gh release view "$TAG" >/dev/null 2>&1 ||
    gh release create "$TAG" --verify-tag --draft --title "$TAG" --notes-file "$folder/../notes.md"
gh release upload "$TAG" --clobber "$folder"/*
gh release edit "$TAG" --draft=false --prerelease="$prerelease" --latest="$latest"
