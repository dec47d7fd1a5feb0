//! Faults of the forge's answers, at each request of a life.

use std::collections::BTreeMap;
use std::time::SystemTime;

use nix::sys::signal::Signal;
use oscr_sim::forge::{Cut, Fault, Match, Removal};
use serde_json::json;

use crate::harness::{Container, Forge, write};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_denied, assert_said, correct, listens, restart, seconds_to_retry, story};

/// What an answer leads to.
#[derive(Clone, Copy)]
enum Outcome {
    /// Tried again soon, until it works.
    Retry,
    /// The container waits for a person: words that the line must have.
    Denied(&'static [&'static str]),
    /// So many seconds of silence, then on.
    Limited(u64),
    /// Another name is tried.
    NewName,
    /// What should be removed is gone.
    Gone,
    /// The forge believes that a job runs.
    Busy,
    /// Not at all: a late answer is an answer.
    Nothing,
}

/// One way in which an answer is wrong.
struct Wrong {
    name: &'static str,
    fault: fn() -> Fault,
    /// What it means for a request in general.
    outcome: Outcome,
    /// It says something about the body, so it cannot befall an answer that has none.
    body: bool,
}

fn status(status: u16) -> Fault {
    Fault { status: Some(status), ..Fault::default() }
}

fn limited(code: u16, headers: &[(&str, String)]) -> Fault {
    let headers: BTreeMap<_, _> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Fault { headers, ..status(code) }
}

fn in_seconds(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    (now.as_secs() + seconds).to_string()
}

fn cut(cut: Cut) -> Fault {
    Fault { cut: Some(cut), ..Fault::default() }
}

const fn wrong(name: &'static str, outcome: Outcome, fault: fn() -> Fault) -> Wrong {
    Wrong { name, fault, outcome, body: false }
}

const fn garbled(name: &'static str, fault: fn() -> Fault) -> Wrong {
    Wrong { name, fault, outcome: Outcome::Retry, body: true }
}

const WRONG: &[Wrong] = &[
    wrong("401", Outcome::Denied(&["401", "replace it"]), || status(401)),
    wrong("403", Outcome::Denied(&["403", "needs"]), || status(403)),
    wrong("403 with Retry-After", Outcome::Limited(1), || limited(403, &[("retry-after", "1".to_owned())])),
    wrong("403 with an exhausted x-ratelimit", Outcome::Limited(1), || {
        limited(403, &[("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", in_seconds(2))])
    }),
    wrong("403 with a reset in a thousand years", Outcome::Limited(7000), || {
        limited(403, &[("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", in_seconds(31_536_000_000))])
    }),
    wrong("404", Outcome::Denied(&["404", "check"]), || status(404)),
    wrong("409", Outcome::Denied(&["409"]), || status(409)),
    wrong("422", Outcome::Denied(&["422"]), || status(422)),
    wrong("429", Outcome::Limited(55), || status(429)),
    wrong("429 with Retry-After", Outcome::Limited(1), || limited(429, &[("retry-after", "1".to_owned())])),
    wrong("301", Outcome::Denied(&["301", "moved"]), || limited(301, &[("location", "/elsewhere".to_owned())])),
    wrong("500", Outcome::Retry, || status(500)),
    wrong("502", Outcome::Retry, || Fault { body: Some(json!("<html>Bad Gateway</html>")), ..status(502) }),
    wrong("503", Outcome::Retry, || status(503)),
    wrong("connection lost before the request", Outcome::Retry, || cut(Cut::Before)),
    wrong("connection lost after the request", Outcome::Retry, || cut(Cut::After)),
    wrong("connection lost within the headers", Outcome::Retry, || cut(Cut::Headers)),
    garbled("connection lost within the body", || cut(Cut::Body)),
    garbled("truncated JSON", || Fault { truncate: true, ..Fault::default() }),
    garbled("JSON of another form", || Fault { body: Some(json!({"other": "form"})), ..Fault::default() }),
    wrong("a captive portal's page", Outcome::Retry, || Fault {
        body: Some(json!("<html>please sign in</html>")),
        ..status(200)
    }),
    wrong("a late answer", Outcome::Nothing, || Fault { delay_ms: 1500, ..Fault::default() }),
];

