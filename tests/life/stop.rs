//! Being asked to stop, in every moment: a signal never kills a job that it need not kill, and never leaves a registration.

use std::os::unix::fs::symlink;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::forge::{Fault, Match, Removal};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT};

#[test]
fn a_stopped_idle_runner_leaves_no_registration_and_is_interrupted_only_after_that() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    container.signal(Signal::SIGTERM);
    container.unregistered_within(Duration::from_secs(5));
    assert_eq!(container.exit_code_within(Duration::from_secs(8)), 0);
    assert_eq!(forge.kinds(), ["runner_registered", "runner_online", "runner_unregistered", "runner_offline"]);
    assert_eq!(forge.calls(), ["POST registration-token 201", "DELETE ID 204"]);
    container.assert_state_empty();
}

#[test]
fn every_stop_signal_counts() {
    crate::harness::each(&[Signal::SIGINT, Signal::SIGQUIT], |signal| {
        let forge = Forge::start();
        let mut container = Container::listening(&forge, &[]);
        container.signal(*signal);
        container.unregistered_within(Duration::from_secs(5));
        assert_eq!(container.exit_code(), 0);
    });
}

#[test]
fn a_job_that_runs_when_asked_to_stop_finishes() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, mut gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    let status = container.status();
    assert_eq!(status["phase"], "draining", "{status}");
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(status["job"]["name"], "job", "{status}");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn a_registration_that_went_at_assignment_does_not_make_the_job_look_idle() {
    let forge = Forge::start();
    forge.order(|orders| orders.ephemeral_removal = Removal::Assignment);
    let mut container = Container::new(&forge);
    let (job, mut gate) = container.start_with_job();
    assert_eq!(forge.runners().len(), 0);
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_job_that_the_forge_has_just_assigned_is_waited_for() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let busy = Fault {
        matching: Match { method: Some("DELETE".to_owned()), ..Match::default() },
        status: Some(422),
        times: Some(1),
        ..Fault::default()
    };
    forge.fault("/runners/", busy);
    container.signal(Signal::SIGTERM);
    container.wait_line("a job has been assigned");
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn a_refusal_without_a_job_is_asked_about_again() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let busy = Fault {
        matching: Match { method: Some("DELETE".to_owned()), ..Match::default() },
        status: Some(422),
        times: Some(1),
        ..Fault::default()
    };
    forge.fault("/runners/", busy);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    let calls = forge.calls();
    assert_eq!(calls[1..], ["DELETE ID 422", "DELETE ID 204"]);
    container.assert_state_empty();
}

