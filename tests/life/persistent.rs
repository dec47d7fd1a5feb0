//! One registration over many jobs, restarts and stops; and life with nothing but a registration token.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::forge::{Fault, Match, Snapshot};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::harness::{Container, Forge, LIMIT, each, until, write};

const PERSISTENT: (&str, &str) = ("RUNNER_PERSISTENT", "true");

#[test]
fn a_registration_is_kept_over_jobs_stops_and_kills_while_the_slate_is_not() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[PERSISTENT]);
    let (id, _) = forge.listening();
    let look = "ls -A; ls -A ../..; touch mine; echo evil >/proc/self/cwd/../../shared";
    let work = |round: &str| {
        let job = forge.wait_job(forge.job(look), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{round}: {}", job.log);
        assert_eq!(job.runner_id, Some(id), "{round}");
        for leftover in ["\nmine\n", "\nshared\n"] {
            assert!(!job.log.contains(leftover), "{round}: {}", job.log);
        }
        forge.listening();
    };
    work("first");
    work("second");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(8)), 0);
    assert_eq!(forge.runners()[0].id, id, "kept over a stop");
    assert_eq!(container.state()["current"]["id"], id);
    container.restart();
    forge.listening();
    work("after a stop");
    container.signal(Signal::SIGKILL);
    container.restart();
    // Its agent asks again until the old session ends.
    let refused =
        |seen: &Snapshot| seen.requests.iter().any(|r| r.path.ends_with("/_broker/session") && r.status == Some(409));
    forge.wait("the new session is refused", LIMIT, refused);
    assert!(forge.let_go(id));
    forge.listening();
    work("after a kill");
    let tokens = forge.calls();
    let tokens = tokens.iter().filter(|call| call.starts_with("POST"));
    assert_eq!(tokens.count(), 1, "registered once");
    assert!(!forge.calls().iter().any(|call| call.starts_with("DELETE")));
}

#[test]
fn a_registration_that_is_lost_is_made_anew() {
    let forge = Forge::start();
    forge.order(|orders| orders.end_polls_on_delete = true);
    let mut container = Container::listening(&forge, &[PERSISTENT]);
    let (first, _) = forge.listening();
    // While it listens, and while it is away.
    forge.unregister(first);
    let second = forge.another(first).id;
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    forge.unregister(second);
    container.restart();
    forge.another(second);
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
}

#[test]
fn a_registration_is_kept_whatever_its_listener_ends_of_while_the_forge_knows_it() {
    type New = fn(&Forge) -> Container<'_>;
    let (github, azure): (New, New) = (|forge| Container::new(forge), |forge| Container::azure(forge));
    let ends = [(github, 0), (github, 1), (github, 5), (github, 7), (github, 99), (azure, 0), (azure, 1), (azure, 2)];
    each(&ends, |(container, code)| {
        let forge = Forge::start();
        let mut container = container(&forge);
        container.set(PERSISTENT.0, PERSISTENT.1);
        // Nothing is wrong with its registration when its listener ends like this.
        let broken = container.path("broken");
        write(&broken, "", 0o444);
        container.replace_listener(&format!("[ \"$1\" = run ] && [ -e {} ] && exit {code}", broken.display()));
        container.start();
        container.wait_line("trying again in");
        fs::remove_file(broken).expect("our own file");
        let (id, _) = forge.listening();
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).runner_id, Some(id));
        let calls = forge.calls();
        assert!(!calls.iter().any(|call| call.starts_with("DELETE")), "{calls:?}");
        assert_eq!(forge.runners().len(), 1);
    });
}

#[test]
fn a_session_of_a_life_that_was_killed_is_waited_for_and_shown() {
    let kinds: [for<'f> fn(&'f Forge) -> Container<'f>; 2] =
        [|forge| Container::new(forge), |forge| Container::azure(forge)];
    each(&kinds, |container| {
        let forge = Forge::start();
        let mut container = container(&forge);
        container.set(PERSISTENT.0, PERSISTENT.1);
        container.start();
        let (id, _) = forge.listening();
        // The agent gives up soon, and is started again and again.
        forge.order(|orders| orders.conflict_limit_ms = Some(200));
        container.signal(Signal::SIGKILL);
        container.restart();
        until("two have given up", || container.lines_with("trying again in").len() >= 2);
        until("the status tells it", || {
            let status = container.status();
            status["connection"] == "lost" && status["last_error"].to_string().contains("already exists")
        });
        assert!(forge.let_go(id));
        forge.listening();
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).runner_id, Some(id));
        assert_eq!(forge.runners().len(), 1);
    });
}

