//! Faults that only Azure DevOps' steps can have: a token that ends in the middle, what its agent asks for itself, old agents,
//! and another version of the agent.

use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Cut, Fault, ListenerExit, Match, PackageFault, Scope, Snapshot};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::harness::{Container, Forge, LIMIT, until};
use crate::table::{Row, Step};
use crate::world::{assert_denied, assert_said, be_a_principal, believes_busy, correct, listens, restart};

/// The version that the server wants in the rows about another one.
const WANTED: &str = "99.999.0";
/// The name of an agent that nobody comes back for.
const OLD: &str = "oscr-old-0001";

/// An agent of ours that is offline and a day old, and a container that removes such.
pub fn plant_old(forge: &Forge, container: &mut Container<'_>) {
    let pool = Scope::Pool("acme".to_owned(), "Default".to_owned());
    let _ = forge.plant_agent(&pool, OLD, 25, &[("OSCR_NAME_PREFIX", "oscr")]);
    container.set("OSCR_REAP", "true");
}

/// The server wants a newer agent, and the container may fetch it.
pub fn offer_another_version(forge: &Forge, container: &mut Container<'_>) {
    forge.order(|orders| {
        orders.wanted_azure_version = Some(WANTED.to_owned());
        WANTED.clone_into(&mut orders.latest_azure_version);
    });
    container.set("OSCR_AGENT_UPDATE", "true");
}

/// The next agent ends for another version, which it does only where it could rewrite its root.
fn end_for_it(forge: &Forge) {
    let exit = ListenerExit { code: 4, text: None, times: 1, runner: None, at_session: false };
    forge.order(|orders| orders.listener_exit = Some(exit));
}

/// The server is content with the image's agent again.
fn want_no_other(forge: &Forge) {
    forge.order(|orders| {
        orders.wanted_azure_version = None;
        orders.package_fault = None;
    });
}

fn row(step: Step, fault: &str, must: &str, story: impl Fn(&Forge, &mut Container<'_>) + Send + 'static) -> Row {
    Row::new(Kind::Azure, step, fault, must, story)
}

fn works(forge: &Forge, container: &mut Container<'_>) {
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}

/// One fault of the agent's own requests.
fn agents_fault(forge: &Forge, method: &str, path: &str, fault: Fault) {
    let matching = Match {
        method: Some(method.to_owned()),
        path_contains: Some(path.to_owned()),
        agent: Some(true),
        ..Match::default()
    };
    forge.add_fault(Fault { matching, ..fault });
}

fn status(status: u16, times: Option<u32>) -> Fault {
    Fault { status: Some(status), times, ..Fault::default() }
}

/// All access tokens end, as by the forge's clock, which jumps.
fn end_tokens(forge: &Forge) {
    forge.order(|orders| orders.clock_offset_s += 2 * orders.access_token_lifetime_s);
}

pub fn rows() -> Vec<Row> {
    [tokens(), configuring(), listening(), sweeping(), updating()].into_iter().flatten().collect()
}

fn tokens() -> Vec<Row> {
    vec![
        row(
            Step::Principal,
            "the token ends before its time, while the agent listens",
            "another token is asked for; the agent is removed at once",
            |forge, container| {
                be_a_principal(forge, container);
                container.start();
                forge.listening();
                end_tokens(forge);
                works(forge, container);
                assert!(container.lines_with("cannot be removed").is_empty(), "{:#?}", container.lines());
                assert!(forge.runners().is_empty(), "{:?}", forge.calls());
            },
        ),
        row(
            Step::Principal,
            "the token ends before its time, between two tries",
            "another token is asked for; no denial",
            |forge, container| {
                be_a_principal(forge, container);
                forge.fault("/pools", status(503, Some(1)));
                container.start();
                container.wait_line("trying again in");
                end_tokens(forge);
                listens(container);
                assert_eq!(container.lines_with("trying again in").len(), 1, "{:#?}", container.lines());
            },
        ),
        row(
            Step::Principal,
            "every token is refused",
            "`denied` after two of them: one line with the cure, unhealthy, slow",
            |forge, container| {
                be_a_principal(forge, container);
                forge.fault("/pools", status(401, None));
                container.start();
                assert_denied(forge, container, &["401"]);
                assert!(forge.api_requests().len() <= 4, "{:?}", forge.calls());
                correct(forge, container);
                listens(container);
            },
        ),
    ]
}

/// What the agent asks for while it configures itself.
fn configuring() -> Vec<Row> {
    let denied = "`denied`: one line with the cure, unhealthy, slow; on at once when it is corrected";
    let again = "`backing-off`: one line with the cause, then another try; nothing stays of the first";
    let refused = |fault, method, path, answer: fn() -> Fault, words: &'static [&'static str]| {
        row(Step::Configure, fault, denied, move |forge, container| {
            agents_fault(forge, method, path, answer());
            container.start();
            assert_denied(forge, container, words);
            correct(forge, container);
            listens(container);
        })
    };
    let broken = |fault, method, path, answer: fn() -> Fault| {
        row(Step::Configure, fault, again, move |forge, container| {
            agents_fault(forge, method, path, Fault { times: Some(1), ..answer() });
            container.start();
            assert_said(container, &["trying again in", "configure step failed", "backing-off"]);
            listens(container);
            assert_eq!(forge.runners().len(), 1, "{:#?}", forge.runners());
        })
    };
    vec![
        refused(
            "the token is revoked before its agent asks",
            "GET",
            "/connectionData",
            || status(401, None),
            &["VS30063", "needs the scope"],
        ),
        refused(
            "the agent may not be added",
            "POST",
            "/agents",
            || Fault {
                body: Some(
                    json!({"typeKey": "AccessDeniedException", "message": "Access denied. Somebody needs Manage"}),
                ),
                ..status(403, None)
            },
            &["Access denied", "administrator of the pool"],
        ),
        row(
            Step::Configure,
            "the service principal's secret is replaced before its agent asks",
            denied,
            |forge, container| {
                be_a_principal(forge, container);
                let body =
                    json!({"error": "invalid_client", "message": "AADSTS7000215: Invalid client secret provided."});
                agents_fault(forge, "POST", "/oauth2/", Fault { body: Some(body), ..status(401, None) });
                container.start();
                assert_denied(forge, container, &["AADSTS7000215", "service principal"]);
                correct(forge, container);
                listens(container);
            },
        ),
        broken("the pool is gone when its agent asks", "GET", "/pools", || Fault {
            body: Some(json!({"count": 0, "value": []})),
            ..Fault::default()
        }),
        broken("the name is taken", "POST", "/agents", || Fault {
            body: Some(
                json!({"typeKey": "TaskAgentExistsException", "message": "already contains an agent with name x."}),
            ),
            ..status(409, None)
        }),
        broken("the server fails", "POST", "/agents", || status(503, None)),
        broken("the connection is lost after the agent was added", "POST", "/agents", || Fault {
            cut: Some(Cut::After),
            ..Fault::default()
        }),
        broken("the answer is truncated after the agent was added", "POST", "/agents", || Fault {
            truncate: true,
            ..Fault::default()
        }),
    ]
}

