//! What every row has in common: a life that begins, and what must be true once the fault is over.

use std::time::Duration;

use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, ServicePrincipal};
use oscr_sim::protocol::JobResult;
use serde_json::{Value, json};

use crate::harness::{Container, Forge, LIMIT, SECRET, write};
use crate::table::Step;

/// A row may cost so many requests between two starts of the container.
const MOST: usize = 20;
/// And so many in one second, whatever goes wrong.
const MOST_A_SECOND: usize = 6;

/// How long a stop may take where no job runs.
pub const STOP: Duration = Duration::from_secs(30);

/// Tells a row's story, and then a life in which nothing goes wrong: what the fault left must be gone after it.
pub fn tell(kind: Kind, story: &dyn Fn(&Forge, &mut Container<'_>)) {
    let forge = Forge::start();
    let mut container = match kind {
        Kind::GitHub => Container::new(&forge),
        Kind::Azure => Container::azure(&forge),
    };
    story(&forge, &mut container);
    finish(&forge, &mut container);
}

/// The request that a life begins with at a forge, if nothing is left of an earlier one.
#[derive(Clone, Copy)]
pub struct First {
    pub step: Step,
    pub path: &'static str,
    /// Its status, when all is well.
    pub success: &'static str,
}

pub fn first_request(kind: Kind) -> First {
    match kind {
        Kind::GitHub => First { step: Step::Grant, path: "registration-token", success: "201 Created" },
        Kind::Azure => First { step: Step::Pool, path: "/pools", success: "200 OK" },
    }
}

/// What the paths of requests about one registration contain.
pub fn registrations(kind: Kind) -> &'static str {
    match kind {
        Kind::GitHub => "/runners/",
        Kind::Azure => "/agents/",
    }
}

/// How a forge refuses to remove a registration whose job it believes to run.
pub fn believes_busy(kind: Kind) -> Fault {
    match kind {
        Kind::GitHub => Fault { status: Some(422), ..Fault::default() },
        Kind::Azure => {
            let body = json!({
                "typeKey": "TaskAgentJobStillRunningException",
                "message": "Agent \"a\" is running a job for pool \"Default\"",
            });
            Fault { status: Some(400), body: Some(body), ..Fault::default() }
        }
    }
}

/// Gives the container a service principal for its credential, with the same secret's file.
pub fn be_a_principal(forge: &Forge, container: &mut Container<'_>) {
    let principal = ServicePrincipal {
        tenant: "11111111-2222-3333-4444-555555555555".to_owned(),
        client_id: "99999999-8888-7777-6666-555555555555".to_owned(),
        client_secret: "principal~secret+with/signs=".to_owned(),
    };
    container.unset("ADO_PAT_FILE");
    container.set_all(&[
        ("ADO_CLIENT_ID", &principal.client_id),
        ("ADO_TENANT_ID", &principal.tenant),
        ("ADO_CLIENT_SECRET_FILE", &container.text(SECRET)),
        ("ADO_AUTHORITY_URL", &forge.url()),
    ]);
    forge.order(|orders| orders.service_principals = vec![principal]);
    correct(forge, container);
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
    let one_job_ends_it = ["RUNNER_PERSISTENT", "OSCR_MIN_UPTIME"].map(|name| container.setting(name)) == ["", "0"];
    container.set("OSCR_START_JITTER", "0");
    container.set("OSCR_MIN_UPTIME", "0");
    container.unset("RUNNER_PERSISTENT");
    // What the forge believed of a dead runner's job is over.
    forge.wait("no job of a dead runner", LIMIT, |seen| {
        seen.jobs.iter().all(|job| job.status == oscr_sim::forge::JobStatus::Completed)
    });
    let phases = container.lines_with("a new phase: ");
    if container.runs() && one_job_ends_it && phases.last().is_some_and(|last| last.contains("listening")) {
        // A stop would make it wait for a job that may have been assigned meanwhile.
        one_job(container);
    } else if container.runs() {
        container.stop();
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
    assert!(container.pause(&status) >= Duration::from_secs(25), "{status}");
    let before = forge.api_requests().len();
    assert_eq!(container.ask(&["health"]).0, 1);
    assert_eq!(forge.api_requests().len(), before);
}

/// A person corrects what was wrong, and says so by touching the secret's file.
pub fn correct(forge: &Forge, container: &Container<'_>) {
    forge.clear_faults();
    let new = container.path("run/secrets/new");
    write(&new, &forge.secret(), 0o400);
    std::fs::rename(&new, container.path(SECRET)).expect("the same directory");
}
