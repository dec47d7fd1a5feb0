//! What a job is judged by.

use serde::{Deserialize, Serialize};

/// The largest payload that is read, in bytes. GitHub's own limit is 25 MB, and the agent writes it with indentation.
pub(crate) const LARGEST_PAYLOAD: u64 = 48 * 1024 * 1024;

/// What the agent says of a job in its hook's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The event's name.
    #[serde(default)]
    pub event: Option<String>,
    /// The repository whose workflow runs: `owner/name`.
    #[serde(default)]
    pub repository: Option<String>,
    /// The ref that it runs for: `refs/heads/main`, `refs/pull/7/merge`.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
}

/// Everything that a job is judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What the agent says.
    pub facts: Facts,
    /// The event's payload; `Err` says why there is none.
    pub payload: Option<Result<Vec<u8>, String>>,
}

/// Where a job's work comes from, as the event's payload has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The repository that it is an event of, if it names one.
    pub repository: Option<String>,
    /// Whose work it is.
    pub work: Whose,
}

/// Whose work a job is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Whose {
    /// The repository's own.
    #[default]
    Own,
    /// Somebody's from outside may be in it; whose, for people.
    Outside(String),
    /// The payload leaves it open; why, for people.
    Unclear(String),
}

/// Reads a payload of this event and repository, which depends on the forge. `Err` says why it makes no sense.
pub(crate) type ReadOrigin = fn(&Facts, &[u8]) -> Result<Origin, String>;
