//! What a job uses up: everything that there is of it in its container, and nothing beyond.

use super::End::{self, Denied};

/// One attempt to use something up. Its name is what `docs/security.md` calls it.
pub struct Limit {
    pub name: &'static str,
    /// Prints `bounded` once it was stopped where it had to be.
    pub script: &'static str,
    pub end: End,
}

const fn row(name: &'static str, script: &'static str) -> Limit {
    Limit { name, script, end: Denied }
}

/// Settings of the container under which they are tried: small, so that the attempts are.
pub const SETTINGS: &[(&str, &str)] = &[
    ("OSCR_PIDS", "400"),
    ("OSCR_MEMORY", "300m"),
    ("OSCR_TMPFS_WORK", "32m"),
    ("OSCR_TMPFS_TMP", "16m"),
    ("OSCR_TMPFS_HOME", "16m"),
    ("OSCR_TMPFS_RUNNER", "100m"),
    ("OSCR_MIN_FREE", "0"),
];

/// What the attempts have in common.
pub const TOOLS: &str = r#"
set +e +o pipefail
as_root() { if sudo -n true 2>/dev/null; then sudo -n "$@"; else "$@"; fi; }
phase() { oscr-entry status --json | jq -r .phase; }
for process in /proc/[0-9]*; do
    case $(cat "$process/comm" 2>/dev/null) in
        Runner.Listener) export LISTENER=${process#/proc/} ;;
        Runner.Worker) export WORKER=${process#/proc/} ;;
    esac
done
export -f as_root phase
exhaust() {
    timeout -k 1 40 bash -c "$2" </dev/null >"$HOME/said" 2>&1
    if [ "$(tail -n 1 "$HOME/said")" = bounded ] && [ "$(phase)" = running ]; then echo "[$1] denied"; else
        echo "[$1] possible"
        tail -n 3 "$HOME/said" | cut -c 1-200 | sed 's/^/    /'
    fi
}
"#;

pub const LIMITS: &[Limit] = &[
    row(
        "processes",
        r#"perl -e '
            my @pids;
            for my $n (1 .. 2000) {
                my $pid = fork;
                if (!defined $pid) { $full = $n; last }
                if (!$pid) { sleep 60; exit }
                push @pids, $pid;
            }
            kill 9, @pids; wait for @pids;
            print $full ? "bounded\n" : "2000 processes\n"'"#,
    ),
    row(
        "memory",
        // The kernel ends whoever takes it, and neither PID 1 nor the agent.
        r#"perl -e 'push @all, "x" x (1 << 20) for 1 .. 2000'; [ $? = 137 ] && echo bounded"#,
    ),
    row(
        "memory-of-root",
        r#"as_root perl -e '
            open my $me, ">", "/proc/self/oom_score_adj"; print $me "-1000\n"; close $me;
            push @all, "x" x (1 << 20) for 1 .. 2000'
        [ $? = 137 ] && echo bounded"#,
    ),
    row(
        "work-directory",
        r#"head -c 1G /dev/zero >/work/full 2>&1 || [ "$(stat -c %s /work/full)" -lt 100000000 ] && echo bounded"#,
    ),
    row(
        "temporary-directory",
        r#"head -c 1G /dev/zero >/tmp/full 2>&1 || [ "$(stat -c %s /tmp/full)" -lt 100000000 ] && echo bounded"#,
    ),
    row(
        "shared-memory-files",
        r#"head -c 1G /dev/zero >/dev/shm/full 2>&1 || [ "$(stat -c %s /dev/shm/full)" -lt 100000000 ] && rm /dev/shm/full && echo bounded"#,
    ),
    row(
        "descriptors",
        // In one process as many as it may have, or ten thousand: PID 1 has its own, and still answers.
        r#"perl -e '
            for (1 .. 10000) { open my $f, "<", "/dev/null" or last; push @all, $f }
            print STDERR scalar(@all), " descriptors\n";
            my $said = `oscr-entry status --json`;
            print $said =~ /"running"/ ? "bounded\n" : "PID 1 said: $said\n"'"#,
    ),
    row(
        "file-watches",
        r#"perl -e '
            my $call = `uname -m` =~ /aarch64/ ? 26 : 294;
            for (1 .. 1000) { last if syscall($call, 0) < 0 }
            my $said = `oscr-entry status --json`;
            print $said =~ /"running"/ ? "bounded\n" : "PID 1 said: $said\n"'"#,
    ),
    row(
        "agents-output",
        // A hundred megabytes into the pipe that PID 1 reads the agent's words from, which no job can open; and PID 1 stays small.
        r#"yes "2026-01-01 00:00:00Z: Listening for Jobs $(head -c 900 /dev/zero | tr '\0' x)" | head -c 100M | as_root tee "/proc/$LISTENER/fd/1" >/dev/null
        peak=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/1/status)
        echo "PID 1 had $peak kB"
        [ "$peak" -gt 0 ] && [ "$peak" -lt 65536 ] && echo bounded"#,
    ),
    row(
        "workers-output",
        // The worker's own, which becomes the listener's, can be opened: it is of the job's user.
        r#"yes "2026-01-01 00:00:00Z: Listening for Jobs $(head -c 900 /dev/zero | tr '\0' x)" | head -c 10M >"/proc/$WORKER/fd/1" || exit 1
        peak=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' /proc/1/status)
        echo "PID 1 had $peak kB"
        [ "$peak" -gt 0 ] && [ "$peak" -lt 65536 ] && echo bounded"#,
    ),
];

/// The last words of the job, whose end it does not see: a fork bomb that takes all processes there may be.
pub const BOMB: &str = r#"
yes "a line of the job's own log $(head -c 200 /dev/zero | tr '\0' x)" | head -c 2M
echo
echo "[the bomb] goes off"
until curl --silent http://forge/_sim/jobs | grep -q '.the bomb. goes off'; do sleep 0.1; done
setsid env -u RUNNER_TRACKING_ID bash -c 'bomb() { bomb | bomb & }; bomb' </dev/null >/dev/null 2>&1 &
until ! perl -e 'exit !defined(my $pid = fork)' 2>/dev/null; do :; done
exit 0
"#;
