//! What is asked on the socket, and what is answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::policy::Facts;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// What are you doing?
    Status,
    /// Stop taking jobs, and answer when the running one is over and the registration gone.
    Drain {
        /// Leave then, rather than stay without taking jobs.
        exit: bool,
    },
    /// A hook runs around this job.
    Hook(Box<HookRequest>),
}

/// What a hook says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HookRequest {
    /// Which one.
    pub event: HookEvent,
    /// The job, as the hook's environment describes it.
    pub job: Job,
    /// What it is judged by.
    #[serde(default)]
    pub facts: Facts,
    /// It has failed, or one of the operator's that it runs, and so fails the job: nothing is asked.
    #[serde(default)]
    pub failed: bool,
    /// The event's payload, which follows the request's line.
    #[serde(default)]
    pub payload: PayloadHead,
}

/// What follows a hook's request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PayloadHead {
    /// Nothing: there is none.
    #[default]
    None,
    /// So many bytes.
    Bytes(u64),
    /// Nothing, and why.
    Unreadable(String),
}

/// One line of the answer to a hook. There may be several waits before the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum HookAnswer {
    /// The job must wait; why, for its log.
    Wait {
        /// For people.
        why: String,
    },
    /// The job may go on.
    Go {
        /// The resources that it has.
        resource: Option<String>,
    },
    /// The job is ended by its listener, and must not go on until then. The client says that it has told the job's log by
    /// sending a byte.
    Failed {
        /// For people.
        why: String,
    },
    /// The job must not go on.
    Refused {
        /// For people.
        why: String,
    },
}

/// The moments around a job at which the agent calls us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HookEvent {
    /// Before the first step.
    JobStarted,
    /// After the last.
    JobCompleted,
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JobStarted => "job-started",
            Self::JobCompleted => "job-completed",
        })
    }
}

impl std::str::FromStr for HookEvent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::JobStarted, Self::JobCompleted]
            .into_iter()
            .find(|event| event.to_string() == text)
            .ok_or_else(|| format!("{text:?} is neither job-started nor job-completed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_request() {
        crate::fuzz::run("request", |bytes| match serde_json::from_slice::<Request>(bytes) {
            Err(error) => crate::fuzz::kind(&error.to_string()),
            Ok(request) => {
                let again = serde_json::from_slice(&serde_json::to_vec(&request).unwrap());
                assert_eq!(again.ok().as_ref(), Some(&request));
                if let Request::Hook(hook) = request {
                    let Job { name, repository, run_url, workflow, run, attempt } = hook.job.sanitised();
                    for text in [name, repository, run_url, workflow, run, attempt].into_iter().flatten() {
                        crate::fuzz::assert_plain(&text);
                        assert!(!text.is_empty() && text.chars().count() <= 200);
                    }
                    return format!("hook {:?} {:?}", hook.event, std::mem::discriminant(&hook.payload));
                }
                "request".to_owned()
            }
        });
    }
}
