#!/usr/bin/env bash
# tags.sh release|rebuild TAG COMMIT DAY: which tags the images of a build get, one line each: «fixed NAME», which is never given to
# another image, or «moving NAME». TAG is the version's, such as v1.2.3 or v1.2.3-rc.1; COMMIT is the one that it names; DAY is of the build,
# such as 20261130. Standard input has all version tags that there are. docs/releasing.md has the same in words.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

kind=${1:-} tag=${2:-} commit=${3:-} day=${4:-}
number='(0|[1-9][0-9]*)'
full="^v$number\.$number\.$number\$"
[[ $kind =~ ^(release|rebuild)$ ]] || die "usage: tags.sh release|rebuild TAG COMMIT DAY"
[[ $tag =~ $full || $tag =~ ^v$number\.$number\.$number-[0-9A-Za-z.-]+$ ]] || die "«$tag» is no tag of a version, such as v1.2.3 or v1.2.3-rc.1"
[[ $commit =~ ^[0-9a-f]{40}$ ]] || die "«$commit» is no commit"
[[ $day =~ ^20[0-9]{6}$ ]] || die "«$day» is no day, such as 20261130"

# newest PREFIX: of the full versions that begin so, this one among them.
versions=$(grep -E "$full" || true)
newest() { printf '%s\n' "$tag" "$versions" | grep -E "$full" | grep -F "v$1" | sort -V | tail -n 1; }

version=${tag#v}
if [ "$kind" = release ]; then
    printf 'fixed %s\n' "$tag" "$version" "${commit:0:12}"
fi
moves=no
if [[ $tag =~ $full ]]; then
    minor=${version%.*}
    # A tag that moves never moves back.
    if [ "$(newest "$minor.")" = "$tag" ]; then moves=yes && echo "moving $minor"; fi
    if [ "$(newest "")" = "$tag" ]; then printf 'moving %s\n' "$day" latest; fi
fi
[ "$kind" = release ] || [ "$moves" = yes ] || die "a rebuild of $tag would move no tag: it is a pre-release, or there is a newer patch release"
