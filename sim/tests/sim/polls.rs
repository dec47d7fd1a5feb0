//! GitHub's stand-in where its session, its polls or its registration fail: the rows that the official runner was seen to follow.

use nix::sys::signal::Signal;
use oscr_sim::forge::{Fault, ForgeHandle, JobSpec, Match, Refusals};
use oscr_sim::protocol::JobResult;
use oscr_sim::scale::Scale;
use serde_json::json;

use crate::common::{Agent, LIMIT, Running, forge, token};

/// Polls that were answered so.
fn polls(forge: &ForgeHandle, status: u16) -> usize {
    count(forge, "/_broker/message", status)
}

fn count(forge: &ForgeHandle, path: &str, status: u16) -> usize {
    forge.requests().iter().filter(|r| r.path == path && r.status == Some(status)).count()
}

fn wait_polls(forge: &ForgeHandle, status: u16, times: usize) {
    forge.wait(&format!("{times} polls answered with {status}"), LIMIT, |s| {
        s.requests.iter().filter(|r| r.path == "/_broker/message" && r.status == Some(status)).count() >= times
    });
}

fn refuse(forge: &ForgeHandle, status: u16, times: Option<u32>) {
    // The poll in flight ends, so that the next one begins.
    forge.order(|o| {
        o.poll_timeout_ms = 50;
        o.refuse_polls = Some(Refusals { status, times });
    });
}

/// The agent still takes a job, and says nothing of connections since it was looked at last.
fn works_silently(forge: &ForgeHandle, running: &mut Running) {
    let id = forge.submit(JobSpec::script("after", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert!(!running.said("connected.") && !running.said("econnect"), "{:#?}", running.seen);
}

/// A listener whose polls are short, and which waits for an answer for longer than any takes.
fn listening(forge: &ForgeHandle, name: &str) -> (Agent, Running) {
    forge.order(|o| {
        o.poll_timeout_ms = 50;
        o.time_scale = Scale::REAL;
    });
    let (agent, mut running) = Agent::listening(forge, name);
    running.expect_line("Listening for Jobs");
    (agent, running)
}

#[test]
fn a_poll_401_is_answered_by_a_new_token_and_no_word() {
    let forge = forge();
    let (_agent, mut running) = listening(&forge, "one");
    let before = count(&forge, "/_oauth/token", 200);
    refuse(&forge, 401, Some(1));
    wait_polls(&forge, 401, 1);
    forge.wait("another token", LIMIT, |s| {
        s.requests.iter().filter(|r| r.path == "/_oauth/token" && r.status == Some(200)).count() > before
    });
    works_silently(&forge, &mut running);
}

#[test]
fn a_poll_403_ends_it_with_7_whatever_its_body_and_the_words_tell_which() {
    for (bare, words) in [
        (
            true,
            "An error occurred: Error: Forbidden Runner version v2.338.0 is deprecated and cannot receive messages.",
        ),
        (false, "An error occurred: Runner version v2.338.0 is deprecated and cannot receive messages."),
    ] {
        for (variable, code) in [(true, 7), (false, 1)] {
            let forge = forge();
            let mut agent = Agent::new();
            if variable {
                agent.set("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1");
            }
            forge.order(|o| o.poll_timeout_ms = 50);
            let (_agent, mut running) = agent.listen(&forge, "old", &["--ephemeral"]);
            if bare {
                refuse(&forge, 403, None);
            } else {
                forge.order(|o| o.deprecated = true);
            }
            assert_eq!(running.code(), Some(code));
            assert!(running.seen.iter().any(|line| line == words), "{words}: {:#?}", running.seen);
        }
    }
}

#[test]
fn a_poll_429_is_waited_for_in_silence() {
    let forge = forge();
    let (_agent, mut running) = listening(&forge, "busy");
    refuse(&forge, 429, Some(7));
    wait_polls(&forge, 429, 7);
    works_silently(&forge, &mut running);
}

#[test]
fn five_failing_polls_are_one_word_and_their_recovery_is_none() {
    let forge = forge();
    let (_agent, mut running) = listening(&forge, "cut");
    refuse(&forge, 500, Some(4));
    wait_polls(&forge, 500, 4);
    let good = polls(&forge, 202);
    wait_polls(&forge, 202, good + 2);
    // A good poll in between does not set the count back: the next that fails is the fifth.
    refuse(&forge, 500, Some(1));
    let line = running.expect_line("Runner connect error: Failed to get job message.");
    assert!(line.contains("500") && line.ends_with("Retrying until reconnected."), "{line}");
    assert_eq!(polls(&forge, 500), 5);
    // Nobody hears of the rounds after the first.
    refuse(&forge, 500, Some(10));
    wait_polls(&forge, 500, 15);
    running.seen.clear();
    works_silently(&forge, &mut running);
}

#[test]
fn the_pauses_between_tries_are_the_same_in_every_runner() {
    let forge = forge();
    forge.order(|o| {
        o.poll_timeout_ms = 50;
        o.time_scale = Scale(0.01);
        o.agent_backoff_ms = None;
    });
    let (_agent, mut running) = Agent::listening(&forge, "pauses");
    forge.order(|o| o.refuse_polls = Some(Refusals { status: 500, times: Some(5) }));
    running.expect_line("Runner connect error:");
    let requests = forge.requests();
    let at: Vec<_> = requests.iter().filter(|r| r.status == Some(500)).map(|r| r.at).collect();
    // At least: a machine can be slow.
    let waited = at.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis());
    let least = [105, 139, 87, 87];
    assert!(
        at.len() == 5 && waited.clone().zip(least).all(|(waited, least)| waited >= least),
        "{:?}",
        waited.collect::<Vec<_>>()
    );
}

#[test]
fn a_gateways_refusal_is_tried_four_times_in_each_of_the_five() {
    for status in [502, 503, 504] {
        let forge = forge();
        let (_agent, mut running) = listening(&forge, "gateway");
        refuse(&forge, status, Some(20));
        running.expect_line("Runner connect error:");
        assert_eq!(polls(&forge, status), 20);
    }
}

#[test]
fn a_silent_forge_is_given_up_five_times_before_a_word() {
    let forge = forge();
    forge.order(|o| o.poll_timeout_ms = 50);
    let (_agent, mut running) = Agent::listening(&forge, "silence");
    forge.add_fault(Fault {
        matching: Match { path_contains: Some("/message".into()), ..Match::default() },
        delay_ms: 600_000,
        ..Fault::default()
    });
    running.expect_line("Runner connect error:");
    let given_up = forge.requests().iter().filter(|r| r.path == "/_broker/message" && r.fault).count();
    assert_eq!(given_up, 5);
}

#[test]
fn ten_rounds_of_failing_end_it_with_2() {
    let forge = forge();
    let (_agent, mut running) = listening(&forge, "lost");
    refuse(&forge, 500, None);
    assert_eq!(running.code(), Some(2));
    assert_eq!(polls(&forge, 500), 50);
    assert_eq!(running.seen.iter().filter(|line| line.contains("Runner connect error:")).count(), 1);
    assert!(running.seen.iter().any(|line| line.starts_with("An error occurred: ")), "{:#?}", running.seen);
}

#[test]
fn a_runner_that_is_forgotten_while_idle_cleans_up_and_deletes_no_session() {
    let forge = forge();
    let (agent, mut running) = listening(&forge, "forgotten");
    forge.order(|o| o.forget_polls = 1);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("The runner no longer exists on the server. Cleaning up local configuration."));
    for name in [".runner", ".credentials", ".credentials_rsaparams"] {
        assert!(!agent.root.join(name).exists(), "{name}");
    }
    assert!(!forge.requests().iter().any(|r| r.method == "DELETE"), "{:?}", forge.requests());
}

