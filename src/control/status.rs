//! What PID 1 is doing, for those who ask and for the log.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::{AgentAge, Job};
use crate::encode::seconds;
use crate::log;
use crate::metrics::Now;
use crate::workspace::Space;
use crate::workspace::space::{Room, shortage, shown};

/// How long faults of the forge may last before the container counts as unhealthy.
const TOLERATED_BACKOFF: Duration = Duration::from_secs(5 * 60);
/// So many listeners that ended by themselves soon after they began, one after the other, are no chance any more.
const TOLERATED_ENDS: u32 = 3;
/// How long a phase may last that only leads to another one. The agent's configure step alone may take five minutes.
const TOLERATED_PASSAGE: Duration = Duration::from_secs(10 * 60);

/// The step of its life that an incarnation is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Reading the configuration.
    Starting,
    /// Emptying what a job could have written.
    Cleaning,
    /// Asking for and making a registration.
    Registering,
    /// Waiting for shared hardware, before listening or with a job that needs it.
    Waiting,
    /// Ready for a job.
    Listening,
    /// A job runs.
    Running,
    /// A job runs, and none will follow.
    Draining,
    /// Letting the registration go.
    Unregistering,
    /// All done; waiting out the shortest life.
    Resting,
    /// The forge is not well; the next attempt is set.
    BackingOff,
    /// The forge refuses us; somebody must change something.
    Denied,
    /// The forge does not accept this version of the agent.
    Outdated,
    /// A place that a job could have written cannot be made clean, so no job is taken.
    Dirty,
    /// A job changed what it should not be able to, so no further job is taken.
    Tainted,
    /// There is too little disk space for a job, so none is taken.
    Full,
    /// Drained on request: takes no job until it is stopped.
    Drained,
}

impl Phase {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 16] = [
        Self::Starting,
        Self::Cleaning,
        Self::Registering,
        Self::Waiting,
        Self::Listening,
        Self::Running,
        Self::Draining,
        Self::Unregistering,
        Self::Resting,
        Self::BackingOff,
        Self::Denied,
        Self::Outdated,
        Self::Dirty,
        Self::Tainted,
        Self::Full,
        Self::Drained,
    ];

    /// Its name in logs and in the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Cleaning => "cleaning",
            Self::Registering => "registering",
            Self::Waiting => "waiting",
            Self::Listening => "listening",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Unregistering => "unregistering",
            Self::Resting => "resting",
            Self::BackingOff => "backing-off",
            Self::Denied => "denied",
            Self::Outdated => "outdated",
            Self::Dirty => "dirty",
            Self::Tainted => "tainted",
            Self::Full => "full",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The runner as the forge knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Its name.
    pub name: String,
    /// The forge's number for it.
    pub id: Option<u64>,
}

/// What is known of the agent's connection to the forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// It has one, for all that is known.
    Up,
    /// It said that it lost it.
    Lost,
    /// It said so some time ago, it need not say when it has it back, and nothing here may ask the forge.
    NotKnown,
}

/// What is waited for, while shared hardware is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// What is wanted, as `RUNNER_RESOURCE_ID` names it.
    pub wanted: String,
    /// Since when.
    pub since: String,
    /// Who has it and how many come first, as it was when last looked at.
    pub report: Option<String>,
}

