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
    pub(super) worker: Option<Worker>,
    /// Whether a job was ever announced. Only the listener or a job can announce one, so there was one.
    pub(super) seen: bool,
    /// Until when a worker is looked for.
    look_until: Option<Instant>,
    /// Whether a worker was seen.
    pub(super) found_once: bool,
    /// When it was announced, and when its worker was gone.
    began: Option<Instant>,
    ended: Option<Instant>,
    /// Whether the listener has named it. What follows in its output may be the job's own words.
    pub(super) named: bool,
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

    /// A job was announced: its worker must be about to appear.
    pub(super) fn expect(&mut self) {
        self.seen = true;
        self.began.get_or_insert_with(Instant::now);
        if self.worker.is_none() && !self.found_once {
            self.look_until = Some(Instant::now() + LOOK_FOR);
        }
    }

    /// Its worker was found.
    pub(super) fn found(&mut self, worker: Worker) {
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

    /// Looks for the worker, which must be told to [`Self::found`].
    pub(super) fn look(&mut self) -> Option<Worker> {
        if self.worker.is_some() {
            return None;
        }
        match worker::find(self.listener, self.name) {
            Ok(Some(worker)) => {
                tracing::debug!("the worker is process {}", worker.pid);
                return Some(worker);
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
        None
    }

    /// Whether a worker is there at this moment, known or not. It must be told to [`Self::found`].
    pub(super) fn working(&mut self) -> Option<Worker> {
        self.worker.take().or_else(|| worker::find(self.listener, self.name).ok().flatten())
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
