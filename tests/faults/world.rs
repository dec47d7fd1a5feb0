//! What every row has in common: a life that begins, and what must be true once the fault is over.

use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::protocol::JobResult;
use serde_json::Value;

use crate::harness::{Container, Forge, LIMIT, SECRET, write};

/// A row may cost so many requests between two starts of the container.
const MOST: usize = 20;
/// And so many in one second, whatever goes wrong.
const MOST_A_SECOND: usize = 6;

/// How long a stop may take where no job runs.
pub const STOP: Duration = Duration::from_secs(30);

/// Runs a row's story, and then a life in which nothing goes wrong: what the fault left must be gone after it.
pub fn story(prepare: impl FnOnce(&Forge, &mut Container<'_>), tell: impl FnOnce(&Forge, &mut Container<'_>)) {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    prepare(&forge, &mut container);
    tell(&forge, &mut container);
    finish(&forge, &mut container);
}

/// Starts another incarnation of the container; what the last one asked is judged first.
pub fn restart(forge: &Forge, container: &mut Container<'_>) {
    assert_calm(forge);
    forge.clear_requests();
    container.restart();
}

/// Nothing may be left once a life went well: no registration, no note of one, no process, no file of a job.
pub fn finish(forge: &Forge, container: &mut Container<'_>) {
    forge.clear_faults();
    let one_job = |container: &mut Container<'_>| {
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded), "the job after the fault: {}", job.log);
        assert_eq!(container.exit_code(), 0);
    };
    container.set("OSCR_START_JITTER", "0");
    container.set("OSCR_MIN_UPTIME", "0");
    container.unset("RUNNER_PERSISTENT");
    // The forge may believe in a killed runner's job for a while, and lets its registration go only then.
    forge.wait("no job of a dead runner", LIMIT, |seen| {
        seen.jobs.iter().all(|job| job.status == oscr_sim::forge::JobStatus::Completed)
    });
    if container.runs() {
        container.signal(Signal::SIGTERM);
        container.exit_code_within(STOP);
    }
    restart(forge, container);
    one_job(container);
    assert_eq!(forge.runners().len(), 0, "{:#?}", forge.runners());
    container.assert_state_empty();
    for place in ["work", "tmp", "var/tmp", "dev/shm", "runner"] {
        assert!(container.names(place).is_empty(), "{place}: {:?}", container.names(place));
    }
    assert_calm(forge);
}

/// Asserts that the forge was left alone as much as it should be.
#[track_caller]
pub fn assert_calm(forge: &Forge) {
    let requests = forge.api_requests();
    assert!(requests.len() <= MOST, "{} requests: {:#?}", requests.len(), forge.calls());
    for (at, first) in requests.iter().enumerate() {
        let window = requests[at..].iter().take_while(|next| next.at.duration_since(first.at).as_millis() < 1000);
        assert!(window.count() <= MOST_A_SECOND, "too many in a second: {requests:#?}");
    }
}

/// Asserts that the log says once, in one line that people see, what is wrong: all of these words.
#[track_caller]
pub fn assert_said(container: &Container<'_>, words: &[&str]) {
    container.wait_line(words[0]);
    let loud = |line: &&String| [" WARN ", " ERROR "].iter().any(|level| line.contains(level));
    let lines = container.lines();
    let said: Vec<&String> = lines.iter().filter(loud).filter(|line| line.contains(words[0])).collect();
    assert_eq!(said.len(), 1, "{words:?}: {said:#?}");
    for word in words {
        assert!(said[0].contains(word), "{word:?} is not in {}", said[0]);
    }
}

/// Waits until this incarnation's listener listens. The forge may still believe in the last one's.
#[track_caller]
pub fn listens(container: &Container<'_>) {
    container.wait_line("Listening for Jobs");
}

/// Seconds from now to the status' `next_retry`.
pub fn seconds_to_retry(status: &Value) -> u64 {
    let retry = humantime::parse_rfc3339(status["next_retry"].as_str().expect("a time")).expect("RFC 3339");
    retry.duration_since(std::time::SystemTime::now()).unwrap_or_default().as_secs()
}

/// Asserts that the container waits for a person, unhealthy and quiet.
#[track_caller]
pub fn assert_denied(forge: &Forge, container: &Container<'_>, words: &[&str]) {
    assert_said(container, &[&["trying again in"], words].concat());
    let status = container.status();
    assert_eq!(status["phase"], "denied", "{status}");
    assert_eq!(status["healthy"], false, "{status}");
    assert!(seconds_to_retry(&status) >= 25, "{status}");
    let before = forge.api_requests().len();
    assert_eq!(container.ask(&["health"]).0, 1);
    assert_eq!(forge.api_requests().len(), before);
}

/// A person corrects what was wrong, and says so by touching the secret's file.
pub fn correct(forge: &Forge, container: &Container<'_>) {
    forge.clear_faults();
    let new = container.path("run/secrets/new");
    write(&new, &forge.pat(), 0o400);
    std::fs::rename(&new, container.path(SECRET)).expect("the same directory");
}
