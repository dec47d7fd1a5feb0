//! The job under a listener: whether there is one, what is known about it, and where its worker is.

use std::time::{Duration, SystemTime};

use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::hearing::Hearing;
use super::report::Spans;
use crate::agent::worker::{self, Worker};
use crate::init::process::{Stat, descends};
use crate::metrics::JobResult;
use crate::provider::{AgentFacts, JobSign};

/// How often we look for a worker that must be about to appear, and for how long after its job was announced.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_FOR: Duration = Duration::from_secs(60);

/// What shows that a job runs.
#[derive(Debug)]
enum Shown {
    /// Its worker.
    Worker(Worker),
    /// The listener's word.
    Word,
}

/// When a job was announced, for measuring and for people.
#[derive(Debug, Clone, Copy)]
struct Began {
    at: Instant,
    time: SystemTime,
}

impl Began {
    fn now() -> Self {
        Self { at: Instant::now(), time: SystemTime::now() }
    }
}

/// What is known about a job under the listener.
#[derive(Debug)]
pub(super) struct JobWatch {
    /// Whose job it is.
    listener: Pid,
    /// How it is known whether a job runs.
    sign: JobSign,
    /// What shows it, while one does.
    running: Option<Shown>,
    /// Whether a job was ever announced. Only the listener or a job can announce one, so there was one.
    seen: bool,
    /// Until when a worker is looked for.
    look_until: Option<Instant>,
    /// Whether a job ran for certain.
    found_once: bool,
    /// When it was announced, and when it was over.
    began: Option<Began>,
    ended: Option<Instant>,
    /// What the listener called it, once it did. What follows in its output may be the job's own words.
    named: Option<String>,
    /// Its name and result, as the listener last said. The job's own words come before its worker's end, the listener's after it.
    completed: Option<(String, String)>,
    /// The number of its worker, once that was found, and the exit code that the listener traces for it.
    worker: Option<Pid>,
    code: Option<i32>,
    /// Whether the log has what the listener said.
    told: bool,
}

impl JobWatch {
    /// Nothing is known yet of a job of this `listener`.
    pub(super) fn new(listener: Pid, sign: JobSign) -> Self {
        Self {
            listener,
            sign,
            running: None,
            seen: false,
            look_until: None,
            found_once: false,
            began: None,
            ended: None,
            named: None,
            completed: None,
            worker: None,
            code: None,
            told: false,
        }
    }

    /// Whether a job was ever announced.
    pub(super) fn seen(&self) -> bool {
        self.seen
    }

    /// Whether there was a job and not only the forge's or the listener's word that one would come: it had a worker, or was named.
    pub(super) fn was(&self) -> bool {
        self.found_once || self.is_named()
    }

    /// Whether a job runs, or ran, for certain.
    pub(super) fn ran(&self) -> bool {
        self.found_once
    }

    /// Whether it runs now, as far as it is known.
    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Its worker, while that lives.
    pub(super) fn worker_alive(&self) -> Option<Pid> {
        match &self.running {
            Some(Shown::Worker(worker)) if worker.lives() => Some(worker.pid),
            _ => None,
        }
    }

    /// Whether it runs now, and the listener's word is all that shows it.
    pub(super) fn runs_by_word(&self) -> bool {
        matches!(self.running, Some(Shown::Word))
    }

    /// Whether the listener has named it.
    pub(super) fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// The listener names it.
    pub(super) fn begins(&mut self, name: &str) {
        self.named = Some(name.to_owned());
        match self.sign {
            JobSign::Worker(_) => self.expect(),
            JobSign::Words => self.found(Shown::Word),
        }
    }

    /// A job was announced: its worker, if its kind has one, must be about to appear.
    pub(super) fn expect(&mut self) {
        self.seen = true;
        self.began.get_or_insert_with(Began::now);
        if self.sign != JobSign::Words && self.running.is_none() && !self.found_once {
            self.look_until = Some(Instant::now() + LOOK_FOR);
        }
    }

    /// It runs.
    fn found(&mut self, evidence: Shown) {
        self.seen = true;
        self.began.get_or_insert_with(Began::now);
        self.found_once = true;
        self.look_until = None;
        if let Shown::Worker(worker) = &evidence {
            self.worker = Some(worker.pid);
        }
        self.running = Some(evidence);
    }

