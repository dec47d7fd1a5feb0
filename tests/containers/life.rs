//! From the first registration to the next one.

use std::collections::BTreeSet;

use oscr_sim::forge::{JobSpec, JobStatus};
use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::Container;
use crate::world::{RUNNER, World};

/// Can only end when three jobs run at once: each waits for the other two.
const BARRIER: &str = r#"
started='[.[] | select(.started_at)] | length'
until [ "$(curl --silent --fail http://forge/_sim/jobs | jq "$started")" = 3 ]; do sleep 0.1; done
echo "three at once"
"#;

pub fn three_replicas_take_three_jobs_at_once_and_return_by_restart_alone(world: &World) {
    let containers = world.up(3);
    assert_eq!(containers.len(), 3);
    let first = world.forge.wait_idle(3);
    let names: BTreeSet<_> = first.iter().map(|runner| &runner.name).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for runner in &first {
        assert!(runner.ephemeral == world.provider().ephemeral && runner.name.len() <= 64, "{runner:?}");
        assert_eq!(runner.scope, world.provider().scope);
    }

    let jobs: Vec<u64> =
        (1..=3).map(|n| world.forge.submit(&JobSpec::script(&format!("barrier {n}"), BARRIER))).collect();
    let done: Vec<_> = jobs.iter().map(|id| world.forge.finished(*id)).collect();
    for job in &done {
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    }
    let takers: BTreeSet<_> = done.iter().map(|job| job.runner_id).collect();
    assert_eq!(takers.len(), 3, "{takers:?}");

    // The same three containers, each with a new registration, and none of the old ones.
    let newest = first.iter().map(|runner| runner.id).max().unwrap_or(0);
    let second = world.forge.until("three new runners listen", LIMIT, |forge| {
        let runners = forge.runners();
        (runners.len() == 3 && runners.iter().all(|r| r.id > newest && r.status == "online")).then_some(runners)
    });
    assert!(second.iter().all(|new| !names.contains(&new.name)));
    assert_eq!(world.containers(), containers);
    for container in &containers {
        let facts = container.inspect();
        assert_eq!(facts["RestartCount"], 1);
        assert!(second.iter().any(|runner| runner.name.contains(container.host())));
    }
}

/// Leaves something wherever a job can write, and processes that hide from the agent's own cleaning.
const MESS: &str = r#"
left=0
for folder in /work "$workspace" "$temp" "$HOME" /tmp /var/tmp /dev/shm /run/lock; do
    if echo litter >"$folder/oscr-litter" 2>/dev/null; then left=$((left + 1)); fi
done
mkdir -p "$HOME/.config/oscr-litter/locked" /tmp/oscr-litter.d/locked
touch "$HOME/.config/oscr-litter/locked/file" /tmp/oscr-litter.d/locked/file
chmod 0 "$HOME/.config/oscr-litter/locked" /tmp/oscr-litter.d/locked
ln -s / "$workspace/oscr-litter.link"
echo "echo oscr-litter" >>"$HOME/.bashrc"
rm "$HOME/.profile"
chmod 0777 "$HOME"
# In a session of its own, without the mark by which the agent finds orphans. Its first child becomes a zombie: when it ends, bash
# has turned into a process that never waits for it.
setsid env -u "$tracking" bash -c '(sleep 0.3) & exec -a oscr-litter sleep 3600' </dev/null >/dev/null 2>&1 &
until grep -qs '^State:.Z' /proc/[0-9]*/status; do sleep 0.1; done
echo "left: $left files, and a zombie"
"#;

/// Looks for all of that.
const SEARCH: &str = r#"
find / \( -path /proc -o -path /sys \) -prune -o -name 'oscr-litter*' -print 2>/dev/null | sed 's/^/leftover: /'
if grep -s oscr-litter "$HOME/.bashrc"; then echo "leftover: .bashrc"; fi
if [ ! -e "$HOME/.profile" ]; then echo "leftover: .profile is missing"; fi
for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q '^oscr-litter'; then echo "leftover: ${process#/proc/}"; fi
    if grep -qs '^State:.Z' "$process/status"; then echo "leftover: zombie ${process#/proc/}"; fi