#[test]
fn a_job_that_crosses_the_removal_still_finishes() {
    let forge = Forge::start();
    forge.order(|orders| orders.cross_deletes = 1);
    let mut container = Container::new(&forge);
    let mut gate = container.gate();
    container.start();
    forge.listening();
    container.signal(Signal::SIGTERM);
    forge.wait_nobody();
    let job = forge.job(&gate.wait());
    container.wait_line("waiting for it to finish");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn a_second_signal_cancels_the_job_which_says_why_and_the_registration_goes() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    container.signal(Signal::SIGTERM);
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.log.contains("The runner has received a shutdown signal"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn two_signals_at_once_cancel_too() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.signal(Signal::SIGINT);
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn the_deadline_of_the_first_signal_cancels_the_job() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_STOP_TIMEOUT", "1");
    let (job, _gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.log.contains("shutdown signal"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn a_job_that_cannot_be_cancelled_is_killed_and_its_registration_goes() {
    let forge = Forge::start();
    // The steps are given more time than the agent.
    forge.order(|orders| orders.sigterm_ms = Some(600_000));
    let mut container = Container::new(&forge);
    // So long is the agent waited for, and so long may the forge take to believe that it is dead.
    container.set("OSCR_KILL_TIMEOUT", "10");
    container.start();
    let job = forge.job("trap '' INT TERM; echo de''af; while :; do sleep 1; done");
    forge.wait_log(job, "deaf");
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    container.signal(Signal::SIGTERM);
    container.wait_line("killing it");
    forge.let_go(forge.runner_of(job));
    assert_eq!(container.exit_code(), 0);
    forge.wait_nobody();
    container.assert_state_empty();
}

#[test]
fn a_listener_that_does_not_obey_is_killed() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_KILL_TIMEOUT", "5");
    container.replace_listener(
        "if [ \"$1\" = run ]; then trap '' INT TERM; echo 'Listening for Jobs'; while :; do sleep 1; done; fi",
    );
    container.start();
    container.wait_line("Listening for Jobs");
    container.signal(Signal::SIGTERM);
    container.wait_line("killing it");
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn a_stop_while_the_agent_is_configured_leaves_nothing() {
    let forge = Forge::start();
    let slow = Fault {
        matching: Match { path_contains: Some("/actions/runners/register".to_owned()), ..Match::default() },
        delay_ms: 600_000,
        ..Fault::default()
    };
    forge.add_fault(slow);
    let mut container = Container::new(&forge);
    container.start();
    forge.wait_requests("/actions/runners/register", 1);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(10)), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn a_stop_while_the_forge_does_not_answer_is_obeyed_soon() {
    let forge = Forge::start();
    let slow = Fault { delay_ms: 600_000, ..Fault::default() };
    forge.fault("registration-token", slow);
    let mut container = Container::new(&forge);
    container.start();
    forge.wait_requests("registration-token", 1);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(10)), 0);
    container.assert_state_empty();
}

#[test]
fn a_stop_while_waiting_for_anything_is_obeyed_at_once() {
    type Trouble = fn(&Forge, &mut Container<'_>);
    let troubles: [(&str, Trouble); 4] = [
        ("backing-off", |forge, _| forge.go_down()),
        ("denied", |_, container| {
            container.unset("GITHUB_PAT_FILE");
            container.set("GITHUB_PAT", "ghp_wrong");
        }),
        ("dirty", |_, container| {
            symlink("/etc", container.path("runner")).expect("a link");
        }),
        ("outdated", |forge, _| {
            forge.order(|orders| orders.listener_exit = Some(crate::listener::exit(7)));
        }),
    ];
    crate::harness::each(&troubles, |(phase, trouble)| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        container.set("OSCR_KILL_TIMEOUT", "1");
        trouble(&forge, &mut container);
        container.start();
        let line = container.wait_line("trying again in");
        assert!(line.contains(phase), "{line}");
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code_within(Duration::from_secs(10)), 0, "{phase}");
        assert_eq!(forge.runners().len(), 0, "{phase}");
    });
}

#[test]
fn a_stop_while_the_forge_is_down_leaves_what_the_next_incarnation_removes() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_KILL_TIMEOUT", "2");
    container.start();
    let (first, name) = forge.listening();
    forge.go_down();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    let state = container.state();
    assert_eq!(state["leftovers"][0]["name"], name.as_str(), "{state}");
    forge.come_back().expect("the port is still free");
    container.restart();
    forge.another(first);
}

#[test]
fn a_forge_that_does_not_answer_at_the_end_holds_nobody_for_ever_and_is_asked_by_the_next() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_KILL_TIMEOUT", "1");
    container.start();
    let (first, name) = forge.listening();
    forge.fault("/runners", Fault { delay_ms: 600_000, ..Fault::default() });
    container.signal(Signal::SIGKILL);
    container.restart();
    forge.wait("it asks for the removal", LIMIT, |seen| seen.requests.iter().any(|request| request.fault));
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(8)), 0);
    assert!(!container.lines_with("the next incarnation will").is_empty());
    assert_eq!(container.state()["leftovers"][0]["name"], name.as_str());
    forge.clear_faults();
    container.restart();
    forge.another(first);
}
