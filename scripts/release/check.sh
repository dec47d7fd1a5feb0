#!/usr/bin/env bash
# check.sh VERSION: ends with 1, and a line for each thing that is missing, unless this checkout can be released as VERSION (1.2.3 or
# 1.2.3-rc.1): Cargo.toml has that version, CHANGELOG.md has a section for it, and each official agent is pinned by its checksums.
set -euo pipefail
version=${1:?check.sh VERSION}
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

missing=no
lacks() {
    say "$*"
    missing=yes
}

dockerfile=images/runner/Dockerfile
# argument PROVIDER NAME: of the stage of its agent.
argument() { sed -n "/^FROM system AS $1\$/,/^FROM /s/^ARG $2=//p" "$dockerfile"; }

cargo=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ "$cargo" = "$version" ] || lacks "the tag says $version, and Cargo.toml says $cargo"
# Whose builds take the published binary, and what says how to.
stale=$(grep -oE 'oddessentials/oscr-entry:[0-9][0-9A-Za-z.-]*' "$dockerfile" images/entry/Dockerfile compose.yml .env.example docs/images.md docs/moving.md |
    grep -v ":$version\$" | cut -d : -f 1 | sort -u | paste -sd ' ') || true
[ -z "$stale" ] || lacks "these name another version of oscr-entry than $version: $stale"
# What a pre-release brings stands in the section that has no number yet.
if [[ $version != *-* ]]; then
    grep -qE "^## \\[${version//./\\.}\\] - 20[0-9]{2}-[0-9]{2}-[0-9]{2}\$" CHANGELOG.md || lacks "CHANGELOG.md has no section «## [$version] - DAY»"
fi
providers=$(sed -n 's/^FROM system AS //p' "$dockerfile" | grep -v '^entry$')
[ -n "$providers" ] || lacks "$dockerfile has no stage of an agent"
for provider in $providers; do
    [[ $(argument "$provider" AGENT_VERSION) =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || lacks "$dockerfile names no version of the agent of $provider"
    for arch in X64 ARM64; do
        [[ $(argument "$provider" "AGENT_SHA256_$arch") =~ ^[0-9a-f]{64}$ ]] ||
            lacks "$dockerfile has no AGENT_SHA256_$arch of $provider: scripts/agent-bump.sh $provider writes it"
    done
done
[ "$missing" = no ] || die "$version cannot be released from this checkout"