/// What the agent asks for while it listens, and what the watchdog asks.
fn listening() -> Vec<Row> {
    let queue = |fault, answer: fn() -> Fault| {
        row(Step::Listen, fault, "the agent asks again; the same registration does the job", move |forge, container| {
            forge.order(|orders| orders.poll_timeout_ms = 300);
            container.start();
            let (first, _) = forge.listening();
            agents_fault(forge, "GET", "/messages", Fault { times: Some(2), ..answer() });
            container.wait_line("Agent reconnected");
            assert_eq!(forge.runners().first().map(|runner| runner.id), Some(first));
            works(forge, container);
        })
    };
    vec![
        queue("the queue answers 503 for a while", || status(503, None)),
        queue("the queue's connection is lost", || Fault { cut: Some(Cut::Before), ..Fault::default() }),
        row(
            Step::Listen,
            "the session is refused with 500",
            "the agent asks again, then listens",
            |forge, container| {
                agents_fault(forge, "POST", "/sessions", status(500, Some(1)));
                container.start();
                listens(container);
                assert!(container.lines_with("trying again in").is_empty(), "{:#?}", container.lines());
            },
        ),
        row(
            Step::Listen,
            "the registration is gone before the session",
            "`backing-off`, then a new registration",
            |forge, container| {
                agents_fault(forge, "POST", "/sessions", status(404, Some(1)));
                container.start();
                assert_said(container, &["trying again in", "code 1", "registration"]);
                listens(container);
            },
        ),
        row(
            Step::Listen,
            "the watchdog's question is answered with 401, 503 and half an answer",
            "the runner works: the listener is well, and does its job",
            |forge, container| {
                container.set("OSCR_WATCH_INTERVAL", "1");
                for fault in [status(401, Some(1)), status(503, Some(1))] {
                    forge.fault("/agents/", fault);
                }
                forge.fault("/agents/", Fault { truncate: true, times: Some(1), ..Fault::default() });
                container.start();
                let asked = |seen: &Snapshot| {
                    seen.requests.iter().filter(|r| !r.agent && r.path.contains("/agents/")).count() > 3
                };
                forge.wait("four questions", LIMIT, asked);
                assert!(container.lines_with("replacing").is_empty(), "{:#?}", container.lines());
                works(forge, container);
            },
        ),
    ]
}

