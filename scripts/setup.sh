#!/usr/bin/env bash
# Installs what building, testing and the demo need, and only what is missing. Says each step in one line. Needs root on Debian
# or Ubuntu to install; elsewhere it prints what to install and ends with 1. Quick when everything is there.
#
#   scripts/setup.sh         what building and the demo need
#   scripts/setup.sh tests   what tests alone need: programs in .tools, inside the clone
#   scripts/setup.sh podman  what `make test-podman` alone needs, there too
#   scripts/setup.sh lint    what `make lint` alone needs, there too; systemd-analyze from the machine's packages
#
#   OSCR_DOCKERD_FLAGS   more flags for dockerd, should this script have to start one
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

# The first Compose that knows what the demo and the checked files use: compose.yml itself is content with 2.23.
COMPOSE_MINIMUM=2.24.4
NEXT_SUITE_SOURCE=oscr-next-stable
export DEBIAN_FRONTEND=noninteractive
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin

# ---------------------------------------------------------------------------------------------------------------- packages

# Commands (or, with a slash, files) and the package that brings each.
BUILD_TOOLS='
gcc gcc
/usr/include/stdio.h libc6-dev
make make
git git
curl curl
/etc/ssl/certs/ca-certificates.crt ca-certificates
musl-gcc musl-tools
debootstrap debootstrap
ip iproute2
unshare util-linux
ps procps
tini tini
dumb-init dumb-init
catatonit catatonit
shellcheck shellcheck
jq jq
'

present() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *) have "$1" ;;
    esac
}

missing_tools() {
    local probe package
    while read -r probe package; do
        [ -z "$probe" ] || present "$probe" || echo "$package"
    done <<<"$BUILD_TOOLS"
}

can_install() { [ "$(id -u)" = 0 ] && is_debian_like; }

# Ends the script with the list of what a person must install, unless we can do it.
must_be_able_to_install() {
    can_install || die "missing: $*. Install it, or run this as root on Debian or Ubuntu, then start again."
}

apt_log=$(mktemp)
trap 'rm -f "$apt_log"' EXIT

apt_quietly() {
    apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null >"$apt_log" 2>&1
}

# Some source of the machine's may be out of reach, and none of our business: apt then uses what it has, and installing is
# what tells whether that was enough.
lists_are_fresh=no
refresh_lists() {
    [ "$lists_are_fresh" = no ] || return 0
    say "refreshing the package lists"
    apt_quietly update || say "not every package source answers; going on with those that do"
    lists_are_fresh=yes
}

install_packages() {
    must_be_able_to_install "$@"
    refresh_lists
    say "installing $*"
    apt_quietly install -y --no-install-recommends "$@" || {
        cat "$apt_log" >&2
        die "apt could not install $*"
    }
}

setup_build_tools() {
    local missing
    mapfile -t missing < <(missing_tools)
    [ "${#missing[@]}" = 0 ] || install_packages "${missing[@]}"
}

# -------------------------------------------------------------------------------------------------------------------- rust

RUST_HOWTO="Rust is missing. Install it from https://rustup.rs (\`curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt\`), then start again."

setup_rust() {
    local wanted machine
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
    if ! have cargo; then
        # Debian has rustup as a package since trixie, Ubuntu since 24.04.
        can_install || die "$RUST_HOWTO"
        refresh_lists
        apt_quietly install -y --no-install-recommends --simulate rustup || die "$RUST_HOWTO"
        install_packages rustup
    fi
    if ! version_at_least "$(rustc --version 2>/dev/null | cut -d ' ' -f 2)" "$wanted"; then
        have rustup || die "Rust $wanted or newer is needed, and this machine has $(rustc --version). Install it from https://rustup.rs."
        say "installing Rust's stable toolchain ($wanted or newer is needed)"
        rustup toolchain install stable --profile minimal --component clippy --component rustfmt >&2
        rustup default stable >&2
        version_at_least "$(rustc --version | cut -d ' ' -f 2)" "$wanted" || die "Rust $wanted or newer is needed, and stable is $(rustc --version)"
    fi
    have rustup || return 0
    machine=$(uname -m)
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$machine-unknown-linux-musl/lib" ]; then
        say "adding Rust's $machine-unknown-linux-musl target"
        rustup target add "$machine-unknown-linux-musl" >&2 || say "musl cannot be had: static glibc will do"
    fi
}

# ------------------------------------------------------------------------------------------------------------------ docker

setup_docker_engine() {
    have docker && { have dockerd || docker_answers; } && return
    install_packages docker.io
    # Newer releases have the client in a package of its own.
    have docker || install_packages docker-cli
}

docker_answers() { timeout 20 docker info >/dev/null 2>&1; }

