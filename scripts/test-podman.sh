#!/usr/bin/env bash
# Lives of a runner under Podman, as root and without: it registers, has a job, is wiped, is started anew by Podman, and is stopped while
# a job runs. Podman is the machine's or, from .tools, Debian's (`scripts/setup.sh podman`); the forge is the simulated one. All of it is
# in namespaces of its own, with an /etc, a /run and a /var/lib of its own. It ends with them, and whatever is left is an error.
#
#   scripts/test-podman.sh             both lives
#   scripts/test-podman.sh rootless    one of them: root, rootless
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
export PATH=$PATH:/usr/sbin:/sbin

IMAGE=${OSCR_TEST_IMAGE:-oddessentials/oscr-github:sim}
# For this script; containers have other ways to it.
FORGE=http://127.0.0.1
# What comes unless something is broken is waited for that long, as in all tests.
LIMIT=$(awk -v patience="${OSCR_TEST_PATIENCE:-1}" 'BEGIN { printf "%d", 120 * patience }')
# Who has no root: known to the namespaces' /etc alone.
USER_ID=64999
FIRST_SUBORDINATE=700000

# ----------------------------------------------------------------------------------------------------------- the namespaces

# Podman's settings, for root and for the user alike.
settings() {
    local folder=$1
    mkdir /etc/containers
    echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
    cat >/etc/containers/storage.conf <<CONF
[storage]
driver = "overlay"
graphroot = "$folder/root/storage"
runroot = "/run/containers/storage"
rootless_storage_path = "$folder/user/storage"
CONF
    # No systemd serves these namespaces, and crun 1.8 starts nothing on a machine that has control groups of both versions.
    cat >/etc/containers/containers.conf <<CONF
[network]
cni_plugin_dirs = ["/run/podman-tools/usr/lib/cni", "/usr/lib/cni"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
network_cmd_path = "$(command -v slirp4netns)"
conmon_path = ["$(command -v conmon)"]
[engine.runtimes]
runc = ["$(command -v runc)"]
CONF
    echo "podman:x:$USER_ID:$USER_ID::$folder/user:/bin/sh" >>/etc/passwd
    echo "podman:x:$USER_ID:" >>/etc/group
    echo "podman:$FIRST_SUBORDINATE:65536" | tee /etc/subuid >/etc/subgid
    # The machine's may be a link into its /run, and no name is looked up here.
    rm -f /etc/resolv.conf
    touch /etc/resolv.conf
}

# serve FOLDER LIFE…
serve() {
    local folder=$1 life tools=.tools/podman
    shift
    # Of these namespaces alone by now. Podman without root shares its mounts with its containers.
    mount --make-rshared /
    ip link set lo up
    mount -t tmpfs -o mode=0755 tmpfs /run
    mkdir -p /run/etc /run/bin /run/podman-tools
    cp -a /etc/. /run/etc
    rm -rf /run/etc/containers
    mount --bind /run/etc /etc
    mount -t tmpfs -o mode=0755 tmpfs /var/lib
    if [ -d "$tools" ]; then
        # The clone may be where only root comes.
        mount --bind "$tools" /run/podman-tools
        tools=/run/podman-tools/usr
        PATH=$PATH:/run/bin:$tools/bin
        # By the loader's cache, because conmon starts Podman again without our environment.
        printf '%s\n' "$tools"/lib/*-linux-gnu* >/etc/ld.so.conf.d/podman.conf
        mount -t tmpfs -o mode=0755 tmpfs /var/cache
        mkdir /var/cache/ldconfig
        ldconfig -X
        # They write a user's map with root's rights: they have those here, and not in the clone.
        [ ! -e "$tools/bin/newuidmap" ] || install -m 4755 "$tools"/bin/new[ug]idmap /run/bin
    fi
    # Everywhere but in a container it is for everybody.
    mknod -m 0666 /run/tun c 10 200
    mount --bind /run/tun /dev/net/tun
    settings "$folder"
    mkdir -m 0700 "$folder/root"
    install -d -m 0700 -o "$USER_ID" -g "$USER_ID" "$folder/user" "/run/user/$USER_ID"
    GITHUB_PAT=$(tr -d - </proc/sys/kernel/random/uuid)
    export GITHUB_PAT
    FORGE_PAT=$GITHUB_PAT dist/sim/forge --listen 0.0.0.0:80 >"$folder/forge.log" 2>&1 &
    until_true "the simulated forge does not start" dist/sim/forge health 127.0.0.1:80
    for life in "$@"; do
        live "$folder" "$life"
    done
}

# ------------------------------------------------------------------------------------------------------------------- a life

ask() { curl --silent --show-error --fail --max-time $((LIMIT + 10)) "$FORGE/_sim/$1" "${@:2}"; }

# job SCRIPT: queues it, and prints the job's number.
job() {
    jq --null-input --arg script "$1" '{name: "job", repository: "demo/playground", script: $script}' |
        ask jobs --header 'content-type: application/json' --data @- | jq .id
}

# expect WHAT WANTED FOUND
expect() { [ "$2" = "$3" ] || fail "$1: expected $2, found $3"; }

# result JOB STATUS FIELD WANTED: once the job is that far, its field says so.
result() {
    local told
    told=$(ask "jobs/$1?wait=$2&timeout=$LIMIT")
    [ "$(jq -r ".$3" <<<"$told")" = "$4" ] || fail "job $1 should have the $3 $4: $told"
}

# With what the runner said.
fail() {
    [ ! -e "${log:-}" ] || cat "$log" >&2
    die "${life:+$life: }$*"
}

# until_true WHAT_IT_IS_OTHERWISE COMMAND…
until_true() {
    local end=$((SECONDS + LIMIT))
    until "${@:2}" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "$1"
        sleep 0.1
    done
}

live() {
    local folder=$1 life=$2 home gate log as=() options first second third stop inspected
    case $life in
    root)
        home=$folder/root
        # A group that nothing else on the machine has, so that what is left of it can be told.
        options=(--cgroup-parent "/${folder##*/}")
        # Of Podman's own bridge.
        gate=http://10.88.0.1
        ;;
    rootless)
        home=$folder/user
        as=(setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups env XDG_RUNTIME_DIR="/run/user/$USER_ID")
        # Its address for the loopback outside.
        options=(--network slirp4netns:allow_host_loopback=true)
        gate=http://10.0.2.2
        ;;
    esac
    log=$home/log
    as_user() { "${as[@]}" env HOME="$home" "$@"; }
    podman() { (cd "$home" && as_user podman "$@"); }
    as_user mkdir "$home/signs"

    podman load --quiet --input "$folder/image" >/dev/null
    say "$life: $(podman info --format 'Podman {{.Version.Version}}, rootless {{.Host.Security.Rootless}}, {{.Host.OCIRuntime.Name}}, {{.Store.GraphDriverName}}, control groups {{.Host.CgroupsVersion}}')"
    # As hosts.md has it, but for a healthcheck, whose timer is systemd's, and for the way to the forge.
    podman run --detach --name runner --restart always --stop-timeout 1920 -e GITHUB_PAT -e GITHUB_OWNER=demo -e GITHUB_REPO=playground \
        -e GITHUB_HOST="$gate" --no-healthcheck --volume "$home/signs:/signs:ro" --log-driver k8s-file --log-opt path="$log" "${options[@]}" \
        "$IMAGE" >/dev/null
    ask "wait?runners=1&idle=true&timeout=$LIMIT" >/dev/null || fail "no runner registers"
    say "$life: a runner is registered, and listens"

    # The dollar signs are the job's.
    # shellcheck disable=SC2016
    first=$(job 'for place in . ~ /tmp /var/tmp; do echo left >"$place/left-behind" || exit 1; done')
    result "$first" completed result succeeded
    # shellcheck disable=SC2016
    second=$(job 'for place in . ~ /tmp /var/tmp; do [ -d "$place" ] && [ ! -e "$place/left-behind" ] || exit 1; done')
    result "$second" completed result succeeded
    [ "$(podman inspect --format '{{.RestartCount}}' runner)" -ge 1 ] || fail "the second job was not in a container that Podman started anew"
    say "$life: it had a job, Podman started it anew, and the second job found nothing of the first"

    third=$(job 'until [ -e /signs/go ]; do sleep 0.1; done')
    result "$third" in_progress status in_progress
    podman stop runner >/dev/null &
    stop=$!
    until_true "the runner does not hear of podman stop" grep --quiet 'running .* asked to stop' "$log"
    # Not for an event: Podman's own patience would be over after ten seconds.
    sleep 12
    result "$third" in_progress status in_progress
    kill -0 "$stop" 2>/dev/null || fail "podman stop did not wait for the job"
    as_user touch "$home/signs/go"
    wait "$stop" || fail "podman stop failed"
    result "$third" completed result succeeded
    inspected=$(podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' runner)
    expect "the container after podman stop" "exited 0" "$inspected"
    expect "registrations after podman stop" '[]' "$(ask runners)"
    expect "what the forge was asked against its rules" '[]' "$(ask violations)"
    say "$life: podman stop waited for a running job, which succeeded, and no registration is left"

    podman rm runner >/dev/null
    expect "containers after podman rm" '' "$(podman ps --all --quiet)"
}

