//! Faults of a listener that is registered and cannot listen, or is refused while it does.

use std::fs;

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, ListenerTrouble, Match, Refusals};
use oscr_sim::protocol::{JobResult, Trouble};
use oscr_sim::scale::Scale;

use crate::harness::{Container, Forge, LIMIT, until, write};
use crate::own_network::OwnNetwork;
use crate::table::{Row, Step};
use crate::world::{STOP, assert_said, believes_busy, registrations, restart};

const PERSISTENT: (&str, &str) = ("RUNNER_PERSISTENT", "true");

/// What the agent asks for, to be let in and to hear of jobs.
fn session(kind: Kind) -> &'static str {
    match kind {
        Kind::GitHub => "/_broker/session",
        Kind::Azure => "/sessions",
    }
}

/// The agent's own requests to a path are refused.
fn refuse(forge: &Forge, path: &str, status: u16) {
    let matching = Match { path_contains: Some(path.to_owned()), agent: Some(true), ..Match::default() };
    forge.add_fault(Fault { matching, status: Some(status), ..Fault::default() });
}

/// Waits until the status has these words of the listener that cannot listen, and calls its connection lost.
fn shows(container: &Container<'_>, words: &str) {
    until("the status tells it", || {
        let status = container.status();
        status["connection"] == "lost" && status["last_error"].to_string().contains(words)
    });
}

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = vec![
        Row::new(
            kind,
            Step::Listen,
            "it gets no session",
            "the agent tries again; the status has its words; the same registration listens once it passes",
            move |forge, container| {
                refuse(forge, session(kind), 503);
                container.start();
                container.wait_line("connect error");
                shows(container, "connect error");
                assert_eq!(container.status()["phase"], "registering");
                let id = forge.runners()[0].id;
                forge.clear_faults();
                assert_eq!(forge.listening().0, id);
                assert!(container.lines_with("trying again in").is_empty());
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "the forge gives out a job that never was",
            "asked once whether it may go, and ended; the registration goes later, and nobody's job is reported",
            |forge, container| {
                container.set("OSCR_MAX_IDLE", "1");
                let matching = Match { method: Some("DELETE".to_owned()), ..Match::default() };
                let busy = Fault { matching, times: Some(1), ..believes_busy(container.kind) };
                forge.fault(registrations(container.kind), busy);
                container.start();
                container.wait_line("the listener shows none: giving it up");
                assert_eq!(container.exit_code(), 0);
                assert!(container.lines_with("job summary").is_empty());
                assert_eq!(container.state()["leftovers"].as_array().map(Vec::len), Some(1));
                container.unset("OSCR_MAX_IDLE");
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "standard output is not read",
            "the runner works on: hooks, jobs, signals, the end; what does not fit is counted, and said once it is read again",
            |forge, container| {
                container.start_unread();
                forge.listening();
                let job = forge.wait_job(forge.job("true"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                container.ends_within(STOP);
                container.read(true);
                assert_eq!(container.exit_code(), 0);
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "its network loses its way out, and nobody answers for five minutes",
            "exit 75, and once more after 30 minutes at the earliest; the registration goes later",
            |forge, container| {
                let mut network = OwnNetwork::of(container);
                container.start();
                let relay = network.with(container, forge);
                forge.listening();
                drop(relay);
                network.lose_the_way_out(container);
                container.wait_line("network has no way out any more: leaving (75)");
                assert_eq!(container.exit_code(), 75);
                restart(forge, container);
                let relay = network.with(container, forge);
                forge.listening();
                drop(relay);
                network.lose_the_way_out(container);
                container.wait_line("has left for that a short while ago");
                container.stop();
                network.leave(container);
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "its listener does not end after it, and has to be killed",
            "exit 0; the result that the forge was told stands, in its summary too",
            |forge, container| {
                forge.order(|orders| {
                    orders.listener_trouble = Some(ListenerTrouble { kind: Trouble::Deaf, times: 1 });
                    orders.time_scale = Scale::REAL;
                });
                // Its session cannot be given back, and the agent has its full patience for that.
                let matching = Match {
                    method: Some("DELETE".to_owned()),
                    path_contains: Some("session".to_owned()),
                    agent: Some(true),
                    ..Match::default()
                };
                forge.add_fault(Fault { matching, delay_ms: 600_000, ..Fault::default() });
                container.set("OSCR_KILL_TIMEOUT", "1");
                container.start();
                forge.listening();
                let job = forge.job("true");
                container.wait_line("the job's worker is gone");
                container.signal(Signal::SIGTERM);
                container.wait_line("asked to stop");
                container.signal(Signal::SIGTERM);
                container.wait_line("killing it");
                forge.clear_faults();
                assert_eq!(container.exit_code(), 0);
                assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
                assert!(container.wait_line("\"job summary\"").contains(r#""result":"succeeded""#));
                forge.order(|orders| orders.time_scale = Scale(0.02));
                container.set("OSCR_KILL_TIMEOUT", "10");
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "another session that stays, under a registration that is kept",
            "`backing-off`, and the same registration is tried again; the status has the agent's words",
            |forge, container| {
                container.set(PERSISTENT.0, PERSISTENT.1);
                container.start();
                let (id, _) = forge.listening();
                forge.order(|orders| orders.conflict_limit_ms = Some(200));
                container.signal(Signal::SIGKILL);
                container.restart();
                container.wait_line("trying again in");
                shows(container, "already exists");
                assert!(forge.let_go(id));
                assert_eq!(forge.listening().0, id);
                forge.unregister(id);
            },
        ),
        Row::new(
            kind,
            Step::Listen,
            "ends by itself, under a registration that is kept",
            "`backing-off`, and the same registration is tried again",
            |forge, container| {
                container.set(PERSISTENT.0, PERSISTENT.1);
                let broken = container.path("broken");
                write(&broken, "", 0o444);
                container.replace_listener(&format!("[ \"$1\" = run ] && [ -e {} ] && exit 1", broken.display()));
                container.start();
                assert_said(container, &["trying again in", "code 1"]);
                let id = forge.runners()[0].id;
                fs::remove_file(broken).expect("our own file");
                assert_eq!(forge.listening().0, id);
                forge.unregister(id);
            },
        ),
    ];
    match kind {
        Kind::GitHub => rows.extend(refused_polls()),
        Kind::Azure => rows.push(Row::new(
            kind,
            Step::Listen,
            "its polls are refused: 403",
            "the agent tries again, and the status calls its connection lost; never `outdated`",
            |forge, container| {
                // One that is held would be answered when its time is over.
                forge.order(|orders| orders.poll_timeout_ms = 50);
                container.start();
                let (id, _) = forge.listening();
                refuse(forge, "/messages", 403);
                container.wait_line("connect error");
                until("the status tells it", || container.status()["connection"] == "lost");
                assert_eq!(container.status()["phase"], "listening");
                forge.clear_faults();
                container.wait_line("Agent reconnected");
                assert_eq!(forge.listening().0, id);
            },
        )),
    }
    rows
}

/// GitHub's runner ends at each of them with 7; its words tell the kinds apart.
fn refused_polls() -> [Row; 3] {
    let refuse = |forge: &Forge, times| {
        forge.order(|orders| orders.refuse_polls = Some(Refusals { status: 403, times }));
    };
    [
        Row::new(
            Kind::GitHub,
            Step::Listen,
            "its polls are refused once: 403 without a cause",
            "`backing-off`: one line with the agent's words, then a new registration",
            move |forge, container| {
                refuse(forge, Some(1));
                container.start();
                assert_said(container, &["trying again in", "backing-off", "code 7", "Error: Forbidden"]);
                forge.listening();
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Listen,
            "its polls are refused again and again: 403 without a cause",
            "`denied` after three in a row: one line with all that it can mean, unhealthy, slow; no registration stays meanwhile",
            move |forge, container| {
                refuse(forge, None);
                container.start();
                assert_said(container, &["listeners in a row", "denied", "too old", "IP allow list", "proxy"]);
                let status = container.status();
                assert_eq!((&status["phase"], &status["healthy"]), (&"denied".into(), &false.into()), "{status}");
                assert!(forge.runners().is_empty());
                forge.order(|orders| orders.refuse_polls = None);
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Listen,
            "its polls are refused: its version is not accepted",
            "`outdated`: one line with the version to pull, unhealthy, slow; no registration stays meanwhile",
            |forge, container| {
                forge.order(|orders| {
                    orders.deprecated = true;
                    "5.999.1".clone_into(&mut orders.latest_version);
                });
                container.start();
                assert_said(container, &["trying again in", "outdated", "5.999.1"]);
                let status = container.status();
                assert_eq!((&status["phase"], &status["healthy"]), (&"outdated".into(), &false.into()), "{status}");
                assert!(forge.runners().is_empty());
                forge.order(|orders| orders.deprecated = false);
            },
        ),
    ]
}
