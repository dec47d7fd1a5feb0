#!/usr/bin/env bash
# verify.sh IDENTITY: ends with 1 unless each image of standard input («<sha256>  <repository>») has the signature of the workflow IDENTITY.
set -euo pipefail
identity=${1:?verify.sh IDENTITY}
while read -r sha256 repository; do
    cosign verify --certificate-identity "$identity" --certificate-oidc-issuer https://token.actions.githubusercontent.com \
        "$repository@sha256:$sha256" >/dev/null
done
