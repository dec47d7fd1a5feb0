#!/bin/sh
# The operating system's part of every runner image, whichever agent comes on top. Runs in the image, as root, on any Debian (11 and
# later) or Ubuntu (20.04 and later).
set -eu
# shellcheck source=images/packages.sh
. /opt/oscr/packages.sh
apt-get update -qq

# What the agents' own bin/installdependencies.sh ask for, the same for both, has other names in each release: the first that
# exists is taken.
ssl=$(one_of libssl3t64 libssl3 libssl1.1)
icu=$(one_of libicu78 libicu77 libicu76 libicu75 libicu74 libicu72 libicu71 libicu70 libicu67 libicu66)
lttng=$(one_of liblttng-ust1t64 liblttng-ust1 liblttng-ust0)

# What checkouts and the common set-up actions call, and no job can install without sudo. docs/images.md promises the same.
promise ca-certificates libkrb5-3 zlib1g "$ssl" "$icu" "$lttng" <<'TOOLS'
bzip2 bzip2
curl curl
file file
git git
git-lfs git-lfs
gnupg gpg gpg-agent
jq jq
openssh-client ssh ssh-add ssh-agent ssh-keygen ssh-keyscan scp
procps ps pgrep pkill
python3 python3
rsync rsync
unzip unzip
wget wget
xz-utils xz
zip zip
zstd zstd
TOOLS
keep_promises
git lfs install --system --skip-repo

# Many programs are told to speak en_US.UTF-8 without being asked. What makes it is four times as large as it is.
sources=/usr/share/i18n/locales/en_US
if [ -e "$sources" ]; then made_with=''; else made_with=locales && apt_install locales; fi
localedef --no-archive --inputfile en_US --charmap UTF-8 en_US.UTF-8
[ -z "$made_with" ] || apt-get purge -y -qq --auto-remove "$made_with"
for locale in C en_US; do
    locale -a | grep -qiE "^$locale\.utf-?8\$" || lacking="$lacking, $locale.UTF-8"
done
keep_promises
forget_lists

# The account of the agent and its jobs. There is no sudo: a job that could become root could outlive its slate.
groupadd --gid 1001 runner
useradd --uid 1001 --gid runner --create-home --home-dir /home/runner --shell /bin/bash runner
# What oscr-entry restores the home from before each job. Root owns it, or a job could plant what the next one runs.
install -d -m 0755 /opt/oscr
cp -a /home/runner /opt/oscr/home
chown -R root:root /opt/oscr/home
install -d -m 0755 /etc/oscr/hooks.d/job-started /etc/oscr/hooks.d/job-completed
# Where oscr-entry writes, for containers that run as this user. As root it takes all but /work for itself at start.
install -d -o runner -g runner -m 0755 /work /runner /run/oscr
install -d -o runner -g runner -m 0700 /var/lib/oscr
