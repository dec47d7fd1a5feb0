//! Somebody with root's powers changes what is not wiped, as a job with sudo could: the test, which is root, does it.

use std::fs;

use nix::sys::signal::Signal;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, allow, write};

/// A container of its own whose first job is at a gate.
fn with_a_job<'f>(forge: &'f Forge, settings: &[(&str, &str)]) -> (Container<'f>, crate::harness::Gate, u64) {
    let mut container = Container::new(forge);
    container.with_programs_of_its_own();
    container.set_all(settings);
    let (job, gate) = container.start_with_job();
    (container, gate, job)
}

#[test]
fn a_tainted_container_takes_no_further_job_whatever_restarts_it() {
    let forge = Forge::start();
    let (mut container, mut gate, job) = with_a_job(&forge, &[]);
    write(&container.path("etc/ld.so.preload"), "/tmp/evil.so", 0o644);
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    for _ in 0..2 {
        container.wait_line("this container is tainted");
        let status = container.wait_phase("tainted");
        assert_eq!(status["healthy"], false, "{status}");
        assert_eq!(status["next_retry"], serde_json::Value::Null, "{status}");
        let reason = status["reason"].as_str().expect("a reason");
        assert!(reason.contains("/etc/ld.so.preload (new)") || reason.contains("/etc (new)"), "{reason}");
        assert!(reason.contains("docker compose up -d --force-recreate"), "{reason}");
        assert_eq!(container.ask(&["health"]).0, 1);
        assert_eq!(forge.runners().len(), 0, "it is gone from the forge");
        assert!(container.names("work").is_empty(), "it is clean all the same");
        container.signal(Signal::SIGTERM);
        assert_eq!(container.exit_code(), 0);
        // Even if what gave it away is gone.
        let _ = fs::remove_dir_all(container.path("etc"));
        container.start();
    }
    assert_eq!(forge.calls().iter().filter(|call| call.contains("registration-token")).count(), 1);
}

#[test]
fn what_was_changed_before_a_kill_is_found_before_the_next_registration() {
    let forge = Forge::start();
    let (mut container, _gate, _) = with_a_job(&forge, &[]);
    let program = container.path("opt/oscr/agent/run.sh");
    let mut text = fs::read_to_string(&program).expect("a script");
    text.push_str("evil\n");
    write(&program, &text, 0o755);
    container.signal(Signal::SIGKILL);
    container.exit_code();
    container.start();
    container.wait_line("this container is tainted");
    let status = container.wait_phase("tainted");
    assert!(status["reason"].to_string().contains("/opt/oscr/agent/run.sh (content)"), "{status}");
    assert_eq!(forge.calls().iter().filter(|call| call.contains("registration-token")).count(), 1);
}

#[test]
fn with_warn_it_is_said_once_and_the_next_job_runs() {
    let forge = Forge::start();
    let (mut container, mut gate, job) = with_a_job(&forge, &[("OSCR_TAINT", "warn")]);
    fs::remove_file(container.path("opt/oscr/agent/run.sh")).expect("root may");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    let said = container.lines_with("/opt/oscr/agent/run.sh (missing)");
    assert_eq!(said.len(), 1, "{said:#?}");
    container.start();
    forge.listening();
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.lines_with("(missing)").len(), 0);
}

#[test]
fn ordinary_jobs_taint_nothing_and_their_leftovers_go_wherever_they_are() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let tools = container.path("opt/tools");
    fs::create_dir_all(tools.join("of-the-image")).expect("a directory");
    for place in [&tools, &tools.join("of-the-image")] {
        allow(place, 0o777);
    }
    container.with_programs_of_its_own();
    let script = format!(
        "cd {}; find . | sort | tr '\\n' ' '; mkdir -p of-the-image/a/b new; touch of-the-image/a/b/c new/file",
        tools.display()
    );
    for round in 0..3 {
        container.restart();
        let job = forge.wait_job(forge.job(&script), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
        assert!(
            job.log.contains(". ./of-the-image \n") || job.log.contains(". ./of-the-image ##"),
            "{round}: {}",
            job.log
        );
    }
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.names("opt/tools"), ["of-the-image"]);
    assert!(container.names("opt/tools/of-the-image").is_empty());
}
