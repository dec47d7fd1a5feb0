//! Jobs that the forge gave out and that never were, and registrations that stay busy with what is no job any more.

use nix::sys::signal::{Signal, kill};
use oscr_sim::forge::{Fault, LostAssignments, Match, Refusals, Removal};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, until};

/// The removals of this registration that the forge refused, and how many it allowed.
fn removals(forge: &Forge, id: u64) -> (usize, usize) {
    let requests = forge.api_requests();
    let removals = requests.iter().filter(|seen| seen.method == "DELETE" && seen.path.ends_with(&format!("/{id}")));
    let (refused, allowed): (Vec<_>, Vec<_>) = removals.partition(|seen| matches!(seen.status, Some(400 | 422)));
    (refused.len(), allowed.len())
}

/// What this incarnation counted so far, from its metrics' file.
fn counted(container: &Container<'_>, name: &str) -> u64 {
    let directory = container.path("metrics");
    let file = std::fs::read_dir(directory).expect("metrics").flatten().next().expect("a file").path();
    let page = std::fs::read_to_string(file).expect("a page");
    let samples = page.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    samples.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")).sum()
}

fn container<'f>(forge: &'f Forge, mut container: Container<'f>) -> Container<'f> {
    std::fs::create_dir(container.path("metrics")).expect("a directory");
    container.set("OSCR_METRICS_FILE", &container.text("metrics"));
    container.start();
    forge.listening();
    container
}

/// Waits until a second runner listens, beside the one that the forge believes busy.
#[track_caller]
fn listens_too(forge: &Forge) {
    forge.wait("another runner", LIMIT, |seen| {
        seen.runners.iter().any(|runner| runner.status == "online" && !runner.busy)
    });
}

#[test]
fn a_job_that_never_was_is_asked_about_once_and_is_nobodys_job() {
    let forge = Forge::start();
    forge.order(|orders| orders.refuse_acquire = Some(Refusals { status: 404, times: Some(1) }));
    let mut container = container(&forge, Container::new(&forge));
    let (first, _) = forge.listening();
    let ghost = forge.job("true");
    container.wait_line("the listener shows none: giving it up");
    assert_eq!(removals(&forge, first), (1, 0));
    let line = container.wait_line("the registration could not be removed");
    assert!(line.contains("still believes that a job runs"), "{line}");
    // Before it registers anew it looks at what is left over, and once more while it listens.
    container.wait_line("still runs a job");
    listens_too(&forge);
    until("the ghost is counted", || counted(&container, "oscr_ghost_jobs_total") == 1);
    assert_eq!(counted(&container, "oscr_jobs_total"), 0);
    assert!(container.lines_with("job summary").is_empty());
    assert!(removals(&forge, first).0 <= 3, "{:?}", forge.calls());
    assert!(forge.let_go(first));
    assert_eq!(forge.wait_job(ghost, LIMIT).result, Some(JobResult::Abandoned));
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.lines_with("job summary").len(), 1);
}

#[test]
fn a_registration_whose_job_never_was_may_get_the_next_one() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.lost_assignments = Some(LostAssignments { times: 1, status: 409, consume: false });
    });
    let removal = Match { method: Some("DELETE".to_owned()), ..Match::default() };
    forge.fault("/runners/", Fault { matching: removal, status: Some(422), times: Some(1), ..Fault::default() });
    let mut container = container(&forge, Container::new(&forge));
    let (first, _) = forge.listening();
    let job = forge.job("true");
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(forge.runner_of(job), first);
    assert_eq!(container.exit_code(), 0);
    let summaries = container.lines_with("job summary");
    assert!(summaries.len() == 1 && summaries[0].contains(r#""result":"succeeded""#), "{summaries:?}");
    assert_eq!((counted(&container, "oscr_ghost_jobs_total"), counted(&container, "oscr_jobs_total")), (1, 1));
}

#[test]
fn a_job_that_the_forge_takes_back_is_a_ghost() {
    let forge = Forge::start();
    forge.order(|orders| orders.refuse_acknowledge = Some(Refusals { status: 404, times: Some(1) }));
    let mut container = container(&forge, Container::new(&forge));
    let (first, _) = forge.listening();
    forge.job("true");
    listens_too(&forge);
    assert!(removals(&forge, first).0 <= 3, "{:?}", forge.calls());
    until("the ghost is counted", || counted(&container, "oscr_ghost_jobs_total") == 1);
    forge.let_go(first);
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!((counted(&container, "oscr_ghost_jobs_total"), counted(&container, "oscr_jobs_total")), (1, 1));
}

/// A listener is killed under its job, and the forge goes on believing in that.
#[track_caller]
fn a_lost_jobs_registration(forge: &Forge, mut container: Container<'_>, listener: &str) {
    forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    let (_, _gate) = container.start_with_job();
    let first = forge.runners()[0].id;
    let comm = |pid: &nix::unistd::Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let pid = container.processes().into_iter().find(|pid| listener.starts_with(comm(pid).trim())).expect("a listener");
    kill(pid, Signal::SIGKILL).expect("it runs");
    assert_eq!(container.exit_code(), 75);
    assert_eq!(removals(forge, first), (1, 0), "{:?}", forge.calls());
    assert_eq!(container.state()["leftovers"].as_array().map(Vec::len), Some(1));
    let line = container.wait_line("the registration could not be removed");
    assert!(line.contains("when this container starts again"), "{line}");
}

#[test]
fn the_registration_of_a_job_whose_listener_died_is_asked_for_once_and_left_to_the_next_life() {
    let forge = Forge::start();
    a_lost_jobs_registration(&forge, Container::new(&forge), "Runner.Listener");
    let forge = Forge::start();
    a_lost_jobs_registration(&forge, Container::azure(&forge), "Agent.Listener");
}
