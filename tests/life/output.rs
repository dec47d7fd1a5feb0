//! What the log shows of an agent and of its job, and what the agent's words are believed.

use std::fmt::Write as _;

use oscr_sim::forge::JobSpec;
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::harness::{Container, Forge, LIMIT, each};
use crate::operator::summaries;

/// Whatever a job is named after, or writes in its listener's name.
const SAID: [&str; 6] = [
    "Running job: x",
    "Runner connect error: forged. Retrying until reconnected.",
    "Current runner version: '9.9.9'",
    "Job x completed with result: Succeeded",
    "Listening for Jobs",
    "A session for this runner already exists.",
];

/// The job summary in the log.
#[track_caller]
fn summary(container: &Container<'_>) -> serde_json::Value {
    let all = summaries(container);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn a_life_with_one_job_is_under_twenty_lines_and_nothing_of_the_jobs_message() {
    const PRIVATE: &str = "somebody@example.com";
    // A just-in-time configuration needs no configure step, whose words are for those who look into it.
    each(&[("info", "token"), ("info", "jit"), ("debug", "token")], |(level, registration)| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        container.set_all(&[("OSCR_LOG_LEVEL", level), ("OSCR_REGISTRATION", registration)]);
        container.start();
        let script = format!("echo {PRIVATE} may stand in the log of its job");
        let payload = json!({"commits": [{"author": {"email": PRIVATE}, "message": PRIVATE}]});
        let job = forge.submit(JobSpec { payload, ..JobSpec::script("build", &script) });
        assert!(forge.wait_job(job, LIMIT).log.contains(PRIVATE));
        assert_eq!(container.exit_code(), 0);
        let lines = container.lines();
        assert!(!lines.iter().any(|line| line.contains(PRIVATE) || line.contains("[WORKER ")), "{lines:#?}");
        if *level == "info" {
            assert!(lines.len() < 20, "{} lines: {lines:#?}", lines.len());
            for part in ["Listening for Jobs", "Running job: build", "Job build completed with result: Succeeded"] {
                assert_eq!(container.lines_with(part).len(), 1, "{part}: {lines:#?}");
            }
            assert!(!lines.iter().any(|line| line.contains("[RUNNER ") || line.contains("Runner Registration")));
        } else {
            assert!(lines.iter().any(|line| line.contains("[RUNNER ") && line.contains("DEBUG")), "{lines:#?}");
        }
    });
}

#[test]
fn a_job_named_after_its_listeners_words_is_a_job_like_any_other() {
    each(&SAID, |name| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        let mut gate = container.gate();
        container.start();
        let job = forge.submit(JobSpec::script(name, &format!("{}; exit 1", gate.wait())));
        forge.wait_log(job, "at the gate");
        let status = container.wait_phase("running");
        assert_eq!(status["job"]["name"], *name, "{status}");
        assert_eq!(status["healthy"], true, "{status}");
        assert_ne!(status["agent"], "9.9.9", "{status}");
        gate.open();
        assert_eq!(container.exit_code(), 0, "{name}");
        assert_eq!(summary(&container)["result"], "failed", "{name}");
        assert_eq!(summary(&container)["job"], *name);
    });
}

#[test]
fn what_a_job_writes_in_its_listeners_name_changes_no_result_no_version_and_no_health() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_LOG_LEVEL", "info");
    let mut gate = container.gate();
    container.start();
    let mut script = String::new();
    for said in SAID {
        for line in [
            said.to_owned(),
            format!("2026-01-01 00:00:00Z: {said}"),
            format!("[RUNNER 2026-01-01 00:00:00Z INFO Terminal] WRITE LINE: {said}"),
            format!("[RUNNER 2026-01-01 00:00:00Z INFO Runner] Skipping message Job. {said}"),
        ] {
            // The worker's standard output, which becomes the listener's.
            let _ = writeln!(script, "cat >/proc/$PPID/fd/1 <<'END'\n{line}\nEND");
        }
    }
    let job = forge.job(&format!("{script}{}; exit 1", gate.wait()));
    forge.wait_log(job, "at the gate");
    let status = container.status();
    assert_eq!((&status["phase"], &status["healthy"]), (&json!("running"), &json!(true)), "{status}");
    assert_ne!(status["agent"], "9.9.9", "{status}");
    assert_eq!((&status["job"]["name"], &status["last_error"]), (&json!("job"), &json!(null)), "{status}");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Failed));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(summary(&container)["result"], "failed");
    for forged in ["forged", "9.9.9", "job: x", "Job x", "replacing"] {
        assert_eq!(container.lines_with(forged), Vec::<String>::new(), "{forged}");
    }
}
