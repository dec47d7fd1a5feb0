//! What a job tries at once, and sees at once whether it works.

use super::End::{self, Denied, ForRoot, Possible};

/// One attempt. Its name is what `docs/security.md` calls it.
pub struct Attempt {
    pub name: &'static str,
    /// The same on something that a job may do. It must work, or a refusal would only show that the attempt is badly made.
    pub control: &'static str,
    /// Succeeds if the job got what it wanted. `as_root` is whatever the posture lets a job be.
    pub attack: &'static str,
    pub end: End,
}

const fn row(name: &'static str, end: End, control: &'static str, attack: &'static str) -> Attempt {
    Attempt { name, control, attack, end }
}

/// What the attempts have in common. `$TOKEN` and `$CANARY` are patterns that match the forge's token and a word of the job's own,
/// and not themselves, so that no search finds itself.
pub const TOOLS: &str = r#"
set +e +o pipefail
T=/tmp/tools; mkdir -p $T; export T
case $(uname -m) in
    aarch64) export PTRACE=117 READV=270 IOCTL=29 ;;
    *) export PTRACE=101 READV=310 IOCTL=16 ;;
esac
export TOKEN='PATTERN' CANARY='[c]anary-7f3a'
word=canary; word=$word-7f3a
echo "$word" >"$HOME/notes"
env "ITS=$word" sleep 300 & export ITS=$!
bash -c "exec -a '$word' sleep 300" &
until grep -qa "$CANARY" "/proc/$!/cmdline" && grep -qa "$CANARY" "/proc/$ITS/environ"; do sleep 0.05; done
as_root() { if sudo -n true 2>/dev/null; then sudo -n "$@"; else "$@"; fi; }
phase() { oscr-entry status --json | jq -r .phase; }
for process in /proc/[0-9]*; do
    case $(cat "$process/comm" 2>/dev/null) in
        Runner.Listener) export LISTENER=${process#/proc/} ;;
        Runner.Worker) export WORKER=${process#/proc/} ;;
    esac
done
export -f as_root phase

# memory PID PATTERN: is there a match in all that this process has in memory?
cat >$T/memory <<'END'
my ($pid, $pattern) = @ARGV;
open(my $maps, '<', "/proc/$pid/maps") or exit 2;
open(my $memory, '<:raw', "/proc/$pid/mem") or exit 2;
while (<$maps>) {
    my ($from, $to, $reads) = /^([0-9a-f]+)-([0-9a-f]+) (r)/ or next;
    next if /\[v/;
    my ($at, $end, $last) = (hex $from, hex $to, '');
    while ($at < $end) {
        my $n = $end - $at < 1 << 20 ? $end - $at : 1 << 20;
        sysseek($memory, $at, 0) && sysread($memory, my $part, $n) or last;
        if ("$last$part" =~ /$pattern/) { exit 0 }
        $last = substr($part, -100);
        $at += $n;
    }
}
exit 1;
END
# everywhere PATTERN: the same in every process but this one.
cat >$T/everywhere <<'END'
#!/bin/bash
found=1
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    if [ "$pid" != $$ ] && perl "${0%/*}/memory" "$pid" "$1" 2>/dev/null; then echo "$pid: $(cat "$process/comm")"; found=0; fi
done
exit $found
END
# copy PID: reads a byte of another's memory by a system call of its own. A bad address is success: it was looked for.
cat >$T/copy <<'END'
my $pid = shift;
my $at = 0x400000;
if (open(my $maps, '<', "/proc/$pid/maps")) { while (<$maps>) { if (/^([0-9a-f]+)-\S+ r/) { $at = hex $1; last } } }
my $to = "\0" x 8;
my $here = pack('QQ', unpack('Q', pack('P', $to)), 8);
my $there = pack('QQ', $at, 8);
my $n = syscall(($ENV{READV} || $ARGV[0]) + 0, $pid, $here, 1, $there, 1, 0);
exit($n > 0 || $!{EFAULT} ? 0 : 1);
END
# seize PID: begins to trace it.
cat >$T/seize <<'END'
exit(syscall(shift() + 0, 0x4206, shift() + 0, 0, 0) == 0 ? 0 : 1);
END
# ask LINE: one request to PID 1, and its answer.
cat >$T/ask <<'END'
use IO::Socket::UNIX;
alarm 5;
my $socket = IO::Socket::UNIX->new('/run/oscr/control.sock') or die "no socket: $!";
print $socket shift, "\n"; $socket->flush;
print scalar <$socket>;
END
# flag FILE BIT: sets an attribute, as chattr does.
cat >$T/flag <<'END'
my ($file, $bit) = @ARGV;
open(my $it, '<', $file) or exit 2;
my $flags = pack('l!', 0);
ioctl($it, 0x80086601, $flags) or exit 3;
$flags = pack('l!', unpack('l!', $flags) | $bit);
exit(ioctl($it, 0x40086602, $flags) ? 0 : 1);
END
chmod +x $T/everywhere

attempt() {
    if ! timeout -k 1 20 bash -c "$2" </dev/null >$T/said 2>&1; then verdict='the control fails'
    else
        timeout -k 1 20 bash -c "$3" </dev/null >$T/said 2>&1
        case $? in
            0) verdict=possible ;;
            124 | 137) verdict=hangs ;;
            *) verdict=denied ;;
        esac
    fi
    echo "[$1] $verdict"
    grep -v "$TOKEN" $T/said | head -n 3 | cut -c 1-200 | sed 's/^/    /'
}
"#;

