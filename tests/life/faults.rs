//! The forge misbehaves. What passes is waited out, what does not is said once and asked about rarely.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use oscr_sim::forge::{Cut, Fault, Match};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::harness::{Container, Forge, LIMIT, SECRET, each, write};

/// Seconds from now to the status' `next_retry`.
fn seconds_to_retry(status: &serde_json::Value) -> u64 {
    let retry = status["next_retry"].as_str().expect("a time");
    let retry = humantime::parse_rfc3339(retry).expect("RFC 3339");
    let left = retry.duration_since(SystemTime::now());
    left.unwrap_or_default().as_secs()
}

/// Asserts that a runner is denied, says why in one line, and leaves the forge alone.
fn assert_denied(forge: &Forge, container: &Container<'_>, words: &[&str], requests: usize) {
    container.wait_line("trying again in");
    let lines = container.lines_with("trying again in");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for word in words {
        assert!(lines[0].contains(word), "{word}: {}", lines[0]);
    }
    let status = container.status();
    assert_eq!(status["phase"], "denied", "{status}");
    assert_eq!(status["healthy"], false, "{status}");
    assert!(container.pause(&status) >= Duration::from_secs(25), "{status}");
    let (code, out, _) = container.ask(&["health"]);
    assert_eq!(code, 1);
    assert!(out.contains(words[0]), "{out}");
    assert_eq!(forge.api_requests().len(), requests, "{:?}", forge.calls());
}

/// Asserts that the last request came before it would have been tried again without a reason.
fn assert_sooner(forge: &Forge, retry: &serde_json::Value) {
    let retry = humantime::parse_rfc3339(retry.as_str().expect("a time")).expect("RFC 3339");
    let last = forge.api_requests().pop().expect("it asked");
    assert!(SystemTime::from(last.at) < retry, "{last:?}");
}

#[test]
fn a_wrong_token_is_said_once_and_a_corrected_file_is_used_within_seconds() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let secret = container.path(SECRET);
    write(&secret, "ghp_wrong", 0o400);
    container.start();
    assert_denied(&forge, &container, &["401", "GITHUB_PAT_FILE", "wrong, expired or revoked"], 1);
    let retry = container.status()["next_retry"].clone();
    write(&secret, &forge.pat(), 0o400);
    forge.listening();
    assert_sooner(&forge, &retry);
    assert_eq!(forge.api_requests().len(), 2, "{:?}", forge.calls());
    // That it registers and listens proves nothing yet; a job does.
    let status = container.wait_phase("listening");
    assert!(status["reason"].to_string().contains("401"), "{status}");
    let mut gate = container.gate();
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    assert_eq!(container.ask(&["health"]).0, 0);
    gate.open();
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_replaced_file_is_noticed_too() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let secret = container.path(SECRET);
    write(&secret, "ghp_wrong", 0o400);
    container.start();
    container.wait_line("trying again in");
    let retry = container.status()["next_retry"].clone();
    // As Kubernetes does, and every careful editor.
    let new = container.path("run/secrets/new");
    write(&new, &forge.pat(), 0o400);
    std::fs::rename(&new, &secret).expect("the same directory");
    forge.listening();
    assert_sooner(&forge, &retry);
}

#[test]
fn each_refusal_names_its_cure() {
    type Refusal = fn(&Forge);
    let refusals: [(Refusal, &[&str]); 4] = [
        (
            |forge| forge.order(|o| o.only_scopes = vec!["repos/else/where".into()]),
            &["404", "GITHUB_OWNER and GITHUB_REPO"],
        ),
        (
            |forge| {
                forge.order(|o| {
                    o.deny.insert("repos/o/r".into(), 403);
                });
            },
            &["403", "Administration"],
        ),
        (
            |forge| {
                let fault =
                    Fault { status: Some(422), body: Some(json!({"message": "Labels are silly"})), ..Fault::default() };
                forge.fault("registration-token", fault);
            },
            &["422", "Labels are silly"],
        ),
        (
            |forge| {
                let fault = Fault {
                    status: Some(301),
                    headers: [("location".to_owned(), "/elsewhere".to_owned())].into(),
                    ..Fault::default()
                };
                forge.fault("registration-token", fault);
            },
            &["301", "moved"],
        ),
    ];
    each(&refusals, |(refusal, words)| {
        let forge = Forge::start();
        refusal(&forge);
        let mut container = Container::new(&forge);
        container.start();
        assert_denied(&forge, &container, words, 1);
    });
}

#[test]
fn a_forge_that_is_down_at_the_start_is_waited_for() {
    let forge = Forge::start();
    forge.go_down();
    let mut container = Container::new(&forge);
    container.start();
    container.wait_line("trying again in");
    let status = container.status();
    assert_eq!(status["phase"], "backing-off", "{status}");
    assert_eq!(status["healthy"], true, "a short outage is no illness");
    forge.come_back().expect("the port is still free");
    forge.listening();
    assert_eq!(container.status()["next_retry"], serde_json::Value::Null);
}

