//! `Runner.Worker` and `Agent.Worker`: one job, told by the listener on standard input.

use std::io::{BufRead as _, stdin};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use super::job::{self, Assignment};
use super::kind::{Connection, Kind};
use super::process::Interruption;
use super::trace::Trace;
use crate::protocol::{JobResult, WorkerMessage};

/// Everything that can happen while a job runs.
#[derive(Debug)]
pub(super) enum Happening {
    Interrupt(Interruption),
    Exited(i32, ExitStatus),
    OutputEnded(i32),
}

/// The job's log; lines go to the forge in the order in which they come.
#[derive(Debug, Clone)]
pub(super) struct Log(Sender<Entry>);

#[derive(Debug)]
enum Entry {
    Line(String),
    /// Everything before this is at the forge when the other end hears of it.
    Flush(Sender<()>),
}

impl Log {
    pub(super) fn line(&self, text: &str) {
        // The uploader lives as long as the worker.
        let _ = self.0.send(Entry::Line(format!("{text}\n")));
    }

    /// Waits until all lines so far are at the forge, or the forge took too long.
    fn flush(&self) {
        let (done, waiting) = mpsc::channel();
        if self.0.send(Entry::Flush(done)).is_ok() {
            // Without its last lines the job is over all the same.
            let _ = waiting.recv_timeout(Duration::from_secs(10));
        }
    }
}

/// Sends lines in as few requests as their pace allows.
fn uploader(forge: Arc<dyn Connection>, id: u64) -> Log {
    let (entries, received) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(first) = received.recv() {
            let (mut text, mut flushed) = (String::new(), Vec::new());
            for entry in std::iter::once(first).chain(received.try_iter()) {
                match entry {
                    Entry::Line(line) => text.push_str(&line),
                    Entry::Flush(done) => flushed.push(done),
                }
            }
            if !text.is_empty() {
                upload(&*forge, id, &text);
            }
            for done in flushed {
                // Whoever asked may have given up.
                let _ = done.send(());
            }
        }
    });
    Log(entries)
}

fn upload(forge: &dyn Connection, id: u64, text: &str) {
    for _ in 0..5 {
        match forge.log(id, text.to_owned()) {
            Err(refusal) if refusal.status().is_none_or(|s| s >= 500) => thread::sleep(Duration::from_millis(500)),
            _ => return,
        }
    }
}

/// The whole program; gives its exit code.
#[must_use]
pub fn main() -> i32 {
    let kind = Kind::of_this_program();
    let root = super::root();
    let trace = Trace::open(&root, kind.facts(), "Worker");
    let mut line = String::new();
    let message = stdin().lock().read_line(&mut line).ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(WorkerMessage::Job { server, runner, work, job }) = message else {
        trace.complain("The worker is started by the listener, with a job on its standard input.");
        return 1;
    };
    let (happenings, received) = mpsc::channel();
    forward_orders(happenings.clone());
    trace.info("Worker", &format!("Job '{}' ({}) on '{runner}'", job.name, job.id));
    // All of it, the event and the scripts included, as upstream.
    let whole = serde_json::to_string_pretty(&job).expect("a job has only string keys");
    trace.info("Worker", &format!("Job message:\n {}", whole.replace(&job.token, "***")));
    let forge = (kind.facts().report)(&server, &job.token);
    let log = uploader(Arc::clone(&forge), job.id);
    let id = job.id;
    let assignment = Assignment { kind, server, runner, root, work: work.into(), job: *job };
    let result = job::run(&assignment, &log, &received, &happenings);
    // All lines are at the forge before the job is over there.
    log.flush();
    complete(&*forge, &trace, id, result);
    trace.info("Worker", &format!("Job completed with result {}", result.word()));
    result.worker_code()
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

fn complete(forge: &dyn Connection, trace: &Trace, id: u64, result: JobResult) {
    for _ in 0..10 {
        match forge.complete(id, result) {
            Ok(()) => return,
            Err(refusal) => {
                trace.error("Worker", &format!("The job's end was not reported: {refusal}"));
                if refusal.status().is_some_and(|s| s < 500) {
                    return;
                }
                thread::sleep(Duration::from_millis(500));
            }
        }
    }
}
