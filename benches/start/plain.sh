#!/bin/bash
# What a runner's container starts with where nothing is built for it: one request, the agent's own scripts, no pause. It is as short and
# as quick as such a script can be; it cleans nothing up and checks nothing.
set -euo pipefail
cd /actions-runner
# A registration that was not used up would keep the agent from being configured.
rm -f .runner .credentials .credentials_rsaparams
name=$HOSTNAME-${EPOCHREALTIME//[!0-9]/}
ask() {
    curl --fail --silent --show-error --request POST --header "Authorization: Bearer $GITHUB_PAT" \
        --header 'Accept: application/vnd.github+json' "$@"
}
api=$GITHUB_HOST/api/v3/repos/$GITHUB_OWNER/$GITHUB_REPO/actions/runners
if [ "$OSCR_REGISTRATION" = jit ]; then
    jit=$(ask --data "{\"name\":\"$name\",\"runner_group_id\":1,\"labels\":[\"self-hosted\"]}" "$api/generate-jitconfig" | jq --raw-output .encoded_jit_config)
    unset GITHUB_PAT
    exec bin/Runner.Listener run --jitconfig "$jit"
fi
token=$(ask "$api/registration-token" | jq --raw-output .token)
unset GITHUB_PAT
./config.sh --unattended --ephemeral --disableupdate --url "$GITHUB_HOST/$GITHUB_OWNER/$GITHUB_REPO" --token "$token" --name "$name"
exec ./run.sh