/// What a job can see of the secret.
pub const SECRETS: &[Attempt] = &[
    row("own-environment", Denied, r#"env "ITS=canary-7f3a" env | grep -qa "$CANARY""#, r#"env | grep -qa "$TOKEN""#),
    row(
        "environments",
        Denied,
        r#"grep -qsa "$CANARY" /proc/[0-9]*/environ"#,
        r#"as_root grep -qsa "$TOKEN" /proc/[0-9]*/environ /proc/[0-9]*/task/*/environ"#,
    ),
    row(
        "arguments",
        Denied,
        r#"grep -qsa "$CANARY" /proc/[0-9]*/cmdline"#,
        r#"as_root grep -qsa "$TOKEN" /proc/[0-9]*/cmdline"#,
    ),
    row("memories", Denied, r#"$T/everywhere "$CANARY""#, r#"as_root $T/everywhere "$TOKEN""#),
    row(
        "readable-files",
        Denied,
        r#"grep -qrsa "$CANARY" "$HOME""#,
        r#"grep -lrsa --devices=skip --exclude-dir=proc --exclude-dir=sys "$TOKEN" / | grep ."#,
    ),
    row(
        "secret-file",
        ForRoot,
        r#"grep -qa "$CANARY" "$HOME/notes""#,
        r#"as_root grep -qa "$TOKEN" /run/secrets/github_pat"#,
    ),
    row(
        "secret-file-by-link",
        Denied,
        r#"ln "$HOME/notes" "$HOME/linked" && ln -s "$HOME/notes" "$HOME/way" && grep -qa "$CANARY" "$HOME/linked" "$HOME/way""#,
        r#"ln /run/secrets/github_pat /run/lock/linked || { ln -s /run/secrets/github_pat /tmp/way; cat /tmp/way; }"#,
    ),
    row(
        "secret-file-renamed",
        Denied,
        r#"mkdir /tmp/mine && touch /tmp/mine/a && mv /tmp/mine/a /tmp/mine/b && chmod 777 /tmp/mine/b"#,
        r#"mv /run/secrets/github_pat /run/secrets/open || chmod 777 /run/secrets/github_pat || mv /run/secrets /run/open"#,
    ),
    row(
        "state-file",
        ForRoot,
        r#"find "$HOME" -type f -exec cat {} + | grep -q ."#,
        r#"as_root find /var/lib/oscr -type f -exec cat {} + | grep -q ."#,
    ),
    row(
        "moved-aside",
        ForRoot,
        r#"mkdir /tmp/left && ls /tmp/left && mv /tmp/left /tmp/moved"#,
        r#"as_root ls /var/lib/oscr/trash || as_root mv /var/lib/oscr/trash /tmp/trash"#,
    ),
    row(
        "token-in-state-file",
        Denied,
        r#"grep -qrsa "$CANARY" "$HOME""#,
        r#"as_root grep -qrsa "$TOKEN" /var/lib/oscr /run/oscr"#,
    ),
    row(
        "status",
        Denied,
        r#"oscr-entry status --json | grep -q phase"#,
        r#"{ oscr-entry status --json; as_root oscr-entry status --json; oscr-entry check; } 2>&1 | grep -qa "$TOKEN""#,
    ),
    row(
        "docker-socket",
        Denied,
        r#"test -S /run/oscr/control.sock"#,
        r#"find /run /var/run -name 'docker*.sock' -o -name 'containerd*.sock' 2>/dev/null | grep ."#,
    ),
    row(
        "agents-credentials",
        Possible,
        r#"grep -qa "$CANARY" "$HOME/notes""#,
        r#"cat /runner/*/.credentials | grep -q ."#,
    ),
];

/// What a job can do to PID 1, and to what PID 1 stands on.
pub const PID_1: &[Attempt] = &[
    row(
        "pid1-environment",
        Denied,
        r#"grep -qa . "/proc/$ITS/environ""#,
        r#"as_root head -c 1 /proc/1/environ | grep -qa ."#,
    ),
    row("pid1-memory", Denied, r#"perl $T/memory "$ITS" "$CANARY""#, r#"as_root perl $T/memory 1 ."#),
    row(
        "pid1-memory-by-call",
        Denied, // Docker's filter may forbid the call altogether, which is as good.
        r#"perl -MErrno $T/copy "$ITS" || grep -q '^Seccomp:.2' /proc/self/status"#,
        r#"as_root perl -MErrno $T/copy 1 $READV"#,
    ),
    row(
        "pid1-trace",
        Denied,
        r#"perl -e 'my $pid = fork; if (!$pid) { sleep 5; exit } my $good = syscall($ENV{PTRACE} + 0, 0x4206, $pid, 0, 0) == 0; kill 9, $pid; exit !$good'"#,
        r#"as_root perl $T/seize $PTRACE 1"#,
    ),
    row("pid1-maps", Denied, r#"grep -q . "/proc/$ITS/maps""#, r#"as_root grep -q . /proc/1/maps"#),
    row(
        "pid1-descriptors",
        Denied,
        r#"ls -l "/proc/$ITS/fd" | grep -e '->'"#,
        r#"as_root ls -l /proc/1/fd | grep -e '->'"#,
    ),
    row("pid1-root", Denied, r#"ls "/proc/$ITS/root/" | grep ."#, r#"as_root ls /proc/1/root/ | grep ."#),
    row(
        "pid1-kill",
        Denied,
        r#"sleep 60 & kill -KILL $!; wait $!; ! kill -0 $!"#,
        r#"as_root sh -c 'kill -KILL 1; kill -SEGV 1; kill -ABRT 1'; [ "$(phase)" != running ]"#,
    ),
    row(
        "pid1-stop",
        Denied,
        r#"sleep 60 & kill -STOP $!; until grep '^State:.T' /proc/$!/status; do sleep 0.05; done; kill -KILL $!"#,
        r#"as_root sh -c 'kill -STOP 1; kill -TSTP 1'; grep '^State:.T' /proc/1/status || [ "$(phase)" != running ]"#,
    ),
    row(
        "pid1-core-dump",
        Denied,
        r#"ulimit -c unlimited; cd "$(mktemp -d)"; grep 'Max core file size  *unlimited' /proc/$BASHPID/limits"#,
        r#"as_root find / -xdev \( -path /proc -o -path /sys -o -path /usr \) -prune -o -name 'core*' -type f -size +64k -print | grep ."#,
    ),
    row(
        "pid1-out-of-memory",
        ForRoot,
        r#"echo 500 >/proc/self/oom_score_adj"#,
        r#"as_root sh -c 'echo 1000 >/proc/1/oom_score_adj'"#,
    ),
    row(
        "spared-when-out-of-memory",
        Denied,
        r#"echo 500 >/proc/self/oom_score_adj"#,
        r#"as_root sh -c 'echo -900 >/proc/self/oom_score_adj'"#,
    ),
    row(
        "pid1-limits",
        Denied,
        r#"sleep 60 & prlimit --pid $! --nofile=64:64"#,
        r#"prlimit --pid 1 --nofile=4096:4096"#,
    ),
    row("priority", Denied, r#"renice -n 1 $$"#, r#"as_root renice -n -5 $$"#),
    row("mount", Denied, r#"command -v mount"#, r#"as_root mount -t tmpfs none /mnt"#),
    row("unmount", Denied, r#"grep -q ' /proc/sys ' /proc/self/mounts"#, r#"as_root umount /proc/sys"#),
    row(
        "namespaces",
        Denied,
        r#"command -v unshare"#,
        r#"unshare --user --map-root-user true || as_root unshare --mount true || as_root nsenter --target 1 --mount true"#,
    ),
    row("device-node", Denied, r#"mknod "$HOME/fifo" p"#, r#"as_root mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk"#),
    row("chroot", Denied, r#"command -v chroot"#, r#"as_root chroot / true"#),
    row(
        "kernel-settings",
        Denied,
        r#"cat /proc/sys/kernel/core_pattern"#,
        // The same value again: if it could be written, nothing would be changed.
        r#"as_root sh -c 'now=$(cat /proc/sys/kernel/core_pattern); echo "$now" >/proc/sys/kernel/core_pattern'"#,
    ),
    row(
        "kernel-memory",
        Denied,
        r#"head -c 1 /dev/urandom | grep -qac ''"#,
        r#"as_root head -c 1 /proc/kcore /dev/mem /dev/kmem /dev/kmsg | grep -qa ."#,
    ),
    row(
        "raw-sockets",
        Denied,
        r#"perl -MSocket -e 'exit !socket(my $s, AF_INET, SOCK_DGRAM, 0)'"#,
        r#"as_root perl -MSocket -e 'exit !socket(my $s, AF_INET, SOCK_RAW, 1)'"#,
    ),
    row(
        "immutable-file",
        Denied,
        r#"touch /dev/shm/plain && perl $T/flag /dev/shm/plain 64"#,
        r#"touch /dev/shm/stays && as_root perl $T/flag /dev/shm/stays 16"#,
    ),
];

/// What a job can make PID 1 believe, and what it can reach of other replicas. The last one makes PID 1 drain where it works.
pub const CONTROL: &[Attempt] = &[
    row("drain-command", Denied, r#"oscr-entry status"#, r#"oscr-entry drain"#),
    row(
        "drain-request",
        Denied,
        r#"perl $T/ask '{"request":"status"}' | grep phase"#,
        r#"perl $T/ask '{"request":"drain","exit":true}' | grep '"ok"'"#,
    ),
    row(
        "forged-job-completed",
        Denied,
        r#"[ "$(phase)" = running ] && oscr-entry hook --socket /run/oscr/control.sock --hooks /tmp/none job-completed"#,
        r#"timeout 5 oscr-entry hook --socket /run/oscr/control.sock --hooks /tmp/none job-completed; timeout 5 bash /run/oscr/hooks/job-completed.sh; [ "$(phase)" != running ]"#,
    ),
    row(
        "forged-job-started",
        Denied,
        r#"oscr-entry status --json | grep "$GITHUB_REPOSITORY" && bash /run/oscr/hooks/job-started.sh"#,
        r#"GITHUB_REPOSITORY=evil/forged GITHUB_JOB=forged timeout 5 oscr-entry hook --socket /run/oscr/control.sock --hooks /tmp/none job-started
           oscr-entry status --json | grep forged || [ "$(phase)" != running ]"#,
    ),
    row(
        "forged-event",
        Denied,
        r#"[ "$(phase)" = running ] && bash /run/oscr/hooks/job-started.sh"#,
        r#"echo '{"pull_request":{"head":{"repo":{"full_name":"evil/fork","fork":true}}}}' >/tmp/event.json
           GITHUB_EVENT_NAME=pull_request GITHUB_EVENT_PATH=/tmp/event.json timeout 5 oscr-entry hook --socket /run/oscr/control.sock --hooks /tmp/none job-started
           [ "$(phase)" != running ]"#,
    ),
    row(
        "flooded-control-socket",
        Denied,
        r#"oscr-entry status"#,
        r#"head -c 300000 /dev/urandom >/tmp/garbage
           for n in $(seq 40); do
               curl --silent --max-time 2 --unix-socket /run/oscr/control.sock --data-binary @/tmp/garbage http://x/ >/dev/null &
           done
           wait; [ "$(phase)" != running ]"#,
    ),
    row(
        "forged-control-socket",
        Denied,
        r#"perl -MIO::Socket::UNIX -e 'exit !IO::Socket::UNIX->new(Local => "/tmp/mine.sock", Listen => 1)'"#,
        r#"rm -f /run/oscr/control.sock || mv /run/oscr /run/oscr-away"#,
    ),
    row(
        "forged-output",
        Denied,
        // The agent's own words, which PID 1 reads.
        r#"test -e "/proc/$LISTENER/fd/1" && perl -e 'exit !(syscall(434, $ENV{ITS} + 0, 0) >= 0)'"#,
        r#"for said in 'Job forged-marker completed with result: Failed' 'Running job: forged-marker' \
               'Skipping message Job forged-marker' 'Listening for Jobs'; do
               echo "2026-01-01 00:00:00Z: $said" | as_root tee "/proc/$LISTENER/fd/1"
           done
           perl -e '
               my $process = syscall(434, $ENV{LISTENER} + 0, 0);
               my $fd = syscall(438, $process, 1, 0);
               if ($fd >= 0 and open my $out, ">&=", $fd) { print $out "2026-01-01 00:00:00Z: Running job: forged-marker\n" }'
           timeout 5 oscr-entry status --json | grep forged-marker || [ "$(phase)" != running ]"#,
    ),
    row(
        "stopped-listener-and-worker",
        Denied,
        r#"[ "$LISTENER" -gt 1 ] && [ "$WORKER" -gt 1 ] && kill -0 "$LISTENER" "$WORKER""#,
        // Both go on, and the job with them: it could not tell its result otherwise.
        r#"kill -STOP "$LISTENER" "$WORKER" || as_root kill -STOP "$LISTENER" "$WORKER" || exit 1
           for n in $(seq 150); do
               if ! grep -q '^State:.T' "/proc/$LISTENER/status" "/proc/$WORKER/status"; then exit 1; fi
               sleep 0.1
           done"#,
    ),
    row(
        "descriptors-of-others",
        Denied,
        // Where they lead can be seen, and what others may open can be opened.
        r#"ls -l "/proc/$LISTENER/fd" "/proc/$WORKER/fd" | grep -e '->' && exec 8</etc/hostname && head -c 1 /proc/$$/fd/8 | grep -q ."#,
        // Of the listener, the worker, and hooks that are stopped in the middle of their work: anything that is closed to the job by its name.
        r#"for n in 1 2 3 4 5 6; do
               oscr-entry hook --socket /run/oscr/control.sock --hooks /tmp/none job-started &
               sleep "0.00$n"; kill -STOP $!; hooks="$hooks $!"
           done
           perl -e '
               for my $place (glob "/proc/[0-9]*/fd/*") {
                   my ($pid, $fd) = $place =~ /(\d+)/g;
                   my $to = readlink $place or next;
                   next if $pid == $$ || $to !~ m{^/} || $to eq "/dev/null";
                   my $process = syscall(434, $pid + 0, 0);
                   my $got = $process < 0 ? -1 : syscall(438, $process, $fd + 0, 0);
                   my $it;
                   $got >= 0 ? open($it, "<&=", $got) : open($it, "<", $place) or next;
                   next if (stat $it)[4] == $> || open(my $same, "<", $to);
                   print "$place $to\n"; $found = 1;
               }
               exit !$found'
           found=$?
           kill -CONT $hooks; wait; [ "$(phase)" = running ] || exit 0; exit $found"#,
    ),
    row(
        "hook-scripts",
        ForRoot,
        r#"test -r /run/oscr/hooks/job-completed.sh"#,
        r#"as_root sh -c 'echo "true # planted" >>/run/oscr/hooks/job-completed.sh'"#,
    ),
    row(
        "other-replicas-lock",
        Denied,
        r#"touch /tmp/lock && flock -n /tmp/lock true"#,
        r#"as_root flock -n /var/lock/oscr/board-1.lock true"#,
    ),
    row("lock-directory", ForRoot, r#"touch /run/lock/mine"#, r#"as_root touch /var/lock/oscr/planted"#),
    row(
        "token-cache",
        ForRoot,
        r#"find "$HOME" -type f -exec cat {} + | grep -q ."#,
        r#"as_root find /var/cache/oscr -type f -exec cat {} + | grep -q ."#,
    ),
    row(
        "other-replicas-processes",
        Denied,
        r#"[ "$(cat /proc/[0-9]*/comm | grep -cx Runner.Listener)" = 1 ]"#,
        r#"[ "$(cat /proc/[0-9]*/comm | grep -cx Runner.Listener)" -gt 1 ]"#,
    ),
    row("pid1-term", ForRoot, r#"sleep 60 & kill -TERM $!; wait $!; ! kill -0 $!"#, r#"as_root sh -c 'kill -TERM 1'"#),
];

/// All of them, in the order in which they are tried.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    SECRETS.iter().chain(PID_1).chain(CONTROL)
}
