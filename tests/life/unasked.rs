//! Stops that need ask nobody: of what was never registered, and of what was refused already.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, Match};

use crate::harness::{Container, Forge, each, write};

const BOTH: [Kind; 2] = [Kind::GitHub, Kind::Azure];
/// A forge's kind, and how its agents are registered.
const WAYS: [(Kind, &str); 3] = [(Kind::GitHub, "token"), (Kind::GitHub, "jit"), (Kind::Azure, "token")];
/// No request that takes its time fits into it.
const AT_ONCE: Duration = Duration::from_secs(6);

fn container(kind: Kind, forge: &Forge) -> Container<'_> {
    match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    }
}

/// Has the container look for its forge at this address.
fn at(container: &mut Container<'_>, (kind, how): (Kind, &str), url: &str) {
    match kind {
        Kind::GitHub => container.set_all(&[("GITHUB_HOST", url), ("OSCR_REGISTRATION", how)]),
        Kind::Azure => container.set("ADO_ORG_URL", &format!("{url}/acme")),
    }
}

#[test]
fn a_stop_asks_for_nothing_where_no_request_ever_had_a_connection() {
    each(&WAYS, |way| {
        let forge = Forge::start();
        let mut container = container(way.0, &forge);
        // Nobody listens at such a name server, and nobody is asked for long.
        write(&container.path("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 0o644);
        container.mount(&container.path("resolv.conf"), Path::new("/etc/resolv.conf"));
        at(&mut container, *way, "http://forge.example");
        container.start();
        container.wait_line("trying again in");
        assert_eq!(container.state()["current"], serde_json::Value::Null, "{way:?}");
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code_within(AT_ONCE), 0, "{way:?}");
        container.assert_state_empty();
    });
}

/// Takes connections and says nothing. GitHub's runner wants it at port 80.
fn silent_forge() -> TcpListener {
    let [.., high, low] = std::process::id().to_be_bytes();
    let free = (1..255).find_map(|n| TcpListener::bind((Ipv4Addr::new(127, high, low, n), 80)).ok());
    free.expect("port 80 of a loopback address")
}

#[test]
fn a_stop_while_nobody_answers_waits_for_that_answer_alone() {
    each(&WAYS, |way| {
        let forge = Forge::start();
        let mut container = container(way.0, &forge);
        let silent = silent_forge();
        at(&mut container, *way, &format!("http://{}", silent.local_addr().expect("bound").ip()));
        container.set("OSCR_KILL_TIMEOUT", "30");
        container.start();
        silent.accept().expect("it asks");
        container.signal(Signal::SIGTERM);
        // The request's last three seconds, and as many for one that may have made a registration.
        assert_eq!(container.exit_code_within(Duration::from_secs(9)), 0, "{way:?}");
    });
}

#[test]
fn a_refused_registration_is_not_looked_for_when_it_is_stopped() {
    each(&WAYS, |way| {
        let forge = Forge::start();
        let mut container = container(way.0, &forge);
        at(&mut container, *way, &forge.url());
        forge.fault("", Fault { status: Some(403), ..Fault::default() });
        container.start();
        container.wait_line("trying again in");
        assert_eq!(container.status()["phase"], "denied");
        let before = forge.api_requests().len();
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code_within(AT_ONCE), 0);
        assert_eq!(forge.api_requests().len(), before, "{:?}", forge.api_requests());
        container.assert_state_empty();
    });
}

#[test]
fn a_refused_removal_is_one_request() {
    for status in [401, 403] {
        each(&BOTH, |kind| {
            let forge = Forge::start();
            let mut container = container(*kind, &forge);
            container.start();
            forge.listening();
            let removal = Match { method: Some("DELETE".to_owned()), ..Match::default() };
            forge.fault("", Fault { matching: removal, status: Some(status), ..Fault::default() });
            container.signal(Signal::SIGTERM);
            assert_eq!(container.exit_code(), 0);
            let asked = forge.api_requests().iter().filter(|request| request.method == "DELETE").count();
            assert_eq!(asked, 1, "{:?}", forge.api_requests());
            assert_eq!(container.state()["leftovers"].as_array().map(Vec::len), Some(1));
            forge.clear_faults();
            container.restart();
            container.wait_line("is not registered any more");
            container.stop();
        });
    }
}

#[test]
fn a_registration_token_that_is_refused_is_tried_by_one_command() {
    for status in [401, 403] {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        container.unset("GITHUB_PAT_FILE");
        container.set("RUNNER_TOKEN", &forge.registration_token());
        container.start();
        forge.listening();
        let exchange = "/actions/runner-registration";
        let matching = Match { path_contains: Some(exchange.to_owned()), agent: Some(true), ..Match::default() };
        forge.add_fault(Fault { matching, status: Some(status), ..Fault::default() });
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        // The agent's own three tries of one command, after that of its configure step.
        let asked = forge.requests().iter().filter(|request| request.path.ends_with(exchange)).count();
        assert_eq!(asked, 1 + 3, "{:?}", forge.requests());
        let said = container.lines_with("put a new one into RUNNER_TOKEN");
        assert!(!said.is_empty() && said[0].contains(&status.to_string()), "{:#?}", container.lines());
    }
}
