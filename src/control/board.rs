//! What PID 1 writes down of what it is doing, for those who ask and for the log.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::age::AgentAge;
use super::health::Times;
use super::job::Job;
use super::status::{Connection, LeftInDocker, Phase, Queue, Runner, Status};
use crate::encode::seconds;
use crate::log;
use crate::metrics::Now;
use crate::resource::Shelf;
use crate::workspace::Space;
use crate::workspace::space::shortage;

/// The one place where the state of the incarnation is kept for others to see.
#[derive(Debug, Clone)]
pub struct Board {
    status: Rc<watch::Sender<Status>>,
    times: Rc<Times>,
    space: Rc<RefCell<Space>>,
    shelf: Rc<RefCell<Option<Shelf>>>,
    /// Told when somebody who asked found too little space while a job may come.
    full: Rc<Notify>,
}

/// Shows that shared hardware is waited for, until it is dropped.
#[derive(Debug)]
pub struct WaitNotice {
    board: Board,
    since: SystemTime,
}

impl WaitNotice {
    /// What is known of the wait now.
    pub(crate) fn report(&self, report: &str) {
        self.board.status.send_modify(|status| {
            if let Some(queue) = &mut status.queue {
                queue.report = Some(report.to_owned());
            }
        });
    }

    /// For how long.
    #[must_use]
    pub(crate) fn lasted(&self) -> Duration {
        self.since.elapsed().unwrap_or_default()
    }
}

