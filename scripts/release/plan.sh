#!/usr/bin/env bash
# plan.sh TAG|'': what the release workflow is to do, as name=value lines for its later jobs. TAG is that of a push, which is released; with
# none, the newest full version is rebuilt, and nothing is printed where there is none yet. Needs the repository's tags and history.
#
#   kind      release or rebuild
#   tag       v1.2.3
#   version   1.2.3
#   commit    that the tag names
#   created   now
#   tags      what tags.sh said, as fixed:NAME and moving:NAME
set -euo pipefail
tag=${1:-}
cd "$(dirname "$0")/../.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

all=$(git tag --list 'v*')
kind=release
if [ -z "$tag" ]; then
    kind=rebuild
    tag=$(grep -E '^v[0-9]+\.[0-9]+\.[0-9]+$' <<<"$all" | sort -V | tail -n 1) || true
    if [ -z "$tag" ]; then say "there is no release yet: nothing is rebuilt" && exit; fi
fi
commit=$(git rev-parse --verify --quiet "refs/tags/$tag^{commit}") || die "there is no tag $tag"
[ "$kind" = rebuild ] || scripts/release/check.sh "${tag#v}"
created=$(date --utc +%Y-%m-%dT%H:%M:%SZ)
tags=$(scripts/release/tags.sh "$kind" "$tag" "$commit" "$(date --utc --date "$created" +%Y%m%d)" <<<"$all")
printf '%s=%s\n' kind "$kind" tag "$tag" version "${tag#v}" commit "$commit" created "$created" tags "$(tr ' \n' ': ' <<<"$tags" | sed 's/ $//')"