wait_for_docker() {
    local pid=${1:-} _
    for _ in $(seq 60); do
        docker_answers && return 0
        [ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.5
    done
    return 1
}

# A storage driver can pass dockerd's own probe and still fail at the first container (overlayfs upon overlayfs).
docker_makes_containers() {
    local image id
    image=$(tar -c --files-from /dev/null | docker import - 2>/dev/null) || return 1
    id=$(docker create "$image" nothing 2>/dev/null) && docker rm "$id" >/dev/null
    local result=$?
    docker rmi "$image" >/dev/null 2>&1 || true
    return "$result"
}

start_dockerd() {
    local log=/var/log/dockerd.log driver pid drivers=('')
    # A driver fixed by the machine's owner is theirs to change; dockerd refuses to be told twice, too.
    grep -qs storage-driver /etc/docker/daemon.json || drivers=('' fuse-overlayfs vfs)
    for driver in "${drivers[@]}"; do
        if [ "$driver" = fuse-overlayfs ] && ! have fuse-overlayfs; then
            apt_quietly install -y --no-install-recommends fuse-overlayfs || continue
        fi
        say "starting dockerd${driver:+ with the storage driver $driver} (its log: $log)"
        # Flags are words.
        # shellcheck disable=SC2086
        setsid dockerd ${driver:+--storage-driver "$driver"} ${OSCR_DOCKERD_FLAGS:-} </dev/null >>"$log" 2>&1 &
        pid=$!
        disown
        if wait_for_docker "$pid" && docker_makes_containers; then
            return
        fi
        kill "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    done
    tail -n 20 "$log" >&2
    die "dockerd does not start; the end of its log is above"
}

setup_docker_daemon() {
    docker_answers && return
    [ -z "${DOCKER_HOST:-}" ] || [ -n "${OSCR_DOCKERD_FLAGS:-}" ] || die "no Docker daemon answers at DOCKER_HOST=$DOCKER_HOST"
    [ "$(id -u)" = 0 ] || die "no Docker daemon answers: start one, or give $(id -un) access to it, or run this as root"
    if [ -d /run/systemd/system ] && [ -z "${OSCR_DOCKERD_FLAGS:-}" ]; then
        say "starting the docker service"
        systemctl start docker
        wait_for_docker || die "the docker service does not answer; see: journalctl -u docker"
    else
        start_dockerd
    fi
}

compose_is_good() {
    local version
    version=$(docker compose version --short 2>/dev/null) && version_at_least "${version#v}" "$COMPOSE_MINIMUM"
}
buildx_is_there() { docker buildx version >/dev/null 2>&1; }

# Prints the machine's own Debian source, changed to speak of suite $1 and nothing else.
source_of_suite() {
    local suite=$1 entry file
    entry=$(apt_sources | awk -v release="$VERSION_CODENAME" '$2 == release && $3 == "main" { print $4; exit }')
    file=${entry%:*}
    case $file in
    *.sources)
        # A paragraph per source: the one that has our suite, with its mirror and key.
        awk -v release="$VERSION_CODENAME" -v RS='' '
            { suites = $0; sub(/.*\nSuites:|^Suites:/, "", suites); sub(/\n.*/, "", suites)
              if ((" " suites " ") ~ (" " release " ")) { print; exit } }' "$file" |
            sed -e "s/^Suites:.*/Suites: $suite/" -e 's/^Components:.*/Components: main/' -e '/^#/d'
        ;;
    *.list)
        grep -E "^deb[[:space:]].*[[:space:]]${VERSION_CODENAME}[[:space:]]" "$file" | head -n 1 |
            sed -E "s/[[:space:]]${VERSION_CODENAME}[[:space:]].*/ $suite main/"
        ;;
    *) return 1 ;;
    esac
}

# Bookworm's Compose is the retired Python one. Trixie's packages need nothing newer than bookworm's libc, so they sit beside
# it; the pin keeps everything else on the machine where it is.
add_next_suite() {
    local suite=$1 text format list=/etc/apt/sources.list.d
    text=$(source_of_suite "$suite") || true
    [ -n "$text" ] || die "no package source for $VERSION_CODENAME was found to derive one for $suite from"
    case $text in
    deb*) format=list ;;
    *) format=sources ;;
    esac
    say "adding a package source for $suite, pinned so that only Docker's plugins are taken from it"
    printf '# Made by OSCR for docker compose and docker buildx. See the pin in preferences.d.\n%s\n' "$text" >"$list/$NEXT_SUITE_SOURCE.$format"
    cat >"/etc/apt/preferences.d/$NEXT_SUITE_SOURCE" <<PIN
# Made by OSCR: nothing comes from $suite unless it is asked for by name.
Package: *
Pin: release n=$suite
Pin-Priority: 50

