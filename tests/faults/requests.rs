//! Faults of the forge's answers, at each request of a life.

use std::collections::BTreeMap;
use std::time::SystemTime;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Cut, Fault, Match, Removal};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::azure::plant_old;
use crate::harness::{Container, Forge, LIMIT, write};
use crate::table::{Row, Step};
use crate::world::{
    STOP, assert_denied, assert_said, be_a_principal, believes_busy, correct, listens, restart, seconds_to_retry,
};

/// What an answer leads to.
#[derive(Clone, Copy)]
enum Outcome {
    /// Tried again soon, until it works.
    Retry,
    /// The container waits for a person: words that the line must have.
    Denied(&'static [&'static str]),
    /// So many seconds of silence, then on.
    Limited(u64),
    /// Silence that grows, whatever was asked: two seconds at first.
    Grown,
    /// Another name is tried.
    NewName,
    /// One line says so, and the runner listens.
    Told,
    /// The next registration waits for so long.
    Slower,
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
    /// The forges that answer so.
    forges: &'static [Kind],
}

/// What an odd answer holds that may be in no log.
const ODD: &str = "SECRETTHATNOBODYMAYREADINALOG";

const BOTH: &[Kind] = &[Kind::GitHub, Kind::Azure];
/// What only GitHub does, and what our one HTTP client does with either forge: there GitHub stands for both.
const GITHUB: &[Kind] = &[Kind::GitHub];
const AZURE: &[Kind] = &[Kind::Azure];

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
    Wrong { name, fault, outcome, body: false, forges: BOTH }
}

const fn only(forges: &'static [Kind], wrong: Wrong) -> Wrong {
    Wrong { forges, ..wrong }
}

const fn garbled(name: &'static str, fault: fn() -> Fault) -> Wrong {
    Wrong { name, fault, outcome: Outcome::Retry, body: true, forges: BOTH }
}

/// A page for people, where a program asked.
fn page(code: u16) -> Fault {
    Fault { body: Some(json!("<!DOCTYPE html><html><body>please sign in</body></html>")), ..status(code) }
}

