#!/bin/sh
# Fetches an official agent, proves its checksum and unpacks it into /out/opt/oscr/agent, with its version and age beside it. Runs in
# a stage of a runner image's build:
#
#   agent.sh [OTHER_URL OTHER_SHA256]
#
# OTHER_URL is fetched instead of the official release, if it is not empty; without a checksum of its own it is refused. The release is
# in /opt/oscr/agent.release, as the Dockerfile wrote it:
#
#   listener   a program that the archive must have
#   url        of the official release, with ARCH where x64 or arm64 belongs
#   x64 arm64  its two checksums
#   version    of the release
#   released   the day of the release, as 2026-10-06, or empty if nobody knows it
set -eu
other_url=${1:-} other_sha256=${2:-}
listener='' url='' x64='' arm64='' version='' released=''
# shellcheck source=/dev/null
. /opt/oscr/agent.release

case $(dpkg --print-architecture) in
amd64) arch=x64 sha256=$x64 ;;
arm64) arch=arm64 sha256=$arm64 ;;
*) echo "there is no agent for $(dpkg --print-architecture)" >&2 && exit 1 ;;
esac
url=$(echo "$url" | sed "s/ARCH/$arch/")
if [ -n "$other_url" ]; then
    if [ -z "$other_sha256" ]; then echo "AGENT_URL needs AGENT_SHA256" >&2 && exit 1; fi
    url=$other_url
    # Of an archive whose name says another version than we were told, nobody has said how old it is.
    named=$(basename "$url" | sed -n 's/.*-\([0-9]*\.[0-9]*\.[0-9]*\)\.tar\.gz$/\1/p')
    if [ -n "$named" ] && [ "$named" != "$version" ]; then version=$named released=; fi
fi
case $version:$released in
*[!0-9.:-]*) echo "AGENT_VERSION or AGENT_RELEASED is neither a version nor a day: $version, $released" >&2 && exit 1 ;;
*:????-??-?? | *:) ;;
*) echo "AGENT_RELEASED is no day, such as 2026-10-06: $released" >&2 && exit 1 ;;
esac
sha256=${other_sha256:-$sha256}
if [ -z "$sha256" ]; then
    echo "no checksum of $url is known: scripts/agent-bump.sh writes it into the Dockerfile, or give AGENT_SHA256" >&2
    exit 1
fi

curl --fail --silent --show-error --location --retry 5 --output /tmp/agent.tar.gz "$url"
echo "$sha256  /tmp/agent.tar.gz" | sha256sum --check --status || {
    echo "the checksum of $url is not the expected $sha256:" >&2
    sha256sum /tmp/agent.tar.gz >&2
    exit 1
}
mkdir -p /out/opt/oscr/agent
# Root owns the agent, whoever packed it: a job cannot change what the next job is run by.
tar --extract --gzip --file /tmp/agent.tar.gz --directory /out/opt/oscr/agent --no-same-owner
chmod -R u+rwX,go+rX,go-w /out/opt/oscr/agent
test -x "/out/opt/oscr/agent/$listener"
# What PID 1 knows the agent's age by.
printf '{"version":"%s","released":"%s"}\n' "$version" "$released" >/out/opt/oscr/agent.json
rm /tmp/agent.tar.gz
