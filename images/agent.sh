#!/bin/sh
# Fetches an official agent, proves its checksum and unpacks it into /out/opt/oscr/agent. Runs in a stage of a runner image's build:
#
#   agent.sh LISTENER URL SHA256_X64 SHA256_ARM64 [OTHER_URL OTHER_SHA256]
#
#   LISTENER   a program that the archive must have
#   URL        of the official release, with ARCH where x64 or arm64 belongs, and its two checksums
#   OTHER_URL  is fetched instead, if it is not empty; without a checksum of its own it is refused
set -eu
listener=$1 url=$2 x64=$3 arm64=$4 other_url=${5:-} other_sha256=${6:-}

case $(dpkg --print-architecture) in
amd64) arch=x64 sha256=$x64 ;;
arm64) arch=arm64 sha256=$arm64 ;;
*) echo "there is no agent for $(dpkg --print-architecture)" >&2 && exit 1 ;;
esac
url=$(echo "$url" | sed "s/ARCH/$arch/")
if [ -n "$other_url" ]; then
    if [ -z "$other_sha256" ]; then echo "AGENT_URL needs AGENT_SHA256" >&2 && exit 1; fi
    url=$other_url
fi
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
chmod 0755 /out/usr/local/bin/oscr-entry
rm /tmp/agent.tar.gz