const WRONG: &[Wrong] = &[
    wrong("401", Outcome::Denied(&["401", "replace it"]), || status(401)),
    only(AZURE, wrong("203 with a page for signing in", Outcome::Denied(&["203", "replace it"]), || page(203))),
    only(
        AZURE,
        wrong("302 to a page for signing in", Outcome::Denied(&["302", "replace it"]), || {
            limited(302, &[("location", "/_signin".to_owned())])
        }),
    ),
    wrong("403", Outcome::Denied(&["403", "needs"]), || status(403)),
    only(
        GITHUB,
        wrong("403 with Retry-After", Outcome::Limited(3), || limited(403, &[("retry-after", "3".to_owned())])),
    ),
    only(
        GITHUB,
        wrong("403 with an exhausted x-ratelimit", Outcome::Limited(3), || {
            limited(403, &[("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", in_seconds(4))])
        }),
    ),
    wrong("403 whose words alone name a limit", Outcome::Limited(55), || Fault {
        body: Some(
            json!({"message": "TF400733: You have exceeded a secondary rate limit. Please wait a few minutes."}),
        ),
        ..status(403)
    }),
    only(
        GITHUB,
        wrong(
            "403 for want of single sign-on",
            Outcome::Denied(&["403", "single sign-on", "https://forge/orgs/o/sso?x"]),
            || Fault {
                body: Some(json!({"message": "Resource protected by organization SAML enforcement."})),
                ..limited(403, &[("x-github-sso", "required; url=https://forge/orgs/o/sso?x".to_owned())])
            },
        ),
    ),
    only(
        GITHUB,
        wrong("403 of an IP allow list", Outcome::Denied(&["403", "IP allow list", "https://forge/docs"]), || Fault {
            body: Some(json!({
                "message": "the `o` organization has an IP allow list enabled, and 192.0.2.7 is not permitted",
                "documentation_url": "https://forge/docs",
            })),
            ..status(403)
        }),
    ),
    only(
        AZURE,
        wrong(
            "403 of a conditional access policy",
            Outcome::Denied(&["403", "VS403463", "conditional access"]),
            || Fault {
                body: Some(json!({"message": "VS403463: The conditional access policy has failed."})),
                ..status(403)
            },
        ),
    ),
    only(
        GITHUB,
        wrong("403 with a reset in a thousand years", Outcome::Limited(3500), || {
            limited(
                403,
                &[("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", in_seconds(31_536_000_000))],
            )
        }),
    ),
    wrong("404", Outcome::Denied(&["404", "check"]), || status(404)),
    wrong("409", Outcome::Denied(&["409"]), || status(409)),
    only(GITHUB, wrong("422", Outcome::Denied(&["422"]), || status(422))),
    only(AZURE, wrong("400: a job runs", Outcome::Denied(&["400", "running a job"]), || believes_busy(Kind::Azure))),
    wrong("429", Outcome::Limited(55), || status(429)),
    wrong("429 with Retry-After", Outcome::Limited(3), || limited(429, &[("retry-after", "3".to_owned())])),
    wrong("429 with Retry-After: 0", Outcome::Grown, || limited(429, &[("retry-after", "0".to_owned())])),
    only(
        AZURE,
        wrong("Retry-After where all is well", Outcome::Slower, || Fault {
            headers: [("retry-after".to_owned(), "60".to_owned())].into(),
            ..Fault::default()
        }),
    ),
    wrong("301", Outcome::Denied(&["301", "moved"]), || limited(301, &[("location", "/elsewhere".to_owned())])),
    wrong("500", Outcome::Retry, || status(500)),
    only(
        GITHUB,
        wrong("502", Outcome::Retry, || Fault { body: Some(json!("<html>Bad Gateway</html>")), ..status(502) }),
    ),
    wrong("503", Outcome::Retry, || status(503)),
    wrong("503 with Retry-After", Outcome::Limited(3), || limited(503, &[("retry-after", "3".to_owned())])),
    wrong("connection lost before the request", Outcome::Retry, || cut(Cut::Before)),
    wrong("connection lost after the request", Outcome::Retry, || cut(Cut::After)),
    only(GITHUB, wrong("connection lost within the headers", Outcome::Retry, || cut(Cut::Headers))),
    garbled("connection lost within the body", || cut(Cut::Body)),
    garbled("truncated JSON", || Fault { truncate: true, ..Fault::default() }),
    garbled("JSON of another form", || Fault { body: Some(json!({"other": "form"})), ..Fault::default() }),
    garbled("a success of another number, with a secret", || Fault {
        body: Some(json!({"message": ODD, "token": ODD, "value": ODD})),
        ..status(206)
    }),
    wrong("a captive portal's page", Outcome::Retry, || page(200)),
    wrong("302 to a portal elsewhere", Outcome::Retry, || Fault {
        body: Some(json!("")),
        ..limited(302, &[("location", "http://portal.example/login?mac=1".to_owned())])
    }),
    wrong("403 and a page of something between", Outcome::Retry, || page(403)),
    wrong("404 and a page of something between", Outcome::Retry, || page(404)),
    only(GITHUB, wrong("422 and a page of something between", Outcome::Retry, || page(422))),
    wrong("a late answer", Outcome::Nothing, || Fault { delay_ms: 1500, ..Fault::default() }),
];

/// What `wrong` means at this step; nothing, where it cannot be.
fn outcome(kind: Kind, step: Step, wrong: &Wrong) -> Option<Outcome> {
    const NO_TOKEN: Outcome = Outcome::Denied(&["Microsoft Entra ID gives no token", "ADO_CLIENT_ID"]);
    let busy = match kind {
        Kind::GitHub => "422",
        Kind::Azure => "400: a job runs",
    };
    // One code reads an answer, whatever was asked: what is special at no step is tried at two of them.
    const READ_ALIKE: [&str; 7] = [
        "429 with Retry-After: 0",
        "403 of a conditional access policy",
        "203 with a page for signing in",
        "302 to a page for signing in",
        "409",
        "301",
        "500",
    ];
    let both = matches!(step, Step::Principal | Step::Pool | Step::Unregister);
    if kind == Kind::Azure && !both && READ_ALIKE.contains(&wrong.name) {
        return None;
    }
    let removal = matches!(step, Step::Leftovers | Step::Unregister | Step::Stop);
    Some(match (step, wrong.name, wrong.outcome) {
        (Step::Leftovers | Step::Grant | Step::Kept, "422 and a page of something between", _) => return None,
        (_, name, _) if !wrong.forges.contains(&kind) || (!removal && kind == Kind::Azure && name == busy) => {
            return None;
        }
        (_, _, Outcome::Slower) if step != Step::Unregister => return None,
        (Step::Sweep, _, Outcome::Nothing | Outcome::Limited(_) | Outcome::Grown) => wrong.outcome,
        (Step::Sweep, ..) => Outcome::Told,
        (Step::Principal, "403 of a conditional access policy", _) => wrong.outcome,
        (Step::Principal, _, Outcome::Denied(_)) => NO_TOKEN,
        (Step::JustInTime, "409", _) => Outcome::NewName,
        (Step::Leftovers | Step::Unregister | Step::Stop | Step::Kept, "404", _) => Outcome::Gone,
        (_, name, _) if removal && name == busy => Outcome::Busy,
        (.., outcome) => outcome,
    })
}

