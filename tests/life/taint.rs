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
fn what_a_runtime_writes_at_each_start_for_gpus_taints_nothing_and_without_gpus_it_does() {
    for gpus in [true, false] {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        container.with_programs_of_its_own();
        write(&container.path("etc/ld.so.conf.d/libc.conf"), "/usr/local/lib\n", 0o644);
        write(&container.path("var/cache/ldconfig/aux-cache"), "first", 0o600);
        if gpus {
            write(&container.path("dev/nvidiactl"), "", 0o666);
        }
        let (job, mut gate) = container.start_with_job();
        gate.open();
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        write(&container.path("etc/ld.so.conf.d/00-nvcr-1.conf"), "/usr/lib/x86_64-linux-gnu\n", 0o644);
        write(&container.path("var/cache/ldconfig/aux-cache"), "second", 0o600);
        container.start();
        if gpus {
            forge.listening();
        } else {
            container.wait_line("this container is tainted");
            let reason = container.wait_phase("tainted")["reason"].to_string();
            assert!(reason.contains("00-nvcr-1.conf (new)") && reason.contains("aux-cache (content)"), "{reason}");
        }
    }
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

/// A new container that is started and whose image has a baseline that nobody can read to its end before the test opens and closes it:
/// what the container is like stays unknown until then.
fn with_an_endless_look(forge: &Forge) -> (Container<'_>, std::path::PathBuf) {
    let mut container = Container::new(forge);
    container.with_programs_of_its_own();
    let baseline = container.path("opt/oscr/baseline");
    fs::remove_file(&baseline).expect("the baseline of its programs");
    nix::unistd::mkfifo(&baseline, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a pipe");
    container.start();
    // The first who reads it asks what of the work directory came with the image.
    end_of(&baseline);
    container.wait_line("registered with");
    (container, baseline)
}

/// Lets whoever reads a pipe come to its end.
fn end_of(pipe: &std::path::Path) {
    drop(fs::OpenOptions::new().write(true).open(pipe).expect("it is being read"));
}

#[test]
fn a_new_container_registers_while_it_looks_and_listens_when_it_knows_what_it_is_like() {
    let forge = Forge::start();
    let (mut container, baseline) = with_an_endless_look(&forge);
    assert!(!container.path("opt/oscr/container/reference").exists());
    assert_eq!(forge.requests().iter().filter(|request| request.path == "/_broker/session").count(), 0);
    end_of(&baseline);
    forge.listening();
    assert!(container.path("opt/oscr/container/reference").exists());
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    let looked = container.lines_with("wrote down what this container is like");
    assert_eq!(looked.len(), 1, "{looked:#?}");
}

#[test]
fn a_stop_does_not_wait_for_the_look_at_a_new_container() {
    let forge = Forge::start();
    let (mut container, _baseline) = with_an_endless_look(&forge);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    assert!(!container.path("opt/oscr/container/reference").exists());
}

#[test]
fn a_new_container_that_cannot_be_looked_at_takes_no_job_until_it_can() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.with_programs_of_its_own();
    let own = container.path("opt/oscr/container");
    write(&own, "in the way", 0o600);
    container.start();
    container.wait_line("no job is taken: the file system cannot be compared with what it was");
    assert_eq!(container.wait_phase("dirty")["healthy"], false);
    assert_eq!(forge.runners().len(), 0);
    assert_eq!(forge.requests().iter().filter(|request| request.path == "/_broker/session").count(), 0);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    fs::remove_file(&own).expect("root may");
    container.start();
    forge.listening();
    assert!(own.join("reference").exists());
}
