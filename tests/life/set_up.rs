//! Jobs that never reach their hook, because they fail in "Set up job": told after three in a row, and no job is taken only where the
//! agent's user cannot work.

use nix::sys::signal::Signal;
use oscr_sim::protocol::JobResult;
use serde_json::{Value, json};

use crate::harness::{Container, Forge, LIMIT};

/// Has the next jobs fail in "Set up job", although their places are well: a file is where their temporary directory should be.
fn break_set_up(container: &Container<'_>) {
    let (temporary, order) = (container.text("work/_temp"), container.text("broken"));
    container.replace_listener(&format!("[ \"$1\" = run ] && [ -e '{order}' ] && : >'{temporary}'"));
    crate::harness::write(&container.path("broken"), "", 0o644);
}

fn mend_set_up(container: &Container<'_>) {
    std::fs::remove_file(container.path("broken")).expect("our own file");
}

/// Has one job fail before its hook.
#[track_caller]
fn fail_one(forge: &Forge) {
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
    assert!(!job.log.contains("A job started hook"), "{}", job.log);
}

/// The gauge of such jobs, as the metrics' file has it.
#[track_caller]
fn gauge(container: &Container<'_>) -> String {
    let names = container.names("metrics");
    let file = names.first().expect("a file of metrics").to_str().expect("a name").to_owned();
    let page = std::fs::read_to_string(container.path("metrics").join(file)).expect("the page");
    let line = page.lines().find(|line| line.starts_with("oscr_jobs_without_hook{")).expect("the gauge");
    line.rsplit(' ').next().expect("a number").to_owned()
}

#[test]
fn three_jobs_in_a_row_that_reach_no_hook_are_told_and_the_next_that_does_ends_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    std::fs::create_dir(container.path("metrics")).expect("a directory");
    container.set("OSCR_METRICS_FILE", &container.text("metrics"));
    break_set_up(&container);
    for (before, told) in [(0, false), (1, false), (2, true)] {
        container.restart();
        forge.listening();
        assert_eq!(container.status()["last_error"], Value::Null, "{before}");
        fail_one(&forge);
        assert_eq!(container.exit_code(), 0);
        assert_eq!(!container.lines_with("look at the step \"Set up job\"").is_empty(), told, "{before}");
        assert_eq!(gauge(&container), (before + 1).to_string());
    }
    mend_set_up(&container);
    container.restart();
    // Its places are well: jobs are taken.
    forge.listening();
    let status = container.status();
    let error = status["last_error"].as_str().unwrap_or_default();
    assert!(error.contains("3 jobs in a row") && error.contains("Set up job"), "{status}");
    assert_eq!(status["healthy"], true, "{status}");
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!((container.state()["without_hook"].clone(), gauge(&container)), (json!(0), "0".to_owned()));
}

#[test]
fn a_persistent_runner_counts_them_too() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("RUNNER_PERSISTENT", "true");
    break_set_up(&container);
    container.start();
    for _ in 0..3 {
        forge.listening();
        fail_one(&forge);
    }
    container.wait_line("look at the step \"Set up job\"");
    forge.listening();
    let error = container.wait_phase("listening")["last_error"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("Set up job")), "{error}");
}

#[test]
fn no_job_is_taken_where_the_agents_user_cannot_work_after_all() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    std::fs::create_dir(container.path("work")).expect("a directory");
    // No file can be made there, which no look at modes and free space shows.
    let mount = "mount -t tmpfs -o nr_inodes=1,size=64k tmpfs";
    container.in_namespace(&format!("{mount} '{}'", container.text("work")));
    for _ in 0..3 {
        container.restart();
        forge.listening();
        fail_one(&forge);
        assert_eq!(container.exit_code(), 0);
    }
    container.restart();
    container.wait_line("no job is taken");
    let status = container.status();
    assert_eq!(status["phase"], "dirty", "{status}");
    let error = status["last_error"].as_str().unwrap_or_default();
    for part in ["Set up job", "the agent's user cannot work there", "work: No space left"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(status["healthy"], false, "{status}");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    container.in_namespace("");
    container.restart();
    forge.listening();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
}
