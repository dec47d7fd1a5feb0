//! A job that the listener took: its worker, its lease, and what becomes of both.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::assignment::{Job, WorkerMessage};
use super::client::Refusal;
use super::github::chatter::{Phase, finished};
use super::kind::{Connection, Kind};
use super::listening::Event;
use super::narrator::Narrator;
use super::process::exit_code;
use super::trace::Trace;
use crate::protocol::{JobResult, Manners};

/// So long the listener waits for the rest of what an ended worker printed.
const OUTPUT: Duration = Duration::from_secs(5);

/// The job that runs now.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    worker: u32,
    orders: ChildStdin,
    pub(super) cancelled: bool,
    pub(super) shut_down: bool,
    pub(super) lease_lost: bool,
    /// When a cancelled worker is killed.
    pub(super) kill_at: Option<Instant>,
    renewing: Arc<AtomicBool>,
}

/// What it takes to run a job.
pub(super) struct Dispatcher<'a> {
    pub(super) kind: Kind,
    pub(super) root: &'a Path,
    pub(super) work: &'a Path,
    pub(super) server: &'a str,
    pub(super) runner: &'a str,
    pub(super) trace: &'a Arc<Trace>,
    pub(super) narrator: &'a Arc<Narrator>,
    pub(super) forge: &'a Arc<dyn Connection>,
    pub(super) manners: &'a Manners,
    pub(super) events: &'a Sender<Event>,
}

