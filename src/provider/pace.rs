//! Slowing down before a forge makes us: until when nothing new should be begun, and why.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::encode::seconds;

/// No count of a forge's starts anew later, and no forge is obeyed for longer: it will say so again.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What a forge that limits us is given at least: the first time this, then twice as much each time, up to that. One that says
/// that its moment is past, whenever it is asked, would otherwise be asked for ever.
const LEAST: Duration = Duration::from_secs(2);
const LAST_LEAST: Duration = Duration::from_secs(5 * 60);

/// How long to wait after so many limits in a row, at least.
#[must_use]
pub fn least_wait(times: u32) -> Duration {
    doubled(LEAST, times.saturating_sub(1), LAST_LEAST)
}

/// `first`, doubled so many times, up to `last`.
#[must_use]
pub fn doubled(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(last)
}

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

    /// Whether it holds for the credential with this fingerprint; for one that cannot be read now, it does.
    #[must_use]
    pub fn holds_for(&self, credential: Option<&String>) -> bool {
        credential.is_none() || self.credential.is_none() || self.credential.as_ref() == credential
    }
}
