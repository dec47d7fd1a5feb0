//! What the end of the listener leads to, and an agent that is not what it should be.

use std::fs;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, ListenerExit, Match, Refusals};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, SECRET, allow, each, until, write};

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
fn a_failed_configure_step_is_told_in_the_agents_words_and_the_forges() {
    let forge = Forge::start();
    let matching = Match { path_contains: Some("/runner-registration".to_owned()), ..Match::default() };
    let body = Some(serde_json::json!({"message": "Resource not accessible by this token"}));
    forge.add_fault(Fault { matching, status: Some(403), body, ..Fault::default() });
    let mut container = Container::new(&forge);
    container.start();
    let line = container.wait_line("configure step failed");
    assert!(line.contains("Response status code does not indicate success: 403 (Forbidden)."), "{line}");
    assert!(line.contains("(Resource not accessible by this token)"), "{line}");
}

#[test]
fn a_failed_configure_step_is_told_in_the_last_words_of_either_pipe() {
    let kinds: [for<'f> fn(&'f Forge) -> Container<'f>; 2] =
        [|forge| Container::new(forge), |forge| Container::azure(forge)];
    let cases: Vec<_> = kinds.into_iter().flat_map(|kind| [(kind, 1, 2), (kind, 2, 1)]).collect();
    each(&cases, |(container, first, last)| {
        let forge = Forge::start();
        let mut container = container(&forge);
        let mut gate = container.gate();
        let trace = match container.kind {
            Kind::GitHub => {
                "[RUNNER 2026-11-29 10:31:56Z INFO Listener] Runner execution has finished with return code 1"
            }
            Kind::Azure => "",
        };
        container.replace_listener(&format!(
            "if [ \"$1\" = configure ]; then echo at the gate >&{first}; read -r _ <'{}'; echo no pool here >&{last}; echo '{trace}'; exit 1; fi",
            container.text("gate")
        ));
        container.start();
        container.wait_line("at the gate");
        gate.open();
        let line = container.wait_line("configure step failed");
        assert!(line.contains("configure step failed (exit code 1): no pool here"), "{line}");
    });
}

#[test]
fn the_reason_that_is_shown_is_what_the_listener_said() {
    let kinds: [for<'f> fn(&'f Forge) -> Container<'f>; 2] =
        [|forge| Container::new(forge), |forge| Container::azure(forge)];
    each(&kinds, |container| {
        let forge = Forge::start();
        let mut container = container(&forge);
        container.start();
        forge.listening();
        let words = "An error occurred: Access to the path '/work/_temp' is denied.";
        forge.order(|orders| orders.listener_exit = Some(ListenerExit { text: Some(words.to_owned()), ..exit(1) }));
        let line = container.wait_line("trying again in");
        assert!(line.contains("(code 1)") && line.contains(words), "{line}");
        assert!(!line.contains("registration"), "no cause that was not said: {line}");
    });
}

#[test]
fn a_registration_that_stays_for_now_is_said_to_be_tried_by_the_one_who_tries_it() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    let (first, _) = forge.listening();
    forge.fault("/runners/", Fault { status: Some(403), times: Some(1), ..Fault::default() });
    forge.order(|orders| orders.listener_exit = Some(exit(2)));
    forge.another(first);
    let said = container.lines_with("the registration cannot be removed");
    assert!(
        said.len() == 1 && said[0].ends_with("; it is tried again before this container registers anew"),
        "{said:#?}"
    );
    assert!(container.lines_with("the next incarnation").is_empty(), "{:#?}", container.lines());
    assert_eq!(forge.runners().len(), 1);
}

