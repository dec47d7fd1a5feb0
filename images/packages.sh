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

forget_lists() { rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; }
