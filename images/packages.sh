# shellcheck shell=sh
# What the scripts that install packages in an image have in common. Packages are split and named differently in each release of
# Debian and Ubuntu.
export DEBIAN_FRONTEND=noninteractive

apt_install() { apt-get install -y -qq --no-install-recommends "$@"; }

has_package() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; }

# Those of these that this release has.
any_of() {
    for package in "$@"; do
        if has_package "$package"; then echo "$package"; fi
    done
}

# The first of these that this release has.
one_of() {
    for package in "$@"; do
        if has_package "$package"; then echo "$package" && return; fi
    done
    echo "none of these packages exists here: $*" >&2
    return 1
}

# What was promised and is not there.
lacking=''

# promise [PACKAGE…]: installs these and the packages of standard input, of which each line has the tools that jobs are promised. This base
# may have no such package, or one without such a tool.
promise() {
    promised=$(cat)
    # One word each.
    # shellcheck disable=SC2046
    apt_install "$@" $(any_of $(echo "$promised" | cut -d ' ' -f 1))
    for tool in $(echo "$promised" | cut -d ' ' -f 2-); do
        command -v "$tool" >/dev/null || lacking="$lacking, $tool"
    done
}

# Ends the build of an image that would lack what it promises. This is the last that people see of it.
keep_promises() {
    [ -n "$lacking" ] || return 0
    echo "the base image ($(. /etc/os-release && echo "$PRETTY_NAME")) has no package for what this image promises to jobs: ${lacking#, }. Choose another BASE_IMAGE." >&2
    exit 1
}

forget_lists() { rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; }
