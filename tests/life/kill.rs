//! SIGKILL and power cuts: what an incarnation could not clean up, the next one does.

use nix::sys::signal::Signal;
use oscr_sim::forge::Removal;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, WIPED};

#[test]
fn a_runner_killed_while_idle_is_removed_before_another_registers() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let (first, _) = forge.listening();
    container.signal(Signal::SIGKILL);
    container.restart();
    forge.another(first);
    assert_eq!(forge.calls(), ["POST registration-token 201", "DELETE ID 204", "POST registration-token 201"]);
}

#[test]
fn a_runner_killed_during_a_job_is_removed_once_the_forge_gives_the_job_up() {
    let forge = Forge::start();
    forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    let mut container = Container::new(&forge);
    let gate = container.gate();
    container.start();
    let (first, _) = forge.listening();
    let job = forge.job(&format!("touch leftover; {}", gate.wait()));
    forge.wait_log(job, "at the gate");
    container.signal(Signal::SIGKILL);
    container.restart();
    // The forge believes in the job; a new runner serves meanwhile.
    container.wait_line("still runs a job");
    assert!(forge.let_go(first));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Abandoned));
    let job = forge.job("ls -A; echo looked");
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert_ne!(job.runner_id, Some(first));
    assert!(!job.log.contains("leftover\n"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    for place in WIPED {
        assert!(container.names(place).is_empty(), "{place}");
    }
}

#[test]
fn a_registration_that_was_busy_is_removed_while_the_next_runner_listens() {
    let forge = Forge::start();
    forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    let mut container = Container::new(&forge);
    let (_, _gate) = container.start_with_job();
    let first = forge.runners()[0].id;
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("still runs a job");
    assert!(forge.let_go(first));
    let alone = |seen: &oscr_sim::forge::Snapshot| seen.runners.iter().all(|runner| runner.id != first);
    forge.wait("the dead runner's registration is gone", LIMIT, |seen| !seen.runners.is_empty() && alone(seen));
    assert_eq!(container.status()["phase"], "listening");
}

#[test]
fn a_runner_killed_in_the_moment_it_is_registered_is_removed() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.start();
    let seen = forge.wait("a registration", LIMIT, |seen| !seen.runners.is_empty());
    container.signal(Signal::SIGKILL);
    container.restart();
    let first = seen.runners[0].id;
    forge.another(first);
}

#[test]
fn a_damaged_state_file_is_put_aside_and_said_and_the_runner_works() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    crate::harness::write(&container.path("var/lib/oscr/state.json"), "{\"vers", 0o600);
    container.start();
    container.wait_line("is damaged");
    forge.listening();
    assert!(container.path("var/lib/oscr/state.damaged.json").exists());
}

#[test]
fn a_leftover_that_its_scope_refuses_does_not_keep_the_runner_from_working() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.deny.insert("orgs/former".to_owned(), 403);
    });
    let mut container = Container::new(&forge);
    let foreign = format!(
        r#"{{"version":1,"current":{{"id":7,"name":"old","scope":"{}/api/v3/orgs/former/actions"}},"leftovers":[],"failures":0}}"#,
        forge.url()
    );
    crate::harness::write(&container.path("var/lib/oscr/state.json"), &foreign, 0o600);
    container.start();
    container.wait_line("which refuses us");
    forge.listening();
    let state = container.state();
    assert_eq!(state["leftovers"], serde_json::json!([]), "{state}");
}