/// What `wrong` means at this step.
fn outcome(step: Step, wrong: &Wrong) -> Outcome {
    match (step, wrong.name) {
        (Step::JustInTime, "409") => Outcome::NewName,
        (Step::Leftovers | Step::Unregister | Step::Stop | Step::Kept, "404") => Outcome::Gone,
        (Step::Leftovers | Step::Unregister | Step::Stop, "422") => Outcome::Busy,
        _ => wrong.outcome,
    }
}

fn must(step: Step, outcome: Outcome) -> &'static str {
    match (step, outcome) {
        (Step::Unregister | Step::Stop, Outcome::Retry) => "asked again within `OSCR_KILL_TIMEOUT`, then gone",
        (Step::Unregister | Step::Stop, Outcome::Denied(_)) => {
            "the log names the cause; exit 0; the next incarnation removes it"
        }
        (Step::Unregister | Step::Stop, Outcome::Limited(1)) => "silence for as long as asked, then gone",
        (Step::Unregister | Step::Stop, Outcome::Limited(_)) => {
            "not asked again; exit 0; the next incarnation removes it"
        }
        (Step::Unregister | Step::Stop, Outcome::Busy) => "asked again until it is gone",
        (_, Outcome::Retry) => "`backing-off`, tried again in seconds",
        (_, Outcome::Denied(_)) => "`denied`: one line with the cure, unhealthy, slow; on at once when it is corrected",
        (_, Outcome::Limited(1)) => "`backing-off` for as long as asked, then on",
        (_, Outcome::Limited(7000)) => "`backing-off`, for two hours at most",
        (_, Outcome::Limited(_)) => "`backing-off` for a minute",
        (_, Outcome::NewName) => "another name is tried; nothing stays of the first",
        (Step::Kept, Outcome::Gone) => "a new registration",
        (_, Outcome::Gone) => "it is gone, as wanted",
        (_, Outcome::Busy) => "the next runner listens; it is removed later",
        (_, Outcome::Nothing) => "it is waited for",
    }
}

/// The requests: what they are made for, the method, and a part of their path.
const REQUESTS: [(Step, &str, &str); 6] = [
    (Step::Leftovers, "DELETE", "/runners/"),
    (Step::Kept, "GET", "/runners/"),
    (Step::Grant, "POST", "registration-token"),
    (Step::JustInTime, "POST", "generate-jitconfig"),
    (Step::Stop, "DELETE", "/runners/"),
    (Step::Unregister, "DELETE", "/runners/"),
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (step, method, path) in REQUESTS {
        for wrong in WRONG {
            if method == "DELETE" && wrong.body {
                continue;
            }
            let outcome = outcome(step, wrong);
            rows.push(Row::new(step, wrong.name, must(step, outcome), move || {
                let matching = Match { method: Some(method.to_owned()), ..Match::default() };
                let add = |forge: &Forge| {
                    // What only a person ends goes on until somebody does.
                    let times = (!matches!(outcome, Outcome::Denied(_))).then_some(1);
                    forge.fault(path, Fault { matching: matching.clone(), times, ..(wrong.fault)() });
                };
                match step {
                    Step::Stop => stopping(outcome, add),
                    Step::Unregister => after_a_job(outcome, add),
                    _ => before_listening(step, outcome, add),
                }
            }));
        }
    }
    rows
}

