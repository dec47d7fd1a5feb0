//! Who waits or holds, in words for people.

use serde::{Deserialize, Serialize};

/// Who waits or holds, for people: the content of a ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The runner's name, or the command for `lock run`.
    pub who: String,
    /// Whose runner it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The page of the job's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_url: Option<String>,
    /// Since when it waits or, for a holder, holds (RFC 3339).
    pub since: String,
}

impl Claim {
    /// A claim that begins now.
    #[must_use]
    pub(crate) fn now(who: String, scope: Option<String>, run_url: Option<String>) -> Self {
        Self { who, scope, run_url, since: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string() }
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.who)?;
        if let Some(scope) = &self.scope {
            write!(f, " of {scope}")?;
        }
        if let Some(url) = &self.run_url {
            write!(f, " ({url})")?;
        }
        write!(f, " since {}", self.since)
    }
}
