//! The same life without a configure step.

use nix::sys::signal::Signal;
use oscr_sim::forge::{Cut, Fault};
use oscr_sim::protocol::JobResult;

use crate::happy::a_whole_life;
use crate::harness::{Container, Forge, LIMIT, each, write};

const JIT: (&str, &str) = ("OSCR_REGISTRATION", "jit");

#[test]
fn a_just_in_time_life_leaves_nothing_and_costs_two_requests() {
    assert_eq!(a_whole_life("jit"), ["POST generate-jitconfig 201", "DELETE ID 404"]);
}

#[test]
fn a_forge_whose_address_names_a_port_has_just_in_time_runners() {
    let forge = Forge::start_at_another_port();
    let mut container = Container::listening(&forge, &[JIT]);
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn the_group_is_looked_up_by_name() {
    let forge = Forge::start();
    forge.order(|orders| orders.runner_groups = vec!["Default".into(), "Builders".into()]);
    let mut container = Container::new(&forge);
    container.unset("GITHUB_REPO");
    container.set_all(&[JIT, ("GITHUB_RUNNER_GROUP", "builders")]);
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
    container.set_all(&[JIT, ("GITHUB_RUNNER_GROUP", "nobody")]);
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
    container.unregistered_within(std::time::Duration::from_secs(5));
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

const CONFIG: &str = "run/secrets/jit_config";

/// A container that has a configuration made elsewhere, and nothing else.
fn given<'f>(forge: &'f Forge, name: &str) -> Container<'f> {
    let mut container = Container::new(forge);
    for setting in ["GITHUB_PAT_FILE", "GITHUB_OWNER", "GITHUB_REPO", "GITHUB_HOST"] {
        container.unset(setting);
    }
    std::fs::remove_file(container.path(crate::harness::SECRET)).expect("it was there");
    write(&container.path(CONFIG), &forge.jit_config(name), 0o400);
    forge.clear_requests();
    container.set("ACTIONS_RUNNER_INPUT_JITCONFIG_FILE", &container.text(CONFIG));
    container
}

#[test]
fn a_configuration_made_elsewhere_is_good_for_one_job_and_waits_for_the_next_one() {
    let forge = Forge::start();
    let mut container = given(&forge, "theirs-1");
    container.start();
    let (_, name) = forge.listening();
    assert_eq!(name, "theirs-1");
    assert_eq!(container.status()["runner"]["name"], "theirs-1");
    let job = forge.wait_job(forge.job("pwd"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains(&container.text("work/")), "it works where it is wiped: {}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.calls(), Vec::<String>::new(), "nobody was asked");

    // Its restart policy starts it again, with the same configuration.
    container.restart();
    let line = container.wait_line("trying again in");
    assert!(line.contains("theirs-1") && line.contains("is good for one"), "{line}");
    assert!(line.contains("ACTIONS_RUNNER_INPUT_JITCONFIG_FILE"), "{line}");
    assert_eq!(container.status()["phase"], "denied");
    write(&container.path(CONFIG), &forge.jit_config("theirs-2"), 0o400);
    assert_eq!(forge.listening().1, "theirs-2");
    container.wait_line("a new phase: listening");
    assert_eq!(container.lines_with("a new phase: listening").len(), 1, "the used one was not tried");
}

#[test]
fn a_runner_asks_for_no_updates_of_itself_whoever_made_its_configuration() {
    each(&[true, false], |theirs| {
        let forge = Forge::start();
        let mut container = if *theirs { given(&forge, "theirs") } else { Container::new(&forge) };
        if !theirs {
            container.set_all(&[JIT]);
        }
        container.start();
        forge.listening();
        forge.wait_requests("/_broker/message", 1);
        let polls: Vec<String> =
            forge.requests().into_iter().filter(|r| r.path == "/_broker/message").filter_map(|r| r.query).collect();
        assert!(polls.iter().all(|query| query.contains("disableUpdate=true")), "{polls:?}");
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
    });
}

#[test]
fn an_idle_runner_of_a_configuration_made_elsewhere_can_be_started_again() {
    let forge = Forge::start();
    let mut container = given(&forge, "theirs");
    container.start();
    forge.listening();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.lines_with("theirs stays registered").len(), 1, "{:#?}", container.lines());
    assert_eq!(forge.runners().len(), 1);
    container.restart();
    forge.listening();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_configuration_that_the_forge_does_not_know_is_tried_once() {
    let forge = Forge::start();
    let mut container = given(&forge, "theirs");
    forge.unregister(forge.runners()[0].id);
    container.start();
    let line = container.wait_line("is good for one");
    assert!(line.contains("generate-jitconfig"), "{line}");
    assert_eq!(container.lines_with("Listening for Jobs").len(), 0);
}

#[test]
fn mistakes_about_a_configuration_are_found_before_anybody_is_asked() {
    let cases = [
        ("", "ghp_0123456789abcdef", "is no just-in-time configuration"),
        ("RUNNER_TOKEN", "a-token", "complete by itself"),
    ];
    each(&cases, |(setting, value, said)| {
        let forge = Forge::start();
        let mut container = given(&forge, "theirs");
        if setting.is_empty() {
            write(&container.path(CONFIG), value, 0o400);
        } else {
            container.set(setting, value);
        }
        container.start();
        assert_eq!(container.exit_code(), 78);
        assert_eq!(container.lines_with(said).len(), 1, "{:#?}", container.lines());
    });
}