#[test]
fn a_runner_that_is_forgotten_while_busy_cancels_its_job_and_reports_it() {
    let forge = forge();
    let mut agent = Agent::new();
    let hook = agent.root.join("completed.sh");
    std::fs::write(&hook, "echo completed hook ran\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &hook.to_string_lossy());
    let (agent, mut running) = agent.listen(&forge, "busy", &["--ephemeral"]);
    let id = forge.submit(JobSpec::script("long", "echo started; exec sleep 600"));
    forge.wait("the step runs", LIMIT, |s| s.jobs.iter().any(|j| j.live.contains("started\n")));
    forge.order(|o| o.forget_polls = 1);
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Canceled), "{}", job.log);
    assert!(job.log.contains("completed hook ran"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("The runner no longer exists on the server. Cleaning up local configuration."));
    assert!(running.said("Job long completed with result: Canceled"), "{:#?}", running.seen);
    assert!(!agent.root.join(".runner").exists());
    assert!(!forge.requests().iter().any(|r| r.method == "DELETE"), "{:?}", forge.requests());
}

/// A configured agent, whose requests for a session or a token meet a fault.
fn refused(forge: &ForgeHandle, path: &str, fault: Fault) -> (Agent, Running) {
    let agent = Agent::new();
    let done = agent.configure(forge, "refused", &["--ephemeral"]);
    assert!(done.status.success(), "{done:?}");
    forge.add_fault(Fault { matching: Match { path_contains: Some(path.into()), ..Match::default() }, ..fault });
    let running = agent.run(&[]);
    (agent, running)
}

#[test]
fn a_session_that_is_not_found_is_tried_for_ever_and_one_word_is_said() {
    let forge = forge();
    let body = json!({"source": "actions-broker-listener", "errorKind": "RunnerNotFound", "statusCode": 404});
    let fault = Fault { status: Some(404), body: Some(body), ..Fault::default() };
    let (_agent, mut running) = refused(&forge, "/_broker/session", fault);
    running.expect_line("Runner connect error: Failed to create broker session: ");
    forge.wait("it goes on", LIMIT, |s| {
        s.requests.iter().filter(|r| r.path == "/_broker/session" && r.status == Some(404)).count() > 5
    });
    forge.clear_faults();
    running.expect_line("Listening for Jobs");
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(0));
    assert_eq!(running.seen.iter().filter(|line| line.contains("connect error")).count(), 1, "{:#?}", running.seen);
}

