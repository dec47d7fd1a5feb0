//! The forge's clock, as its answers are dated.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap};

/// A clock that differs by more than this makes tokens fail in ways that nobody understands.
const TOLERATED_SKEW: Duration = Duration::from_secs(120);

/// By how much it differs from ours.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// By how many seconds it is ahead, as far as known.
    offset: Cell<i64>,
    reported: Cell<bool>,
}

impl Clock {
    /// By how many seconds it is ahead of ours, by the last answer; 0 before the first.
    pub(super) fn offset(&self) -> i64 {
        self.offset.get()
    }

    /// The time there, as far as known.
    pub(super) fn now(&self) -> SystemTime {
        let offset = Duration::from_secs(self.offset.get().unsigned_abs());
        let ours = SystemTime::now();
        if self.offset.get() >= 0 { ours + offset } else { ours - offset }
    }

    /// Forgets what is known.
    pub(super) fn forget(&self) {
        self.offset.set(0);
    }

    /// Takes note of an answer's date.
    pub(super) fn compare(&self, headers: &HeaderMap) {
        let Some(date) = headers.get(DATE).and_then(|date| date.to_str().ok()) else {
            return;
        };
        let Ok(theirs) = httpdate::parse_http_date(date) else {
            return;
        };
        let ours = SystemTime::now();
        let (skew, direction) = match ours.duration_since(theirs) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        let seconds = i64::try_from(skew.as_secs()).unwrap_or(i64::MAX);
        self.offset.set(if direction == "behind" { seconds } else { -seconds });
        if skew > TOLERATED_SKEW && !self.reported.replace(true) {
            let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
            tracing::warn!(
                "this machine's clock is {skew} {direction} the forge's: tokens fail with misleading errors until it is set right"
            );
        }
    }
}