    /// It is over.
    pub(super) fn ended(&mut self) {
        self.running = None;
        self.look_until = None;
        self.ended = Some(Instant::now());
    }

    /// Whether the one job is behind us.
    pub(super) fn over(&self) -> bool {
        self.found_once && self.running.is_none()
    }

    /// The listener, or the job in its name, says that the job is over.
    pub(super) fn completed(&mut self, job: String, result: String) {
        self.completed = Some((job, result));
        if self.over() {
            self.tell();
        }
    }

    /// The listener, or the job in its name, says that a process ended with this code. That of its worker counts, and the last one
    /// as above.
    pub(super) fn finished(&mut self, process: i32, code: i32) {
        if self.worker.is_some_and(|worker| worker.as_raw() == process) {
            self.code = Some(code);
        }
    }

    /// The listener has ended: what shows a job shows none any more, unless it is a worker that lives on.
    pub(super) fn outlived(&mut self) -> bool {
        let outlived = self.worker_alive().is_some();
        if self.running.is_some() && !outlived {
            self.ended();
        }
        outlived
    }

    /// Says once in the log how the job ended.
    pub(super) fn tell(&mut self) {
        if let Some((job, result)) = self.completed.as_ref().filter(|_| !self.told) {
            let job = self.named.as_ref().unwrap_or(job);
            tracing::info!("agent: Job {job} completed with result: {result}");
            self.told = true;
        }
    }

    /// Looks for the worker. Whether it is found now.
    pub(super) fn look(&mut self) -> bool {
        let JobSign::Worker(name) = self.sign else { return false };
        if self.running.is_some() {
            return false;
        }
        match worker::find(self.listener, name) {
            Ok(Some(worker)) => {
                tracing::debug!("the worker is process {}", worker.pid);
                self.found(Shown::Worker(worker));
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

    /// Whether it runs at this moment, known before or not. That it begins may be what is `heard` next.
    pub(super) fn runs_after_all(&mut self, heard: &mut Hearing) -> bool {
        match self.sign {
            JobSign::Worker(name) => {
                if self.running.is_none()
                    && let Ok(Some(worker)) = worker::find(self.listener, name)
                {
                    self.found(Shown::Worker(worker));
                }
                self.runs()
            }
            JobSign::Words => self.runs() || heard.announces_job(),
        }
    }

    pub(super) fn listener_lives(&self) -> bool {
        Stat::read(self.listener).is_some_and(|stat| stat.lives())
    }

    /// Whether a process belongs to the job that runs.
    pub(super) fn includes(&self, process: Option<Pid>) -> bool {
        self.running.as_ref().zip(process).is_some_and(|(running, process)| match running {
            Shown::Worker(worker) => worker.lives() && descends(process, worker.pid),
            Shown::Word => descends(process, self.listener),
        })
    }

    /// Whether a process that the job does not include may be of it all the same: it is not seen here, has ended, or is the
    /// listener's and not its worker's. One that lives and has other ancestors is not.
    pub(super) fn may_include(&self, process: Option<Pid>) -> bool {
        process.is_none_or(|process| {
            !Stat::read(process).is_some_and(|stat| stat.lives()) || descends(process, self.listener)
        })
    }

    /// What the forge was told of it, as far as it is known here: by its worker's exit code, or else by the listener's last word.
    pub(super) fn told_result(&self, agent: &AgentFacts) -> Option<JobResult> {
        let known = |code: i32| agent.worker_codes.iter().find(|(known, _)| *known == code).map(|(_, word)| *word);
        let said = || self.completed.as_ref().map(|(_, result)| result.as_str());
        self.code.and_then(known).or_else(said).map(JobResult::read)
    }

    /// How its time passed, if there was a job: the listener was `connected` since then, and the job `waited` for hardware.
    pub(super) fn spans(&self, connected: Option<Instant>, waited: Duration) -> Option<Spans> {
        let Began { at: began, time } = self.began.filter(|_| self.was())?;
        Some(Spans {
            began: time,
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
        match &self.running {
            Some(Shown::Worker(worker)) => worker.gone().await,
            Some(Shown::Word) | None => std::future::pending().await,
        }
    }
}