/// The answer to [`super::Request::Status`]. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this form.
    pub version: u32,
    /// The version of OSCR.
    pub oscr: String,
    /// The version of the agent, once its listener has said it.
    pub agent: Option<String>,
    /// How old the agent is, and whether there is a newer one.
    #[serde(default)]
    pub agent_age: Option<AgentAge>,
    /// What it is doing.
    pub phase: Phase,
    /// Since when.
    pub since: String,
    /// Whether it does, or will soon do, what it is there for.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
    /// `CI_PROVIDER`.
    pub provider: String,
    /// Whose runner it is.
    pub scope: String,
    /// The registration, while there is one.
    pub runner: Option<Runner>,
    /// The listener's connection to the forge, once it has had one.
    pub connection: Option<Connection>,
    /// The job, while one runs.
    pub job: Option<Job>,
    /// Since when it runs.
    pub job_since: Option<String>,
    /// The shared hardware held now.
    pub resource: Option<String>,
    /// What is waited for, while shared hardware is.
    pub queue: Option<Queue>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// When it did.
    pub last_error_at: Option<String>,
    /// When it will be tried again.
    pub next_retry: Option<String>,
    /// When the incarnation began.
    pub started: String,
    /// Registrations of earlier incarnations that are still to be let go.
    pub leftovers: u64,
    /// The file systems that jobs write to.
    pub disk: Vec<Room>,
    /// What stands between a job and everything else, in the form of whoever looked.
    pub posture: Option<serde_json::Value>,
    /// Where each secret comes from.
    pub secrets: Vec<String>,
    /// Which protections are weaker than they could be, and why.
    pub weaknesses: Vec<String>,
}

/// The one place where the state of the incarnation is kept for others to see.
#[derive(Debug, Clone)]
pub struct Board {
    status: Rc<watch::Sender<Status>>,
    times: Rc<Times>,
    space: Rc<RefCell<Space>>,
    /// Told when somebody who asked found too little space while a job may come.
    full: Rc<Notify>,
}

#[derive(Debug)]
struct Times {
    /// When the incarnation began.
    started: SystemTime,
    /// When its phase began.
    entered: Cell<SystemTime>,
    /// When faults began, while they last.
    faulty_since: Cell<Option<SystemTime>>,
    /// When the listener lost its connection, while it is not known to have it back.
    cut_off_since: Cell<Option<SystemTime>>,
    /// How many listeners in a row ended by themselves before they had proved that they work.
    ended_early: Cell<u32>,
}

/// Shows that shared hardware is waited for, until it is dropped.
#[derive(Debug)]
pub struct Waiting {
    board: Board,
    since: SystemTime,
}

impl Waiting {
    /// What is known of the wait now.
    pub fn report(&self, report: &str) {
        self.board.status.send_modify(|status| {
            if let Some(queue) = &mut status.queue {
                queue.report = Some(report.to_owned());
            }
        });
    }

    /// For how long.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.since.elapsed().unwrap_or_default()
    }
}

