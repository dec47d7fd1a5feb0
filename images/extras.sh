#!/bin/sh
# What the images of runners can have besides. Runs as root, in the build of our images and of those that are built on them, and reads its
# environment, where the first put their build arguments:
#
#   OSCR_SUDO       false | true          sudo without a password for the account of the jobs: docs/security.md says what that costs
#   OSCR_DOCKER     none | cli | engine   Docker's client; or its engine too, for OSCR_DOCKERD and for compose.docker-dind.yml
#   OSCR_FULL       false | true          compilers and the like, and Docker's client with compose and buildx
#   EXTRA_PACKAGES  any packages of the base, separated by spaces
set -eu
[ $# = 0 ] || { echo "extras.sh takes no arguments: set OSCR_SUDO, OSCR_DOCKER, OSCR_FULL or EXTRA_PACKAGES before it" >&2 && exit 1; }
sudo=${OSCR_SUDO:-false} docker=${OSCR_DOCKER:-none} full=${OSCR_FULL:-false} packages=${EXTRA_PACKAGES:-}
# shellcheck source=images/packages.sh
. /opt/oscr/packages.sh

case $sudo in true | false) ;; *) echo "OSCR_SUDO is true or false, not «$sudo»" >&2 && exit 1 ;; esac
case $docker in none | cli | engine) ;; *) echo "OSCR_DOCKER is none, cli or engine, not «$docker»" >&2 && exit 1 ;; esac
case $full in true | false) ;; *) echo "OSCR_FULL is true or false, not «$full»" >&2 && exit 1 ;; esac
if [ "$full" = true ] && [ "$docker" = none ]; then docker=cli; fi
if [ "$sudo" = false ] && [ "$docker" = none ] && [ -z "$packages" ]; then exit; fi

apt-get update -qq

# Compose is worth having only as the client's plug-in, which it is since version 2.
compose=$(any_of docker-compose-v2)
if apt-cache show --no-all-versions docker-compose 2>/dev/null | grep -q '^Version: 2'; then compose='docker-compose'; fi
buildx=$(any_of docker-buildx)

# plugin NAME PACKAGE: where Docker's client is promised with it, a base that has no such package, nor the plug-in, is none.
plugin() { [ -n "$2" ] || docker "$1" version >/dev/null 2>&1 || lacking="$lacking, docker $1"; }

if [ "$full" = true ]; then
    plugin compose "$compose"
    plugin buildx "$buildx"
    keep_promises
    promise <<'TOOLS'
build-essential gcc g++ make
cmake cmake
pkg-config pkg-config
TOOLS
fi
if [ "$sudo" = true ]; then
    promise <<'TOOLS'
sudo sudo
TOOLS
    echo 'runner ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/runner
    chmod 0440 /etc/sudoers.d/runner
fi
# The client has a package of its own since Debian 13; before that, and in Ubuntu, it comes with the engine.
# One word each.
# shellcheck disable=SC2086
case $docker in
cli)
    promise $compose $buildx <<TOOLS
$(one_of docker-cli docker.io) docker
TOOLS
    # Where the engine came along, nothing in here is to start it.
    rm -f /usr/sbin/dockerd /usr/bin/dockerd /usr/bin/docker-proxy /usr/sbin/docker-proxy /usr/bin/containerd* /usr/bin/ctr /usr/sbin/runc /usr/bin/runc
    ;;
engine)
    # All but the first two are for running it without root (compose.docker-dind.yml). fuse-overlayfs also serves where overlayfs may
    # not be stacked.
    # shellcheck disable=SC2046
    promise $compose $buildx $(any_of docker-cli) <<'TOOLS'
docker.io docker dockerd
iptables iptables
iproute2 ip
rootlesskit rootlesskit
slirp4netns slirp4netns
uidmap newuidmap newgidmap
fuse-overlayfs fuse-overlayfs
TOOLS
    echo runner:100000:65536 >/etc/subuid
    echo runner:100000:65536 >/etc/subgid
    ;;
esac
# shellcheck disable=SC2086
apt_install $packages
keep_promises
forget_lists
