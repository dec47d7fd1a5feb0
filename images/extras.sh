#!/bin/sh
# What the images of runners can have besides, by build arguments of their Dockerfiles. Runs in the image, as root:
#
#   extras.sh SUDO DOCKER
#
#   SUDO    false | true     sudo without a password for the account of the jobs: docs/security.md says what that costs
#   DOCKER  none | cli | engine   Docker's client; or its engine too, for OSCR_DOCKERD and for compose.docker-dind.yml
set -eu
sudo=$1 docker=$2
# shellcheck source=images/packages.sh
. /opt/oscr/packages.sh

case $sudo in true | false) ;; *) echo "OSCR_SUDO is true or false, not «$sudo»" >&2 && exit 1 ;; esac
case $docker in none | cli | engine) ;; *) echo "OSCR_DOCKER is none, cli or engine, not «$docker»" >&2 && exit 1 ;; esac
if [ "$sudo" = false ] && [ "$docker" = none ]; then exit; fi

apt-get update -qq

if [ "$sudo" = true ]; then
    apt_install sudo
    echo 'runner ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/runner
    chmod 0440 /etc/sudoers.d/runner
fi

# Compose is worth having only as the client's plug-in, which it is since version 2.
compose() {
    any_of docker-compose-v2
    if apt-cache show --no-all-versions docker-compose 2>/dev/null | grep -q '^Version: 2'; then echo docker-compose; fi
}

# The client has a package of its own since Debian 13; before that, and in Ubuntu, it comes with the engine.
case $docker in
cli)
    # One word each.
    # shellcheck disable=SC2046
    apt_install $(one_of docker-cli docker.io) $(any_of docker-buildx) $(compose)
    # Where the engine came along, nothing in here is to start it.
    rm -f /usr/sbin/dockerd /usr/bin/dockerd /usr/bin/docker-proxy /usr/sbin/docker-proxy
    ;;
engine)
    # iproute2 and the last four are for running it without root (compose.docker-dind.yml). fuse-overlayfs
    # also serves where overlayfs may not be stacked.
    # shellcheck disable=SC2046
    apt_install docker.io iptables iproute2 $(any_of docker-cli docker-buildx) $(compose) \
        $(any_of rootlesskit slirp4netns uidmap fuse-overlayfs)
    echo runner:100000:65536 >/etc/subuid
    echo runner:100000:65536 >/etc/subgid
    ;;
esac
forget_lists
