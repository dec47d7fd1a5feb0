//! The job under a listener: whether there is one, what is known about it, and where its worker is.

use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::report::Spans;
use crate::agent::worker::{self, Worker};
use crate::init::process::{Stat, descends};
use crate::metrics::JobResult;

/// How often we look for a worker that must be about to appear, and for how long after its job was announced.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_FOR: Duration = Duration::from_secs(60);

/// What is known about a job under the listener.
#[derive(Debug)]
pub(super) struct JobWatch {
    /// Whose job it is.
    listener: Pid,
    /// What the process of a worker is called.
    name: &'static str,
    /// The worker, while it lives.
    worker: Option<Worker>,
    /// Whether a job was ever announced. Only the listener or a job can announce one, so there was one.
    seen: bool,
    /// Until when a worker is looked for.
    look_until: Option<Instant>,
    /// Whether a worker was seen.
    found_once: bool,
    /// When it was announced, and when its worker was gone.
    began: Option<Instant>,
    ended: Option<Instant>,
    /// Whether the listener has named it. What follows in its output may be the job's own words.
    named: bool,
    /// Its name and result, as the listener last said. The job's own words come before its worker's end, the listener's after it.
    completed: Option<(String, String)>,
    /// Whether the log has that.
    told: bool,
}

impl JobWatch {
    /// Nothing is known yet of a job of this `listener`, whose workers are called by this `name`.
    pub(super) fn new(listener: Pid, name: &'static str) -> Self {
        Self {
            listener,
            name,
            worker: None,
            seen: false,
            look_until: None,
            found_once: false,
            began: None,
            ended: None,
            named: false,
            completed: None,
            told: false,
        }
    }

    /// Whether a job was ever announced.
    pub(super) fn seen(&self) -> bool {
        self.seen
    }

    /// Whether a job runs, or ran, for certain.
    pub(super) fn ran(&self) -> bool {
        self.found_once
    }

    /// Whether it runs now, as far as it is known.
    pub(super) fn runs(&self) -> bool {
        self.worker.is_some()
    }

    /// Whether the listener has named it.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// The listener names it.
    pub(super) fn begins(&mut self) {
        self.named = true;
        self.expect();
    }

    /// A job was announced: its worker must be about to appear.
    pub(super) fn expect(&mut self) {
        self.seen = true;
        self.began.get_or_insert_with(Instant::now);
        if self.worker.is_none() && !self.found_once {
            self.look_until = Some(Instant::now() + LOOK_FOR);
        }
    }

    /// Its worker was found.
    fn found(&mut self, worker: Worker) {
        self.seen = true;
        self.began.get_or_insert_with(Instant::now);
        self.found_once = true;
        self.look_until = None;
        self.worker = Some(worker);
    }

    /// Its worker is gone.
    pub(super) fn ended(&mut self) {
        self.worker = None;
        self.look_until = None;
        self.ended = Some(Instant::now());
    }

    /// Whether the one job is behind us.
    pub(super) fn over(&self) -> bool {
        self.found_once && self.worker.is_none()
    }

    /// The listener, or the job in its name, says that the job is over.
    pub(super) fn completed(&mut self, job: String, result: String) {
        self.completed = Some((job, result));
        if self.over() {
            self.tell();
        }
    }

    /// Says once in the log how the job ended.
    pub(super) fn tell(&mut self) {
        if let Some((job, result)) = self.completed.as_ref().filter(|_| !self.told) {
            tracing::info!("agent: Job {job} completed with result: {result}");
            self.told = true;
        }
    }

    /// Looks for the worker. Whether it is found now.
    pub(super) fn look(&mut self) -> bool {
        if self.worker.is_some() {
            return false;
        }
        match worker::find(self.listener, self.name) {
            Ok(Some(worker)) => {
                tracing::debug!("the worker is process {}", worker.pid);
                self.found(worker);
                return true;
            }
            Ok(None) => {
                if self.look_until.is_some_and(|until| Instant::now() >= until) {
                    self.look_until = None;
                }
            }
            Err(error) => {
                tracing::warn!("the worker cannot be watched: {error}");
                self.look_until = None;
            }
        }
        false
    }

    /// Whether it runs at this moment, known before or not.
    pub(super) fn runs_after_all(&mut self) -> bool {
        if self.worker.is_none()
            && let Ok(Some(worker)) = worker::find(self.listener, self.name)
        {
            self.found(worker);
        }
        self.worker.is_some()
    }

    pub(super) fn listener_lives(&self) -> bool {
        Stat::read(self.listener).is_some_and(|stat| stat.lives())
    }

    /// Whether a process belongs to the job that runs.
    pub(super) fn includes(&self, process: Option<Pid>) -> bool {
        let ends = self.worker.as_ref().zip(process);
        ends.is_some_and(|(worker, process)| worker.lives() && descends(process, worker.pid))
    }

    /// How it ended; `lost` when the listener died under it.
    pub(super) fn result(&self, lost: bool) -> JobResult {
        match &self.completed {
            _ if lost => JobResult::Lost,
            Some((_, result)) => JobResult::read(result),
            None => JobResult::Unknown,
        }
    }

    /// How its time passed, if there was a job: the listener was `connected` since then, and the job `waited` for hardware.
    pub(super) fn spans(&self, connected: Option<Instant>, waited: Duration) -> Option<Spans> {
        let began = self.began?;
        Some(Spans {
            idle: connected.map(|since| began.saturating_duration_since(since)).unwrap_or_default(),
            waited,
            lasted: self.ended.unwrap_or_else(Instant::now).saturating_duration_since(began),
        })
    }

    /// Resolves when the worker should be looked for again.
    pub(super) async fn time_to_look(&self) {
        match self.look_until {
            Some(_) => sleep(LOOK_EVERY).await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when the worker is gone.
    pub(super) async fn worker_gone(&self) {
        match &self.worker {
            Some(worker) => worker.gone().await,
            None => std::future::pending().await,
        }
    }
}
