//! Jobs of each kind, and what they leave.

use serde_json::json;

use super::super::world::World;
use super::{Scenario, both, either};
use crate::forge::JobSpec;
use crate::protocol::{Condition, JobResult, Step};

pub(super) const TABLE: &[Scenario] = &[
    both("succeeds", "a job that succeeds", succeeds),
    either("fails", "a job that fails", fails),
    either("cancelled", "a job that is cancelled", cancelled),
    either("environment", "variables and paths that a step sets for the next ones", environment),
    either("fork", "a job of a fork that may not run", fork),
];

/// A step that runs when something is so.
pub(super) fn step(condition: Condition, run: &str) -> Step {
    Step { run: run.to_owned(), condition, ..Step::default() }
}

fn succeeds(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let job = world.forge.script("greet", "echo \"the answer is $((6 * 7))\"")?;
    let job = world.forge.ends(job, JobResult::Succeeded)?;
    check!(job.log.contains("the answer is 42"), "its log does not say what it said: {}", job.log);
    runner.exits(0)?;
    world.forge.empty()?;
    check!(runner.ended()? == ("succeeded".into(), "null".into()), "PID 1 says {:?}", runner.ended()?);
    Ok(())
}

fn fails(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let steps = vec![
        step(Condition::Success, "exit 3"),
        step(Condition::Success, "echo \"never $((1))\""),
        step(Condition::Failure, "echo \"failed $((1))\""),
    ];
    let job = world.forge.submit(&JobSpec::steps("fail", steps))?;
    let job = world.forge.ends(job, JobResult::Failed)?;
    check!(job.log.contains("failed 1") && !job.log.contains("never 1"), "other steps ran: {}", job.log);
    runner.exits(0)?;
    world.forge.empty()?;
    check!(runner.ended()? == ("failed".into(), "null".into()), "PID 1 says {:?}", runner.ended()?);
    Ok(())
}

fn cancelled(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let steps = vec![
        step(Condition::Success, "touch /tmp/begun; sleep 100000"),
        step(Condition::Success, "echo \"never $((1))\""),
        step(Condition::Always, "echo \"always $((1))\""),
    ];
    let job = world.forge.submit(&JobSpec::steps("cancel", steps))?;
    runner.file("/tmp/begun")?;
    world.forge.cancel(job)?;
    let job = world.forge.ends(job, JobResult::Canceled)?;
    check!(job.log.contains("always 1") && !job.log.contains("never 1"), "other steps ran: {}", job.log);
    runner.exits(0)?;
    world.forge.empty()?;
    check!(runner.ended()? == ("canceled".into(), "forge".into()), "PID 1 says {:?}", runner.ended()?);
    Ok(())
}

fn environment(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let set = r#"mkdir -p "$RUNNER_TEMP/bin"
printf '#!/bin/sh\necho "found by its path"\n' >"$RUNNER_TEMP/bin/official-tool"
chmod +x "$RUNNER_TEMP/bin/official-tool"
echo "$RUNNER_TEMP/bin" >>"$GITHUB_PATH"
printf 'SINGLE=one word\nMANY<<END\nfirst\nsecond\nEND\n' >>"$GITHUB_ENV""#;
    let look = r#"echo "single: $SINGLE"; echo "many: $(echo "$MANY" | tr '\n' ,)"; official-tool"#;
    let steps = vec![step(Condition::Success, set), step(Condition::Success, look)];
    let job = world.forge.submit(&JobSpec::steps("environment", steps))?;
    let job = world.forge.ends(job, JobResult::Succeeded)?;
    for line in ["single: one word", "many: first,second,", "found by its path"] {
        check!(job.log.contains(line), "«{line}» is not in its log: {}", job.log);
    }
    runner.exits(0)
}

fn fork(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[("OSCR_ALLOW_FORKS", "false")])?;
    let steps =
        [Condition::Success, Condition::Failure, Condition::Always].map(|when| step(when, "echo \"ran $((1))\""));
    let repository = |name: &str, fork: bool| json!({ "full_name": name, "fork": fork });
    let payload = json!({
        "number": 7,
        "repository": repository("acme/widgets", false),
        "pull_request": {
            "number": 7,
            "head": { "repo": repository("evil/widgets", true) },
            "base": { "repo": repository("acme/widgets", false) },
        },
    });
    let job = JobSpec { event: Some("pull_request".into()), payload, ..JobSpec::steps("fork", steps.to_vec()) };
    let job = world.forge.ends(world.forge.submit(&job)?, JobResult::Failed)?;
    check!(!job.log.contains("ran 1"), "a step ran: {}", job.log);
    runner.exits(0)?;
    runner.line("the job is not run: ")?;
    check!(runner.ended()? == ("failed".into(), "policy".into()), "PID 1 says {:?}", runner.ended()?);
    world.forge.empty()
}
