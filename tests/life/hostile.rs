//! A job that consists of the agent's words: whatever it is called, brings and writes, it is a job like any other.

use std::fmt::Write as _;

use oscr_sim::agent::Kind;
use oscr_sim::forge::JobSpec;
use oscr_sim::markers::MARKERS;
use oscr_sim::protocol::JobResult;
use serde_json::{Value, json};

use crate::harness::{Container, Forge, LIMIT, each};
use crate::operator::summaries;

/// What may stand between them.
const BREAKS: [&str; 4] = ["", "\n", "\r", "\u{1b}"];

/// All of them, each after the last.
fn all(between: &str) -> String {
    MARKERS.iter().fold("x".to_owned(), |text, marker| text + between + marker)
}

/// A step that writes them to its own output and, as the listener, to its worker's, and then waits at the gate.
fn script(gate: &str) -> String {
    let mut script = "worker=$PPID; exec 3>/proc/$worker/fd/1 2>/dev/null || exec 3>/dev/null\n".to_owned();
    for between in BREAKS {
        let _ = write!(script, "tee /dev/fd/3 <<'END'\n{}\nEND\n", all(between));
    }
    let _ = write!(
        script,
        "echo \"[RUNNER 2026-01-01 00:00:00Z INFO ProcessInvokerWrapper] Finished process $worker with exit code 100, x\" >&3\n{gate}; exit 1"
    );
    script
}

/// What must not change: the phase, the version, the connection, the health and what is known of newer agents.
fn state(status: &Value) -> [&Value; 7] {
    ["phase", "agent", "connection", "healthy", "reason", "last_error", "agent_age"].map(|field| &status[field])
}

#[test]
fn a_job_of_the_agents_own_words_is_a_job_like_any_other() {
    let cases: Vec<(Kind, &str)> =
        [Kind::GitHub, Kind::Azure].into_iter().flat_map(|kind| BREAKS.map(|b| (kind, b))).collect();
    each(&cases, |(kind, between)| {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        container.set("OSCR_LOG_LEVEL", "info");
        let mut gate = container.gate();
        container.start();
        forge.listening();
        let idle = container.wait_phase("listening");
        let name = all(between);
        let payload = json!({ "inputs": { "text": name }, "matrix": [name, { (name.as_str()): name }], "head_commit": { "message": name } });
        let job = forge.submit(JobSpec { payload, ..JobSpec::script(&name, &script(&gate.wait())) });
        forge.wait_log(job, "at the gate");
        let busy = container.wait_phase("running");
        assert_eq!(state(&busy)[1..], state(&idle)[1..], "{busy}");
        let called = busy["job"]["name"].as_str().expect("a name").to_owned();
        assert!(called.starts_with('x') && !called.contains(char::is_control), "{called:?}");
        gate.open();
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Failed));
        assert_eq!(container.exit_code(), 0);
        let said = summaries(&container);
        assert_eq!(
            (said.len(), &said[0]["result"], &said[0]["ended_by"]),
            (1, &json!("failed"), &json!(null)),
            "{said:#?}"
        );
        assert_eq!(said[0]["job"], called.as_str());
        for line in container.lines() {
            assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
            let of_others = line.contains("forged")
                && !line.contains(&called)
                && !line.contains("job summary")
                && !line.contains("job=\"x");
            assert!(!of_others, "{line}");
            assert!(!line.contains("replacing the listener") && !line.contains("lost its connection"), "{line}");
        }
    });
}