#[test]
fn a_listener_that_ends_by_itself_each_time_is_unhealthy_until_one_has_a_job() {
    let kinds: [for<'f> fn(&'f Forge) -> Container<'f>; 2] =
        [|forge| Container::new(forge), |forge| Container::azure(forge)];
    each(&kinds, |container| {
        let forge = Forge::start();
        let mut container = container(&forge);
        let mut gate = container.gate();
        let broken = container.path("broken");
        crate::harness::write(&broken, "", 0o444);
        container.replace_listener(&format!(
            "if [ \"$1\" = run ] && [ -e {} ]; then echo '2026-01-01 00:00:00Z: Listening for Jobs'; exit 99; fi",
            broken.display()
        ));
        container.start();
        until("three have ended", || container.lines_with("trying again in").len() >= 3);
        let status = container.status();
        assert_eq!(status["healthy"], false, "{status}");
        assert!(status["reason"].to_string().contains("listeners in a row"), "{status}");
        assert_eq!(container.ask(&["health"]).0, 1);
        fs::remove_file(broken).expect("our own file");
        // That it registers and listens again proves nothing.
        forge.listening();
        let status = container.wait_phase("listening");
        assert_eq!(status["healthy"], false, "{status}");
        let job = forge.job(&gate.wait());
        forge.wait_log(job, "at the gate");
        assert_eq!(container.wait_phase("running")["healthy"], true);
        gate.open();
        assert_eq!(container.exit_code(), 0);
    });
}

#[test]
fn listeners_that_we_end_count_for_nothing() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_WATCH_INTERVAL", "1");
    container.start();
    let mut known = 0;
    for _ in 0..3 {
        known = forge.another(known).id;
        // The forge's list does not know it any more, so it is replaced.
        let matching = Match { method: Some("GET".to_owned()), ..Match::default() };
        forge.fault(&format!("/actions/runners/{known}"), Fault { matching, status: Some(404), ..Fault::default() });
    }
    forge.another(known);
    let status = container.wait_phase("listening");
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(container.lines_with("replacing the listener").len(), 3);
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
fn a_refusal_without_a_cause_is_a_fault_and_after_three_in_a_row_a_denial_that_names_what_it_can_be() {
    let forge = Forge::start();
    forge.order(|orders| orders.refuse_polls = Some(Refusals { status: 403, times: None }));
    let mut container = Container::new(&forge);
    container.start();
    until("three have ended", || container.lines_with("trying again in").len() == 3);
    let lines = container.lines_with("trying again in");
    for (at, line) in lines.iter().enumerate() {
        assert!(line.contains("code 7") && line.contains("Error: Forbidden Runner version"), "{line}");
        let (phase, denied) = if at < 2 { (" backing-off", false) } else { (" denied", true) };
        assert!(line.contains(phase), "{phase}: {line}");
        for cause in ["3 listeners in a row", "too old", "OSCR_AGENT_UPDATE", "IP allow list", "proxy"] {
            assert_eq!(line.contains(cause), denied, "{cause}: {line}");
        }
    }
    let status = container.wait_phase("denied");
    assert_eq!(status["healthy"], false, "{status}");
    assert!(status["reason"].to_string().contains("IP allow list"), "{status}");
    assert!(container.pause(&status) >= std::time::Duration::from_secs(25), "{status}");
    assert_eq!(forge.runners().len(), 0);
    // It is tried again once somebody touches the secret; that it listens proves nothing yet, a job does.
    forge.order(|orders| orders.refuse_polls = None);
    write(&container.path(SECRET), &forge.pat(), 0o400);
    forge.listening();
    let status = container.wait_phase("listening");
    assert!(status["reason"].to_string().contains("IP allow list"), "{status}");
    let mut gate = container.gate();
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    assert_eq!(container.wait_phase("running")["healthy"], true);
    gate.open();
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_refusal_that_names_the_version_is_believed_at_once() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.deprecated = true;
        orders.latest_version = "2.999.1".to_owned();
    });
    let mut container = Container::new(&forge);
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains(" outdated") && line.contains("version 2.999.1"), "{line}");
    let status = container.status();
    assert!(status["reason"].to_string().contains("does not accept this version"), "{status}");
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
    let runner = forge.runner_of(job);
    nix::sys::signal::kill(container.listener(), Signal::SIGKILL).expect("it runs");
    // The forge believes in the job, and the next life lets the registration go.
    assert_eq!(container.exit_code(), 75);
    assert!(!container.lines_with("the job was lost").is_empty());
    assert!(forge.let_go(runner));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Abandoned));
    container.restart();
    container.wait_line("of an earlier incarnation is not registered any more");
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
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
