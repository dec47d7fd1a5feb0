//! The status as others read it: `oscr-entry status --json`, and whatever asks the socket.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::age::AgentAge;
use super::job::Job;
use crate::resource::Aside;
use crate::workspace::space::{Room, shown};

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
    /// It said that it lost it, or that it gets none.
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

/// What jobs left in Docker and could not be removed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftInDocker {
    /// So many containers, networks, images and volumes; a list of them that is refused counts as one.
    pub things: u64,
    /// Why the first of them is still there.
    pub why: String,
}

/// The answer to `Request::Status`. Times are RFC 3339 in UTC.
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
    /// What jobs left in Docker and is still to be removed.
    #[serde(default)]
    pub left_in_docker: Option<LeftInDocker>,
    /// The shared hardware that is set aside, because the hooks for it failed for one job after another.
    #[serde(default)]
    pub aside: Vec<Aside>,
    /// The file systems that jobs write to.
    pub disk: Vec<Room>,
    /// What stands between a job and everything else, in the form of whoever looked.
    pub posture: Option<serde_json::Value>,
    /// Where each secret comes from.
    pub secrets: Vec<String>,
    /// Which protections are weaker than they could be, and why.
    pub weaknesses: Vec<String>,
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
            Some(Connection::Lost) => writeln!(f, "forge     the agent has no connection, and keeps trying")?,
            Some(Connection::NotKnown) => {
                writeln!(f, "forge     not known whether the agent has its connection again")?
            }
            Some(Connection::Up) | None => {}
        }
        writeln!(f, "scope     {} ({})", self.scope, self.provider)?;
        if self.leftovers > 0 {
            writeln!(f, "leftovers {} registrations of earlier incarnations are still to be removed", self.leftovers)?;
        }
        if let Some(LeftInDocker { things, why }) = &self.left_in_docker {
            writeln!(f, "docker    {things} things that jobs left there are still to be removed: {why}")?;
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
        for aside in &self.aside {
            writeln!(f, "aside     {aside}")?;
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
