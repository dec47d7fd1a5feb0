#!/usr/bin/env bash
# Ollama's server, with one model in memory: what compose.ollama.yml starts its image with. `serve.sh healthy` asks whether that is so.
# It makes do with what is in that image: bash, the system's basic tools and `ollama` itself.
#
#   OLLAMA_MODEL        the model
#   OLLAMA_PULL         true: one that is missing is pulled; false: it is waited for
#   OLLAMA_START_LIMIT  how many seconds the server may take to answer
#
# The server never ends because of the model: a machine without a network is given one by way of the server.
set -euo pipefail

model=${OLLAMA_MODEL:?must name a model}
pull=${OLLAMA_PULL:-true}
limit=${OLLAMA_START_LIMIT:-60}
warm=${TMPDIR:-/tmp}/model-is-warm
log=${TMPDIR:-/tmp}/ollama.log

say() { echo "oscr: $*"; }

# The same is said once.
said=
tell() {
    [ "$said" = "$*" ] || say "$*"
    said=$*
}

# bash acts on a signal while it waits, and not while it runs something: so all that takes time is waited for.
attend() {
    "$@" &
    wait "$!"
}

# What `ollama` has to say when it fails; it draws its progress into the same stream, over and over.
error=
quietly() {
    attend ollama "$@" </dev/null >"$log" 2>&1 && return
    error=$(sed -n 's/.*Error: //p' "$log" | tail -n 1)
    error=${error:-ollama gave no reason}
    return 1
}

ask() { attend timeout 10 ollama "$@" </dev/null >/dev/null 2>&1; }

if [ "${1:-}" = healthy ]; then
    export OLLAMA_HOST=127.0.0.1:11434
    [ -e "$warm" ] || { say "$model is not in memory yet" && exit 1; }
    ask list || { say "the server does not answer" && exit 1; }
    exit
fi

case $pull in
true | false) ;;
*) say "OLLAMA_PULL is «$pull»: use true or false" && exit 1 ;;
esac

server=
# A stop is the server's, and all else here ends with it.
trap 'trap "" TERM INT; [ -z "$server" ] || { kill -TERM "$server" 2>/dev/null && wait "$server"; }; exit' TERM INT

# The container ends as the server does, and its restart policy starts both.
ended() {
    local code=0
    wait "$server" || code=$?
    say "the server has ended with $code"
    exit "$((code > 0 ? code : 1))"
}

rm -f "$warm"
ollama serve &
server=$!
# It listens on all addresses; what follows asks it on the loopback, which is reached without a proxy.
export OLLAMA_HOST=127.0.0.1:11434

SECONDS=0
until ask list; do
    kill -0 "$server" 2>/dev/null || ended
    [ "$SECONDS" -lt "$limit" ] || { say "the server did not answer within $limit s" && exit 1; }
    attend sleep 0.5
done

pause=5
ready() {
    if ! ask show "$model"; then
        if [ "$pull" = false ]; then
            tell "$model is not here, and OLLAMA_PULL is false: bring it as docs/local-model.md says. It is looked for every $pause s"
            return 1
        fi
        say "pulling $model"
        quietly pull "$model" || { say "$model could not be pulled, which is tried again in $pause s: $error" && return 1; }
    fi
    # Without a prompt it is loaded and asked nothing.
    quietly run --keepalive=-1s "$model" || { say "$model could not be loaded, which is tried again in $pause s: $error" && return 1; }
}

until ready; do
    kill -0 "$server" 2>/dev/null || ended
    attend sleep "$pause"
    # Nobody is asked for what is only looked for here.
    [ "$pull" = false ] || pause=$((pause < 300 ? pause * 2 : 300))
done
touch "$warm"
say "$model is in memory"
wait "$server" || true
ended
