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
    either("outputs", "a job's outputs, annotations and summary", outputs),
    either("javascript", "a JavaScript action, by the agent's own Node.js", javascript),
    either("hooks", "an operator's hooks, before and after a job", hooks),
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

fn outputs(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let say = r#"echo "answer=$((6 * 7))" >>"$GITHUB_OUTPUT"
printf 'lines<<END\none\ntwo\nEND\n' >>"$GITHUB_OUTPUT"
echo "**all** is $((6 * 7))" >>"$GITHUB_STEP_SUMMARY"
echo "::error title=official::this is annotation $((1))"
"#;
    let steps = vec![Step { id: Some("say".into()), ..step(Condition::Success, say) }];
    let outputs = [("answer", "answer"), ("lines", "lines")];
    let outputs = outputs.map(|(name, of)| (name.to_owned(), format!("steps.say.outputs.{of}"))).into();
    let job = world.forge.submit(&JobSpec { outputs, ..JobSpec::steps("outputs", steps) })?;
    let job = world.forge.ends(job, JobResult::Succeeded)?;
    let output = |name: &str| job.outputs.get(name).map(String::as_str);
    check!((output("answer"), output("lines")) == (Some("42"), Some("one\ntwo")), "its outputs are {:?}", job.outputs);
    check!(
        job.annotations.iter().any(|text| text == "this is annotation 1"),
        "its annotations are {:?}",
        job.annotations
    );
    check!(job.summary.contains("**all** is 42"), "its summary is «{}»", job.summary);
    runner.exits(0)
}

/// Writes an action into the job's workspace.
const ACTION: &str = r#"mkdir -p action
printf '%s\n' 'name: official' 'description: says what runs it' 'inputs: {}' 'runs:' '  using: node20' '  main: index.js' >action/action.yml
printf '%s\n' 'const fs = require("fs");' 'console.log("by node " + process.version.split(".")[0] + " in " + process.env.GITHUB_REPOSITORY);' \
    'fs.appendFileSync(process.env.GITHUB_ENV, "FROM_ACTION=a word of the action\n");' >action/index.js"#;

fn javascript(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    let node = runner.exec("ls /opt/oscr/agent/externals/node*/bin/node", &[]);
    node.map_err(|_| super::cannot("the agent of this image brings no Node.js, as the stand-in"))?;
    let action = Step { uses: Some("./action".into()), ..Step::default() };
    let steps = vec![step(Condition::Success, ACTION), action, step(Condition::Success, "echo \"next: $FROM_ACTION\"")];
    let job = world.forge.submit(&JobSpec::steps("javascript", steps))?;
    let job = world.forge.ends(job, JobResult::Succeeded)?;
    for said in ["by node v", " in acme/widgets", "next: a word of the action"] {
        check!(job.log.contains(said), "«{said}» is not in its log: {}", job.log);
    }
    runner.exits(0)
}

/// Two hooks of an operator's, in `/v`.
const HOOKS: &str = r#"mkdir job-started job-completed
printf '#!/bin/sh\necho "hook before $GITHUB_REPOSITORY"\necho FROM_HOOK=set >>"$GITHUB_ENV"\n' >job-started/10-before
printf '#!/bin/sh\necho "hook after $GITHUB_REPOSITORY"\n' >job-completed/10-after
chmod -R a+rX,a+x ."#;

fn hooks(world: &World<'_>) -> Result<(), String> {
    let hooks = world.volume("hooks", HOOKS)?;
    let runner = world.runner_with(&[], &[&format!("--volume={hooks}:/etc/oscr/hooks.d:ro")])?;
    world.forge.listening(runner.host(), 0)?;
    let job = world.forge.script("hooked", "echo \"between, $FROM_HOOK\"")?;
    let job = world.forge.ends(job, JobResult::Succeeded)?;
    let lines: Vec<&str> = job.log.lines().collect();
    let at = |line: &str| lines.iter().position(|found| *found == line);
    let places = ["hook before acme/widgets", "between, set", "hook after acme/widgets"].map(at);
    check!(places.iter().all(Option::is_some) && places.is_sorted(), "the hooks are not around the step: {}", job.log);
    runner.exits(0)
}
