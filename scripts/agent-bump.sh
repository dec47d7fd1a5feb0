#!/usr/bin/env bash
# agent-bump.sh github|azure-devops [FILE]: writes an agent's release, with its day and checksums, into images/runner/Dockerfile.
# Prints its version, or nothing if the Dockerfile has it already. FILE is GitHub's answer for releases/latest of the agent's
# repository; without it the answer is fetched, and «-» is standard input.
set -euo pipefail
provider=${1:-}
case $provider in
github) repository=actions/runner archive=actions-runner-linux ;;
azure-devops) repository=microsoft/azure-pipelines-agent archive=vsts-agent-linux ;;
*) echo "usage: agent-bump.sh github|azure-devops [FILE]" >&2 && exit 64 ;;
esac
if [ $# -gt 1 ]; then
    release=$(cat "$2")
else
    release=$(curl --fail --silent --show-error --location "https://api.github.com/repos/$repository/releases/latest")
fi
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

dockerfile=images/runner/Dockerfile
# The lines of its stage.
stage="/^FROM system AS $provider\$/,/^FROM /"
has() { sed -n "$stage p" "$dockerfile" | grep -q "^ARG $1\$"; }

version=$(jq --raw-output '.tag_name | ltrimstr("v")' <<<"$release")
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "«$version» is no version"

# When it was released, which the age of the agent is counted from.
released=$(jq --raw-output '.published_at // "" | split("T")[0] // ""' <<<"$release")
[[ $released =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || die "«$released» is no day of a release"

# GitHub's own digest of the file, or the checksum in the release notes; if both are there they must agree. The notes of GitHub's agent
# have it between two comments, those of Microsoft's, whose archives lie elsewhere, in the last column of a table.
checksum() {
    local arch=$1 digest notes
    digest=$(jq --raw-output --arg name "$archive-$arch-$version.tar.gz" \
        '.assets[] | select(.name == $name) | .digest // "" | ltrimstr("sha256:")' <<<"$release")
    notes=$(jq --raw-output '.body' <<<"$release" |
        sed -n -e "s/.*<!-- BEGIN SHA linux-$arch -->\([0-9a-f]*\)<!-- END SHA linux-$arch -->.*/\1/p" \
            -e "s/^|.*\[$archive-$arch-$version\.tar\.gz\].*| *\([0-9a-f]\{64\}\) *|.*/\1/p" | head -n 1)
    [ -z "$digest" ] || [ -z "$notes" ] || [ "$digest" = "$notes" ] ||
        die "two checksums for linux-$arch: $digest and $notes"
    [[ ${digest:-$notes} =~ ^[0-9a-f]{64}$ ]] || die "no checksum for linux-$arch"
    echo "${digest:-$notes}"
}

write() {
    sed -i \
        -e "$stage s/^ARG AGENT_VERSION=.*/ARG AGENT_VERSION=$version/" \
        -e "$stage s/^ARG AGENT_RELEASED=.*/ARG AGENT_RELEASED=$released/" \
        -e "$stage s/^ARG AGENT_SHA256_X64=.*/ARG AGENT_SHA256_X64=$x64/" \
        -e "$stage s/^ARG AGENT_SHA256_ARM64=.*/ARG AGENT_SHA256_ARM64=$arm64/" \
        "$dockerfile"
    echo "$version"
}

x64=$(checksum x64)
arm64=$(checksum arm64)
if has "AGENT_VERSION=$version"; then
    # A release whose file changed is no update, it is an alarm.
    { has "AGENT_SHA256_X64=$x64" && has "AGENT_SHA256_ARM64=$arm64"; } ||
        die "release $version has other checksums than $dockerfile"
    # The day may not have been known when the checksums were.
    if has AGENT_RELEASED=; then write; fi
    exit
fi
write