# ------------------------------------------------------------------------------------------------------------------ outside

# traces NAME: what Podman and its helpers could leave on the machine.
traces() {
    ls -d /etc/containers /etc/cni /var/lib/containers /var/lib/cni /run/containers /run/libpod /run/podman /run/netns /run/user/$USER_ID 2>/dev/null || true
    find /sys/fs/cgroup -type d \( -path "*/$1*" -o -path '*/libpod_parent*' \)
    ip -oneline link | grep -o -E '(cni-)?podman[0-9]+' || true
    grep -F "$1" /proc/self/mounts || true
    pgrep --uid $USER_ID --list-full || true
    pgrep --full --list-full "/$1/" || true
    getent passwd $USER_ID || true
}

# Control groups stay when all in them is gone, and the kernel takes its time until it is.
remove_groups() {
    local tries=0
    until find /sys/fs/cgroup -depth -type d \( -path "*/$1" -o -path "*/$1/*" \) -exec rmdir {} + 2>/dev/null; do
        ((tries += 1))
        ((tries < 100)) || return 0
        sleep 0.1
    done
}

if [ "${1:-}" = --serve ]; then
    shift
    serve "$@"
    exit
fi
[ "$(id -u)" = 0 ] || die "namespaces take root"
[ $# != 0 ] || set -- root rootless
for life in "$@"; do
    case $life in root | rootless) ;; *) die "a life is «root» or «rootless», not «$life»" ;; esac
