//! `Runner.Worker` and `Agent.Worker`: one job, told by the listener on standard input.

use std::io::{BufRead as _, stdin};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::assignment::{Assignment, WorkerMessage};
use super::github::chatter::Phase;
use super::job;
use super::kind::Kind;
use super::log::{self, Store, tried};
use super::narrator::Narrator;
use super::process::Interruption;
use super::trace::Trace;

/// Everything that can happen while a job runs.
#[derive(Debug)]
pub(super) enum Happening {
    Interrupt(Interruption),
    Exited(i32, ExitStatus),
    OutputEnded(i32),
}

/// The whole program; gives its exit code.
#[must_use]
pub fn main() -> i32 {
    let kind = Kind::of_this_program();
    let facts = kind.facts();
    let root = super::root();
    let trace = match Trace::open(&root, facts, "Worker") {
        Ok(trace) => Arc::new(trace),
        Err(why) => {
            eprintln!("{why}");
            return 1;
        }
    };
    let mut line = String::new();
    let message = stdin().lock().read_line(&mut line).ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(WorkerMessage::Job { server, runner, work, manners, job }) = message else {
        trace.complain("The worker is started by the listener, with a job on its standard input.");
        return 1;
    };
    let (happenings, received) = mpsc::channel();
    let orphaned = forward_orders(happenings.clone());
    let assignment = Assignment { kind, server, runner, root, work: work.into(), manners: *manners, job: *job };
    let scale = assignment.manners.scale;
    trace.set_traps(assignment.manners.mixed_traces);
    let narrator = Narrator::of_worker(&trace, &assignment);
    narrator.tell(Phase::JobReceived);
    (facts.job_message)(&trace, &assignment.job.whole);
    let reporter = (facts.reporter)(&assignment);
    let log = log::shown(Arc::clone(&reporter));
    let store = Store::start(Arc::clone(&reporter), scale);
    let (result, steps) = job::run(&assignment, &log, &store, &received, &happenings, &narrator);
    // The worker lives a second past its last step, and what is not stored then is lost.
    thread::sleep(scale.ms(1_000));
    store.finish();
    tried(5, scale.ms(2_000), || reporter.store_whole(&steps));
    // A listener that died reports to nobody, and so does its worker.
    if orphaned.load(Ordering::Relaxed) {
        return result.worker_code();
    }
    narrator.result(result);
    narrator.tell(Phase::JobFinalize);
    if !tried(25, scale.ms(3_400), || reporter.complete(result, &steps)) {
        trace.error("JobRunner", "The job's end was not reported.");
    }
    narrator.tell_or(Phase::WorkerEnd, "Worker", &format!("Job completed with result {}", result.word()));
    result.worker_code()
}

/// Passes on what the listener says. True once that has died, which changes nothing for the steps.
fn forward_orders(happenings: Sender<Happening>) -> Arc<AtomicBool> {
    let orphaned = Arc::new(AtomicBool::new(false));
    let died = Arc::clone(&orphaned);
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
        died.store(true, Ordering::Relaxed);
    });
    orphaned
}