#[test]
fn what_passes_is_tried_again_until_it_works() {
    let once = || Fault { times: Some(1), ..Fault::default() };
    let status = |status: u16| Fault { status: Some(status), ..once() };
    let cut = |cut: Cut| Fault { cut: Some(cut), ..once() };
    let faults = [
        status(500),
        status(502),
        status(503),
        cut(Cut::Before),
        cut(Cut::After),
        cut(Cut::Headers),
        cut(Cut::Body),
        Fault { truncate: true, ..once() },
        Fault { body: Some(json!({"other": "form"})), ..once() },
        Fault { body: Some(json!("<html>a captive portal</html>")), ..once() },
        Fault { status: Some(200), body: Some(json!("<html>a captive portal</html>")), ..once() },
    ];
    each(&faults, |fault| {
        let forge = Forge::start();
        forge.fault("registration-token", fault.clone());
        let container = Container::listening(&forge, &[]);
        assert_eq!(forge.api_requests().len(), 2, "{fault:?}");
        let said = container.lines_with("trying again in");
        assert_eq!(said.len(), 1, "{fault:?}: {said:#?}");
        assert!(said[0].contains("backing-off"), "{fault:?}: {said:#?}");
    });
}

#[test]
fn a_late_answer_is_an_answer() {
    let forge = Forge::start();
    let late = Fault { delay_ms: 1500, ..Fault::default() };
    forge.fault("registration-token", late);
    let _container = Container::listening(&forge, &[]);
    assert_eq!(forge.api_requests().len(), 1);
}

#[test]
fn the_silence_that_the_forge_asks_for_is_kept() {
    let reset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() + 4;
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let limits = [
        (429, vec![header("retry-after", "3")]),
        (403, vec![header("retry-after", "3")]),
        (403, vec![header("x-ratelimit-remaining", "0"), header("x-ratelimit-reset", &reset.to_string())]),
    ];
    each(&limits, |(status, headers)| {
        let forge = Forge::start();
        let limit = Fault {
            status: Some(*status),
            headers: headers.iter().cloned().collect(),
            times: Some(1),
            ..Fault::default()
        };
        forge.fault("registration-token", limit);
        let container = Container::listening(&forge, &[]);
        let requests = forge.api_requests();
        assert_eq!(requests.len(), 2);
        let again = requests[1].at;
        if headers.len() == 1 {
            let waited = again.duration_since(requests[0].at);
            assert!(waited.as_millis() >= 3000, "{status}: {waited}");
        } else {
            assert!(again.as_second() >= i64::try_from(reset).expect("this century"), "{status}: {again}");
        }
        assert!(container.lines_with("limits our requests").len() == 1);
    });
}

#[test]
fn a_limit_that_lasts_is_waited_out_and_shown() {
    let forge = Forge::start();
    forge.order(|orders| orders.rate_used = orders.rate_limit);
    let mut container = Container::new(&forge);
    container.start();
    container.wait_line("limits our requests");
    let status = container.status();
    assert_eq!(status["phase"], "backing-off", "{status}");
    assert!(seconds_to_retry(&status) > 3000, "{status}");
    assert_eq!(forge.api_requests().len(), 1);
}

#[test]
fn an_outage_during_a_job_does_not_lose_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, mut gate) = container.start_with_job();
    forge.go_down();
    gate.open();
    container.wait_line("worker is process");
    forge.come_back().expect("the port is still free");
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn a_removal_whose_answer_is_lost_is_asked_for_again() {
    let forge = Forge::start();
    let lost = Fault {
        matching: Match { method: Some("DELETE".to_owned()), ..Match::default() },
        cut: Some(Cut::After),
        times: Some(1),
        ..Fault::default()
    };
    forge.fault("/runners/", lost);
    let mut container = Container::listening(&forge, &[]);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.calls()[1..], ["DELETE ID -", "DELETE ID 404"], "gone is gone");
    container.assert_state_empty();
}

#[test]
fn a_registration_that_the_forge_forgot_to_remove_is_removed() {
    let forge = Forge::start();
    forge.order(|orders| orders.ephemeral_removal = oscr_sim::forge::Removal::Never);
    let mut container = Container::listening(&forge, &[]);
    forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    assert_eq!(forge.calls()[1..], ["DELETE ID 204"]);
}

#[test]
fn a_clock_that_is_wrong_is_said() {
    let forge = Forge::start();
    forge.order(|orders| orders.clock_offset_s = 3600);
    let container = Container::listening(&forge, &[]);
    let said = container.lines_with("clock is");
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("behind the forge's"), "{said:#?}");
}
