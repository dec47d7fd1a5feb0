//! What a job leaves for the next one in the same container.

/// How far a job's arm must reach for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every job can do it.
    Anybody,
    /// Only root can, so that it is tried with sudo where there is one.
    Root,
}

/// One thing left. Its name is what `docs/security.md` calls it.
pub struct Leftover {
    pub name: &'static str,
    pub reach: Reach,
    pub plant: &'static str,
    /// What of the image it changes, which is where taint is found; nothing for what is wiped.
    pub path: &'static str,
    /// Succeeds where it is. Asked right after planting too, so that a look that finds nothing shows something.
    pub look: &'static str,
}

const fn anybody(name: &'static str, plant: &'static str, look: &'static str) -> Leftover {
    Leftover { name, reach: Reach::Anybody, plant, path: "", look }
}

const fn root(name: &'static str, path: &'static str, plant: &'static str, look: &'static str) -> Leftover {
    Leftover { name, reach: Reach::Root, plant, path, look }
}

/// What planting and looking have in common.
pub const TOOLS: &str = r#"
set +e +o pipefail
case $(uname -m) in
    aarch64) export MQ_OPEN=180 SETXATTR=5 GETXATTR=8 ;;
    *) export MQ_OPEN=240 SETXATTR=188 GETXATTR=191 ;;
esac
# u::---,g::---,o::--- and u::rwx,u:54321:rwx,g::r-x,m::rwx,o::r-x
export NO_RIGHTS=0200000001000000ffffffff04000000ffffffff20000000ffffffff
export MORE_RIGHTS=0200000001000700ffffffff0200070031d4000004000500ffffffff10000700ffffffff20000500ffffffff
as_root() { if sudo -n true 2>/dev/null; then sudo -n "$@"; else "$@"; fi; }
# Starts what outlives its step, without the mark by which the agent finds orphans.
daemon() { setsid env -u RUNNER_TRACKING_ID "$@" </dev/null >/dev/null 2>&1 & }
alive() {
    perl -e 'for (glob "/proc/[0-9]*/cmdline") { open my $it, "<", $_ or next; local $/; exit 0 if <$it> =~ /^\Q$ARGV[0]\E[ \0]/ } exit 1' "$1"
}
soon() { for n in $(seq 50); do if "$@"; then return 0; fi; sleep 0.1; done; return 1; }
# attribute NAME VALUE FILE…: sets an extended attribute, as setfacl and setfattr do. The value is in hexadecimal digits.
attribute() {
    perl -e 'my ($name, $value, @files) = @ARGV; $value = pack "H*", $value;
        for my $file (@files) { syscall($ENV{SETXATTR} + 0, $file, $name, $value, length $value, 0) == 0 or die "$file: $!" }' "$@"
}
# has NAME FILE…: has any of them such an attribute?
has() {
    perl -e 'my ($name, @files) = @ARGV; my $to = "\0" x 512;
        for my $file (@files) { exit 0 if syscall($ENV{GETXATTR} + 0, $file, $name, $to, 512) >= 0 } exit 1' "$@"
}
# flag BITS FILE…: sets inode flags, as chattr does.
flag() {
    perl -e 'my ($bits, @files) = @ARGV;
        for (@files) {
            open(my $it, "<", $_) or die "$_: $!";
            my $flags = pack("l!", 0);
            ioctl($it, 0x80086601, $flags) or die "$_: $!";
            $flags = pack("l!", unpack("l!", $flags) | $bits);
            ioctl($it, 0x40086602, $flags) or die "$_: $!" }' "$@"
}
export -f as_root daemon alive soon attribute has flag
plant() {
    timeout -k 1 20 bash -c "$2" </dev/null >/tmp/plant-said 2>&1
    if timeout -k 1 10 bash -c "$3" </dev/null >>/tmp/plant-said 2>&1; then echo "[$1] planted"; else
        echo "[$1] cannot be planted"
        head -n 3 /tmp/plant-said | cut -c 1-200 | sed 's/^/    /'
    fi
}
look() {
    if timeout -k 1 10 bash -c "$2" </dev/null >/dev/null 2>&1; then echo "[$1] found"; else echo "[$1] gone"; fi
}
"#;

