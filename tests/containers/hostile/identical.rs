//! Whatever jobs do to it, the container is the same for each of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use oscr_sim::patience::LIMIT;

use super::leftovers::{LEFTOVERS, Reach, TOOLS};
use super::quoted;
use crate::docker::Container;
use crate::world::World;

/// How many lives of one container are compared.
const LIVES: usize = 25;
/// The same of one whose places are volumes.
const LIVES_ON_VOLUMES: usize = 5;

/// What each life does last to the places that the job's user owns. Some file systems of containers have no flags.
const MARK: &str = r#"
for place in /work ~ /cache; do
    [ -d "$place" ] || continue
    flag 65728 "$place" && echo "flags on $place"
    attribute user.planted 78 "$place" && attribute system.posix_acl_access "$MORE_RIGHTS" "$place" &&
        attribute system.posix_acl_default "$NO_RIGHTS" "$place" && echo "lists on $place"
done
"#;

/// Lists all that the job can find, and waits until the test has read it.
///
/// Left out is what differs by nature: processes and the kernel's own files; sizes and times of directories and of what each life
/// makes anew; what the agent makes for this very job (its folder `_temp`, its logs). What no life makes anew is listed with its
/// times, and files with their numbers. They show that nobody wrote there, so that its content is read in the first life and the
/// last only.
///
/// Under load fuse-overlayfs sometimes gives a name twice and leaves another out: a listing with a name twice is made again.
const LIST: &str = r#"
set +e +o pipefail
case $(uname -m) in
    aarch64) list=11 get=8 ;;
    *) list=194 get=191 ;;
esac
root=$(echo /runner/*/); root=${root%/}
skip=(-path /proc -o -path /sys -o -path /dev/pts -o -path "$root/_diag" -o -path /work/_temp -o -path "/tmp/list*")
old=(/usr /var/lib/dpkg)
made=("${skip[@]}" -o -path /usr -o -path /var/lib/dpkg -o -path "$root/bin" -o -path "$root/externals")
found() {
    for _ in {1..8}; do
        find "$@" >/tmp/list.found
        [ -n "$(tr '\n' '?' </tmp/list.found | tr '\0' '\n' | sort | uniq -d)$(tr '\0' '?' </tmp/list.found | sort | uniq -d)" ] || break
    done
    cat /tmp/list.found
}
{
    found / \( "${skip[@]}" \) -prune -o -type d -printf 'd %p %m %U:%G\n' -o -printf '%y %p %m %U:%G %s %l\n'
    found "${old[@]}" -type d -printf 'unchanged %p %T@ %C@\n' -o -printf 'unchanged %p %i %T@ %C@\n'
    found / \( "${made[@]}" \) -prune -o -type f -readable -print0 | xargs -0 sha256sum
    if THOROUGH; then found "${old[@]}" "$root/bin" -type f -readable -print0 | xargs -0 sha256sum | sed 's/^/thorough /'; fi
    # Access lists and other attributes, and the flags that chattr can set.
    found / \( "${made[@]}" \) -prune -o \( -type d -o -type f \) -print0 | LISTXATTR=$list GETXATTR=$get perl -0 -ne '
        chomp;
        my ($names, $value, $flags) = ("\0" x 4096, "", pack("l!", 0));
        my $length = syscall($ENV{LISTXATTR} + 0, $_, $names, 4096);
        for my $name (split /\0/, substr($names, 0, $length > 0 ? $length : 0)) {
            $value = "\0" x 4096;
            my $length = syscall($ENV{GETXATTR} + 0, $_, $name, $value, 4096);
            print "attribute $_ $name ", $length > 0 ? unpack("H*", substr($value, 0, $length)) : $length, "\n";
        }
        printf "flags $_ %x\n", unpack("l!", $flags) & 0x628384ff if -d and open(my $it, "<", $_) and ioctl($it, 0x80086601, $flags);'
    # What lies in no directory.
    tail -q -n +2 /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg | sed 's/^/ipc /'
    stats=$(cat /proc/[0-9]*/stat)
    # Without what was started from outside: Docker's look at the health, and the test's own.
    sed 's/^\([0-9]*\) (\(.*\)) . \([0-9]*\) .*/\1 \3 \2/' <<<"$stats" | awk '
        { parent[$1] = $2; name[$1] = $3 }
        END { for (p in name) if (p == 1 || parent[p] == 1 || parent[p] != 0 && parent[parent[p]] != 0) print "process " name[p] }' | sort
    env | sed 's/^/variable /'
} 2>/dev/null | sed "s/$(basename "$root")/NAME/g" >/tmp/list
mv /tmp/list /tmp/listed
until [ -e /tmp/go-on ]; do sleep 0.05; done
"#;

