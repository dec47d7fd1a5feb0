//! Signals: from the polite to the fatal.

use std::time::{Duration, Instant};

use oscr_sim::forge::JobStatus;
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::docker::Container;
use crate::world::World;

const SOON: Duration = Duration::from_secs(30);

/// What PID 1 says when it was asked to stop and a job runs.
const DRAINING: &str = "a job is running: waiting for it to finish";

/// A runner that has just begun with a script; the job's id and the registration's.
fn busy(world: &World, script: &str) -> (Container, u64, u64) {
    let container = world.up_one();
    let runner = world.forge.wait_runner(container.host(), 0);
    let job = world.forge.script_on(container.host(), "long", script);
    // Its log says that the script itself runs.
    world.forge.wait_job(job, JobStatus::InProgress, SOON);
    container.wait_log("the worker is process", SOON);
    (container, job, runner.id)
}

pub fn a_stopped_idle_runner_leaves_no_registration_within_5_s(world: &World) {
    let container = world.up_one();
    world.forge.wait_idle(1);
    let asked = Instant::now();
    let stop = container.stop(60);
    world.forge.wait_empty(Duration::from_secs(5));
    let gone = asked.elapsed();
    assert!(gone < Duration::from_secs(5), "{gone:?}");
    stop.join().expect("docker stop succeeds");
    assert!(asked.elapsed() < Duration::from_secs(20));
    let state = &container.inspect()["State"];
    assert_eq!(state["ExitCode"], 0, "{state}");
    assert_eq!(state["Running"], false, "{state}");
    assert!(world.forge.runners().is_empty());
}

pub fn a_stopped_runner_finishes_its_job(world: &World) {
    let (container, job, _) = busy(world, "for i in 1 2 3 4 5 6 7 8; do sleep 1; echo \"$i of 8\"; done");
    let stop = container.stop(60);
    container.wait_log(DRAINING, SOON);
    let job = world.forge.job(job.to_owned());
    assert_eq!(job.status, JobStatus::InProgress, "{}", job.log);
    let job = world.forge.finished(job.id);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("8 of 8"), "{}", job.log);
    stop.join().expect("docker stop succeeds");
    assert_eq!(container.inspect()["State"]["ExitCode"], 0);
    world.forge.wait_empty(Duration::from_secs(5));
}

pub fn a_second_stop_signal_cancels_the_job_and_still_unregisters(world: &World) {
    let (container, job, _) = busy(world, "sleep 300");
    container.kill("TERM");
    container.wait_log(DRAINING, SOON);
    let asked = Instant::now();
    container.kill("TERM");
    let code = container.wait_exit(SOON);
    assert_eq!(code, 0);
    assert!(asked.elapsed() < SOON);
    assert!(world.forge.runners().is_empty());
    let job = world.forge.finished(job);
    assert_ne!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains(&format!("The {} has received a shutdown signal", world.provider().noun)), "{}", job.log);
}

pub fn the_registration_of_a_killed_runner_is_removed_by_the_next_incarnation(world: &World) {
    // The forge does not help.
    world.forge.order(json!({"ephemeral_removal": "never", "job_lease_ms": 3000}));
    let (container, job, old) = busy(world, "sleep 300");
    container.kill("KILL");
    assert_eq!(container.wait_exit(SOON), 137);
    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Abandoned), "{}", job.log);
    assert!(world.forge.runners().iter().any(|r| r.id == old));

    container.start();
    works_anew(world, &container, old);
    let left = world.forge.runners();
    assert!(left.iter().all(|r| r.id != old), "{left:?}");
}

pub fn a_killed_runners_busy_registration_goes_later_and_hinders_nobody(world: &World) {
    world.forge.order(json!({"ephemeral_removal": "never", "job_lease_ms": 8000}));
    let (container, killed, old) = busy(world, "sleep 300");
    container.kill("KILL");
    assert_eq!(container.wait_exit(SOON), 137);
    container.start();
    works_anew(world, &container, old);
    let refused =
        world.forge.requests().iter().any(|r| r.method == "DELETE" && r.status == Some(world.provider().busy));
    assert!(refused, "the test was too slow: the forge believed in no job any more");
    // At the latest when an incarnation leaves.
    let killed = world.forge.finished(killed);
    assert_eq!(killed.result, Some(JobResult::Abandoned), "{}", killed.log);
    world.forge.wait_runner(container.host(), old);
    let stop = container.stop(60);
    world.forge.wait_empty(Duration::from_secs(15));
    stop.join().expect("docker stop succeeds");
}

/// A new registration, that gets a job done.
fn works_anew(world: &World, container: &Container, old: u64) {
    world.forge.wait_runner(container.host(), old);
    let job = world.forge.script_on(container.host(), "after", "echo fine");
    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
}
