#!/usr/bin/env bash
# push.sh content|tags LAYOUTS: publishes the images that join.sh left in the folder LAYOUTS, each in a folder of its name.
#
#   content   pushes each by its digest alone, which no tag shows, and signs it; prints «<sha256>  <repository>» lines
#   tags      gives the tags of TAGS (fixed:NAME, moving:NAME) to what was pushed
#
# REPOSITORIES are where to, such as ghcr.io/oddessentials. Both look first whether a fixed tag is another image's, and then change nothing. What
# was done already is done again without harm, so either can be repeated after a failure.
set -euo pipefail
what=${1:-} layouts=${2:?push.sh content|tags LAYOUTS}
: "${TAGS:?}" "${REPOSITORIES:?}"
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../lib.sh"

answer=$(mktemp) error=$(mktemp)
trap 'rm -f "$answer" "$error"' EXIT

# A variant is a tag of its image: oscr-github+full has oscr-github:1.2.3-full.
name_of() { echo "${1%%+*}"; }
# tag_of IMAGE TAG
tag_of() { case $1 in *+*) echo "${2#*:}-${1#*+}" ;; *) echo "${2#*:}" ;; esac; }

digest_of() { jq --raw-output '.manifests[0].digest' "$layouts/$1/index.json"; }

# The digest behind a tag, or nothing if there is no such tag. That a registry does not answer is neither.
digest_of_tag() {
    if skopeo inspect --raw "docker://$1" >"$answer" 2>"$error"; then
        echo "sha256:$(sha256sum "$answer" | cut -d ' ' -f 1)"
    elif ! grep -qiE 'manifest unknown|name unknown|not found' "$error"; then
        cat "$error" >&2
        die "it cannot be known whether there is $1"
    fi
}

images=$(ls "$layouts")
[ -n "$images" ] || die "there is nothing in $layouts"
read -ra tags <<<"$TAGS"
read -ra repositories <<<"$REPOSITORIES"

for image in $images; do
    for repository in "${repositories[@]}"; do
        for tag in "${tags[@]}"; do
            [[ $tag = fixed:* ]] || continue
            name=$repository/$(name_of "$image"):$(tag_of "$image" "$tag")
            there=$(digest_of_tag "$name")
            [ -z "$there" ] || [ "$there" = "$(digest_of "$image")" ] ||
                die "$name is $there already, and never moves: release the next version"
        done
    done
done
case $what in
content)
    for image in $images; do
        digest=$(digest_of "$image")
        for repository in "${repositories[@]}"; do
            name=$repository/$(name_of "$image")
            say "$name@$digest"
            skopeo copy --quiet --all --preserve-digests "oci:$layouts/$image" "docker://$name@$digest" >&2
            cosign sign --yes "$name@$digest" >&2
            echo "${digest#sha256:}  $name"
        done
    done
    ;;
tags)
    # What is fixed first: a release whose last tag is missing is not what `latest` names.
    for kind in fixed moving; do
        for image in $images; do
            for repository in "${repositories[@]}"; do
                for tag in "${tags[@]}"; do
                    [[ $tag = "$kind":* ]] || continue
                    name=$repository/$(name_of "$image")
                    say "$name:$(tag_of "$image" "$tag")"
                    skopeo copy --quiet --all --preserve-digests "docker://$name@$(digest_of "$image")" \
                        "docker://$name:$(tag_of "$image" "$tag")" >&2
                done
            done
        done
    done
    ;;
*) die "usage: push.sh content|tags LAYOUTS" ;;
esac