/// Old agents that do not go at once are no reason to take no job.
fn sweeping() -> Vec<Row> {
    let removal = |fault, must, answer: fn() -> Fault| {
        row(Step::Sweep, fault, must, move |forge, container| {
            plant_old(forge, container);
            forge.fault("/agents/", answer());
            container.start();
            listens(container);
            assert!(container.lines_with("trying again in").is_empty(), "{:#?}", container.lines());
            forge.clear_faults();
            works(forge, container);
            restart(forge, container);
            listens(container);
            assert!(forge.runners().iter().all(|runner| runner.name != OLD), "{:#?}", forge.runners());
        })
    };
    let later = "the runner listens; the registration is removed later";
    vec![
        removal("an old agent's removal: 403", later, || status(403, None)),
        removal("an old agent's removal: 503", later, || status(503, None)),
        removal("an old agent's removal: 400, a job runs", later, || believes_busy(Kind::Azure)),
        row(
            Step::Sweep,
            "looking for old agents hangs, and somebody stops the container",
            "exit 0 within seconds",
            |forge, container| {
                plant_old(forge, container);
                let hangs = Fault { delay_ms: 600_000, times: Some(1), ..Fault::default() };
                forge.fault("/agents", hangs);
                container.start();
                forge.wait("the question", LIMIT, |seen| seen.requests.iter().any(|r| r.path.ends_with("/agents")));
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(Duration::from_secs(10)), 0);
            },
        ),
        row(
            Step::Sweep,
            "an old agent is gone when it is removed",
            "the runner listens: that is what was wanted",
            |forge, container| {
                plant_old(forge, container);
                forge.fault("/agents/", status(404, Some(1)));
                container.start();
                listens(container);
                let old =
                    forge.runners().into_iter().find(|runner| runner.name == OLD).expect("the fault alone said so");
                forge.unregister(old.id);
            },
        ),
    ]
}

fn updating() -> Vec<Row> {
    let outdated = "`outdated`: one line with the cause, unhealthy, slow; nothing of it stays";
    let broken = |fault, spoil: fn(&Forge), words: &'static [&'static str]| {
        row(Step::Update, fault, outdated, move |forge, container| {
            offer_another_version(forge, container);
            end_for_it(forge);
            spoil(forge);
            container.start();
            assert_said(container, &[&["trying again in", "no other version could be fetched"], words].concat());
            assert_eq!(container.status()["phase"], "outdated");
            assert_eq!(container.ask(&["health"]).0, 1);
            assert!(forge.runners().is_empty());
            // What was unpacked is removed beside everything else.
            until("nothing of it stays", || container.names("var/cache/oscr/agents").is_empty());
            want_no_other(forge);
        })
    };
    let mut rows = vec![
        broken("the list of packages: 403", |forge| forge.fault(LIST, status(403, None)), &["403"]),
        broken("the list of packages: 404", |forge| forge.fault(LIST, status(404, None)), &["404"]),
        broken("the list of packages: 503", |forge| forge.fault(LIST, status(503, None)), &["503"]),
        broken(
            "the list of packages is truncated",
            |forge| forge.fault(LIST, Fault { truncate: true, ..Fault::default() }),
            &["not the expected JSON"],
        ),
        broken("no package is offered", |forge| package(forge, PackageFault::None), &["offers no agent"]),
        broken("the package is missing", |forge| package(forge, PackageFault::Missing), &["404"]),
        broken("the package is another one", |forge| package(forge, PackageFault::Hash), &["SHA-256"]),
        broken("the agent is of another version", |forge| package(forge, PackageFault::Version), &["says that it is"]),
        broken("the download: 503", |forge| forge.fault(DOWNLOAD, status(503, None)), &["503"]),
        broken(
            "the download is truncated",
            |forge| forge.fault(DOWNLOAD, Fault { truncate: true, ..Fault::default() }),
            &["SHA-256"],
        ),
        broken(
            "the download's connection is lost",
            |forge| forge.fault(DOWNLOAD, Fault { cut: Some(Cut::Body), ..Fault::default() }),
            &[".tar.gz"],
        ),
        broken(
            "a captive portal's page in place of the package",
            |forge| forge.fault(DOWNLOAD, Fault { body: Some(json!("<html></html>")), ..status(200, None) }),
            &["SHA-256"],
        ),
    ];
    let limited =
        "`outdated`, after no registration was made for as long as asked: one line with the cause, unhealthy, slow";
    rows.push(row(Step::Update, "the list of packages: 429 with Retry-After", limited, |forge, container| {
        offer_another_version(forge, container);
        end_for_it(forge);
        let headers = [("retry-after".to_owned(), "1".to_owned())].into();
        forge.fault(LIST, Fault { headers, ..status(429, None) });
        container.start();
        container.wait_line("the forge has limited our requests");
        let line = container.wait_line("no other version could be fetched");
        assert!(line.contains("limits our requests") && line.contains("trying again in"), "{line}");
        assert_eq!(container.status()["phase"], "outdated");
        assert!(forge.runners().is_empty());
        want_no_other(forge);
    }));
    rows.push(row(Step::Update, "the disk for it is full", outdated, |forge, container| {
        let place = container.text("var/cache/oscr/archives");
        std::fs::create_dir_all(&place).expect("a directory");
        container.in_namespace(&format!("mount -t tmpfs -o size=64k tmpfs '{place}'"));
        offer_another_version(forge, container);
        end_for_it(forge);
        container.start();
        assert_said(container, &["trying again in", "no other version could be fetched", "cannot be written"]);
        assert!(forge.runners().is_empty());
        container.in_namespace("");
        want_no_other(forge);
    }));
    rows
}

/// The requests that another version takes.
const LIST: &str = "/packages/agent/";
const DOWNLOAD: &str = ".tar.gz";

fn package(forge: &Forge, fault: PackageFault) {
    forge.order(|orders| orders.package_fault = Some(fault));
}