impl Drop for WaitNotice {
    fn drop(&mut self) {
        self.board.status.send_modify(|status| status.queue = None);
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

impl Board {
    /// The board of an incarnation that begins now.
    #[must_use]
    pub fn new(provider: &str, scope: &str) -> Self {
        let times = Times::begin();
        let now = rfc3339(times.started);
        let status = Status {
            version: 1,
            oscr: env!("CARGO_PKG_VERSION").to_owned(),
            agent: None,
            agent_age: None,
            phase: Phase::Starting,
            since: now.clone(),
            healthy: true,
            reason: None,
            provider: provider.to_owned(),
            scope: scope.to_owned(),
            runner: None,
            connection: None,
            job: None,
            job_since: None,
            resource: None,
            queue: None,
            last_error: None,
            last_error_at: None,
            next_retry: None,
            started: now,
            leftovers: 0,
            left_in_docker: None,
            aside: Vec::new(),
            disk: Vec::new(),
            posture: None,
            secrets: Vec::new(),
            weaknesses: Vec::new(),
        };
        Self {
            status: Rc::new(watch::Sender::new(status)),
            times: Rc::new(times),
            space: Rc::default(),
            shelf: Rc::default(),
            full: Rc::default(),
        }
    }

    /// Where jobs need disk space, for whoever asks how much there is.
    pub fn set_space(&self, space: Space) {
        self.space.replace(space);
    }

    /// What of the shared hardware may be set aside, for whoever asks.
    pub(crate) fn set_shelf(&self, shelf: Shelf) {
        self.shelf.replace(Some(shelf));
    }

    /// Why a job may not be taken now, if there is too little disk space.
    #[must_use]
    pub(crate) fn shortage(&self) -> Option<String> {
        self.space.borrow().shortage()
    }

    /// Resolves once somebody who asked for the status found too little disk space while listening.
    pub(crate) async fn found_full(&self) {
        self.full.notified().await;
    }

    /// The agent is of this version.
    pub(crate) fn set_agent(&self, version: String) {
        self.status.send_modify(|status| status.agent = Some(version));
    }

    /// The agent in use is so old, and this is known of a newer one.
    pub fn set_agent_age(&self, age: AgentAge) {
        self.status.send_if_modified(|status| status.agent_age.replace(age) != status.agent_age);
    }

    /// So many earlier registrations are still to be let go.
    pub(crate) fn set_leftovers(&self, count: usize) {
        let count = count as u64;
        self.status.send_if_modified(|status| std::mem::replace(&mut status.leftovers, count) != count);
    }

    /// What jobs left in Docker and could not be removed.
    pub(crate) fn set_left_in_docker(&self, left: Option<LeftInDocker>) {
        self.status.send_modify(|status| status.left_in_docker = left);
    }

    /// Shared hardware is waited for from now on.
    #[must_use]
    pub fn waits_for(&self, wanted: &str) -> WaitNotice {
        let since = SystemTime::now();
        let queue = Queue { wanted: wanted.to_owned(), since: rfc3339(since), report: None };
        self.status.send_modify(|status| status.queue = Some(queue));
        WaitNotice { board: self.clone(), since }
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        log::set_phase(phase.name());
        let entered = self.status.borrow().phase != phase;
        self.status.send_modify(|status| {
            if entered {
                status.phase = phase;
                let now = SystemTime::now();
                status.since = rfc3339(now);
                self.times.entered.set(now);
            }
            if !matches!(phase, Phase::BackingOff | Phase::Denied | Phase::Outdated | Phase::Dirty | Phase::Full) {
                status.next_retry = None;
            }
        });
        if entered {
            tracing::debug!("a new phase: {phase}");
        }
    }

    /// A job waits, for the first time or again.
    pub(crate) fn waits_again(&self) {
        if self.status.borrow().phase == Phase::Running {
            self.enter(Phase::Waiting);
        }
    }

    /// What a job waited for is there.
    pub(crate) fn waited(&self) {
        if self.status.borrow().phase == Phase::Waiting {
            self.enter(Phase::Running);
        }
    }

    /// Things work: earlier faults are history.
    pub(crate) fn well(&self) {
        self.times.faulty_since.set(None);
        self.times.lasted.set(false);
        self.times.ended_early.set(0);
        // What is about this container's own places is looked at by itself.
        self.times.reasons.borrow_mut().retain(|(phase, _)| matches!(phase, Phase::Dirty | Phase::Full));
    }

    /// Whether earlier faults count yet.
    #[must_use]
    pub(crate) fn has_faults(&self) -> bool {
        let Times { faulty_since, ended_early, reasons, .. } = &*self.times;
        faulty_since.get().is_some() || ended_early.get() > 0 || !reasons.borrow().is_empty()
    }

    /// Keeps the reason for a phase in which nothing goes on while other phases pass by: until all is well, or, if it is about
    /// this container's own places, until it is dropped.
    pub(crate) fn keep_reason(&self, phase: Phase, why: &str) {
        self.drop_reason(phase);
        self.times.reasons.borrow_mut().push((phase, log::redacted(why)));
    }

    /// The reason for a phase was looked at, and is there no more.
    pub(crate) fn drop_reason(&self, phase: Phase) {
        self.times.reasons.borrow_mut().retain(|(kept, _)| *kept != phase);
    }

    /// Something went wrong and will be tried again after `wait`.
    pub(crate) fn fault(&self, error: &str, wait: Duration) {
        self.faulty_for(Duration::ZERO);
        self.waits(error, wait);
    }

    /// Faults have lasted for so long at least.
    fn faulty_for(&self, long: Duration) {
        let since = SystemTime::now() - long;
        self.times.faulty_since.set(Some(self.times.faulty_since.get().map_or(since, |faulty| faulty.min(since))));
        self.times.lasted.set(self.times.lasts());
    }

    /// The listener has had trouble to begin for so long, and keeps trying. That it is replaced by another changes nothing.
    pub(crate) fn cannot_listen(&self, why: &str, long: Duration) {
        self.faulty_for(long);
        self.wrong(&format!("the agent cannot listen yet and keeps trying: {why}"));
        self.set_connection(Some(Connection::Lost));
    }

    /// Something is in the way, which is no fault of the forge or the agent, and will be looked at again after `wait`.
    pub(crate) fn waits(&self, error: &str, wait: Duration) {
        self.wrong(error);
        self.status.send_modify(|status| status.next_retry = Some(rfc3339(SystemTime::now() + wait)));
    }

    /// The agent has lost its connection to the forge, and tries to get it back.
    pub(crate) fn disconnected(&self) {
        self.times.cut_off_since.set(self.times.cut_off_since.get().or_else(|| Some(SystemTime::now())));
        self.wrong("the agent has lost its connection to the forge and keeps trying; the log has its words");
        self.set_connection(Some(Connection::Lost));
    }

    /// The agent has its connection to the forge.
    pub(crate) fn connected(&self) {
        self.times.cut_off_since.set(None);
        self.set_connection(Some(Connection::Up));
    }

    /// The agent lost its connection some time ago, and nobody can say whether it has it back.
    pub(crate) fn connection_unknown(&self) {
        self.times.cut_off_since.set(None);
        self.set_connection(Some(Connection::NotKnown));
    }

    /// There is no listener any more. If it was cut off, the fault goes on: a new wait for the same forge makes nothing well.
    pub(crate) fn listener_gone(&self) {
        if let Some(since) = self.times.cut_off_since.take() {
            self.times.faulty_since.set(Some(self.times.faulty_since.get().map_or(since, |faulty| faulty.min(since))));
        }
        self.set_connection(None);
    }

    /// A listener ended by itself before it had proved that it works.
    pub(crate) fn ended_early(&self) {
        self.times.ended_early.set(self.times.ended_early.get().saturating_add(1));
    }

    fn set_connection(&self, connection: Option<Connection>) {
        self.status.send_if_modified(|status| std::mem::replace(&mut status.connection, connection) != connection);
    }

    /// Something is wrong that somebody should look at. By itself it keeps nothing from going on.
    pub(crate) fn wrong(&self, error: &str) {
        self.status.send_modify(|status| {
            status.last_error = Some(log::redacted(error));
            status.last_error_at = Some(rfc3339(SystemTime::now()));
        });
    }

    /// The registration that we have, or none.
    pub fn set_runner(&self, runner: Option<Runner>) {
        log::set_runner(runner.as_ref().map_or("", |runner| &runner.name));
        self.status.send_modify(|status| status.runner = runner);
    }

    /// The job that runs, or none.
    pub fn set_job(&self, job: Option<Job>) {
        self.status.send_modify(|status| {
            status.job_since = match (&job, status.job_since.take()) {
                (None, _) => None,
                (Some(_), Some(since)) => Some(since),
                (Some(_), None) => Some(rfc3339(SystemTime::now())),
            };
            status.job = job;
        });
    }

    /// The running job, and the name of its runner, as far as they are known.
    #[must_use]
    pub(crate) fn job(&self) -> (Job, String) {
        let status = self.status.borrow();
        let runner = status.runner.as_ref().map(|runner| runner.name.clone()).unwrap_or_default();
        (status.job.clone().unwrap_or_default(), runner)
    }

    /// More about the running job than was known at first. What is known stays: the first hook runs before any step of the job,
    /// and what comes later may be the job's own invention.
    pub(crate) fn describe_job(&self, more: Job) {
        let job = self.status.borrow().job.clone().unwrap_or_default();
        self.set_job(Some(Job {
            name: job.name.or(more.name),
            repository: job.repository.or(more.repository),
            run_url: job.run_url.or(more.run_url),
            workflow: job.workflow.or(more.workflow),
            run: job.run.or(more.run),
            attempt: job.attempt.or(more.attempt),
        }));
    }

    /// The shared hardware that is held, or none.
    pub(crate) fn set_resource(&self, resource: Option<String>) {
        self.status.send_modify(|status| status.resource = resource);
    }

    /// What the status says about the posture: all of it, where the secrets come from, and what is weak.
    pub fn set_posture(&self, posture: &impl Serialize, secrets: Vec<String>, weaknesses: Vec<String>) {
        self.status.send_modify(|status| {
            status.posture = serde_json::to_value(posture).ok();
            status.secrets = secrets;
            status.weaknesses = weaknesses;
        });
    }

    /// The status now, with its health.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status.borrow().clone();
        status.disk = self.space.borrow().look();
        status.aside = self.shelf.borrow().as_ref().map(Shelf::asides).unwrap_or_default();
        if status.phase == Phase::Listening && shortage(&status.disk).is_some() {
            self.full.notify_one();
        }
        status.reason = self.times.trouble(&status);
        status.healthy = status.reason.is_none();
        status
    }

    /// How things are, for the metrics.
    #[must_use]
    pub(crate) fn now(&self, replica: &str) -> Now {
        let status = self.status();
        let age = status.agent_age.unwrap_or_default();
        Now {
            replica: replica.to_owned(),
            version: status.oscr,
            agent: status.agent.unwrap_or_default(),
            provider: status.provider,
            scope: status.scope,
            phase: status.phase.name(),
            phases: Phase::ALL.map(Phase::name).to_vec(),
            phase_since: seconds(self.times.entered.get()),
            started: seconds(self.times.started),
            healthy: status.healthy,
            leftovers: status.leftovers,
            left_in_docker: status.left_in_docker.map_or(0, |left| left.things),
            hardware: self.shelf.borrow().as_ref().map(Shelf::states).unwrap_or_default(),
            agent_released: age.released_at(),
            agent_newer: age.newer.is_some(),
            agent_failures: age.failures,
            disk: status
                .disk
                .into_iter()
                .map(|room| (room.place.display().to_string(), room.free, room.least))
                .collect(),
        }
    }

    /// Somebody who sees each change.
    #[must_use]
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Waits until the phase is one of `phases`.
    pub(crate) async fn reached(&self, phases: &[Phase]) {
        let mut watcher = self.status.subscribe();
        // The sender lives as long as this board, so the wait cannot fail.
        let _ = watcher.wait_for(|status| phases.contains(&status.phase)).await;
    }
}

#[cfg(test)]
mod tests;
