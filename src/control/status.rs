//! What PID 1 is doing, for those who ask and for the log.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Job;
use crate::log;

/// How long faults of the forge may last before the container counts as unhealthy.
const TOLERATED_BACKOFF: Duration = Duration::from_secs(5 * 60);

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
    /// Drained on request: takes no job until it is stopped.
    Drained,
}

impl Phase {
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

/// The answer to [`super::Request::Status`]. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this form.
    pub version: u32,
    /// The version of OSCR.
    pub oscr: String,
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
    /// The job, while one runs.
    pub job: Option<Job>,
    /// Since when it runs.
    pub job_since: Option<String>,
    /// The shared hardware held now.
    pub resource: Option<String>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// When it will be tried again.
    pub next_retry: Option<String>,
    /// When the incarnation began.
    pub started: String,
    /// Where each secret comes from.
    pub secrets: Vec<String>,
    /// Which protections are weaker than they could be, and why.
    pub weaknesses: Vec<String>,
}

/// The one place where the state of the incarnation is kept for others to see.
#[derive(Debug, Clone)]
pub struct Board {
    status: Rc<watch::Sender<Status>>,
    /// When faults began, while they last.
    faulty_since: Rc<std::cell::Cell<Option<SystemTime>>>,
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

impl Board {
    /// The board of an incarnation that begins now.
    #[must_use]
    pub fn new(provider: &str, scope: &str) -> Self {
        let now = rfc3339(SystemTime::now());
        let status = Status {
            version: 1,
            oscr: env!("CARGO_PKG_VERSION").to_owned(),
            phase: Phase::Starting,
            since: now.clone(),
            healthy: true,
            reason: None,
            provider: provider.to_owned(),
            scope: scope.to_owned(),
            runner: None,
            job: None,
            job_since: None,
            resource: None,
            last_error: None,
            next_retry: None,
            started: now,
            secrets: Vec::new(),
            weaknesses: Vec::new(),
        };
        Self { status: Rc::new(watch::Sender::new(status)), faulty_since: Rc::default() }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        log::set_phase(phase.name());
        let entered = self.status.borrow().phase != phase;
        self.status.send_modify(|status| {
            if entered {
                status.phase = phase;
                status.since = rfc3339(SystemTime::now());
            }
            if !matches!(phase, Phase::BackingOff | Phase::Denied | Phase::Outdated | Phase::Dirty) {
                status.next_retry = None;
            }
        });
        if entered {
            tracing::debug!("a new phase: {phase}");
        }
    }

    /// Things work: earlier faults are history.
    pub fn well(&self) {
        self.faulty_since.set(None);
    }

    /// Something went wrong and will be tried again after `wait`.
    pub fn fault(&self, error: &str, wait: Duration) {
        let now = SystemTime::now();
        if self.faulty_since.get().is_none() {
            self.faulty_since.set(Some(now));
        }
        self.status.send_modify(|status| {
            status.last_error = Some(log::redacted(error));
            status.next_retry = Some(rfc3339(now + wait));
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

    /// More about the running job than was known at first.
    pub fn describe_job(&self, more: Job) {
        let mut job = self.status.borrow().job.clone().unwrap_or_default();
        job.name = job.name.or(more.name);
        job.repository = more.repository.or(job.repository);
        job.run_url = more.run_url.or(job.run_url);
        self.job(Some(job));
    }

    /// The shared hardware that is held, or none.
    pub fn resource(&self, resource: Option<String>) {
        self.status.send_modify(|status| status.resource = resource);
    }

    /// What `check` and the status say about the posture.
    pub fn posture(&self, secrets: Vec<String>, weaknesses: Vec<String>) {
        self.status.send_modify(|status| {
            status.secrets = secrets;
            status.weaknesses = weaknesses;
        });
    }

    /// The status now, with its health.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut status = self.status.borrow().clone();
        status.reason = self.trouble(&status);
        status.healthy = status.reason.is_none();
        status
    }

    fn trouble(&self, status: &Status) -> Option<String> {
        let error = || status.last_error.clone().unwrap_or_else(|| status.phase.to_string());
        match status.phase {
            Phase::Denied | Phase::Outdated | Phase::Dirty => Some(error()),
            Phase::BackingOff => {
                let since = self.faulty_since.get()?;
                (since.elapsed().unwrap_or_default() > TOLERATED_BACKOFF).then(error)
            }
            Phase::Starting
            | Phase::Cleaning
            | Phase::Registering
            | Phase::Waiting
            | Phase::Listening
            | Phase::Running
            | Phase::Draining
            | Phase::Unregistering
            | Phase::Resting
            | Phase::Drained => None,
        }
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
        writeln!(f, "scope     {} ({})", self.scope, self.provider)?;
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
        if let Some(error) = &self.last_error {
            writeln!(f, "last error {error}")?;
        }
        if let Some(retry) = &self.next_retry {
            writeln!(f, "next try  {retry}")?;
        }
        for secret in &self.secrets {
            writeln!(f, "secret    {secret}")?;
        }
        for weakness in &self.weaknesses {
            writeln!(f, "weaker    {weakness}")?;
        }
        write!(f, "oscr      {} up since {}", self.oscr, self.started)
    }
}
