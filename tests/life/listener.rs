//! What the end of the listener leads to, and an agent that is not what it should be.

use std::fs;

use nix::sys::signal::Signal;
use oscr_sim::forge::ListenerExit;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, allow, each};

/// One listener is told to end with this code.
pub fn exit(code: i32) -> ListenerExit {
    ListenerExit { code, text: None, times: 1, runner: None, at_session: false }
}

#[test]
fn a_listener_that_ends_without_a_job_is_replaced_under_a_new_name() {
    each(&[0, 1, 2, 5, 6, 99], |code| {
        let forge = Forge::start();
        let mut container = Container::listening(&forge, &[]);
        let (first, name) = forge.listening();
        forge.order(|orders| orders.listener_exit = Some(exit(*code)));
        container.wait_line("trying again in");
        assert_ne!(forge.another(first).name, name, "code {code}");
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "code {code}");
        assert_eq!(container.exit_code(), 0, "code {code}");
        container.assert_state_empty();
    });
}

#[test]
fn an_agent_that_is_too_old_says_which_version_to_pull() {
    each(&[3, 4, 7], |code| {
        let forge = Forge::start();
        forge.order(|orders| {
            orders.latest_version = "2.999.1".to_owned();
            orders.listener_exit = Some(exit(*code));
        });
        let mut container = Container::new(&forge);
        container.start();
        let line = container.wait_line("trying again in");
        assert!(line.contains("version 2.999.1"), "code {code}: {line}");
        let status = container.status();
        assert_eq!(status["phase"], "outdated", "code {code}: {status}");
        assert_eq!(status["healthy"], false, "code {code}: {status}");
        assert_eq!(container.ask(&["health"]).0, 1, "code {code}");
        assert_eq!(forge.runners().len(), 0, "code {code}");
    });
}

#[test]
fn a_listener_that_says_2_after_its_job_has_done_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (_, _gate) = container.start_with_job();
    forge.order(|orders| orders.listener_exit = Some(exit(2)));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.calls().len(), 2, "{:?}", forge.calls());
    container.assert_state_empty();
}

#[test]
fn a_listener_that_dies_under_its_job_makes_the_container_start_anew() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, _gate) = container.start_with_job();
    nix::sys::signal::kill(container.listener(), Signal::SIGKILL).expect("it runs");
    assert_eq!(container.exit_code(), 75);
    assert!(!container.lines_with("the job was lost").is_empty());
    // The forge gives the job up when its lease runs out, and the registration can go then.
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Abandoned));
    forge.wait_nobody(LIMIT);
    container.assert_state_empty();
}

#[test]
fn an_image_without_agent_is_a_configuration_problem() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    fs::remove_dir_all(container.path("opt/oscr/agent")).expect("an agent");
    container.start();
    assert_eq!(container.exit_code(), 78);
    assert!(!container.lines_with("there is no agent in").is_empty());
    assert_eq!(forge.requests().len(), 0);
}

#[test]
fn a_listener_that_cannot_be_executed_is_said_without_hammering() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let listener = container.path("opt/oscr/agent/bin/Runner.Listener");
    // A file of its own: the other is a link to the program that all tests share.
    fs::remove_file(&listener).expect("a listener");
    crate::harness::write(&listener, "#!/bin/sh\n", 0o644);
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains("cannot be executed"), "{line}");
    let status = container.status();
    assert_eq!(status["phase"], "denied", "{status}");
    assert!(forge.api_requests().len() <= 2, "{:?}", forge.calls());
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn a_listener_without_its_interpreter_is_said_too() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let listener = container.path("opt/oscr/agent/bin/Runner.Listener");
    fs::remove_file(&listener).expect("a listener");
    crate::harness::write_program(&listener, "#!/no/such/interpreter\n");
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains("its interpreter"), "{line}");
}

#[test]
fn a_configure_step_that_fails_is_tried_again_under_the_same_care() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let flag = container.path("failed-once");
    fs::create_dir(&flag).expect("a directory");
    allow(&flag, 0o777);
    container.replace_listener(&format!(
        "if [ \"$1\" = configure ] && mkdir {}/x 2>/dev/null; then echo 'it went wrong' >&2; exit 1; fi",
        flag.display()
    ));
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains("it went wrong"), "{line}");
    forge.listening();
    let state = container.state();
    assert_eq!(state["leftovers"], serde_json::json!([]), "{state}");
}

#[test]
fn the_agent_is_started_as_its_user_in_a_session_of_its_own() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    let listener = container.listener();
    let status = fs::read_to_string(format!("/proc/{listener}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.expect("a field").split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let uid = container.uid.to_string();
    assert_eq!(field("Uid:"), vec![uid.clone(); 4]);
    assert_eq!(field("Gid:"), vec![uid.clone(); 4]);
    assert_eq!(field("Groups:"), [uid]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    // Not the ignored signals: the stand-in ignores SIGPIPE itself.
    for set in ["SigBlk:", "CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(nix::unistd::getsid(Some(listener)).expect("it runs"), listener);
    let links = fs::read_dir(format!("/proc/{listener}/fd")).expect("it runs");
    let inherited = links
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| {
            let link = link.display().to_string();
            link.contains("memfd") || link.contains("var/lib/oscr") || link.contains("run/")
        })
        .count();
    assert_eq!(inherited, 0, "descriptors of PID 1 in the agent");
}
