//! What is refused for a reason that the forge names, and what has another name by now.

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, Match};
use serde_json::json;

use crate::harness::{Container, Forge};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_denied, assert_said, correct, first_request, listens, restart, seconds_to_retry};

const GROUP: &str = "builders";

/// An agent's request is refused with these words.
fn refuse_agent(forge: &Forge, path: &str, status: u16, words: &str) {
    let matching = Match {
        method: Some("POST".to_owned()),
        path_contains: Some(path.to_owned()),
        agent: Some(true),
        ..Match::default()
    };
    let body = Some(json!({"message": words}));
    forge.add_fault(Fault { matching, status: Some(status), body, ..Fault::default() });
}

/// The container's organisation has runner groups; the one that it wants may be missing.
fn want_group(container: &mut Container<'_>) {
    container.unset("GITHUB_REPO");
    container.set("GITHUB_RUNNER_GROUP", GROUP);
}

fn have_group(forge: &Forge) {
    forge.order(|orders| orders.runner_groups.push(GROUP.to_owned()));
}

/// How many registration tokens were asked for.
fn tokens(forge: &Forge) -> usize {
    forge.api_requests().iter().filter(|request| request.path.ends_with("registration-token")).count()
}

fn groups() -> [Row; 3] {
    let row = |step, fault: &str, must: &str, story: fn(&Forge, &mut Container<'_>)| {
        Row::new(Kind::GitHub, step, fault, must, story)
    };
    let once = "`denied` with the agent's words and the cure; the token that was asked for is used again";
    [
        row(
            Step::Grant,
            "the runner group is missing",
            "`denied` with the cure, before a token is asked for",
            |forge, container| {
                want_group(container);
                container.start();
                assert_denied(forge, container, &["no runner group \"builders\"", "GITHUB_RUNNER_GROUP"]);
                assert_eq!(tokens(forge), 0, "{:?}", forge.calls());
                have_group(forge);
                correct(forge, container);
                listens(container);
            },
        ),
        row(
            Step::Configure,
            "the runner group is missing, and the credential may not list groups",
            once,
            |forge, container| {
                want_group(container);
                forge.fault("/runner-groups", Fault { status: Some(403), ..Fault::default() });
                container.start();
                assert_denied(forge, container, &["runner group named \"builders\"", "GITHUB_RUNNER_GROUP"]);
                have_group(forge);
                correct(forge, container);
                listens(container);
                assert_eq!(tokens(forge), 1, "{:?}", forge.calls());
            },
        ),
        row(Step::Configure, "the runner group is full", once, |forge, container| {
            have_group(forge);
            want_group(container);
            refuse_agent(forge, "/runners/register", 403, "The runner group is full");
            container.start();
            assert_denied(forge, container, &["The runner group is full", "GITHUB_RUNNER_GROUP"]);
            correct(forge, container);
            listens(container);
            assert_eq!(tokens(forge), 1, "{:?}", forge.calls());
        }),
    ]
}

fn limit(kind: Kind) -> Row {
    let must = "`backing-off` for a minute, with the forge's words; a corrected credential ends it";
    Row::new(kind, Step::Configure, "the forge limits the agent's requests", must, move |forge, container| {
        let path = if kind == Kind::GitHub { "runner-registration" } else { "/agents" };
        refuse_agent(forge, path, 403, "TF400733: You have exceeded a secondary rate limit.");
        container.start();
        assert_said(container, &["trying again in", "limits our requests", "secondary rate limit"]);
        let status = container.status();
        assert!(status["phase"] == "backing-off" && seconds_to_retry(&status) > 50, "{status}");
        another_credential(forge, container);
        listens(container);
    })
}

/// The forge has another token for the container, and takes no other.
fn another_credential(forge: &Forge, container: &Container<'_>) {
    forge.order(|orders| orders.pats = vec!["ghp_another_one".to_owned()]);
    correct(forge, container);
}

