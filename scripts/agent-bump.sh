#!/usr/bin/env bash
# agent-bump.sh [FILE]: writes the agent release that FILE describes (GitHub's answer for releases/latest of actions/runner;
# default: stdin) into images/github/Dockerfile. Prints its version, or nothing if the Dockerfile has it already.
set -euo pipefail
release=$(cat "${1:--}")
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

dockerfile=images/github/Dockerfile

version=$(jq --raw-output '.tag_name | ltrimstr("v")' <<<"$release")
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "«$version» is no version"

# The forge's own digest of the file, or the checksum in the release notes; if both are there they must agree.
checksum() {
    local arch=$1 digest notes
    digest=$(jq --raw-output --arg name "actions-runner-linux-$arch-$version.tar.gz" \
        '.assets[] | select(.name == $name) | .digest // "" | ltrimstr("sha256:")' <<<"$release")
    notes=$(jq --raw-output '.body' <<<"$release" |
        sed -n "s/.*<!-- BEGIN SHA linux-$arch -->\([0-9a-f]*\)<!-- END SHA linux-$arch -->.*/\1/p" | head -n 1)
    [ -z "$digest" ] || [ -z "$notes" ] || [ "$digest" = "$notes" ] ||
        die "two checksums for linux-$arch: $digest and $notes"
    [[ ${digest:-$notes} =~ ^[0-9a-f]{64}$ ]] || die "no checksum for linux-$arch"
    echo "${digest:-$notes}"
}

x64=$(checksum x64)
arm64=$(checksum arm64)
if grep -q "^ARG AGENT_VERSION=$version\$" "$dockerfile"; then
    # A release whose file changed is no update, it is an alarm.
    { grep -q "^ARG AGENT_SHA256_X64=$x64\$" "$dockerfile" && grep -q "^ARG AGENT_SHA256_ARM64=$arm64\$" "$dockerfile"; } ||
        die "release $version has other checksums than $dockerfile"
    exit
fi
sed -i \
    -e "s/^ARG AGENT_VERSION=.*/ARG AGENT_VERSION=$version/" \
    -e "s/^ARG AGENT_SHA256_X64=.*/ARG AGENT_SHA256_X64=$x64/" \
    -e "s/^ARG AGENT_SHA256_ARM64=.*/ARG AGENT_SHA256_ARM64=$arm64/" \
    "$dockerfile"
echo "$version"
