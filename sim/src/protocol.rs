//! What the forge and the stand-in agents share: jobs, their ends, and the side channel.
//!
//! The stand-ins speak what the official agents speak. What those protocols cannot carry, because no forge of theirs would say it, comes
//! by the side channel below `/_sim/agent`: misbehaviour, exit codes, the scale of times, which port counts as the default one. An official
//! agent never asks there, and so meets the same forge.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::scale::Scale;

/// `GET /_sim/agent`: what an agent must know before it is anybody's.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Address {
    /// GitHub's runner drops any port but the scheme's own from the address that it is configured with. This one counts as that too.
    pub default_port: Option<u16>,
    /// The scale of all times.
    pub scale: Scale,
}

/// `GET /_sim/agent/{id}?at=session` or `?at=poll`: how this agent is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manners {
    /// The scale of all times, but for those that follow.
    pub scale: Scale,
    /// How long to wait after something failed, if not as long as the official agent.
    pub backoff_ms: Option<u64>,
    /// How long to wait after a session's conflict, if not as long as the official agent (30 s).
    pub conflict_retry_ms: Option<u64>,
    /// How long to go on with that, if not as long as the official agent (4 min).
    pub conflict_limit_ms: Option<u64>,
    /// Between SIGINT and SIGTERM to a step, if not 7.5 s.
    pub sigint_ms: Option<u64>,
    /// Between SIGTERM and SIGKILL, if not 2.5 s.
    pub sigterm_ms: Option<u64>,
    /// A job is renewed at least so often: leases here may be shorter than the official agent's pauses.
    pub renew_ms: u64,
    /// A poll without an answer for this long is given up.
    pub silence_ms: u64,
    /// End with this code, at once.
    pub exit: Option<ExitOrder>,
    /// Misbehave, from when it listens on.
    pub trouble: Option<Trouble>,
    /// Traces mix on standard output, as about once in thirty lives.
    pub mixed_traces: bool,
}

impl Default for Manners {
    /// Those of the official agents.
    fn default() -> Self {
        Self {
            scale: Scale::REAL,
            backoff_ms: None,
            conflict_retry_ms: None,
            conflict_limit_ms: None,
            sigint_ms: None,
            sigterm_ms: None,
            renew_ms: 60_000,
            silence_ms: 100_000,
            exit: None,
            trouble: None,
            mixed_traces: false,
        }
    }
}

impl Manners {
    /// A time of the official agent's, or the one that was ordered in its place.
    #[must_use]
    pub fn time(&self, ordered_ms: Option<u64>, real_ms: u64) -> Duration {
        ordered_ms.map_or_else(|| self.scale.ms(real_ms), Duration::from_millis)
    }

    /// A wait after something failed.
    #[must_use]
    pub fn backoff(&self, real_ms: u64) -> Duration {
        self.time(self.backoff_ms, real_ms)
    }
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

/// An exit code that the forge makes the listener end with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExitOrder {
    /// 0 to 7, as upstream's table has them.
    pub code: i32,
    /// What the listener prints as the reason.
    #[serde(default)]
    pub text: Option<String>,
}

/// What waits in the queue of a session. Of Azure's agents it is also the message proper.
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
        /// How long the agent has for it, less 15 s.
        limit_ms: u64,
    },
}

/// One step of a job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The display name; the script's first line when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// By what name the job's outputs find what it sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The script, for `bash -e`.
    pub run: String,
    /// When the step runs.
    #[serde(default, rename = "if")]
    pub condition: Condition,
    /// `docker://IMAGE`: the step runs that instead of a script. `./FOLDER`: an action in the job's workspace, which no stand-in runs.
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

/// A job as Azure's agents are told of it.
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
    /// The job's steps.
    pub steps: Vec<Step>,
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
    /// The word on the wire of both forges.
    #[must_use]
    pub fn on_the_wire(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Abandoned => "abandoned",
        }
    }

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

/// How an agent of Azure DevOps says that a job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompleteRequest {
    /// The job's result.
    pub result: JobResult,
}
