#!/usr/bin/env bash
# Runs a command, such as container tests, where /var/run/docker.sock is a second Docker engine: with overlay2, whatever the machine's
# has, in namespaces of its own for its network, mounts and processes, so that the two never meet. The images of `make images` are
# loaded into it. With the command all of it ends and is removed.
#
#   scripts/test-engines.sh cargo test --test containers -- docker
#   scripts/test-engines.sh --outside COMMAND     the command itself stays outside of the namespaces, and DOCKER_HOST names the engine
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
export PATH=$PATH:/usr/sbin:/sbin

# serve FOLDER COMMAND: in the namespaces. Standard input has the images.
serve() {
    local folder=$1 place
    shift
    ip link set lo up
    for place in /run /srv /runner; do mount -t tmpfs -o mode=0755 tmpfs "$place"; done
    unset DOCKER_HOST DOCKER_CONTEXT
    # The machine's settings are not this one's.
    echo '{}' >"$folder/daemon.json"
    dockerd --config-file "$folder/daemon.json" --host unix:///run/docker.sock --host "unix://$folder/docker.sock" --data-root "$folder/data" --exec-root /run/docker --pidfile /run/docker.pid \
        --storage-driver overlay2 --log-level warn </dev/null >"$folder/log" 2>&1 &
    local daemon=$! tries=0
    until docker version >/dev/null 2>&1; do
        ((tries += 1))
        if ((tries > 300)) || ! kill -0 "$daemon" 2>/dev/null; then
            cat "$folder/log" >&2
            die "the second engine does not start"
        fi
        sleep 0.1
    done
    docker load --quiet >/dev/null
    say "a second engine: $(docker info --format '{{.ServerVersion}}, {{.Driver}}, control groups of version {{.CgroupVersion}}')"
    local code=0
    touch "$folder/ready"
    "$@" </dev/null || code=$?
    kill "$daemon"
    wait "$daemon" || true
    return "$code"
}

if [ "${1:-}" = --serve ]; then
    shift
    serve "$@"
    exit
fi
[ "$(id -u)" = 0 ] || die "namespaces and an engine take root"
image=${OSCR_TEST_IMAGE:-oddessentials/oscr-github:sim}
images=("$image")
outside=()
if [ "${1:-}" = --outside ]; then
    shift
    outside=("$@")
    set -- tail -f /dev/null
else
    images+=("$image-docker" "${OSCR_TEST_FORGE_IMAGE:-oddessentials/oscr-forge:sim}")
fi
# Not in memory, and not on layers: those cannot be stacked.
folder=$(mktemp --directory --tmpdir=/var/tmp oscr-engine.XXXXXX)
made=()
for place in /srv /runner; do
    [ -d "$place" ] || { mkdir "$place" && made+=("$place"); }
done
engine=
end() {
    if [ -n "$engine" ]; then
        # unshare(1) heeds no milder one. With it goes all that the namespaces have.
        kill -KILL "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
    fi
    rm -rf "$folder"
    for place in "${made[@]}"; do rmdir "$place" 2>/dev/null || true; done
}
trap end EXIT
in_namespaces=(unshare --net --mount --propagation private --uts --ipc --pid --fork --kill-child --mount-proc "$0" --serve "$folder")
if [ ${#outside[@]} = 0 ]; then
    docker save "${images[@]}" | "${in_namespaces[@]}" "$@"
    exit
fi
docker save "${images[@]}" | "${in_namespaces[@]}" "$@" &
# The last of the pipe, with which all in the namespaces ends.
engine=$!
until [ -e "$folder/ready" ]; do
    kill -0 "$engine" 2>/dev/null || die "the second engine has ended"
    sleep 0.1
done
DOCKER_HOST=unix://$folder/docker.sock "${outside[@]}"
