//! The same life without a configure step.

use nix::sys::signal::Signal;
use oscr_sim::forge::{Cut, Fault};
use oscr_sim::protocol::JobResult;

use crate::happy::a_whole_life;
use crate::harness::{Container, Forge, LIMIT};

const JIT: (&str, &str) = ("OSCR_REGISTRATION", "jit");

#[test]
fn a_just_in_time_life_leaves_nothing_and_costs_two_requests() {
    assert_eq!(a_whole_life("jit"), ["POST generate-jitconfig 201", "DELETE ID 404"]);
}

#[test]
fn the_group_is_looked_up_by_name() {
    let forge = Forge::start();
    forge.order(|orders| orders.runner_groups = vec!["Default".into(), "Builders".into()]);
    let mut container = Container::new(&forge);
    container.unset("GITHUB_REPO");
    container.set(JIT.0, JIT.1);
    container.set("GITHUB_RUNNER_GROUP", "builders");
    container.start();
    forge.listening();
    assert_eq!(forge.runners()[0].group_id, 2);
    assert_eq!(forge.runners()[0].scope, "orgs/o");
}

#[test]
fn a_group_that_does_not_exist_is_a_denial_that_names_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.unset("GITHUB_REPO");
    container.set(JIT.0, JIT.1);
    container.set("GITHUB_RUNNER_GROUP", "nobody");
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains("\"nobody\""), "{line}");
    assert_eq!(container.status()["phase"], "denied");
}

#[test]
fn a_stopped_idle_runner_is_gone_within_five_seconds() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[JIT]);
    container.signal(Signal::SIGTERM);
    forge.wait_nobody(std::time::Duration::from_secs(5));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn a_killed_runners_registration_is_deleted_by_the_next_incarnation() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[JIT]);
    let (first, _) = forge.listening();
    container.signal(Signal::SIGKILL);
    container.restart();
    forge.another(first);
    assert_eq!(forge.calls(), ["POST generate-jitconfig 201", "DELETE ID 204", "POST generate-jitconfig 201"]);
}

#[test]
fn an_answer_that_is_lost_on_the_way_leaves_no_registration_behind() {
    let forge = Forge::start();
    let lost = Fault { cut: Some(Cut::After), times: Some(1), ..Fault::default() };
    forge.fault("generate-jitconfig", lost);
    let mut container = Container::listening(&forge, &[JIT]);
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    // The name that was tried is tried again, found taken, and given up together with its registration.
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}
