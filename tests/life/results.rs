//! What a job's summary says of its end: the result that the forge was told, and what ended the job before its time.

use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, JobStatus, ListenerTrouble, Match, Refusals, Removal};
use oscr_sim::protocol::{JobResult, Trouble};
use oscr_sim::scale::Scale;

use crate::boards::Boards;
use crate::harness::{Container, Forge, LIMIT, each, write_program};
use crate::operator::summaries;

/// The result and `ended_by` of the only job of the log.
#[track_caller]
pub(crate) fn ended(container: &Container<'_>) -> (String, Option<String>) {
    let all = summaries(container);
    assert_eq!(all.len(), 1, "{all:?}");
    let text = |field: &str| all[0][field].as_str().map(str::to_owned);
    (text("result").expect("a result"), text("ended_by"))
}

/// Asserts both, and that the forge was told the same.
#[track_caller]
fn assert_ended(forge: &Forge, job: u64, container: &mut Container<'_>, result: &str, by: Option<&str>) {
    assert_eq!(container.exit_code(), 0);
    assert_eq!(ended(container), (result.to_owned(), by.map(str::to_owned)));
    let told = forge.wait_job(job, LIMIT).result.map(|result| format!("{result:?}").to_lowercase());
    assert_eq!(told.as_deref(), Some(result));
}

#[test]
fn a_job_that_ends_by_itself_was_ended_by_nobody() {
    each(&[("true", "succeeded"), ("false", "failed")], |(script, result)| {
        let forge = Forge::start();
        let mut container = Container::listening(&forge, &[]);
        let job = forge.job(script);
        assert_ended(&forge, job, &mut container, result, None);
    });
}

#[test]
fn after_a_second_signal_the_result_is_what_the_worker_told_and_not_what_the_listener_prints() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    container.signal(Signal::SIGTERM);
    // The runner tells its forge that it failed, and its reader that it was canceled.
    assert_ended(&forge, job, &mut container, "failed", Some("signal"));
    container.wait_line("completed with result: Canceled");
}

#[test]
fn a_job_whose_time_to_finish_is_over_was_ended_by_the_stop() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_STOP_TIMEOUT", "1");
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    assert_ended(&forge, job, &mut container, "failed", Some("stop-timeout"));
}

#[test]
fn a_job_over_its_time_a_denied_one_and_one_without_its_board_say_so() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_JOB_MAX", "1");
    let (job, _gate) = container.start_with_job();
    assert_ended(&forge, job, &mut container, "failed", Some("job-maximum"));

    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("OSCR_ALLOW_REPOS", "o/other")]);
    let job = forge.job("true");
    assert_ended(&forge, job, &mut container, "failed", Some("policy"));

    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_TIMEOUT", "1")]);
    container.start();
    let job = forge.job("true");
    assert_ended(&forge, job, &mut container, "failed", Some("lock"));
}

#[test]
fn a_hook_of_the_operators_that_fails_ends_the_job() {
    each(&["job-started", "job-completed"], |event| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        write_program(&container.path("etc/oscr/hooks.d").join(event).join("no"), "#!/bin/bash\nexit 9\n");
        container.start();
        let job = forge.job("true");
        assert_ended(&forge, job, &mut container, "failed", Some("hook"));
    });
}

#[test]
fn a_job_that_is_cancelled_at_the_forge_was_ended_there() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    assert!(forge.cancel_job(job));
    assert_ended(&forge, job, &mut container, "canceled", Some("forge"));
}

#[test]
fn a_job_whose_lease_the_forge_refuses_is_what_the_forge_was_told_and_not_what_the_listener_prints() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    forge.order(|orders| orders.refuse_renew = Some(Refusals { status: 404, times: Some(1) }));
    assert_ended(&forge, job, &mut container, "canceled", Some("forge"));
    container.wait_line("completed with result: Abandoned");
}

/// The session of the agent is given back so late, and the agent has its full patience for that.
fn session_stays(forge: &Forge, delay_ms: u64) {
    forge.order(|orders| orders.time_scale = Scale::REAL);
    let (method, path) = (Some("DELETE".to_owned()), Some("session".to_owned()));
    let matching = Match { method, path_contains: path, agent: Some(true), ..Match::default() };
    forge.add_fault(Fault { matching, delay_ms, ..Fault::default() });
}

#[test]
fn a_result_that_was_reported_stands_although_its_listener_had_to_be_killed() {
    // What the forge was told is read from the code of GitHub's worker, and from the last word of Azure's listener.
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        forge.order(|orders| {
            orders.ephemeral_removal = Removal::Never;
            orders.listener_trouble = Some(ListenerTrouble { kind: Trouble::Deaf, times: 1 });
        });
        // It stays after its job, because its session cannot be given back.
        session_stays(&forge, 600_000);
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        container.set("OSCR_KILL_TIMEOUT", "1");
        container.start();
        forge.listening();
        let job = forge.job("true");
        container.wait_line("the job's worker is gone");
        container.signal(Signal::SIGTERM);
        container.wait_line("asked to stop");
        container.signal(Signal::SIGTERM);
        container.wait_line("killing it");
        forge.clear_faults();
        assert_ended(&forge, job, &mut container, "succeeded", None);
    });
}

#[test]
fn a_job_under_a_listener_that_had_to_be_killed_is_lost() {
    let forge = Forge::start();
    forge.order(|orders| orders.listener_trouble = Some(ListenerTrouble { kind: Trouble::Deaf, times: 1 }));
    let mut container = Container::new(&forge);
    container.set("OSCR_KILL_TIMEOUT", "1");
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    container.signal(Signal::SIGTERM);
    container.exit_code();
    assert_eq!(ended(&container), ("lost".to_owned(), Some("signal".to_owned())));
    let told = forge.jobs().into_iter().find(|seen| seen.id == job).expect("the job");
    assert!(told.status != JobStatus::Completed || told.result == Some(JobResult::Abandoned), "{told:?}");
}

#[test]
fn a_jobs_beginning_is_when_it_was_announced_however_long_its_listener_stays() {
    let forge = Forge::start();
    session_stays(&forge, 3000);
    let mut container = Container::listening(&forge, &[]);
    forge.job("true");
    assert_eq!(container.exit_code(), 0);
    let began = summaries(&container)[0]["began"].as_str().expect("a time").to_owned();
    let announced = container.wait_line("a new phase: running");
    let announced = announced.split_whitespace().next().expect("a time");
    let time = |text: &str| humantime::parse_rfc3339(text).expect("RFC 3339");
    let late = time(&began).duration_since(time(announced)).unwrap_or_default();
    assert!(late < Duration::from_secs(1), "{began} {announced}");
}
