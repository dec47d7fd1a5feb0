//! A job that began and whose end was not told yet. It stands in the state file while it runs, so that one whose end nobody sees, because
//! PID 1 is killed under it, is told of by the next incarnation.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::report::JobReport;
use crate::control::Job;
use crate::metrics::JobResult;

/// What the state file knows of it. It holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OpenJob {
    /// As far as the agent and its hook have described it.
    pub job: Job,
    /// The runner's name.
    pub runner: String,
    /// When it was announced, RFC 3339 in UTC.
    pub began: String,
}

impl OpenJob {
    /// One that begins now.
    pub(super) fn begins(job: Job, runner: String) -> Self {
        Self { job, runner, began: humantime::format_rfc3339_seconds(SystemTime::now()).to_string() }
    }

    /// Tells of it and counts it, in an incarnation after its own. The forge `believes` in it still, or nobody knows what became of
    /// it.
    pub(super) fn tell(self, believes: bool) {
        let result = if believes { JobResult::Lost } else { JobResult::Unknown };
        let name = self.job.name.as_deref().unwrap_or("(no name)");
        let known = if believes { "the forge believes that it still runs" } else { "how it ended is not known here" };
        tracing::warn!("an earlier incarnation was killed under the job {name} of {}: {known}", self.runner);
        let began = humantime::parse_rfc3339(&self.began).unwrap_or(SystemTime::UNIX_EPOCH);
        JobReport::unseen(self.job.sanitised(), self.runner, began, result).say(None);
    }
}