fn must(step: Step, outcome: Outcome) -> &'static str {
    match (step, outcome) {
        (Step::Unregister | Step::Stop, Outcome::Retry) => "asked again within `OSCR_KILL_TIMEOUT`, then gone",
        (Step::Unregister | Step::Stop, Outcome::Denied(_)) => {
            "left to the next incarnation, which removes the registration; exit 0; the log names the cause"
        }
        (Step::Unregister | Step::Stop, Outcome::Limited(3)) => "silence for as long as asked, then gone",
        (Step::Unregister | Step::Stop, Outcome::Limited(_)) => {
            "left to the next incarnation, which removes the registration; exit 0; not asked again"
        }
        (Step::Unregister | Step::Stop, Outcome::Busy) => "asked again until it is gone",
        (_, Outcome::Retry) => "`backing-off`, tried again in seconds",
        (_, Outcome::Denied(_)) => "`denied`: one line with the cure, unhealthy, slow; on at once when it is corrected",
        (_, Outcome::Limited(3)) => "`backing-off` for as long as asked, then on",
        (_, Outcome::Limited(3500)) => "`backing-off`, for an hour at most",
        (Step::Unregister | Step::Stop, Outcome::Grown) => "silence for two seconds, then for longer each time; gone",
        (_, Outcome::Grown) => "`backing-off` for two seconds, then for longer each time; on",
        (_, Outcome::Limited(_)) => "`backing-off` for a minute",
        (_, Outcome::NewName) => "a new registration under another name; nothing stays of the first",
        (Step::Kept, Outcome::Gone) => "a new registration",
        (_, Outcome::Gone) => "the registration is gone, as wanted",
        (_, Outcome::Busy) => "the runner listens; the registration is removed later",
        (_, Outcome::Nothing) => "it is waited for",
        (_, Outcome::Told) => "the runner listens all the same; one line has the cause",
        (_, Outcome::Slower) => "the next registration waits for as long as asked, after a restart too",
    }
}

/// The requests: whose they are, what they are made for, the method, and a part of their path.
const REQUESTS: [(Kind, Step, &str, &str); 13] = [
    (Kind::GitHub, Step::Leftovers, "DELETE", "/runners/"),
    (Kind::GitHub, Step::Kept, "GET", "/runners/"),
    (Kind::GitHub, Step::Grant, "POST", "registration-token"),
    (Kind::GitHub, Step::JustInTime, "POST", "generate-jitconfig"),
    (Kind::GitHub, Step::Stop, "DELETE", "/runners/"),
    (Kind::GitHub, Step::Unregister, "DELETE", "/runners/"),
    (Kind::Azure, Step::Leftovers, "DELETE", "/agents/"),
    (Kind::Azure, Step::Kept, "GET", "/agents/"),
    (Kind::Azure, Step::Sweep, "GET", "/agents"),
    (Kind::Azure, Step::Principal, "POST", "/oauth2/v2.0/token"),
    (Kind::Azure, Step::Pool, "GET", "/pools"),
    (Kind::Azure, Step::Stop, "DELETE", "/agents/"),
    (Kind::Azure, Step::Unregister, "DELETE", "/agents/"),
];

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = Vec::new();
    for (_, step, method, path) in REQUESTS.into_iter().filter(|(forge, ..)| *forge == kind) {
        for wrong in WRONG {
            if method == "DELETE" && wrong.body {
                continue;
            }
            let Some(outcome) = outcome(kind, step, wrong) else { continue };
            rows.push(Row::new(kind, step, wrong.name, must(step, outcome), move |forge, container| {
                let matching = Match { method: Some(method.to_owned()), ..Match::default() };
                let add = |forge: &Forge| {
                    // What only a person ends goes on until somebody does.
                    let times = (!matches!(outcome, Outcome::Denied(_))).then_some(1);
                    forge.fault(path, Fault { matching: matching.clone(), times, ..(wrong.fault)() });
                };
                match step {
                    Step::Stop => stopping(forge, container, outcome, add),
                    Step::Unregister => after_a_job(forge, container, outcome, add),
                    _ => before_listening(forge, container, step, outcome, add),
                }
            }));
        }
    }
    rows
}