impl Dispatcher<'_> {
    /// Renews the job's lease for the first time, and starts a worker. None where either cannot be.
    pub(super) fn start(&self, job: Job) -> Option<Running> {
        self.narrator.take(&job);
        self.narrator.tell_or(Phase::JobTaken, "JobDispatcher", &format!("Job request for job {} received.", job.id));
        self.trace.say_timed(&format!("Running job: {}", job.name));
        if let Err(Refusal::Status { status: 404, .. }) = self.forge.renew(&job) {
            self.lost(&job);
            return None;
        }
        self.narrator.tell(Phase::WorkerStarting);
        let started = self.spawn().map_err(|error| {
            self.trace.complain(&format!("The worker did not start: {error}"));
            self.report(&job);
        });
        let (worker, orders, read) = started.ok()?;
        let pid = worker.id();
        self.narrator.worker(pid);
        let text = format!("Process started with process id {pid}, waiting for process exit.");
        self.narrator.tell_or(Phase::WorkerStarted, "ProcessInvokerWrapper", &text);
        self.watch(worker, read);
        let renewing = self.keep(&job);
        let message = WorkerMessage::Job {
            server: self.server.to_owned(),
            runner: self.runner.to_owned(),
            work: self.work.to_string_lossy().into_owned(),
            manners: Box::new(self.manners.clone()),
            job: Box::new(job.clone()),
        };
        let mut running = Running {
            job,
            worker: pid,
            orders,
            cancelled: false,
            shut_down: false,
            lease_lost: false,
            kill_at: None,
            renewing,
        };
        self.tell(&mut running, &message);
        Some(running)
    }

    /// Waits for the worker's end, and for what it printed, on a thread.
    fn watch(&self, mut worker: Child, read: Receiver<Infallible>) {
        let (events, began) = (self.events.clone(), Instant::now());
        let (trace, narrator) = (Arc::clone(self.trace), Arc::clone(self.narrator));
        thread::spawn(move || {
            let code = worker.wait().ok().and_then(exit_code);
            // Somebody else may keep the pipes open.
            let _ = read.recv_timeout(OUTPUT);
            narrator.tell(Phase::WorkerGone);
            trace.info("ProcessInvokerWrapper", &finished(worker.id(), code.unwrap_or(-1), began.elapsed()));
            // The loop may be over; nobody needs the event then.
            let _ = events.send(Event::WorkerExited(code));
        });
    }

    /// A worker, its orders, and what ends when all that it printed was read.
    fn spawn(&self) -> std::io::Result<(Child, ChildStdin, Receiver<Infallible>)> {
        let visible = self.kind.facts().log_on_stdout.is_some_and(super::flag);
        let mut worker = Command::new(self.root.join(self.kind.facts().worker))
            .args(["spawnclient", "139", "142"])
            .current_dir(self.root.join("bin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // What the worker prints, or a job in its place, becomes the listener's own, without a trace of having been written.
        let (reading, read) = channel();
        for pipe in [worker.stdout.take().map(OwnedFd::from), worker.stderr.take().map(OwnedFd::from)] {
            let pipe = File::from(pipe.ok_or(std::io::ErrorKind::BrokenPipe)?);
            let (trace, reading) = (Arc::clone(self.trace), reading.clone());
            thread::spawn(move || {
                let _reading = reading;
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    if visible && !line.is_empty() {
                        trace.copy_line(&line);
                    }
                }
            });
        }
        let orders = worker.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok((worker, orders, read))
    }

    /// Keeps the job's lease until told otherwise: a renewal each minute, five tries for each.
    fn keep(&self, job: &Job) -> Arc<AtomicBool> {
        let renewing = Arc::new(AtomicBool::new(true));
        let (go_on, forge, job) = (Arc::clone(&renewing), Arc::clone(self.forge), job.clone());
        let (events, trace, manners) = (self.events.clone(), Arc::clone(self.trace), self.manners.clone());
        let pause = manners.scale.ms(60_000).min(Duration::from_millis(manners.renew_ms));
        thread::spawn(move || {
            let mut left = 5;
            let mut wait = pause;
            loop {
                thread::sleep(wait);
                if !go_on.load(Ordering::Relaxed) {
                    return;
                }
                match forge.renew(&job) {
                    Ok(()) => (left, wait) = (5, pause),
                    Err(Refusal::Status { status: 404, .. }) => left = 0,
                    Err(refusal) => {
                        trace.error("JobDispatcher", &format!("Renewal of {}: {refusal}", job.id));
                        left -= 1;
                        wait = manners.scale.ms(9_500);
                    }
                }
                if left == 0 {
                    // The listener may be about to end.
                    let _ = events.send(Event::LeaseLost);
                    return;
                }
            }
        });
        renewing
    }

    fn lost(&self, job: &Job) {
        let text = format!(
            "TaskAgentJobNotFoundException received when renew job {}, job is no longer valid, stop renew job request.",
            job.id
        );
        self.trace.info("JobDispatcher", &text);
    }

    pub(super) fn tell(&self, running: &mut Running, message: &WorkerMessage) {
        let line = serde_json::to_string(message).expect("messages have only string keys");
        let written = writeln!(running.orders, "{line}").and_then(|()| running.orders.flush());
        if let Err(error) = written {
            self.trace.error("JobDispatcher", &format!("The worker does not listen: {error}"));
        }
    }

    /// Tells the worker that its job was cancelled, and sets when it is killed.
    pub(super) fn cancel(&self, running: &mut Running, limit: Duration) {
        if std::mem::replace(&mut running.cancelled, true) {
            return;
        }
        thread::sleep(self.manners.scale.ms(500));
        let text = format!("Send job cancellation message to worker for job {}.", running.job.id);
        self.trace.info("JobDispatcher", &text);
        self.tell(running, &WorkerMessage::Cancel);
        running.kill_at.get_or_insert(Instant::now() + limit);
    }

    pub(super) fn kill(&self, running: &mut Running) {
        running.kill_at = None;
        let pid = Pid::from_raw(running.worker.cast_signed());
        if let Err(error) = kill(pid, Signal::SIGKILL) {
            self.trace.error("JobDispatcher", &format!("kill {pid}: {error}"));
        }
    }

    /// Waits for the worker's end, and for nothing else.
    pub(super) fn await_end(&self, mut running: Running, received: &Receiver<Event>, limit: Option<Duration>) {
        let limit = limit.map(|limit| Instant::now() + limit);
        loop {
            let next = [limit, running.kill_at].into_iter().flatten().min();
            let event = match next {
                None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::WorkerExited(code)) => return self.finish(&running, code),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if limit.is_none_or(|limit| Instant::now() < limit) => {
                    self.kill(&mut running);
                }
                Err(_) => return,
            }
        }
    }

    /// Says how the job ended, by what the listener knows of it, which is not always what the forge was told.
    pub(super) fn finish(&self, running: &Running, code: Option<i32>) {
        running.renewing.store(false, Ordering::Relaxed);
        let told = code.and_then(JobResult::from_worker_code);
        let text = format!("Worker finished for job {}. Code: {}", running.job.id, code.unwrap_or(-1));
        self.trace.info("JobDispatcher", &text);
        let result = if running.lease_lost {
            JobResult::Abandoned
        } else if running.cancelled || running.shut_down {
            JobResult::Canceled
        } else {
            // Of a worker that was killed nobody else reports.
            if told.is_none() {
                self.report(&running.job);
            }
            told.unwrap_or(JobResult::Failed)
        };
        self.narrator.result(result);
        self.narrator.tell(Phase::JobReported);
        self.trace.say_timed(&format!("Job {} completed with result: {}", running.job.name, result.word()));
        self.narrator.tell(Phase::JobDone);
    }

    /// Says that a job failed in place of a worker that could not.
    fn report(&self, job: &Job) {
        if let Err(refusal) = self.forge.fail(job) {
            self.trace.error("JobDispatcher", &format!("The job's end was not reported: {refusal}"));
        }
    }
}