#[test]
fn a_session_of_another_is_said_each_time_and_ends_it_with_5() {
    let forge = forge();
    forge.order(|o| {
        o.session_conflicts = u32::MAX;
        o.conflict_limit_ms = Some(300);
    });
    let agent = Agent::new();
    assert!(agent.configure(&forge, "twice", &[]).status.success());
    let mut running = agent.run(&[]);
    assert_eq!(running.code(), Some(5));
    let said = |part: &str| running.seen.iter().filter(|line| line.contains(part)).count();
    assert_eq!(said("Runner connect error: Error: Conflict."), 1, "{:#?}", running.seen);
    assert!(said("A session for this runner already exists.") > 2, "{:#?}", running.seen);
}

#[test]
fn a_token_endpoint_that_fails_heals_without_a_word() {
    let forge = forge();
    let fault = Fault { status: Some(500), times: Some(3), ..Fault::default() };
    let (_agent, mut running) = refused(&forge, "/_oauth/token", fault);
    running.expect_line("Listening for Jobs");
    assert_eq!(count(&forge, "/_oauth/token", 500), 3);
    works_silently(&forge, &mut running);
}

#[test]
fn a_refused_token_ends_it_with_1() {
    for (status, body) in [(400, json!({"error": "invalid_client"})), (401, json!({"message": "Unauthorized"}))] {
        let forge = forge();
        let fault = Fault { status: Some(status), body: Some(body), ..Fault::default() };
        let (_agent, mut running) = refused(&forge, "/_oauth/token", fault);
        assert_eq!(running.code(), Some(1));
        assert!(running.said("Failed to create a session. The runner registration has been deleted"));
    }
}

#[test]
fn a_runner_that_was_deleted_gets_no_token() {
    let forge = forge();
    let agent = Agent::new();
    assert!(agent.configure(&forge, "deleted", &[]).status.success());
    forge.unregister(forge.runners()[0].id);
    let mut running = agent.run(&[]);
    assert_eq!(running.code(), Some(1));
    assert!(running.said("Failed to create a session. The runner registration has been deleted"));
}

#[test]
fn a_registration_that_was_not_found_is_said_four_times_and_it_goes_on() {
    let forge = forge();
    let text = "Registration 1 was not found.";
    let fault = Fault { status: Some(400), times: Some(1), body: Some(json!({"message": text})), ..Fault::default() };
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
    assert!(agent.configure(&forge, "unsure", &["--ephemeral"]).status.success());
    forge.add_fault(Fault {
        matching: Match { path_contains: Some("/_oauth/token".into()), ..Match::default() },
        ..fault
    });
    let mut running = agent.run(&[]);
    running.expect_line("Listening for Jobs");
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(0));
    assert_eq!(running.seen.iter().filter(|line| line.contains(text)).count(), 4, "{:#?}", running.seen);
}

#[test]
fn a_registration_is_tried_three_times_and_one_that_is_not_found_once() {
    for (status, tries, word) in
        [(401, 3, "Unauthorized"), (403, 3, "Forbidden"), (500, 3, "InternalServerError"), (404, 1, "NotFound")]
    {
        let forge = forge();
        let body = json!({"message": "as the forge says it"});
        forge.add_fault(Fault {
            matching: Match { path_contains: Some("/runner-registration".into()), ..Match::default() },
            status: Some(status),
            body: Some(body),
            ..Fault::default()
        });
        let done = Agent::new().configure(&forge, "refused", &[]);
        assert_eq!(done.status.code(), Some(1));
        assert_eq!(count(&forge, "/api/v3/actions/runner-registration", status), tries);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let words =
            format!("Http response code: {word} from 'POST {}/api/v3/actions/runner-registration'", forge.url());
        assert_eq!(said.matches(&words).count(), tries, "{said}");
        assert_eq!(said.matches("as the forge says it").count(), tries, "{said}");
        let last = format!("Response status code does not indicate success: {status} (");
        assert!(said.lines().last().is_some_and(|line| line.starts_with(&last)), "{said}");
    }
}

#[test]
fn a_taken_name_is_tried_three_times_as_it_is() {
    let forge = forge();
    assert!(Agent::new().configure(&forge, "taken", &[]).status.success());
    let done = Agent::new().configure(&forge, "taken", &[]);
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(count(&forge, "/api/v3/actions/runners/register", 409), 3);
    assert_eq!(forge.runners().len(), 1);
}

#[test]
fn any_port_but_the_default_one_is_dropped_from_the_address() {
    let forge = forge();
    forge.order(|o| o.default_port = None);
    let agent = Agent::new();
    let url = format!("{}/o/r", forge.url());
    let arguments = ["configure", "--unattended", "--url", &url, "--name", "dropped", "--token", &token(&forge)];
    let done = agent.command(&arguments).output().expect("the listener starts");
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(!forge.requests().iter().any(|r| r.agent), "{:?}", forge.requests());
    assert_eq!(forge.runners().len(), 0);
}
