//! Why a forge did not do what it was asked.

use std::time::Duration;

use crate::config::SecretError;

/// Why a forge did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was not reached, or is not well: try again soon, then ever later.
    #[error("{0}")]
    Unreachable(String),
    /// It asks us to wait.
    #[error("the forge limits our requests ({what}): silence for {}", humantime::format_duration(Duration::from_secs(wait.as_secs())))]
    Limited {
        /// For how long.
        wait: Duration,
        /// Its answer.
        what: String,
    },
    /// It refused, and will go on refusing until somebody changes something.
    #[error("{what}; {cure}")]
    Denied {
        /// What was refused.
        what: String,
        /// What to change.
        cure: String,
    },
    /// The name is in use: another one may do.
    #[error("the name {name} is taken{}", by.map_or_else(String::new, |id| format!(" by another agent that lives (id {id})")))]
    NameTaken {
        /// The name.
        name: String,
        /// The number of the living agent that has it, if one was seen.
        by: Option<u64>,
    },
}

impl Fault {
    /// It refused this, until somebody changes that.
    pub fn denied(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Denied { what: what.into(), cure: cure.into() }
    }
}

/// A secret that cannot be read now: somebody must mount or fill the file.
impl From<SecretError> for Fault {
    fn from(error: SecretError) -> Self {
        Self::denied(error.to_string(), format!("{}; it is read anew as soon as the file changes", error.cure()))
    }
}