fn limit_ends(kind: Kind) -> Row {
    let must = "the wait outlives a kill, and ends within seconds";
    Row::new(
        kind,
        first_request(kind).step,
        "the credential is replaced while a limit is waited out",
        must,
        |forge, container| {
            let limit = || Fault {
                status: Some(429),
                headers: [("retry-after".to_owned(), "3000".to_owned())].into(),
                times: Some(1),
                ..Fault::default()
            };
            forge.fault(first_request(container.kind).path, limit());
            container.start();
            assert_said(container, &["trying again in", "limits our requests"]);
            container.signal(Signal::SIGKILL);
            restart(forge, container);
            // The next incarnation keeps it.
            assert_said(container, &["trying again in", "has limited our requests"]);
            assert!(forge.api_requests().is_empty(), "{:?}", forge.calls());
            another_credential(forge, container);
            listens(container);
        },
    )
}

/// The old name of what a container's runners belong to, and the new one; and the settings that name it by that.
fn rename(forge: &Forge, kind: Kind) -> [(&'static str, String); 2] {
    match kind {
        Kind::GitHub => {
            forge.rename("repos/o/r", "repos/new/name");
            [("GITHUB_OWNER", "new".to_owned()), ("GITHUB_REPO", "name".to_owned())]
        }
        Kind::Azure => {
            forge.rename("acme", "new");
            [("ADO_ORG_URL", format!("{}/new", forge.url())), ("ADO_POOL", "Default".to_owned())]
        }
    }
}

fn set(container: &mut Container<'_>, settings: &[(&'static str, String)]) {
    for (name, value) in settings {
        container.set(name, value);
    }
}

/// A runner that listened and was killed, its session forgotten: the registration is left over.
fn killed(forge: &Forge, container: &mut Container<'_>) -> u64 {
    container.start();
    let (id, _) = forge.listening();
    container.signal(Signal::SIGKILL);
    container.exit_code();
    assert!(forge.let_go(id));
    id
}

fn renamed(kind: Kind) -> [Row; 3] {
    let (what, name) = match kind {
        Kind::GitHub => ("its repository was renamed", "new/name"),
        Kind::Azure => ("its organisation was renamed", "/new"),
    };
    [
        Row::new(
            kind,
            first_request(kind).step,
            what,
            "`denied`: one line with the new name; what was registered before is removed meanwhile",
            move |forge, container| {
                killed(forge, container);
                let settings = rename(forge, kind);
                container.start();
                assert_denied(forge, container, &["moved to", name, settings[0].0]);
                assert!(forge.runners().is_empty(), "{:?}", forge.calls());
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(STOP), 0);
                set(container, &settings);
                restart(forge, container);
                listens(container);
            },
        ),
        Row::new(
            kind,
            Step::Leftovers,
            what,
            "the registration is removed once the setting is corrected",
            move |forge, container| {
                let id = killed(forge, container);
                let settings = rename(forge, kind);
                set(container, &settings);
                restart(forge, container);
                forge.another(id);
            },
        ),
        Row::new(
            kind,
            Step::Stop,
            what,
            "the registration is removed, and the log says the new name",
            move |forge, container| {
                container.start();
                forge.listening();
                let settings = rename(forge, kind);
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(STOP), 0);
                assert_said(container, &["by now", name]);
                assert!(forge.runners().is_empty(), "{:?}", forge.calls());
                set(container, &settings);
            },
        ),
    ]
}

/// Somebody at another origin would be given the credential.
fn leads_elsewhere(kind: Kind) -> Row {
    let must =
        "left to the next incarnation, which removes the registration; nothing is sent there; the log says where";
    Row::new(kind, Step::Stop, "a redirect to another origin", must, move |forge, container| {
        let elsewhere = Forge::start();
        container.start();
        let (id, _) = forge.listening();
        let path = match kind {
            Kind::GitHub => format!("/repositories/1000/actions/runners/{id}"),
            Kind::Azure => format!("/new/_apis/distributedtask/pools/1/agents/{id}"),
        };
        let place = format!("{}{path}", elsewhere.url());
        let matching = Match { method: Some("DELETE".to_owned()), ..Match::default() };
        let headers = [("location".to_owned(), format!("{place}?a=b"))].into();
        forge.fault("", Fault { matching, status: Some(307), headers, ..Fault::default() });
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code_within(STOP), 0);
        assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
        assert!(!container.lines_with(&format!("moved to {place}")).is_empty(), "{:#?}", container.lines());
    })
}

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = vec![limit(kind), limit_ends(kind), leads_elsewhere(kind)];
    rows.extend(renamed(kind));
    if kind == Kind::GitHub {
        rows.extend(groups());
    }
    rows
}
