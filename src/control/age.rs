//! What is known of the agent's age, and of a newer one.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::encode::{day_begins, seconds};

/// The agent in use, and a newer one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAge {
    /// Its version, where the image or the forge's list has said it.
    pub version: Option<String>,
    /// The day on which it was released, or on which the forge was first seen to offer it.
    pub released: Option<String>,
    /// What `OSCR_AGENT_UPDATE` comes to here.
    pub update: String,
    /// A newer version that the forge offers, as far as it was asked.
    pub newer: Option<String>,
    /// When the agent last said that the forge told it to become a newer version.
    #[serde(default)]
    pub urged: Option<String>,
    /// How many attempts in a row to fetch it have failed.
    pub failures: u32,
    /// Why the last one did.
    pub trouble: Option<String>,
}

impl AgentAge {
    /// When it was released, in seconds since 1970.
    #[must_use]
    pub(crate) fn released_at(&self) -> Option<u64> {
        day_begins(self.released.as_deref()?)
    }

    /// Its version and age, for people.
    #[must_use]
    pub(crate) fn shown(&self) -> String {
        let version = self.version.as_deref().unwrap_or("an agent of unknown version");
        match (&self.released, self.released_at()) {
            (Some(day), Some(at)) => {
                let days = seconds(SystemTime::now()).saturating_sub(at) / (24 * 60 * 60);
                format!("{version} of {day}, {days} days old")
            }
            _ => format!("{version}, of unknown age"),
        }
    }
}

impl fmt::Display for AgentAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "age       {}", self.shown())?;
        let newer = self.newer.as_deref().or(self.urged.is_some().then_some("a newer version"));
        if let Some(newer) = newer {
            writeln!(f, "newer     {newer} is offered")?;
        }
        if let Some(urged) = &self.urged {
            writeln!(f, "          the forge told the agent to update itself, last at {urged}")?;
        }
        if let Some(trouble) = &self.trouble {
            writeln!(f, "          not fetched ({} attempts): {trouble}", self.failures)?;
        }
        writeln!(f, "update    {}", self.update)
    }
}
