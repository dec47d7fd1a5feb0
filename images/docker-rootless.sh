#!/bin/sh
# A Docker daemon without root for the jobs of the runner beside it: what compose.docker-dind.yml starts this image with. Only in
# images with OSCR_DOCKER=engine. Arguments are dockerd's.
set -eu
PATH=$PATH:/usr/sbin:/usr/share/docker.io/contrib
for program in dockerd dockerd-rootless.sh; do
    command -v "$program" >/dev/null || {
        echo "this image has no $program: run \`docker compose build\`, which builds it with the engine (OSCR_DOCKER=engine)" >&2
        # The runner beside has this container's network, and could not start to say what it lacks itself.
        exec /usr/local/bin/oscr-entry exec -- sleep infinity
    }
done
run=/run/oscr-docker
data=/home/runner/.local/share/docker
# This container's own nodes: a host may have them for root alone.
chmod 0666 /dev/net/tun /dev/fuse
install -d -o runner -g runner -m 0711 "$run"
install -d -o runner -g runner /home/runner/.local /home/runner/.local/share
install -d -o runner -g runner -m 0710 "$data"
# What an agent mounts into job containers is this path, as the daemon sees it.
ln -sf "$run/docker.sock" /run/docker.sock
export HOME=/home/runner XDG_RUNTIME_DIR="$run"
# Whatever a predecessor left there is nobody's process in here.
rm -f "$run/docker.pid" "$run/docker.sock"
rm -rf "$run/dockerd-rootless" "$run/docker"
exec /usr/local/bin/oscr-entry exec --user runner --grace 10s -- dockerd-rootless.sh \
    --host "unix://$run/docker.sock" --data-root "$data" --log-level warn "$@"
