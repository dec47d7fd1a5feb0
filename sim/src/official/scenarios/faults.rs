//! What the forge may do to a runner.

use serde_json::json;

use super::super::posture::Posture;
use super::super::runner::Runner;
use super::super::world::World;
use super::{Scenario, either};
use crate::protocol::JobResult;

pub(super) const TABLE: &[Scenario] = &[
    either("polls-fail", "polls that fail: said, and healthy for a while; their recovery is seen", polls_fail),
    either("forbidden", "a poll that is refused without a cause (403)", forbidden),
    either("self-update", "an agent that is told to update itself", self_update),
    either("old-version", "an agent that is too old for its forge", old_version),
    either("ghost", "an offered job that is nobody's", ghost),
    either("acknowledge", "an offered job that is taken back", acknowledge),
    either("forgotten-busy", "a runner that is forgotten while it has a job", forgotten_busy),
    either("forgotten-idle", "a runner that is forgotten while it listens", forgotten_idle),
];

/// Polls end soon, so that the next one, which is what is refused, comes soon.
fn short_polls(world: &World<'_>) -> Result<(), String> {
    world.forge.order(json!({ "poll_timeout_ms": 1000 }))
}

fn ghost(world: &World<'_>) -> Result<(), String> {
    world.forge.order(json!({ "refuse_acquire": { "status": 404, "times": 1 } }))?;
    let (runner, first) = world.listening(&[])?;
    let ghost = world.forge.script("ghost", "true")?;
    runner.line("the listener shows none: giving it up")?;
    is_nobodys_job(world, &runner, first.id, ghost)
}

fn acknowledge(world: &World<'_>) -> Result<(), String> {
    world.forge.order(json!({ "refuse_acknowledge": { "status": 404, "times": 1 } }))?;
    let (runner, first) = world.listening(&[])?;
    let ghost = world.forge.script("taken back", "true")?;
    is_nobodys_job(world, &runner, first.id, ghost)
}

/// The runner listens anew beside the registration that is busy with what is no job, and tells of its own job alone.
fn is_nobodys_job(world: &World<'_>, runner: &Runner, first: u64, ghost: u64) -> Result<(), String> {
    world.forge.listening(runner.host(), first)?;
    world.forge.let_go(first)?;
    world.forge.ends(ghost, JobResult::Abandoned)?;
    world.works(runner, first)?;
    runner.exits(0)?;
    check!(runner.summaries().len() == 1, "{} jobs are told of, not one", runner.summaries().len());
    world.forge.empty()
}

fn forgotten_idle(world: &World<'_>) -> Result<(), String> {
    world.forge.order(json!({ "end_polls_on_delete": true }))?;
    let (runner, first) = world.listening(&[])?;
    world.forge.unregister(first.id)?;
    world.works(&runner, first.id)?;
    runner.exits(0)?;
    world.forge.empty()
}

fn forgotten_busy(world: &World<'_>) -> Result<(), String> {
    let (runner, job, _) = world.busy(&[])?;
    world.forge.order(json!({ "forget_polls": 1 }))?;
    world.forge.ends(job, JobResult::Canceled)?;
    runner.exits(0)?;
    check!(runner.ended()? == ("canceled".into(), "forge".into()), "PID 1 says {:?}", runner.ended()?);
    world.forge.empty()
}

fn polls_fail(world: &World<'_>) -> Result<(), String> {
    short_polls(world)?;
    let (runner, first) = world.listening(&[])?;
    let status = runner.status_is("it listens", |status| status["phase"] == "listening")?;
    check!(status["connection"] != "lost" && status["healthy"] == true, "an idle runner is not well: {status}");
    world.forge.order(json!({ "refuse_polls": { "status": 500 } }))?;
    let status = runner.status_is("its connection is lost", |status| status["connection"] == "lost")?;
    check!(status["phase"] == "listening" && runner.healthy()?, "it is given up at once: {status}");
    world.forge.order(json!({ "refuse_polls": null }))?;
    runner.status_is("its connection is back", |status| status["connection"] != "lost" && status["healthy"] == true)?;
    let now = world.forge.listening(runner.host(), 0)?;
    check!(now.id == first.id, "it registered anew");
    world.works(&runner, 0)?;
    runner.exits(0)?;
    world.forge.empty()
}

fn forbidden(world: &World<'_>) -> Result<(), String> {
    short_polls(world)?;
    world.forge.order(json!({ "refuse_polls": { "status": 403, "times": 1 } }))?;
    let runner = world.runner(&[])?;
    runner.line("and does not say why (code 7)")?;
    world.works(&runner, 0)?;
    runner.exits(0)?;
    world.forge.empty()
}

fn old_version(world: &World<'_>) -> Result<(), String> {
    world.forge.order(json!({ "deprecated": true }))?;
    let runner = world.runner(&[])?;
    let status = runner.status_is("it is outdated", |status| status["phase"] == "outdated")?;
    check!(!runner.healthy()?, "an outdated runner is healthy: {status}");
    runner.line("does not accept this version")?;
    runner.signal("TERM")?;
    runner.exits(0)?;
    world.forge.empty()
}

/// In a root that belongs to its user, the agent ends in order to become another version, which it does not: its root goes.
fn self_update(world: &World<'_>) -> Result<(), String> {
    let (runner, first) = world.listening(&[])?;
    world.forge.order(json!({ "refresh": { "version": "9.9.9" } }))?;
    runner.line("Runner update in progress")?;
    runner.line("offers a newer version of the GitHub Actions runner than ours")?;
    if world.posture == Posture::User {
        runner.status_is("it is outdated", |status| status["phase"] == "outdated")?;
        runner.signal("TERM")?;
    } else {
        runner.line("Runner update process finished")?;
        let now = world.forge.listening(runner.host(), 0)?;
        check!(now.id == first.id, "it registered anew");
        world.works(&runner, 0)?;
    }
    runner.exits(0)?;
    world.forge.empty()
}
