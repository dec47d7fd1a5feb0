//! Slowing down before a forge makes us: until when nothing new should be begun, and why.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::encode::seconds;

/// No count of a forge's starts anew later, and no forge is obeyed for longer: it will say so again.
pub const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// Until when nothing new should be begun, and why. It outlives a restart in the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Seconds since 1970, by our clock.
    pub until: u64,
    /// The reason, for people.
    pub why: String,
    /// The fingerprint of the credential whose limit it is, if it is known: another one has a limit of its own.
    #[serde(default)]
    pub credential: Option<String>,
}

impl Pace {
    /// So long from now on.
    #[must_use]
    pub fn after(wait: Duration, why: String) -> Self {
        // A part of a second counts as one.
        Self { until: seconds(SystemTime::now() + wait.min(LONGEST)) + 1, why, credential: None }
    }

    /// How long that is from now on; `None` when it is over.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = Duration::from_secs(self.until.saturating_sub(seconds(SystemTime::now()))).min(LONGEST);
        (!left.is_zero()).then_some(left)
    }
}