pub const LEFTOVERS: &[Leftover] = &[
    // What the next job's shells and tools would read.
    anybody("bashrc", r#"echo "true # planted" >>~/.bashrc"#, r#"grep planted ~/.bashrc"#),
    anybody("profile", r#"echo "true # planted" >>~/.profile"#, r#"grep planted ~/.profile"#),
    anybody("removed-file-of-home", r#"rm ~/.bash_logout"#, r#"[ ! -e ~/.bash_logout ]"#),
    anybody("mode-of-home", r#"chmod 0777 ~"#, r#"[ "$(stat -c %a ~)" = 777 ]"#),
    anybody("git-config", r#"git config --global core.hooksPath /tmp/hooks"#, r#"git config --global core.hooksPath"#),
    anybody(
        "git-template",
        r#"mkdir -p ~/.config/git/template/hooks && echo true >~/.config/git/template/hooks/post-checkout"#,
        r#"[ -e ~/.config/git/template/hooks/post-checkout ]"#,
    ),
    anybody(
        "git-hook-in-workspace",
        r#"mkdir -p "$GITHUB_WORKSPACE/.git/hooks" && echo true >"$GITHUB_WORKSPACE/.git/hooks/post-checkout""#,
        r#"find /work -path '*/.git/hooks/post-checkout' | grep ."#,
    ),
    anybody("ssh-config", r#"mkdir -p ~/.ssh && echo 'ProxyCommand evil' >~/.ssh/config"#, r#"[ -e ~/.ssh ]"#),
    anybody("package-settings", r#"echo 'registry=http://evil' >~/.npmrc"#, r#"[ -e ~/.npmrc ]"#),
    anybody("path-shim", r#"mkdir -p ~/.local/bin && cp /bin/true ~/.local/bin/git"#, r#"[ -e ~/.local/bin/git ]"#),
    anybody("tool-cache", r#"mkdir -p /work/_tool/node/99.0.0/x64"#, r#"find / -path '*/node/99.0.0' | grep ."#),
    // The agent's own.
    anybody(
        "agents-env-file",
        r#"echo OSCR_PLANTED=1 >/tmp/env; for root in /runner/*/; do cat /tmp/env >>"$root/.env"; done"#,
        r#"grep -s OSCR_PLANTED /runner/*/.env || env | grep OSCR_PLANTED"#,
    ),
    anybody(
        "agents-path-file",
        r#"for root in /runner/*/; do echo /tmp/planted >>"$root/.path"; done"#,
        r#"grep -s /tmp/planted /runner/*/.path || echo "$PATH" | grep /tmp/planted"#,
    ),
    anybody("agents-root", r#"for root in /runner/*/; do touch "$root/planted"; done"#, r#"ls /runner/*/planted"#),
    // Other places that a job can write.
    anybody("work", r#"touch /work/planted"#, r#"[ -e /work/planted ]"#),
    anybody("tmp", r#"touch /tmp/planted"#, r#"[ -e /tmp/planted ]"#),
    anybody("var-tmp", r#"touch /var/tmp/planted"#, r#"[ -e /var/tmp/planted ]"#),
    anybody("shared-memory", r#"echo x >/dev/shm/planted"#, r#"[ -e /dev/shm/planted ]"#),
    anybody("run-lock", r#"touch /run/lock/planted"#, r#"[ -e /run/lock/planted ]"#),
    anybody("system-v-memory", r#"ipcmk --shmem 4096"#, r#"[ "$(grep -c . /proc/sysvipc/shm)" -gt 1 ]"#),
    anybody("system-v-semaphores", r#"ipcmk --semaphore 2"#, r#"[ "$(grep -c . /proc/sysvipc/sem)" -gt 1 ]"#),
    anybody("system-v-messages", r#"ipcmk --queue"#, r#"[ "$(grep -c . /proc/sysvipc/msg)" -gt 1 ]"#),
    anybody(
        "posix-queue",
        r#"perl -e 'my $name = "planted"; syscall($ENV{MQ_OPEN} + 0, $name, 0102, 0600, 0)'"#,
        r#"perl -e 'my $name = "planted"; exit !(syscall($ENV{MQ_OPEN} + 0, $name, 0, 0, 0) >= 0)'"#,
    ),
    // Processes.
    anybody("daemon", r#"daemon bash -c 'exec -a planted-daemon sleep 3600'"#, r#"soon alive planted-daemon"#),
    anybody(
        "double-fork",
        r#"(setsid env -u RUNNER_TRACKING_ID bash -c '(exec -a planted-double sleep 3600 &) &' >/dev/null 2>&1 &)"#,
        r#"soon alive planted-double"#,
    ),
    anybody(
        "deaf-daemon",
        r#"daemon bash -c 'trap "" HUP INT QUIT TERM USR1 USR2; exec -a planted-deaf sleep 3600'"#,
        r#"soon alive planted-deaf"#,
    ),
    anybody(
        "stopped-daemon",
        r#"daemon bash -c 'exec -a planted-stopped sleep 3600'; soon alive planted-stopped; kill -STOP $!"#,
        r#"soon alive planted-stopped"#,
    ),
    anybody(
        "daemon-that-comes-back",
        r#"daemon perl -e '$0 = "planted-phoenix "; $SIG{TERM} = $SIG{HUP} = sub { fork }; sleep 1 while 1'"#,
        r#"soon alive planted-phoenix"#,
    ),
    anybody(
        "chain-of-forks",
        // Each child ends its parent's life and inherits the lock.
        r#"exec 9>/var/tmp/chain; flock 9
           daemon perl -e 'for (;;) { my $pid = fork; exit if $pid; setpgrp; select undef, undef, undef, 0.1 }'"#,
        r#"[ -e /var/tmp/chain ] && ! flock -n /var/tmp/chain true"#,
    ),
    anybody(
        "abstract-socket",
        r#"daemon perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Local => "\0planted-socket", Listen => 1); sleep 3600'"#,
        r#"soon grep @planted-socket /proc/net/unix"#,
    ),
    // What a deletion could trip over.
    anybody("link-to-root", r#"ln -s / /work/planted-link"#, r#"[ -L /work/planted-link ]"#),
    anybody(
        "link-to-the-pristine-home",
        r#"ln -s /opt/oscr/home ~/.cache && ln -s /opt/oscr/home /tmp/planted-home"#,
        r#"[ -L ~/.cache ] || [ -L /tmp/planted-home ]"#,
    ),
    anybody(
        "swapped-directories",
        r#"mkdir -p /work/swap/a; ln -s /etc /work/swap/b
           daemon perl -e '$0 = "planted-swap "; chdir "/work/swap"; for (;;) { rename "a", "c"; rename "b", "a"; rename "c", "b"; select undef, undef, undef, 0.001 }'
           soon alive planted-swap"#,
        r#"[ -e /work/swap ]"#,
    ),
    anybody(
        "ten-thousand-levels",
        // In memory: some of Docker's file systems take a minute for it, to make and to remove.
        r#"mkdir /dev/shm/deep && perl -e 'chdir "/dev/shm/deep"; for (1 .. 10000) { mkdir "d" and chdir "d" or die "$_: $!" }'"#,
        r#"[ -d /dev/shm/deep/d/d/d ]"#,
    ),
    anybody(
        "locked-directories",
        r#"mkdir -p /work/locked/in/side && touch /work/locked/in/side/file && chmod 0 /work/locked/in/side /work/locked/in /work/locked"#,
        r#"[ -e /work/locked ]"#,
    ),
    anybody(
        "odd-names",
        r#"mkdir /work/odd && perl -e 'chdir "/work/odd"; for ("-rf", "*", "a\nb", "\xff\xfe", "\x1b[2J", " ", "x" x 240) { open my $f, ">", $_ or die }'"#,
        r#"[ "$(ls -f /work/odd | wc -l)" -ge 9 ]"#,
    ),
    anybody("fifo", r#"mkfifo /work/fifo; daemon cat /work/fifo"#, r#"[ -p /work/fifo ]"#),
    anybody(
        "socket",
        r#"perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "/work/socket", Listen => 1)'"#,
        r#"[ -S /work/socket ]"#,
    ),
    anybody("sparse-file", r#"truncate -s 1T /work/sparse || truncate -s 100M /work/sparse"#, r#"[ -e /work/sparse ]"#),
    anybody("set-uid-file", r#"cp /bin/true /work/set && chmod 6755 /work/set"#, r#"[ -u /work/set ]"#),
    anybody(
        "hard-links",
        r#"mkdir /work/links && touch /work/links/0 && perl -e 'for (1 .. 50) { link "/work/links/0", "/work/links/$_" or die }'"#,
        r#"[ -e /work/links/50 ]"#,
    ),
    anybody(
        "open-file",
        r#"daemon perl -e '$0 = "planted-open "; open F, "+>", "/work/open"; chdir "/work"; sleep 3600'"#,
        r#"soon [ -e /work/open ]"#,
    ),
    anybody(
        "many-files",
        r#"mkdir /dev/shm/many && perl -e 'for (1 .. 5000) { open my $f, ">", "/dev/shm/many/$_" or die }'"#,
        r#"[ -e /dev/shm/many/5000 ]"#,
    ),
    // What the emptied directories themselves are marked with. Last, because nothing can be made in them after it.
    anybody(
        "access-list",
        r#"attribute system.posix_acl_access "$MORE_RIGHTS" ~ /work"#,
        r#"has system.posix_acl_access ~ /work"#,
    ),
    anybody(
        "default-access-list",
        r#"attribute system.posix_acl_default "$NO_RIGHTS" ~ /work"#,
        r#"has system.posix_acl_default ~ /work"#,
    ),
    // What only root can change.
    root(
        "login-script",
        "/etc/profile.d/planted.sh",
        r#"as_root sh -c 'echo "true # planted" >/etc/profile.d/planted.sh'"#,
        r#"[ -e /etc/profile.d/planted.sh ]"#,
    ),
    root(
        "preloaded-library",
        "/etc/ld.so.preload",
        r#"as_root touch /etc/ld.so.preload"#,
        r#"[ -e /etc/ld.so.preload ]"#,
    ),
    root(
        "cron",
        "/etc/cron.d",
        r#"as_root sh -c 'mkdir -p /etc/cron.d; echo "true # planted" >/etc/cron.d/planted'"#,
        r#"[ -e /etc/cron.d/planted ]"#,
    ),
    root(
        "crontab",
        "/var/spool/cron",
        r#"as_root sh -c 'mkdir -p /var/spool/cron/crontabs; echo "true # planted" >/var/spool/cron/crontabs/runner'"#,
        r#"as_root ls /var/spool/cron/crontabs/runner"#,
    ),
    root(
        "program",
        "/usr/local/bin/planted",
        r#"as_root cp /bin/true /usr/local/bin/planted"#,
        r#"[ -e /usr/local/bin/planted ]"#,
    ),
    root(
        "changed-program",
        "/usr/bin/jq",
        r#"cp /usr/bin/jq /tmp/jq && echo planted >>/tmp/jq && as_root cp /tmp/jq /usr/bin/jq"#,
        r#"tail -c 8 /usr/bin/jq | grep planted"#,
    ),
    root(
        "agents-programs",
        "/opt/oscr/agent/bin/planted",
        r#"as_root touch /opt/oscr/agent/bin/planted"#,
        r#"[ -e /opt/oscr/agent/bin/planted ]"#,
    ),
    root(
        "pristine-home",
        "/opt/oscr/home/.planted",
        r#"as_root touch /opt/oscr/home/.planted"#,
        r#"[ -e /opt/oscr/home/.planted ]"#,
    ),
    root(
        "hook-of-the-operator",
        "/etc/oscr/hooks.d/job-completed/planted",
        r#"as_root sh -c 'cd /etc/oscr/hooks.d/job-completed && echo true >planted && chmod 755 planted'"#,
        r#"[ -e /etc/oscr/hooks.d/job-completed/planted ]"#,
    ),
    root(
        "environment-file",
        "/etc/environment",
        r#"as_root sh -c 'echo PLANTED=1 >>/etc/environment'"#,
        r#"grep PLANTED /etc/environment"#,
    ),
    root(
        "account",
        "/etc/passwd",
        r#"as_root sh -c 'echo planted:x:0:0::/:/bin/sh >>/etc/passwd'"#,
        r#"grep planted /etc/passwd"#,
    ),
    root(
        "init",
        "/usr/local/bin/oscr-entry",
        r#"cp /usr/local/bin/oscr-entry /tmp/init && echo planted >>/tmp/init && as_root mv -f /tmp/init /usr/local/bin/oscr-entry"#,
        r#"tail -c 8 /usr/local/bin/oscr-entry | grep planted"#,
    ),
];
