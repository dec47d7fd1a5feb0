#!/usr/bin/env bash
# base-image.sh [SUITE]: prints the name of a base image for images/runner that this machine can build on. In this order:
#   BASE_IMAGE                        if it is set, nothing is tried;
#   oddessentials/oscr-base:<suite>   if an earlier run made it;
#   ubuntu:24.04                      if it is here, or a registry is in reach;
#   oddessentials/oscr-base:<suite>   made by debootstrap: SUITE, or else the machine's own, from the machine's own mirror (half a minute).
# OSCR_OFFLINE=1 skips the attempt to pull. (The name is one that nobody else can publish, should Docker ever ask for it.)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

default_image=ubuntu:24.04

is_here() { docker image inspect "$1" >/dev/null 2>&1; }

if [ -n "${BASE_IMAGE:-}" ]; then
    echo "$BASE_IMAGE"
    exit
fi

read_os_release
suite=${1:-${VERSION_CODENAME:-none}}
own_image=oddessentials/oscr-base:$suite
for image in "$own_image" "$default_image"; do
    if is_here "$image"; then
        echo "$image"
        exit
    fi
done
if [ "${OSCR_OFFLINE:-}" != 1 ]; then
    say "pulling $default_image"
    if timeout 120 docker pull --quiet "$default_image" >/dev/null 2>&1; then
        echo "$default_image"
        exit
    fi
    say "$default_image cannot be pulled"
fi

{ is_debian_like && [ -n "$VERSION_CODENAME" ]; } || die "no base image: set BASE_IMAGE to a Debian or Ubuntu image that this machine has"
[ "$(id -u)" = 0 ] || die "no base image: run this as root once (debootstrap needs it), or set BASE_IMAGE"

mirror=$(apt_sources | awk -v release="$VERSION_CODENAME" '$2 == release && $3 == "main" { print $1; exit }')
case $mirror in
http://* | https://*) ;;
*) die "the machine's package sources name no mirror that debootstrap can use (found: ${mirror:-nothing}); set BASE_IMAGE" ;;
esac
components=$(apt_sources | awk -v release="$VERSION_CODENAME" '$2 == release { print $3 }' | sort -u | paste -sd ,)

root=$(mktemp -d "${TMPDIR:-/var/tmp}/oscr-base.XXXXXX")
log=$root.log
trap 'rm -rf --one-file-system "$root" "$log"' EXIT

say "making $own_image with debootstrap (log: $log)"
PATH=$PATH:/usr/sbin debootstrap --variant=minbase --include=ca-certificates --components="$components" \
    "$suite" "$root" "$mirror" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "debootstrap failed; the end of its log is above"
}

# The image installs from where the machine does, updates and security fixes included, whatever stands in the way (proxies,
# mirrors with frozen dates). A proxy with a password stays out of the image: give it as a build argument.
{
    echo "# The sources of the machine that made this image."
    apt_sources | awk -v codename="$VERSION_CODENAME" -v suite="$suite" '
        index($2, codename) == 1 { sub(codename, suite, $2); key = $1 " " $2; if (!(key in seen)) { seen[key] = 1; order[++n] = key } parts[key] = parts[key] " " $3 }
        END { for (i = 1; i <= n; i++) print "deb " order[i] parts[order[i]] }'
} >"$root/etc/apt/sources.list"
apt-config dump --format '%F "%v";%n' Acquire | grep -E '^Acquire::(https?::Proxy|Check-)[^@]*$' >"$root/etc/apt/apt.conf.d/90machine" || true

# As the folder of a temporary file, the root would be for root alone: jobs of others, and Podman without root, could not enter it.
chmod 0755 "$root"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt/*
tar -C "$root" --numeric-owner --one-file-system -c . |
    docker import --change 'CMD ["bash"]' --message "debootstrap $suite" - "$own_image" >/dev/null
say "made $own_image ($(docker image inspect --format '{{.Size}}' "$own_image" | numfmt --to=iec))"
echo "$own_image"
