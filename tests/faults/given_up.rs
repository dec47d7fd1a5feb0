//! Jobs that look alive and are none any more, and names that somebody else has.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, Match};
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::harness::{Container, LIMIT};
use crate::table::{Row, Step};
use crate::world::{correct, registrations};

/// The listener's or the worker's process.
fn process(container: &Container<'_>, part: &str) -> Pid {
    let name = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    container.processes().into_iter().find(|pid| name(pid).trim().ends_with(part)).expect(part)
}

pub fn rows(kind: Kind) -> Vec<Row> {
    vec![
        Row::new(
            kind,
            Step::Configure,
            "a living agent has the exact name",
            "`denied`: one line that names it; it stays. Once it is gone, on as before",
            move |forge, container| {
                let mut other = match kind {
                    Kind::GitHub => Container::new(forge),
                    Kind::Azure => Container::azure(forge),
                };
                let name = [("RUNNER_NAME", "exact"), ("OSCR_ALLOW_FIXED_NAME", "true")];
                other.set_all(&name);
                container.set_all(&name);
                other.start();
                let (id, _) = forge.listening();
                container.start();
                container.wait_line("denied");
                let named = format!("taken by another agent that lives (id {id})");
                container.wait_line(&named);
                let line = container.lines_with("unset RUNNER_NAME");
                assert!(line.len() == 1 && line[0].contains("the name exact is"), "{line:?}");
                assert_eq!(forge.runners().len(), 1);
                other.stop();
                correct(forge, container);
                forge.listening();
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "its worker and its listener are stopped (SIGSTOP)",
            "both go on within seconds, and with them the job; the log says so",
            |forge, container| {
                let (job, mut gate) = container.start_with_job();
                for part in ["Worker", "Listener"] {
                    kill(process(container, part), Signal::SIGSTOP).expect("it runs");
                }
                container.wait_line("worker was stopped (SIGSTOP)");
                container.wait_line("listener was stopped (SIGSTOP)");
                gate.open();
                assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
                assert_eq!(container.exit_code(), 0);
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "its worker is stopped again and again",
            "the job fails: the worker is killed, and the listener tells the forge; exit 0, `stopped` in the summary",
            |forge, container| {
                let (job, _gate) = container.start_with_job();
                let worker = process(container, "Worker");
                kill(worker, Signal::SIGSTOP).expect("it runs");
                container.wait_line("worker was stopped (SIGSTOP)");
                kill(worker, Signal::SIGSTOP).expect("it goes on");
                assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Failed));
                assert_eq!(container.exit_code(), 0);
                assert!(container.wait_line("\"job summary\"").contains(r#""ended_by":"stopped""#));
            },
        ),
        Row::new(
            kind,
            Step::Job,
            "the forge calls its runner offline and not busy",
            "for `OSCR_JOB_OFFLINE_TIMEOUT` in each answer: the job is ended, `forge` in the summary",
            |forge, container| {
                container.set_all(&[("OSCR_WATCH_INTERVAL", "1"), ("OSCR_JOB_OFFLINE_TIMEOUT", "2")]);
                let (job, _gate) = container.start_with_job();
                let runner = forge.runners().remove(0);
                let seen = json!({
                    "id": runner.id, "name": runner.name, "os": "linux", "status": "offline", "busy": false, "labels": [],
                });
                let matching = Match { method: Some("GET".to_owned()), ..Match::default() };
                let path = format!("{}{}", registrations(container.kind), runner.id);
                forge.fault(&path, Fault { matching, status: Some(200), body: Some(seen), ..Fault::default() });
                container.wait_line("OSCR_JOB_OFFLINE_TIMEOUT");
                assert_ne!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
                container.exit_code();
                assert!(container.wait_line("\"job summary\"").contains(r#""ended_by":"forge""#));
            },
        ),
    ]
}
