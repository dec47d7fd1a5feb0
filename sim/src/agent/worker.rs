//! `Runner.Worker`: one job, told by the listener on standard input.

use std::io::{BufRead as _, stdin};
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::job::{self, Assignment};
use super::process::Interruption;
use super::trace::Trace;
use crate::protocol::{CompleteRequest, JobResult, WorkerMessage};

/// Everything that can happen while a job runs.
#[derive(Debug)]
pub(super) enum Happening {
    Interrupt(Interruption),
    Exited(i32, ExitStatus),
    OutputEnded(i32),
}

/// The job's log; lines go to the forge in the order in which they come.
#[derive(Debug, Clone)]
pub(super) struct Log(Sender<String>);

impl Log {
    pub(super) fn line(&self, text: &str) {
        // The other end lives until all lines are sent.
        let _ = self.0.send(format!("{text}\n"));
    }
}

/// Sends lines in as few requests as their pace allows.
fn uploader(client: Client, path: String) -> (Log, JoinHandle<()>) {
    let (lines, received) = mpsc::channel::<String>();
    let thread = thread::spawn(move || {
        while let Ok(mut text) = received.recv() {
            text.extend(received.try_iter());
            for _ in 0..5 {
                match client.post_text(&path, text.clone()) {
                    Err(refusal) if refusal.status().is_none_or(|s| s >= 500) => {
                        thread::sleep(Duration::from_millis(500));
                    }
                    _ => break,
                }
            }
        }
    });
    (Log(lines), thread)
}

/// The whole program; gives its exit code.
#[must_use]
pub fn main() -> i32 {
    let root = super::root();
    let trace = Trace::open(&root, "Worker");
    let mut line = String::new();
    let message = stdin()
        .lock()
        .read_line(&mut line)
        .ok()
        .and_then(|_| serde_json::from_str(&line).ok());
    let Some(WorkerMessage::Job {
        server,
        runner,
        work,
        job,
    }) = message
    else {
        trace.complain("The worker is started by the listener, with a job on its standard input.");
        return 1;
    };
    let (happenings, received) = mpsc::channel();
    forward_orders(happenings.clone());
    trace.info(&format!("Job '{}' ({}) on '{runner}'", job.name, job.id));
    let client = Client::new(&server, &job.token);
    let (log, uploading) = uploader(client.clone(), format!("/_agent/jobs/{}/log", job.id));
    let id = job.id;
    let assignment = Assignment {
        server,
        runner,
        root,
        work: work.into(),
        job: *job,
    };
    let result = job::run(&assignment, &log, &received, &happenings);
    // All lines are at the forge before the job is over there.
    drop(log);
    finish_upload(uploading, &received);
    complete(&client, &trace, id, result);
    trace.info(&format!("Job completed with result {}", result.word()));
    result.worker_code()
}

/// Readers of processes that outlive the job keep the log's channel open: the wait has an end.
fn finish_upload(uploading: JoinHandle<()>, received: &Receiver<Happening>) {
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while !uploading.is_finished() && std::time::Instant::now() < deadline {
        // Wakes up for whatever ends meanwhile.
        let _ = received.recv_timeout(Duration::from_millis(5));
    }
}

fn forward_orders(happenings: Sender<Happening>) {
    thread::spawn(move || {
        for line in stdin().lines() {
            let asked = match line.ok().and_then(|l| serde_json::from_str(&l).ok()) {
                Some(WorkerMessage::Cancel) => Interruption::Cancelled,
                Some(WorkerMessage::Shutdown) => Interruption::Shutdown,
                Some(WorkerMessage::Job { .. }) | None => continue,
            };
            if happenings.send(Happening::Interrupt(asked)).is_err() {
                return;
            }
        }
        // A listener that died says nothing more; the job runs to its end.
    });
}

fn complete(client: &Client, trace: &Trace, id: u64, result: JobResult) {
    let request = CompleteRequest { result };
    for _ in 0..10 {
        match client.post_raw(&format!("/_agent/jobs/{id}/complete"), Some(&request)) {
            Ok(_) => return,
            Err(refusal) => {
                trace.error(&format!("The job's end was not reported: {refusal}"));
                if refusal.status().is_some_and(|s| s < 500) {
                    return;
                }
                thread::sleep(Duration::from_millis(500));
            }
        }
    }
}
