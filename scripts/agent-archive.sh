#!/usr/bin/env bash
# agent-archive.sh FILE|official: puts an archive of GitHub's agent, as GitHub ships it, where the image's build finds it, and prints its
# path. «official» is the release that images/runner/Dockerfile names, fetched unless it is there already. What is or calls itself that
# release must have its checksum.
set -euo pipefail
wanted=${1:?agent-archive.sh FILE|official}
[ "$wanted" = official ] || wanted=$(realpath "$wanted")
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

# argument NAME: of the stage of GitHub's agent.
argument() { sed -n "/^FROM system AS github\$/,/^FROM /s/^ARG $1=//p" images/runner/Dockerfile; }
version=$(argument AGENT_VERSION)
case $(uname -m) in
x86_64) arch=x64 sha256=$(argument AGENT_SHA256_X64) ;;
aarch64) arch=arm64 sha256=$(argument AGENT_SHA256_ARM64) ;;
*) die "there is no agent for $(uname -m)" ;;
esac
release=actions-runner-linux-$arch-$version.tar.gz

is_the_release() { echo "$sha256  $1" | sha256sum --check --status; }

mkdir -p dist/agent
if [ "$wanted" != official ]; then
    case $wanted in *.tar.gz) ;; *) die "AGENT: a release archive ends with .tar.gz, and $wanted does not" ;; esac
    [ -f "$wanted" ] || die "AGENT: there is no file $wanted"
    if [ "$(basename "$wanted")" = "$release" ]; then
        is_the_release "$wanted" || die "$wanted is not the release: its checksum is not $sha256"
    fi
    archive=dist/agent/$(basename "$wanted")
    [ "$wanted" -ef "$archive" ] || cp --force "$wanted" "$archive"
else
    archive=dist/agent/$release
    if ! { [ -f "$archive" ] && is_the_release "$archive"; }; then
        url=https://github.com/actions/runner/releases/download/v$version/$release
        say "fetching $url"
        curl --fail --silent --show-error --location --retry 5 --output "$archive.part" "$url"
        is_the_release "$archive.part" || die "what came from $url has not the checksum $sha256"
        mv "$archive.part" "$archive"
    fi
fi
echo "$archive"