/// The steps that lead to a listener.
fn before_listening(forge: &Forge, container: &mut Container<'_>, step: Step, outcome: Outcome, add: impl Fn(&Forge)) {
    match step {
        Step::JustInTime => container.set("OSCR_REGISTRATION", "jit"),
        Step::Kept => container.set("RUNNER_PERSISTENT", "true"),
        Step::Principal => be_a_principal(forge, container),
        Step::Sweep => plant_old(forge, container),
        _ => {}
    }
    if matches!(step, Step::Leftovers | Step::Kept) {
        container.start();
        let (first, _) = forge.listening();
        container.signal(Signal::SIGKILL);
        container.exit_code();
        assert!(forge.let_go(first));
        forge.clear_requests();
    }
    add(forge);
    container.start();
    match outcome {
        Outcome::Retry => {
            assert_said(container, &["trying again in", "backing-off"]);
            listens(container);
            assert!(container.lines_with(ODD).is_empty(), "{:#?}", container.lines_with(ODD));
        }
        Outcome::NewName => {
            assert_said(container, &["trying again in", "is taken"]);
            listens(container);
        }
        Outcome::Told => {
            assert_said(container, &["old agents cannot be looked for"]);
            listens(container);
            assert!(container.lines_with("trying again in").is_empty(), "{:#?}", container.lines());
        }
        Outcome::Denied(words) => {
            assert_denied(forge, container, words);
            assert_silent_since(forge);
            correct(forge, container);
            listens(container);
        }
        Outcome::Limited(_) | Outcome::Grown => {
            let seconds = if let Outcome::Limited(seconds) = outcome { seconds } else { 2 };
            assert_said(container, &["trying again in", "limits our requests"]);
            if seconds > 3 {
                let left = seconds_to_retry(&container.status());
                assert!(left >= seconds && left < 4000, "{left}");
                assert_silent_since(forge);
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(STOP), 0);
                // The silence ends with no incarnation.
                assert_silent_since(forge);
                forget_limit(container);
                return;
            }
            listens(container);
            let requests = forge.api_requests();
            let refused = requests.iter().position(|request| request.fault).expect("the fault");
            let waited = requests[refused + 1].at.duration_since(requests[refused].at);
            assert!(waited.as_millis() >= i128::from(seconds) * 1000, "{waited}");
        }
        Outcome::Gone | Outcome::Busy | Outcome::Nothing | Outcome::Slower => {
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
}

/// Asserts that nothing was asked after the one request that was refused.
#[track_caller]
fn assert_silent_since(forge: &Forge) {
    let requests = forge.api_requests();
    let refused = requests.iter().filter(|request| request.fault).count();
    assert!(refused == 1 && requests.last().is_some_and(|last| last.fault), "{:?}", forge.calls());
}

/// An idle runner is stopped, and its removal does not work at once.
fn stopping(forge: &Forge, container: &mut Container<'_>, outcome: Outcome, add: impl Fn(&Forge)) {
    container.start();
    forge.listening();
    add(forge);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(STOP), 0);
    removed_or_left(forge, container, outcome);
}

/// A job is done, and the forge has not removed its runner by itself.
fn after_a_job(forge: &Forge, container: &mut Container<'_>, outcome: Outcome, add: impl Fn(&Forge)) {
    forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    container.start();
    forge.listening();
    add(forge);
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    removed_or_left(forge, container, outcome);
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
        Outcome::Limited(seconds) if seconds > 3 => {
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
    if matches!(outcome, Outcome::Slower) {
        assert_said(container, &["trying again in", "asks us to slow down"]);
        assert!(seconds_to_retry(&container.status()) > 30);
        assert!(forge.api_requests().is_empty(), "{:?}", forge.calls());
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code_within(STOP), 0);
        forget_limit(container);
        restart(forge, container);
    }
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
