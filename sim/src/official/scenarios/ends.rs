//! Ways in which a runner, its listener or its worker comes to an end.

use super::super::world::World;
use super::{Scenario, both, either};
use crate::forge::JobStatus;
use crate::protocol::JobResult;

pub(super) const TABLE: &[Scenario] = &[
    either("listener-killed", "a listener that is killed under its job", listener_killed),
    either("runner-killed", "a container that is killed under its job", runner_killed),
    both("two-signals", "a second signal cancels the job, and the registration goes", two_signals),
    either("listener-stopped", "a listener that is stopped (SIGSTOP) under its job", listener_stopped),
    either("worker-stopped", "a worker that is stopped (SIGSTOP)", worker_stopped),
    either("worker-killed", "a worker that is killed", worker_killed),
    both("drain", "a runner that is stopped finishes its job", drain),
    either("park", "a runner that is drained stays, and takes no job", park),
    both("idle-stop", "an idle runner that is stopped leaves no registration", idle_stop),
];

const LISTENER: &str = "Runner.Listener";
const WORKER: &str = "Runner.Worker";

/// What PID 1 says when it was asked to stop and a job runs.
const DRAINING: &str = "a job is running: waiting for it to finish";

fn idle_stop(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    runner.signal("TERM")?;
    runner.exits(0)?;
    let left = world.forge.runners()?;
    check!(left.is_empty(), "left: {}", left[0].name);
    Ok(())
}

fn drain(world: &World<'_>) -> Result<(), String> {
    let (runner, job, _) = world.busy(&[])?;
    runner.signal("TERM")?;
    runner.line(DRAINING)?;
    let status = world.forge.job(job)?.status;
    check!(status == JobStatus::InProgress, "the job is {status:?} while it is waited for");
    runner.give("/tmp/go-on")?;
    world.forge.ends(job, JobResult::Succeeded)?;
    runner.exits(0)?;
    world.forge.empty()
}

fn park(world: &World<'_>) -> Result<(), String> {
    let (runner, _) = world.listening(&[])?;
    runner.exec("oscr-entry drain", &[])?;
    world.forge.empty()?;
    let status = runner.status_is("it is drained", |status| status["phase"] == "drained")?;
    check!(status["healthy"] == true, "a drained runner is not healthy: {status}");
    runner.signal("TERM")?;
    runner.exits(0)
}

fn two_signals(world: &World<'_>) -> Result<(), String> {
    let (runner, job, _) = world.busy(&[])?;
    runner.signal("TERM")?;
    runner.line(DRAINING)?;
    runner.signal("TERM")?;
    runner.exits(0)?;
    let left = world.forge.runners()?;
    check!(left.is_empty(), "left: {}", left[0].name);
    let job = world.forge.ends(job, JobResult::Failed)?;
    check!(job.log.contains("received a shutdown signal"), "the job's log does not say why it ended: {}", job.log);
    check!(runner.ended()? == ("failed".into(), "signal".into()), "PID 1 says {:?}", runner.ended()?);
    Ok(())
}

fn worker_killed(world: &World<'_>) -> Result<(), String> {
    let (runner, job, _) = world.busy(&[])?;
    runner.signal_process(WORKER, "KILL")?;
    world.forge.ends(job, JobResult::Failed)?;
    runner.exits(0)?;
    world.forge.empty()?;
    check!(runner.ended()?.0 == "failed", "PID 1 says {:?}", runner.ended()?);
    Ok(())
}

/// The next incarnation of a runner whose job was lost: it works, and in the end nothing is left.
fn works_anew(world: &World<'_>, runner: &super::Runner, job: u64, registration: u64) -> Result<(), String> {
    runner.start()?;
    world.forge.listening(runner.host(), registration)?;
    world.forge.let_go(registration)?;
    world.forge.ends(job, JobResult::Abandoned)?;
    world.works(runner, registration)?;
    runner.exits(0)?;
    world.forge.empty()
}

fn listener_killed(world: &World<'_>) -> Result<(), String> {
    let (runner, job, registration) = world.busy(&[])?;
    runner.signal_process(LISTENER, "KILL")?;
    runner.exits(75)?;
    works_anew(world, &runner, job, registration)
}

fn runner_killed(world: &World<'_>) -> Result<(), String> {
    let (runner, job, registration) = world.busy(&[])?;
    runner.signal("KILL")?;
    runner.exits(137)?;
    works_anew(world, &runner, job, registration)
}

/// PID 1 lets a process go on that a job has stopped, and the job with it.
fn stopped(world: &World<'_>, process: &str, word: &str) -> Result<(), String> {
    let (runner, job, _) = world.busy(&[])?;
    runner.signal_process(process, "STOP")?;
    runner.line(&format!("{word} was stopped (SIGSTOP): letting it go on"))?;
    runner.give("/tmp/go-on")?;
    world.forge.ends(job, JobResult::Succeeded)?;
    runner.exits(0)?;
    check!(runner.ended()? == ("succeeded".into(), "null".into()), "PID 1 says {:?}", runner.ended()?);
    world.forge.empty()
}

fn worker_stopped(world: &World<'_>) -> Result<(), String> {
    stopped(world, WORKER, "worker")
}

fn listener_stopped(world: &World<'_>) -> Result<(), String> {
    stopped(world, LISTENER, "listener")
}