Package: docker-compose docker-buildx
Pin: release n=$suite
Pin-Priority: 600
PIN
    apt_quietly update -o "Dir::Etc::sourcelist=$list/$NEXT_SUITE_SOURCE.$format" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 || {
        cat "$apt_log" >&2
        die "the package source for $suite cannot be read"
    }
}

setup_docker_plugins() {
    local packages=() compose=docker-compose
    read_os_release
    ! is_ubuntu || compose=docker-compose-v2
    compose_is_good || packages+=("$compose")
    buildx_is_there || packages+=(docker-buildx)
    [ "${#packages[@]}" != 0 ] || return 0
    must_be_able_to_install "docker compose $COMPOSE_MINIMUM or newer, docker buildx"
    if [ "$VERSION_CODENAME" = bookworm ]; then
        refresh_lists
        add_next_suite trixie
    fi
    install_packages "${packages[@]}"
    compose_is_good || die "docker compose $COMPOSE_MINIMUM or newer is needed; this machine has: $(docker compose version 2>&1 | head -n 1)"
    buildx_is_there || die "docker buildx is needed, and docker does not find the plugin"
}

# ------------------------------------------------------------------------------------------------------------------- tests

# lacks PROGRAM…: does the machine lack one of them?
lacks() {
    local program
    for program in "$@"; do have "$program" || return 0; done
    return 1
}

# fetch NAME PACKAGE…: packages of the machine's source, unpacked together as .tools/NAME.
fetch() {
    local name=$1 tools=$PWD/.tools packages package
    shift
    say "fetching $* into .tools"
    packages=$(mktemp -d)
    (cd "$packages" && apt_quietly download "$@") || {
        cat "$apt_log" >&2
        die "apt could not fetch $*"
    }
    mkdir -p "$tools"
    # All of it or none.
    for package in "$packages"/*.deb; do dpkg --extract "$package" "$packages/root"; done
    # A clone is no place for programs that give their caller root's rights.
    find "$packages/root" -type f -perm /6000 -exec chmod ug-s {} +
    mv "$packages/root" "$tools/$name"
    rm -r "$packages"
}

# unpack PACKAGE PROGRAM…: the package into .tools, unless the machine has its programs.
unpack() {
    local name=$1
    shift
    [ ! -d ".tools/$name" ] && lacks "$@" || return 0
    must_be_able_to_install "$name"
    refresh_lists
    fetch "$name" "$name"
}

# Installed, it would bring services and a network to the machine. So what apt would install is unpacked.
setup_podman() {
    local programs=(podman runc slirp4netns uidmap) packages
    [ ! -d .tools/podman ] && lacks podman conmon runc slirp4netns newuidmap || return 0
    must_be_able_to_install "${programs[@]}"
    refresh_lists
    apt_quietly install --simulate --no-install-recommends "${programs[@]}" || {
        cat "$apt_log" >&2
        die "apt could not install ${programs[*]}"
    }
    # One with a version in brackets is there, and would be renewed.
    mapfile -t packages < <(awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }' "$apt_log")
    fetch podman "${packages[@]}"
}

# -------------------------------------------------------------------------------------------------------------------- lint

# A machine that systemd runs has it. Elsewhere, as in a container, the package adds programs, and starts nothing.
setup_systemd_analyze() { have systemd-analyze || install_packages systemd; }

# In the clone, so that the machine's Python stays as it is. What is there already is not asked of any package index again.
setup_lint() {
    local wanted=scripts/lint/requirements.txt made
    cmp --quiet "$wanted" .tools/lint/requirements.txt && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    say "installing what checks the workflows into .tools/lint"
    rm -rf .tools/lint
    made=$(mktemp)
    { python3 -m venv .tools/lint && .tools/lint/bin/python -m pip --quiet --disable-pip-version-check install --requirement "$wanted"; } >"$made" 2>&1 || {
        cat "$made" >&2
        rm -rf .tools/lint "$made"
        die "$wanted could not be installed"
    }
    rm "$made"
    cp "$wanted" .tools/lint/requirements.txt
}

# -------------------------------------------------------------------------------------------------------------------- main

case ${1:-} in
'') ;;
tests)
    # Debian's package would also start a server for the machine.
    unpack prometheus prometheus promtool
    # It would take the place of the machine's own reader of man pages.
    unpack mandoc mandoc
    exit
    ;;
podman)
    setup_podman
    exit
    ;;
lint)
    setup_systemd_analyze
    setup_lint
    exit
    ;;
*) die "there is no group of tools called $1" ;;
esac
setup_build_tools
setup_rust
setup_docker_engine
setup_docker_daemon
setup_docker_plugins
say "ready: $(rustc --version | cut -d ' ' -f 1,2) for $(scripts/target.sh), docker $(docker version --format '{{.Client.Version}} (daemon {{.Server.Version}})'), compose $(docker compose version --short)"