done
[ -x dist/sim/forge ] || die "there is no dist/sim/forge: \`make build\` makes it"

# Not in memory, and not on layers: those cannot be stacked.
folder=$(mktemp --directory --tmpdir=/var/tmp oscr-podman.XXXXXX)
name=${folder##*/}
before=$(traces "$name")
inside=
end() {
    if [ -n "$inside" ]; then
        # unshare(1) heeds no milder one. With it goes all that the namespaces have.
        kill -KILL "$inside" 2>/dev/null || true
        wait "$inside" 2>/dev/null || true
        inside=
    fi
    rm -rf "$folder"
    remove_groups "$name"
}
trap end EXIT
chmod 0755 "$folder"
docker save --output "$folder/image" "$IMAGE"
chmod 0644 "$folder/image"
# Settings of the caller's Podman are not this one's.
env -i PATH="$PATH" OSCR_TEST_IMAGE="$IMAGE" OSCR_TEST_PATIENCE="${OSCR_TEST_PATIENCE:-1}" \
    unshare --net --mount --propagation private --uts --ipc --pid --fork --kill-child --mount-proc "$0" --serve "$folder" "$@" &
inside=$!
wait "$inside"
end
after=$(traces "$name")
[ "$before" = "$after" ] || die "the machine is not as it was before: $(diff <(echo "$before") <(echo "$after"))"
say "nothing is left on the machine"