/// A line without what tells of this one job or registration, in which no earlier job has a part.
fn without_this_job(line: &str) -> Option<&str> {
    // The agent's record of its registration: keys and numbers. That the files are there, and their modes and owners, is compared.
    for file in [".runner", ".credentials", ".credentials_rsaparams"] {
        let path = format!("/runner/NAME/{file}");
        if line.ends_with(&path) {
            return None;
        }
        if let Some(at) = line.find(&format!("{path} ")) {
            let owner = line[at..].match_indices(' ').nth(2);
            return owner.map(|(end, _)| &line[..at + end]);
        }
    }
    let numbers = ["variable GITHUB_RUN_", "variable GITHUB_JOB", "variable RUNNER_TRACKING_ID", "variable ACTIONS_"];
    (!numbers.iter().any(|prefix| line.starts_with(prefix))).then_some(line)
}

fn listing(container: &Container) -> BTreeSet<String> {
    let read = "until [ -e /tmp/listed ]; do sleep 0.1; done; cat /tmp/listed; touch /tmp/go-on";
    container.must_exec("0", read).lines().filter_map(without_this_job).map(str::to_owned).collect()
}

/// Fails if there is more in one than in the other, but for what only a thorough look sees.
#[track_caller]
fn same(life: usize, thorough: bool, first: &BTreeSet<String>, now: &BTreeSet<String>) {
    let mut differences = String::new();
    let differ = first.symmetric_difference(now).filter(|line| thorough || !line.starts_with("thorough "));
    for line in differ.take(50) {
        let _ = writeln!(differences, "{} {line}", if first.contains(line) { "gone:" } else { "new:" });
    }
    assert!(differences.is_empty(), "life {life} finds something else than life 1:\n{differences}");
}

pub type Case = (&'static str, fn(&World));

pub const CASES: [Case; 2] = [
    ("every_job_of_25_finds_the_same_files", every_job_of_25_finds_the_same_files),
    ("every_job_on_volumes_finds_the_same_files", every_job_on_volumes_finds_the_same_files),
];

fn every_job_of_25_finds_the_same_files(world: &World) {
    lives(world, LIVES);
}

/// On volumes, whose file system has flags and lets nobody off a list, and of which one is a cache.
fn every_job_on_volumes_finds_the_same_files(world: &World) {
    world.also("tests/containers/hostile/volumes.yml");
    world.set("OSCR_CACHE_DIRS", "/cache");
    let log = lives(world, LIVES_ON_VOLUMES);
    for place in ["/work", "/home/runner", "/cache"] {
        for marked in ["flags", "lists"] {
            assert!(log.lines().any(|line| line == format!("{marked} on {place}")), "{marked} on {place}: {log}");
        }
    }
}

/// Compares what so many lives find. The log of the last one's job.
fn lives(world: &World, lives: usize) -> String {
    world.also("tests/containers/hostile/once.yml");
    world.set("OSCR_MIN_UPTIME", "1s");
    let container = world.up_one();
    let mut before = 0;
    let mut first = BTreeSet::new();
    let mut last = String::new();
    for life in 1..=lives {
        before = world.forge.wait_runner(container.host(), before).id;
        let thorough = life == 1 || life == lives;
        let mut script = LIST.replace("THOROUGH", if thorough { "true" } else { "false" }) + TOOLS;
        for leftover in LEFTOVERS.iter().filter(|leftover| leftover.reach == Reach::Anybody) {
            let _ = writeln!(script, "timeout 10 bash -c {} </dev/null >/dev/null 2>&1", quoted(leftover.plant));
        }
        script += MARK;
        script += "echo \"left $(find /work /tmp /var/tmp /dev/shm ~ 2>/dev/null | wc -l)\"\nexit 0\n";
        let job = world.forge.script_on(container.host(), &format!("life {life}"), &script);
        let found = listing(&container);
        last = world.forge.finished(job).log;
        let left: usize = last.lines().find_map(|line| line.strip_prefix("left ")?.parse().ok()).unwrap_or(0);
        assert!(left > 15_000, "the job leaves something for the next one: {last}");
        if life == 1 {
            assert!(found.len() > 10_000, "{}", found.len());
            first = found;
        } else {
            same(life, thorough, &first, &found);
        }
        assert_eq!(container.wait_exit(LIMIT), 0);
        container.start();
    }
    last
}
