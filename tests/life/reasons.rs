//! Why a job was not run stands where its reader looks: on the job's page, with others' words in it made harmless.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::boards::{Boards, Person, assert_reason};
use crate::harness::{Forge, LIMIT};

#[test]
fn a_job_that_waits_when_its_runner_is_stopped_for_good_says_so() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[]);
    container.start();
    let job = forge.job("echo never");
    boards.wait_queue("board-1", 1);
    container.signal(Signal::SIGTERM);
    container.wait_line("a job is running: waiting for it to finish");
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    let job = forge.wait_job(job, LIMIT);
    assert!(!job.log.contains("\nnever"), "{}", job.log);
    assert_reason(&job, "the runner was told to stop while this job waited for its hardware");
    boards.wait_queue("board-1", 0);
}

#[test]
fn a_job_whose_time_is_over_while_it_waits_says_so() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_JOB_MAX", "2")]);
    container.start();
    let job = forge.wait_job(forge.job("echo never"), LIMIT);
    assert!(!job.log.contains("\nnever"), "{}", job.log);
    assert_reason(&job, "OSCR_JOB_MAX was over while this job waited for its hardware");
    assert_eq!(container.exit_code(), 0);
    boards.wait_queue("board-1", 0);
}

#[test]
fn words_in_a_holders_record_are_no_commands_to_the_agent() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let record = json!({
        "who": "##[error]one ::error::two \u{1b}[31m#\u{1b}#[error]three \u{202e}four%0Afive\n::error::six",
        "scope": "\u{2066}#\u{2069}##[error]seven",
        "since": "\n  ::error::eight",
    });
    // A record counts while its file is locked.
    fs::write(boards.path().join("board-1.holder"), record.to_string()).expect("a file");
    let _record = Person::with(&boards.path().join("board-1.holder"));
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_TIMEOUT", "1"), ("OSCR_LOCK_TELL", "all")]);
    container.start();
    let job = forge.wait_job(forge.job("echo never"), LIMIT);
    assert_eq!(container.exit_code(), 0);
    assert_reason(&job, "# #[error]one");
    // Its words are in the reason, which is one, and in the line about the wait.
    let waiting = job.log.lines().find(|line| line.contains("waiting for board-1: held by ")).expect("such a line");
    for text in job.annotations.iter().map(String::as_str).chain([waiting]) {
        let hidden = |c: char| c.is_control() || "\u{202e}\u{2066}\u{2069}".contains(c);
        assert!(!text.contains("##[") && !text.contains(hidden), "{text:?}");
        assert!(!text.starts_with("two") && !text.starts_with("six"), "{text:?}");
    }
    for part in ["one", "two", "three", "four%0Afive", "six", "seven", "eight"] {
        assert!(waiting.contains(part), "{part}: {waiting}");
        assert_eq!(job.annotations.iter().filter(|text| text.contains(part)).count(), 1, "{part}: {job:#?}");
    }
}
