//! Signals: from the polite to the fatal.

use std::time::{Duration, SystemTime};

use oscr_sim::forge::JobStatus;
use oscr_sim::patience::{LIMIT, patient};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::docker::{Container, GRACE};
use crate::world::World;

/// A job that does not end by itself while a test lasts.
const ENDLESS: &str = "sleep 100000";

/// What PID 1 says when it was asked to stop and a job runs.
const DRAINING: &str = "a job is running: waiting for it to finish";

/// A runner that has just begun with a script; the job's id and the registration's.
fn busy(world: &World, script: &str) -> (Container, u64, u64) {
    let container = world.up_one();
    let runner = world.forge.wait_runner(container.host(), 0);
    let job = world.forge.script_on(container.host(), "long", script);
    // Its log says that the script itself runs.
    world.forge.wait_job(job, JobStatus::InProgress, LIMIT);
    container.wait_log("the worker is process", LIMIT);
    (container, job, runner.id)
}

pub fn a_stopped_idle_runner_leaves_no_registration_within_5_s(world: &World) {
    let container = world.up_one();
    world.forge.wait_idle(1);
    let stop = container.stop(GRACE);
    world.forge.wait_empty();
    stop.join().expect("docker stop succeeds");
    // By the clocks of those who know: PID 1 and the forge. Docker's own haste is not ours.
    let log = container.logs();
    let asked = moment(&log, "asked to stop");
    let gone = world.forge.events(0, Duration::ZERO).into_iter().rfind(|event| event.kind == "runner_unregistered");
    let gone = SystemTime::from(gone.expect("it was registered").at).duration_since(asked).unwrap_or_default();
    assert!(gone < patient(Duration::from_secs(5)), "{gone:?}");
    let left = moment(&log, "leaving").duration_since(asked).unwrap_or_default();
    assert!(left < patient(Duration::from_secs(20)), "{left:?}");
    let state = &container.inspect()["State"];
    assert_eq!(state["ExitCode"], 0, "{state}");
    assert_eq!(state["Running"], false, "{state}");
    assert!(world.forge.runners().is_empty());
}

pub fn a_stopped_runner_finishes_its_job(world: &World) {
    let (container, job, _) = busy(world, "until [ -e /tmp/go-on ]; do sleep 0.1; done; echo the 'last step'");
    let stop = container.stop(GRACE);
    container.wait_log(DRAINING, LIMIT);
    let job = world.forge.job(job);
    assert_eq!(job.status, JobStatus::InProgress, "{}", job.live);
    container.must_exec("0", "touch /tmp/go-on");
    let job = world.forge.finished(job.id);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("the last step"), "{}", job.log);
    stop.join().expect("docker stop succeeds");
    assert_eq!(container.inspect()["State"]["ExitCode"], 0);
    world.forge.wait_empty();
}

pub fn a_second_stop_signal_cancels_the_job_and_still_unregisters(world: &World) {
    let (container, job, _) = busy(world, ENDLESS);
    container.kill("TERM");
    container.wait_log(DRAINING, LIMIT);
    container.kill("TERM");
    let code = container.wait_exit(LIMIT);
    assert_eq!(code, 0);
    assert!(world.forge.runners().is_empty());
    let job = world.forge.finished(job);
    assert_ne!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains(&format!("The {} has received a shutdown signal", world.provider().noun)), "{}", job.log);
}

pub fn the_registration_of_a_killed_runner_is_removed_by_the_next_incarnation(world: &World) {
    // The forge does not help.
    world.forge.order(json!({"ephemeral_removal": "never", "hold_leases": true}));
    let (container, job, old) = busy(world, ENDLESS);
    container.kill("KILL");
    assert_eq!(container.wait_exit(LIMIT), 137);
    world.forge.let_go(old);
    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Abandoned), "{}", job.log);
    assert!(world.forge.runners().iter().any(|r| r.id == old));

    container.start();
    works_anew(world, &container, old);
    let left = world.forge.runners();
    assert!(left.iter().all(|r| r.id != old), "{left:?}");
}

pub fn a_killed_runners_busy_registration_goes_later_and_hinders_nobody(world: &World) {
    world.forge.order(json!({"ephemeral_removal": "never", "hold_leases": true}));
    let (container, killed, old) = busy(world, ENDLESS);
    container.kill("KILL");
    assert_eq!(container.wait_exit(LIMIT), 137);
    container.start();
    works_anew(world, &container, old);
    let requests = world.forge.requests();
    let refused = requests.iter().any(|r| r.method == "DELETE" && r.status == Some(world.provider().busy));
    assert!(refused, "{requests:?}");
    assert!(world.forge.runners().iter().any(|r| r.id == old && r.busy));
    world.forge.let_go(old);
    let killed = world.forge.finished(killed);
    assert_eq!(killed.result, Some(JobResult::Abandoned), "{}", killed.log);
    // At the latest when an incarnation leaves.
    world.forge.wait_runner(container.host(), old);
    let stop = container.stop(GRACE);
    world.forge.wait_empty();
    stop.join().expect("docker stop succeeds");
}

/// When a part of a log was written, by the clock of who wrote it.
#[track_caller]
fn moment(log: &str, part: &str) -> SystemTime {
    let line = log.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("«{part}» is not in {log}"));
    humantime::parse_rfc3339(line.split(' ').next().unwrap_or_default()).expect("a line begins with its time")
}

/// A new registration, that gets a job done.
fn works_anew(world: &World, container: &Container, old: u64) {
    world.forge.wait_runner(container.host(), old);
    let job = world.forge.script_on(container.host(), "after", "echo fine");
    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
}
