//! Lives as a whole: what is printed of one, what jobs call themselves and leave, and many at once.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use super::super::engine::told;
use super::super::world::{World, gated};
use super::{Scenario, both, either};
use crate::forge::{JobSpec, JobStatus};
use crate::markers::MARKERS;
use crate::protocol::JobResult;

pub(super) const TABLE: &[Scenario] = &[
    either("thirty", "thirty jobs on three runners: none is lost, none is done twice", thirty),
    either("markers", "a job whose name and payload are the agent's own words", markers),
    either("access-list", "a default access list of no rights, which a job leaves behind", access_list),
    both("lines", "the lines of one life at `info`", lines),
];

fn thirty(world: &World<'_>) -> Result<(), String> {
    const JOBS: usize = 30;
    let runners = (0..3).map(|_| world.runner(&[])).collect::<Result<Vec<_>, _>>()?;
    let over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        // At once: Docker's own restarts wait longer each time for what lives for less than ten seconds.
        for runner in &runners {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let _ = told(&["wait", &runner.id]);
                    if !over.load(Ordering::SeqCst) {
                        let _ = told(&["start", &runner.id]);
                    }
                }
            });
        }
        let done = (0..JOBS)
            .map(|n| world.forge.script(&format!("job-{n}"), &format!("echo \"this is $((1 + {n}))\"")))
            .collect::<Result<Vec<_>, _>>()
            .and_then(|jobs| {
                jobs.iter().map(|job| world.forge.ends(*job, JobResult::Succeeded)).collect::<Result<Vec<_>, _>>()
            });
        over.store(true, Ordering::SeqCst);
        for runner in &runners {
            // It may have ended by itself, and be started again for a last time.
            let _ = runner.signal("KILL");
        }
        done
    })?;
    let events = world.forge.events()?;
    for (n, job) in done.iter().enumerate() {
        let begun = events.iter().filter(|event| event.kind == "job_started" && event.job == Some(job.id)).count();
        check!(begun == 1, "{} was begun {begun} times", job.name);
        let said = format!("this is {}", n + 1);
        check!(
            job.log.lines().filter(|line| *line == said).count() == 1,
            "{} did not do its work once: {}",
            job.name,
            job.log
        );
    }
    let takers: BTreeSet<_> = done.iter().filter_map(|job| job.runner_id).collect();
    check!(takers.len() == JOBS, "{JOBS} jobs had {} registrations", takers.len());
    Ok(())
}

/// A step that writes the words to its own output and, as the listener's, to its worker's, waits, and fails.
fn shouting() -> String {
    let mut script = "worker=$PPID; exec 3>/proc/$worker/fd/1 2>/dev/null || exec 3>/dev/null\n".to_owned();
    let _ = write!(script, "tee /dev/fd/3 <<'END'\n{}\nEND\n{}; exit 1", MARKERS.join("\n"), gated("/tmp"));
    script
}

fn markers(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let idle = runner.status_is("it listens", |status| status["phase"] == "listening")?;
    let (name, many) = (MARKERS.join(" "), MARKERS.join("\n"));
    let payload = json!({ "inputs": { "text": many }, "matrix": [name, { (many.as_str()): many }], "head_commit": { "message": many } });
    let job = world.forge.submit(&JobSpec { payload, ..JobSpec::script(&name, &shouting()) })?;
    runner.file("/tmp/begun")?;
    let busy = runner.status_is("its job runs", |status| status["phase"] == "running")?;
    for field in ["agent", "connection", "healthy", "reason", "last_error", "agent_age"] {
        check!(busy[field] == idle[field], "{field} was {}, and is {}", idle[field], busy[field]);
    }
    runner.give("/tmp/go-on")?;
    world.forge.ends(job, JobResult::Failed)?;
    runner.exits(0)?;
    check!(runner.ended()? == ("failed".into(), "null".into()), "PID 1 says {:?}", runner.ended()?);
    world.forge.empty()
}

/// Sets a default access list of no rights on the places that jobs work in.
const LEAVE_LISTS: &str = r#"case $(uname -m) in aarch64) call=5 ;; *) call=188 ;; esac
perl -e 'my ($call, @places) = @ARGV; my $name = "system.posix_acl_default"; my $set = 0;
    my $list = pack "H*", "0200000001000000ffffffff04000000ffffffff20000000ffffffff";
    for (@places) { $set++ if syscall($call + 0, $_, $name, $list, length $list, 0) == 0 } print "lists: $set\n"' "$call" /work "$HOME" /tmp"#;

/// Looks for them, and makes files there, which not every kernel keeps one from.
const LOOK_FOR_LISTS: &str = r#"case $(uname -m) in aarch64) call=8 ;; *) call=191 ;; esac
perl -e 'my ($call, @places) = @ARGV; my $name = "system.posix_acl_default"; my $found = 0; my $to = "\0" x 512;
    for (@places) { $found++ if syscall($call + 0, $_, $name, $to, 512) >= 0 } print "lists: $found\n"' "$call" /work "$HOME" /tmp
for place in "$RUNNER_TEMP" "$GITHUB_WORKSPACE" ~ /tmp; do mkdir "$place/made" && echo word >"$place/made/file" && cat "$place/made/file"; done"#;

fn access_list(world: &World<'_>) -> Result<(), String> {
    let (runner, first) = world.listening(&[])?;
    let job = world.forge.script("leave lists", LEAVE_LISTS)?;
    // What it makes itself then may have no rights either.
    let job = world.forge.wait_job(job, JobStatus::Completed)?;
    check!(job.log.contains("lists: ") && !job.log.contains("lists: 0"), "no list can be left: {}", job.log);
    runner.exits(0)?;
    runner.start()?;
    world.forge.listening(runner.host(), first.id)?;
    let job = world.forge.script("look for lists", LOOK_FOR_LISTS)?;
    let job = world.forge.ends(job, JobResult::Succeeded)?;
    check!(job.log.contains("lists: 0"), "the next job finds them: {}", job.log);
    runner.exits(0)?;
    world.forge.empty()
}

/// What PID 1 says of a life in which all goes well, in this order.
const STORY: [&str; 8] = [
    "starts a GitHub Actions runner for acme/widgets",
    "registered with acme/widgets",
    "agent: ",
    "a job begins job=quiet",
    "the job's worker is gone",
    "the registration is gone",
    "job summary",
    "leaving",
];

fn lines(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let payload = json!({ "head_commit": { "message": "a-word-of-the-payload" } });
    let job = JobSpec { payload, ..JobSpec::script("quiet", "echo \"a-word-of-$((1))-step\"") };
    world.forge.ends(world.forge.submit(&job)?, JobResult::Succeeded)?;
    runner.exits(0)?;
    let log = runner.log();
    let mut story = STORY.iter();
    let mut next = story.next();
    for line in log.lines() {
        let told = line.starts_with("{\"level\":")
            || line.split(' ').nth(1).is_some_and(|level| ["INFO", "WARN"].contains(&level));
        check!(told, "a line without its level: {line}");
        for foreign in ["[RUNNER ", "[WORKER ", "a-word-of-the-payload", "a-word-of-1-step", "ghp_", "ghs_"] {
            check!(!line.contains(foreign), "«{foreign}» is in a line: {line}");
        }
        if next.is_some_and(|part| line.contains(part)) {
            next = story.next();
        }
    }
    check!(next.is_none(), "«{}» is not said, or not at its place", next.unwrap_or(&""));
    let count = log.lines().count();
    check!(count <= 50, "{count} lines are said");
    Ok(())
}