done
echo "looked everywhere"
"#;

/// Everything about the files below a folder that a job could have changed, but for what the agent itself keeps there.
fn fingerprint(container: &Container, folder: &str) -> String {
    container.must_exec(
        "0",
        &format!(
            "cd {folder} && find . -path ./.config -prune -o \\( -type d -printf '%p %y %m\\n' -o -printf '%p %y %m %s %l\\n' \\) | sort && find . -path ./.config -prune -o -type f -exec sha256sum {{}} + | sort"
        ),
    )
}

pub fn what_a_job_leaves_is_gone_after_the_restart(world: &World) {
    let container = world.up_one();
    let before = world.forge.wait_runner(container.host(), 0);
    let pristine = fingerprint(&container, "/home/runner");
    assert!(pristine.contains(".bashrc"), "{pristine}");

    let mess = world.forge.finished(world.forge.script_on(container.host(), "mess", &world.provider().script(MESS)));
    assert_eq!(mess.result, Some(JobResult::Succeeded), "{}", mess.log);
    assert!(mess.log.contains("left: 8 files, and a zombie"), "{}", mess.log);

    world.forge.wait_runner(container.host(), before.id);
    assert_eq!(container.inspect()["RestartCount"], 1);
    assert_eq!(fingerprint(&container, "/home/runner"), pristine);
    assert_eq!(fingerprint(&container, "/opt/oscr/home"), pristine);
    let foreign = container.must_exec("0", "find /home/runner ! -user 1001");
    assert_eq!(foreign, "");

    let search = world.forge.finished(world.forge.script_on(container.host(), "search", SEARCH));
    assert_eq!(search.result, Some(JobResult::Succeeded), "{}", search.log);
    assert!(search.log.contains("looked everywhere"), "{}", search.log);
    assert!(!search.log.contains("leftover: "), "{}", search.log);
}

pub fn a_listening_runner_is_healthy(world: &World) {
    let container = world.up_one();
    world.forge.wait_idle(1);
    container.wait_event("health_status: healthy", LIMIT);
    assert_eq!(container.inspect()["State"]["Health"]["Status"], "healthy");
    let status = container.status();
    assert_eq!(status["phase"], "listening", "{status}");
    assert_eq!(status["healthy"], true, "{status}");
    // Not even the runner's user is told more than that, or less.
    let (good, said) = container.exec(RUNNER, "oscr-entry health");
    assert!(good, "{said}");
}

pub fn a_job_can_write_only_to_what_is_wiped(world: &World) {
    let container = world.up_one();
    let runner = world.forge.wait_runner(container.host(), 0);
    // `test` rather than `-type c`: find believes the directory's entry, and not what is mounted over it, such as /dev/null
    // in place of a secret that was not given.
    let look = r"find / \( -path /proc -o -path /sys -o -path /dev \) -prune -o -writable ! -type l -exec test ! -c {} \; -print";
    let writable = container.must_exec(RUNNER, &format!("{look} 2>/dev/null || true"));
    let root = format!("/runner/{}", runner.name);
    let places = [root.as_str(), "/work", "/home/runner", "/tmp", "/var/tmp", "/run/lock"];
    let within =
        |path: &str, place: &str| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let beyond: Vec<&str> = writable
        .lines()
        // Everybody may speak to PID 1, which looks at who it is.
        .filter(|path| *path != "/run/oscr/control.sock")
        .filter(|path| !places.iter().any(|place| within(path, place)))
        .collect();
    assert!(writable.contains(&root), "{writable}");
    assert!(beyond.is_empty(), "{beyond:?}");
}

pub fn a_registration_that_the_forge_forgets_to_remove_is_removed(world: &World) {
    world.forge.order(serde_json::json!({"ephemeral_removal": "never"}));
    let container = world.up_one();
    let runner = world.forge.wait_runner(container.host(), 0);
    let job = world.forge.submit(&JobSpec::script("quick", "true"));
    world.forge.wait_job(job, JobStatus::Completed, LIMIT);
    world
        .forge
        .until("the old registration is gone", LIMIT, |f| f.runners().iter().all(|r| r.id != runner.id).then_some(()));
}