#[test]
fn half_an_answer_is_asked_for_again_and_not_remembered() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[PERSISTENT]);
    let (id, _) = forge.listening();
    // What the runner asks after each job, to know whether its registration is still there.
    let matching = Match { method: Some("GET".into()), agent: Some(false), ..Match::default() };
    forge.add_fault(Fault { matching, times: Some(1), truncate: true, ..Fault::default() });
    forge.wait_job(forge.job("true"), LIMIT);
    container.wait_line("is not the expected JSON");
    let next = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!((next.result, next.runner_id), (Some(JobResult::Succeeded), Some(id)), "{}", next.log);
}

#[test]
fn a_stop_during_a_persistent_runners_job_lets_it_finish_and_keeps_the_registration() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set_all(&[PERSISTENT]);
    let (job, mut gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 1);
}

#[test]
fn a_runner_that_stops_being_persistent_leaves_its_registration_behind_for_removal() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[PERSISTENT]);
    let (first, _) = forge.listening();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    container.unset(PERSISTENT.0);
    container.restart();
    assert!(forge.another(first).ephemeral);
}

/// A container that has a registration token and no other credential.
fn with_token_only<'f>(forge: &'f Forge, token: &str) -> Container<'f> {
    let mut container = Container::new(forge);
    container.unset("GITHUB_PAT_FILE");
    container.set("RUNNER_TOKEN", token);
    container
}

#[test]
fn a_remove_command_that_fails_is_told_in_the_agents_last_words_and_the_forges() {
    let forge = Forge::start();
    let mut container = with_token_only(&forge, &forge.registration_token());
    container.set("OSCR_KILL_TIMEOUT", "1");
    let said = "echo '{\"message\":\"Not allowed\"}' >&2; echo It went wrong >&2";
    container.replace_listener(&format!("if [ \"$1\" = remove ]; then {said}; exit 1; fi"));
    container.start();
    forge.listening();
    container.signal(Signal::SIGTERM);
    let line = container.wait_line("remove command failed");
    assert!(line.contains("(exit code 1): It went wrong (Not allowed)"), "{line}");
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_registration_token_is_enough_for_a_job_and_for_a_stop() {
    let forge = Forge::start();
    let token = forge.registration_token();
    let mut container = with_token_only(&forge, &token);
    container.start();
    forge.listening();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    container.restart();
    forge.listening();
    container.signal(Signal::SIGTERM);
    container.unregistered_within(Duration::from_secs(5));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.calls().len(), 1, "ours alone: {:?}", forge.calls());
    assert!(container.lines().iter().all(|line| !line.contains(&token)));
}

#[test]
fn a_registration_token_that_is_no_good_is_a_denial_that_says_so() {
    let forge = Forge::start();
    let mut container = with_token_only(&forge, "AEXPIREDTOKEN");
    container.start();
    let line = container.wait_line("trying again in");
    assert!(line.contains("lives for an hour"), "{line}");
    let status = container.status();
    assert_eq!(status["phase"], "denied", "{status}");
}

#[test]
fn a_job_that_a_persistent_runner_was_just_given_is_waited_for() {
    type New = fn(&Forge) -> Container<'_>;
    let kinds: [(New, &str); 2] =
        [(|forge| Container::new(forge), "/runners/"), (|forge| Container::azure(forge), "/agents/")];
    each(&kinds, |(container, path)| {
        let forge = Forge::start();
        let mut container = container(&forge);
        container.set(PERSISTENT.0, PERSISTENT.1);
        container.start();
        let (id, name) = forge.listening();
        let body =
            json!({ "id": id, "name": name, "status": "online", "busy": true, "assignedRequest": { "requestId": 1 } });
        let matching = Match { method: Some("GET".to_owned()), ..Match::default() };
        forge.fault(path, Fault { matching, status: Some(200), body: Some(body), times: Some(1), ..Fault::default() });
        container.signal(Signal::SIGTERM);
        container.wait_line("a job has been assigned");
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert_eq!(container.exit_code(), 0);
        assert_eq!(forge.runners().len(), 1);
    });
}
