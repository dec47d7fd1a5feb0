# shellcheck shell=bash
# What the scripts of this folder share: how they speak, and how they read the machine's own package sources. No mirror is
# named anywhere in this project: whatever the machine already uses is used.

SCRIPT_NAME=$(basename "$0" .sh)

# Everything a person reads goes to stderr, so that stdout stays free for results.
say() { printf '%s: %s\n' "$SCRIPT_NAME" "$*" >&2; }
die() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Sets ID, ID_LIKE and VERSION_CODENAME as /etc/os-release has them.
# shellcheck disable=SC2034
read_os_release() {
    ID='' ID_LIKE='' VERSION_CODENAME=''
    # shellcheck source=/dev/null
    [ ! -r /etc/os-release ] || . /etc/os-release
}

is_debian_like() {
    read_os_release
    case " $ID $ID_LIKE " in
    *" debian "* | *" ubuntu "*) have apt-get ;;
    *) return 1 ;;
    esac
}

is_ubuntu() {
    read_os_release
    case " $ID $ID_LIKE " in *" ubuntu "*) true ;; *) false ;; esac
}

# version_at_least 2.26.1 2.23 succeeds: is the first version the second or newer?
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# apt itself says what its sources mean, whichever of the two file formats they are written in.
# Prints "<uri> <release> <component> <file>:<entry>" per line.
apt_sources() {
    # The dollar signs are apt's.
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)' 'Created-By: Packages' 2>/dev/null
}
