//! What the stand-in agent and the forge say to each other, below `/_agent/`.
//!
//! JSON over plain HTTP. Registration is done with a registration token in the body; everything after it with
//! `Authorization: Bearer <runner secret>`, and what the worker sends with the job's own token.

use serde::{Deserialize, Serialize};

/// `POST /_agent/register`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// `repos/o/r`, `orgs/o` or `enterprises/e`.
    pub scope: String,
    /// The registration token.
    pub token: String,
    /// The name asked for.
    pub name: String,
    /// Custom labels.
    pub labels: Vec<String>,
    /// Leave out `self-hosted`, `Linux` and the architecture.
    pub no_default_labels: bool,
    /// The runner group's name.
    pub group: Option<String>,
    /// One job, then the registration goes.
    pub ephemeral: bool,
    /// Take over an existing registration of that name.
    pub replace: bool,
    /// The agent's version.
    pub version: String,
}

/// What a registration gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterAnswer {
    /// The runner's id.
    pub id: u64,
    /// The runner's name.
    pub name: String,
    /// The credential of everything that the listener does later.
    pub secret: String,
    /// The runner group's name.
    pub group: String,
    /// Whether another registration was replaced.
    pub replaced: bool,
}

/// `POST /_agent/remove`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveRequest {
    /// The scope, as at registration.
    pub scope: String,
    /// A remove token.
    pub token: String,
    /// The runner's id.
    pub id: u64,
}

/// `POST /_agent/sessions`, when granted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SessionAnswer {
    /// The session's id.
    pub session: u64,
    /// How long to wait after a failed poll.
    pub backoff_ms: u64,
    /// The forge wants the listener to end with this code, at once.
    pub exit: Option<ExitOrder>,
    /// The listener is to misbehave from now on.
    #[serde(default)]
    pub trouble: Option<Trouble>,
}

/// How a listener misbehaves once it says that it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// It dies by SIGABRT.
    Crash,
    /// It does nothing more: it asks for no job and obeys no signal.
    Hang,
    /// It works, and no signal ends it.
    Deaf,
}

/// `POST /_agent/sessions`, when refused because another session is alive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConflictAnswer {
    /// For people.
    pub message: String,
    /// Retry after this long (upstream: 30 s).
    pub retry_ms: u64,
    /// Give up after this long (upstream: 4 min).
    pub limit_ms: u64,
}

/// An exit code that the forge makes the listener end with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExitOrder {
    /// 0 to 7, as upstream's table has them.
    pub code: i32,
    /// What the listener prints as the reason.
    #[serde(default)]
    pub text: Option<String>,
}

/// A message of the queue, `GET /_agent/sessions/{id}/message`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// A job is offered; it must be acquired.
    Job {
        /// The job's id.
        id: u64,
        /// The job's display name.
        name: String,
        /// All of the job, where the queue carries it; it still must be acquired.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offered: Option<Box<JobMessage>>,
    },
    /// Another version of the agent is wanted.
    Refresh {
        /// Which.
        version: String,
    },
    /// The job was cancelled by a user.
    Cancel {
        /// The job's id.
        id: u64,
    },
    /// End with a code.
    Exit(ExitOrder),
}

/// One step of a job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The display name; the script's first line when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The script, for `bash -e`.
    pub run: String,
    /// When the step runs.
    #[serde(default, rename = "if")]
    pub condition: Condition,
    /// `docker://IMAGE`: the step runs that instead of a script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<String>,
    /// The arguments of such an image's program, one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// The program, if it is not the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
}

/// When a step runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// While nothing failed.
    #[default]
    Success,
    /// Whatever happened, except a shutdown of the runner.
    Always,
    /// Once something failed.
    Failure,
    /// Once the job was cancelled.
    Cancelled,
}

/// `POST /_agent/jobs/{id}/acquire`: all that the worker needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobMessage {
    /// The job's id.
    pub id: u64,
    /// The job's display name.
    pub name: String,
    /// `owner/name`.
    pub repository: String,
    /// The token that the worker reports with.
    pub token: String,
    /// The event's name, `push` for example.
    pub event: String,
    /// The event's payload.
    pub payload: serde_json::Value,
    /// The job's steps.
    pub steps: Vec<Step>,
    /// The listener renews the job this often.
    pub renew_ms: u64,
    /// Upstream waits 7.5 s after SIGINT.
    pub sigint_ms: u64,
    /// Upstream waits 2.5 s after SIGTERM.
    pub sigterm_ms: u64,
    /// A cancelled worker is killed after this long (upstream: cancel timeout less 15 s).
    pub worker_kill_ms: u64,
}

/// What the listener writes to the worker's standard input, one line each, the first being the job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WorkerMessage {
    /// Run this.
    Job {
        /// The forge's base address.
        server: String,
        /// The runner's name.
        runner: String,
        /// The work folder, absolute.
        work: String,
        /// The job.
        job: Box<JobMessage>,
    },
    /// The user cancelled the job.
    Cancel,
    /// The runner is shutting down.
    Shutdown,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// All steps went well.
    Succeeded,
    /// A step, a hook or the runner failed.
    Failed,
    /// A user cancelled it.
    Canceled,
    /// Nobody heard of its runner any more.
    Abandoned,
}

impl JobResult {
    /// The word in `Job X completed with result: …`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
            Self::Abandoned => "Abandoned",
        }
    }

    /// The worker's exit code: upstream adds 100 to the number of the result.
    #[must_use]
    pub fn worker_code(self) -> i32 {
        match self {
            Self::Succeeded => 100,
            Self::Failed => 102,
            Self::Canceled => 103,
            Self::Abandoned => 105,
        }
    }

    /// The inverse of [`Self::worker_code`].
    #[must_use]
    pub fn from_worker_code(code: i32) -> Option<Self> {
        match code {
            100 => Some(Self::Succeeded),
            102 => Some(Self::Failed),
            103 => Some(Self::Canceled),
            105 => Some(Self::Abandoned),
            _ => None,
        }
    }
}

/// `POST /_agent/jobs/{id}/complete`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompleteRequest {
    /// The job's result.
    pub result: JobResult,
}