/// The steps that lead to a listener.
fn before_listening(step: Step, outcome: Outcome, add: impl Fn(&Forge)) {
    let prepare = |_: &Forge, container: &mut Container<'_>| match step {
        Step::JustInTime => container.set("OSCR_REGISTRATION", "jit"),
        Step::Kept => container.set("RUNNER_PERSISTENT", "true"),
        _ => {}
    };
    story(prepare, |forge, container| {
        if matches!(step, Step::Leftovers | Step::Kept) {
            container.start();
            forge.listening();
            container.signal(Signal::SIGKILL);
            container.exit_code();
            forge.clear_requests();
        }
        add(forge);
        container.start();
        match outcome {
            Outcome::Retry => {
                assert_said(container, &["trying again in", "backing-off"]);
                listens(container);
            }
            Outcome::NewName => {
                assert_said(container, &["trying again in", "is taken"]);
                listens(container);
            }
            Outcome::Denied(words) => {
                assert_denied(forge, container, words);
                assert_eq!(forge.api_requests().len(), 1, "{:?}", forge.calls());
                correct(forge, container);
                listens(container);
            }
            Outcome::Limited(seconds) => {
                assert_said(container, &["limits our requests", "trying again in"]);
                if seconds > 1 {
                    let left = seconds_to_retry(&container.status());
                    assert!(left >= seconds && left < 8000, "{left}");
                    assert_eq!(forge.api_requests().len(), 1, "{:?}", forge.calls());
                    container.signal(Signal::SIGTERM);
                    assert_eq!(container.exit_code_within(STOP), 0);
                    assert_eq!(
                        forge.api_requests().len(),
                        1,
                        "the silence ends with no incarnation: {:?}",
                        forge.calls()
                    );
                    forget_limit(container);
                    return;
                }
                listens(container);
                let requests = forge.api_requests();
                let waited = requests[1].at.duration_since(requests[0].at);
                assert!(waited.as_millis() >= 1000, "{waited}");
            }
            Outcome::Gone | Outcome::Busy | Outcome::Nothing => {
                listens(container);
                if matches!(outcome, Outcome::Gone) {
                    // The fault alone said so: the record is still there, and nobody has a reason to look.
                    let own = container.state()["current"]["id"].as_u64();
                    for runner in forge.runners().into_iter().filter(|runner| Some(runner.id) != own) {
                        forge.unregister(runner.id);
                    }
                }
                assert!(container.lines_with("trying again in").is_empty(), "{:#?}", container.lines());
            }
        }
    });
}

/// An idle runner is stopped, and its removal does not work at once.
fn stopping(outcome: Outcome, add: impl Fn(&Forge)) {
    story(
        |_, _| (),
        |forge, container| {
            container.start();
            forge.listening();
            add(forge);
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code_within(STOP), 0);
            removed_or_left(forge, container, outcome);
        },
    );
}

/// A job is done, and the forge has not removed its runner by itself.
fn after_a_job(outcome: Outcome, add: impl Fn(&Forge)) {
    let prepare =
        |forge: &Forge, _: &mut Container<'_>| forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    story(prepare, |forge, container| {
        container.start();
        forge.listening();
        add(forge);
        let job = forge.wait_job(forge.job("true"), crate::harness::LIMIT);
        assert_eq!(job.result, Some(oscr_sim::protocol::JobResult::Succeeded), "{}", job.log);
        assert_eq!(container.exit_code_within(STOP), 0);
        removed_or_left(forge, container, outcome);
    });
}

fn removed_or_left(forge: &Forge, container: &mut Container<'_>, outcome: Outcome) {
    let left = match outcome {
        Outcome::Denied(words) => {
            for word in words {
                assert!(!container.lines_with(word).is_empty(), "{word}: {:#?}", container.lines());
            }
            assert!(!container.lines_with("the next incarnation will").is_empty(), "{:#?}", container.lines());
            1
        }
        Outcome::Limited(seconds) if seconds > 1 => {
            assert!(!container.lines_with("limits our requests").is_empty(), "{:#?}", container.lines());
            forget_limit(container);
            1
        }
        // The fault alone said so: the record is still there, and nobody has a reason to look.
        Outcome::Gone => forge.runners().len(),
        _ => 0,
    };
    assert_eq!(forge.runners().len(), left, "{:?}", forge.calls());
    if matches!(outcome, Outcome::Gone) {
        for runner in forge.runners() {
            forge.unregister(runner.id);
        }
    }
    forge.clear_faults();
    restart(forge, container);
    listens(container);
    assert_eq!(forge.runners().len(), 1, "{:#?}", forge.runners());
}

/// What the container remembers of a limit: nobody waits two hours for a test.
fn forget_limit(container: &Container<'_>) {
    let mut state = container.state();
    assert!(state["pace"]["until"].is_u64(), "{state}");
    state["pace"] = serde_json::Value::Null;
    write(&container.path("var/lib/oscr/state.json"), &state.to_string(), 0o600);
}