impl Drop for Waiting {
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
        let started = SystemTime::now();
        let now = rfc3339(started);
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
            disk: Vec::new(),
            posture: None,
            secrets: Vec::new(),
            weaknesses: Vec::new(),
        };
        let times = Times {
            started,
            entered: Cell::new(started),
            faulty_since: Cell::new(None),
            cut_off_since: Cell::new(None),
            ended_early: Cell::new(0),
        };
        Self {
            status: Rc::new(watch::Sender::new(status)),
            times: Rc::new(times),
            space: Rc::default(),
            full: Rc::default(),
        }
    }

    /// Where jobs need disk space, for whoever asks how much there is.
    pub fn space(&self, space: Space) {
        self.space.replace(space);
    }

    /// Why a job may not be taken now, if there is too little disk space.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        self.space.borrow().shortage()
    }

    /// Resolves once somebody who asked for the status found too little disk space while listening.
    pub async fn found_full(&self) {
        self.full.notified().await;
    }

    /// The agent is of this version.
    pub fn agent(&self, version: String) {
        self.status.send_modify(|status| status.agent = Some(version));
    }

    /// The agent in use is so old, and this is known of a newer one.
    pub fn agent_age(&self, age: AgentAge) {
        self.status.send_if_modified(|status| status.agent_age.replace(age) != status.agent_age);
    }

    /// So many earlier registrations are still to be let go.
    pub fn leftovers(&self, count: usize) {
        let count = count as u64;
        self.status.send_if_modified(|status| std::mem::replace(&mut status.leftovers, count) != count);
    }

    /// Shared hardware is waited for from now on.
    #[must_use]
    pub fn waits_for(&self, wanted: &str) -> Waiting {
        let since = SystemTime::now();
        let queue = Queue { wanted: wanted.to_owned(), since: rfc3339(since), report: None };
        self.status.send_modify(|status| status.queue = Some(queue));
        Waiting { board: self.clone(), since }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
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

    /// Things work: earlier faults are history.
    pub fn well(&self) {
        self.times.faulty_since.set(None);
        self.times.ended_early.set(0);
    }

    /// Whether earlier faults count yet.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        self.times.faulty_since.get().is_some() || self.times.ended_early.get() > 0
    }

    /// Something went wrong and will be tried again after `wait`.
    pub fn fault(&self, error: &str, wait: Duration) {
        self.times.faulty_since.set(self.times.faulty_since.get().or_else(|| Some(SystemTime::now())));
        self.waits(error, wait);
    }

    /// Something is in the way, which is no fault of the forge or the agent, and will be looked at again after `wait`.
    pub fn waits(&self, error: &str, wait: Duration) {
        self.wrong(error);
        self.status.send_modify(|status| status.next_retry = Some(rfc3339(SystemTime::now() + wait)));
    }

    /// The agent has lost its connection to the forge, and tries to get it back.
    pub fn disconnected(&self) {
        self.times.cut_off_since.set(self.times.cut_off_since.get().or_else(|| Some(SystemTime::now())));
        self.wrong("the agent has lost its connection to the forge and keeps trying; the log has its words");
        self.connection(Some(Connection::Lost));
    }

    /// The agent has its connection to the forge.
    pub fn connected(&self) {
        self.times.cut_off_since.set(None);
        self.connection(Some(Connection::Up));
    }

    /// The agent lost its connection some time ago, and nobody can say whether it has it back.
    pub fn connection_unknown(&self) {
        self.times.cut_off_since.set(None);
        self.connection(Some(Connection::NotKnown));
    }

    /// There is no listener any more. If it was cut off, the fault goes on: a new wait for the same forge makes nothing well.
    pub fn listener_gone(&self) {
        if let Some(since) = self.times.cut_off_since.take() {
            self.times.faulty_since.set(Some(self.times.faulty_since.get().map_or(since, |faulty| faulty.min(since))));
        }
        self.connection(None);
    }

    /// A listener ended by itself before it had proved that it works.
    pub fn ended_early(&self) {
        self.times.ended_early.set(self.times.ended_early.get().saturating_add(1));
    }

    fn connection(&self, connection: Option<Connection>) {
        self.status.send_if_modified(|status| std::mem::replace(&mut status.connection, connection) != connection);
    }

    fn wrong(&self, error: &str) {
        self.status.send_modify(|status| {
            status.last_error = Some(log::redacted(error));
            status.last_error_at = Some(rfc3339(SystemTime::now()));
        });
    }

    /// The registration that we have, or none.
    pub fn runner(&self, runner: Option<Runner>) {
        log::set_runner(runner.as_ref().map_or("", |runner| &runner.name));
        self.status.send_modify(|status| status.runner = runner);
    }

    /// The job that runs, or none.
    pub fn job(&self, job: Option<Job>) {
        self.status.send_modify(|status| {
            status.job_since = match (&job, status.job_since.take()) {
                (None, _) => None,
                (Some(_), Some(since)) => Some(since),
                (Some(_), None) => Some(rfc3339(SystemTime::now())),
            };
            status.job = job;
        });
    }

    /// More about the running job than was known at first. What is known stays: the first hook runs before any step of the job,
    /// and what comes later may be the job's own invention.
    pub fn describe_job(&self, more: Job) {
        let job = self.status.borrow().job.clone().unwrap_or_default();
        self.job(Some(Job {
            name: job.name.or(more.name),
            repository: job.repository.or(more.repository),
            run_url: job.run_url.or(more.run_url),
            workflow: job.workflow.or(more.workflow),
            run: job.run.or(more.run),
            attempt: job.attempt.or(more.attempt),
        }));
    }

    /// The shared hardware that is held, or none.
    pub fn resource(&self, resource: Option<String>) {
        self.status.send_modify(|status| status.resource = resource);
    }

    /// What the status says about the posture: all of it, where the secrets come from, and what is weak.
    pub fn posture(&self, posture: &impl Serialize, secrets: Vec<String>, weaknesses: Vec<String>) {
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
        if status.phase == Phase::Listening && shortage(&status.disk).is_some() {
            self.full.notify_one();
        }
        status.reason = self.trouble(&status);
        status.healthy = status.reason.is_none();
        status
    }

    fn trouble(&self, status: &Status) -> Option<String> {
        let error = || status.last_error.clone().unwrap_or_else(|| status.phase.to_string());
        let lasting = || {
            let since =
                [&self.times.faulty_since, &self.times.cut_off_since].into_iter().filter_map(Cell::get).min()?;
            (since.elapsed().unwrap_or_default() > TOLERATED_BACKOFF).then(error)
        };
        let dying = || {
            let ends = self.times.ended_early.get();
            (ends >= TOLERATED_ENDS)
                .then(|| format!("{ends} listeners in a row ended by themselves soon after they began: {}", error()))
        };
        match status.phase {
            Phase::Denied | Phase::Outdated | Phase::Dirty | Phase::Tainted | Phase::Full => Some(error()),
            Phase::BackingOff => dying().or_else(lasting),
            Phase::Starting | Phase::Cleaning | Phase::Registering | Phase::Unregistering => {
                let lasted = self.times.entered.get().elapsed().unwrap_or_default();
                let stays = (lasted > TOLERATED_PASSAGE).then(|| {
                    let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
                    format!("in this phase for {lasted}, which should pass in no time: see the log")
                });
                // One more attempt makes nothing well.
                stays.or_else(dying).or_else(lasting)
            }
            // A job may come at any moment; whoever asked has just had the registration taken back.
            Phase::Listening => shortage(&status.disk).or_else(dying).or_else(lasting),
            Phase::Waiting | Phase::Running | Phase::Draining | Phase::Resting | Phase::Drained => None,
        }
    }

    /// How things are, for the metrics.
    #[must_use]
    pub fn now(&self, replica: &str) -> Now {
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
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Waits until the phase is one of `phases`.
    pub async fn reached(&self, phases: &[Phase]) {
        let mut watcher = self.status.subscribe();
        // The sender lives as long as this board, so the wait cannot fail.
        let _ = watcher.wait_for(|status| phases.contains(&status.phase)).await;
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "phase     {} since {}", self.phase, self.since)?;
        match &self.reason {
            None => writeln!(f, "health    ok")?,
            Some(reason) => writeln!(f, "health    UNHEALTHY: {reason}")?,
        }
        match &self.runner {
            Some(Runner { name, id: Some(id) }) => writeln!(f, "runner    {name} (id {id})")?,
            Some(Runner { name, id: None }) => writeln!(f, "runner    {name}")?,
            None => writeln!(f, "runner    not registered")?,
        }
        match self.connection {
            Some(Connection::Lost) => writeln!(f, "forge     the agent has lost its connection")?,
            Some(Connection::NotKnown) => {
                writeln!(f, "forge     not known whether the agent has its connection again")?
            }
            Some(Connection::Up) | None => {}
        }
        writeln!(f, "scope     {} ({})", self.scope, self.provider)?;
        if self.leftovers > 0 {
            writeln!(f, "leftovers {} registrations of earlier incarnations are still to be removed", self.leftovers)?;
        }
        if let Some(job) = &self.job {
            let since = self.job_since.as_deref().unwrap_or("-");
            writeln!(f, "job       {} since {since}", job.name.as_deref().unwrap_or("(no name)"))?;
            if let Some(repository) = &job.repository {
                writeln!(f, "          {repository} {}", job.run_url.as_deref().unwrap_or_default())?;
            }
        }
        if let Some(resource) = &self.resource {
            writeln!(f, "resource  {resource}")?;
        }
        if let Some(queue) = &self.queue {
            let report = queue.report.clone().unwrap_or_else(|| format!("waiting for {}", queue.wanted));
            writeln!(f, "queue     {report} (since {})", queue.since)?;
        }
        if let (Some(error), Some(at)) = (&self.last_error, &self.last_error_at) {
            writeln!(f, "trouble   at {at}: {error}")?;
        }
        if let Some(retry) = &self.next_retry {
            writeln!(f, "next try  {retry}")?;
        }
        for room in &self.disk {
            let (free, least) = (shown(room.free), shown(room.least));
            writeln!(f, "disk      {free} free at {} (a job needs {least})", room.place.display())?;
        }
        for secret in &self.secrets {
            writeln!(f, "secret    {secret}")?;
        }
        for weakness in &self.weaknesses {
            writeln!(f, "weaker    {weakness}")?;
        }
        if let Some(agent) = &self.agent {
            writeln!(f, "agent     {agent}")?;
        }
        if let Some(age) = &self.agent_age {
            write!(f, "{age}")?;
        }
        write!(f, "oscr      {} up since {}", self.oscr, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening() -> Board {
        let board = Board::new("github", "o/r");
        board.enter(Phase::Listening);
        board.connected();
        board
    }

    fn long_ago() -> Option<SystemTime> {
        Some(SystemTime::now() - TOLERATED_BACKOFF - Duration::from_secs(1))
    }

    #[test]
    fn a_lost_connection_is_told_at_once_and_counts_as_ill_only_when_it_lasts() {
        let board = listening();
        board.disconnected();
        let status = board.status();
        assert!(status.healthy && status.last_error.is_some_and(|error| error.contains("lost its connection")));
        assert_eq!(status.connection, Some(Connection::Lost));

        board.times.cut_off_since.set(long_ago());
        board.disconnected();
        let status = board.status();
        assert!(!status.healthy && status.reason.is_some_and(|why| why.contains("lost its connection")));

        board.well();
        assert!(!board.status().healthy, "time makes no connection");
        board.connected();
        assert!(board.status().healthy);
    }

    #[test]
    fn what_nobody_can_say_is_no_illness() {
        let board = listening();
        board.disconnected();
        board.times.cut_off_since.set(long_ago());
        board.connection_unknown();
        let status = board.status();
        assert!(status.healthy);
        assert!(status.to_string().contains("not known"), "{status}");
    }

    #[test]
    fn a_listener_that_ended_while_it_was_cut_off_makes_nothing_well() {
        let board = listening();
        board.times.cut_off_since.set(long_ago());
        board.listener_gone();
        board.fault("the listener ended", Duration::from_secs(1));
        for phase in [Phase::BackingOff, Phase::Cleaning, Phase::Registering, Phase::Listening] {
            board.enter(phase);
            assert!(!board.status().healthy, "{phase}");
        }
        board.connected();
        assert!(!board.status().healthy, "a new listener has proved nothing yet");
        board.well();
        assert!(board.status().healthy);
    }

    #[test]
    fn three_listeners_that_ended_soon_are_ill_until_one_has_proved_itself() {
        let board = listening();
        for ends in 1..=4 {
            board.ended_early();
            board.fault("it crashed", Duration::from_secs(1));
            for phase in [Phase::BackingOff, Phase::Registering, Phase::Listening] {
                board.enter(phase);
                assert_eq!(board.status().healthy, ends < 3, "{ends} {phase}");
            }
        }
        let reason = board.status().reason.unwrap_or_default();
        assert!(reason.contains("4 listeners in a row") && reason.contains("it crashed"), "{reason}");
        board.enter(Phase::Running);
        assert!(board.status().healthy, "a job runs");
        board.well();
        board.enter(Phase::Listening);
        assert!(board.status().healthy);
    }
}
