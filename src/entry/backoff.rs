//! How long to wait before trying again, so that no forge is hammered.

use std::time::Duration;

use crate::provider::pace::{doubled, least_wait};

/// The first and the last ceiling of the wait after a fault.
const FIRST: Duration = Duration::from_secs(2);
const LAST: Duration = Duration::from_secs(5 * 60);
/// The first and the last wait after a denial.
const DENIED_FIRST: Duration = Duration::from_secs(30);
const DENIED_LAST: Duration = Duration::from_secs(15 * 60);

/// Counts failures in a row. The count outlives a restart of the container in the state file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backoff {
    /// Faults in a row so far.
    pub failures: u32,
    /// Denials in a row so far: counted apart, so that a denial after a long outage is not waited out as long as that.
    denials: u32,
}

impl Backoff {
    /// Goes on counting where an earlier incarnation ended.
    #[must_use]
    pub(super) fn after(failures: u32) -> Self {
        Self { failures, denials: 0 }
    }

    /// The wait after one more fault: anywhere between nothing and a ceiling that doubles (full jitter), so that replicas
    /// that failed together do not come back together. Never less than half a second.
    pub(super) fn after_fault(&mut self) -> Duration {
        let ceiling = doubled(FIRST, self.failures, LAST);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random()).max(Duration::from_millis(500))
    }

    /// The wait after one more denial: only a person can end it, so it is slow from the start and gets slower.
    pub(super) fn after_denial(&mut self) -> Duration {
        let wait = doubled(DENIED_FIRST, self.denials, DENIED_LAST);
        self.denials = self.denials.saturating_add(1);
        wait.mul_f64(0.9 + 0.2 * random())
    }

    /// The wait that a forge asked for, or what so many in a row make of it, with a little more so that not everybody returns in
    /// the same second.
    pub(super) fn after_limit(&mut self, asked: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = asked.max(least_wait(self.failures));
        wait + Duration::from_secs(1) + wait.mul_f64(0.1 * random())
    }

    /// A random part of `most`.
    #[must_use]
    pub(super) fn jitter(most: Duration) -> Duration {
        most.mul_f64(random())
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Between 0 and 1.
pub(super) fn random() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_ceiling_and_never_beyond() {
        let mut backoff = Backoff::default();
        for failure in 0..40 {
            let ceiling = Duration::from_secs(2u64.saturating_pow(failure + 1)).min(LAST);
            let wait = backoff.after_fault();
            assert!(wait <= ceiling && wait >= Duration::from_millis(500), "{failure}: {wait:?}");
        }
        assert_eq!(backoff.failures, 40);
    }

    #[test]
    fn a_denial_costs_fewer_than_five_requests_in_the_first_minute() {
        let mut backoff = Backoff::default();
        let mut at = Duration::ZERO;
        let mut requests = 1;
        loop {
            at += backoff.after_denial();
            if at > Duration::from_secs(60) {
                break;
            }
            requests += 1;
        }
        assert!(requests < 5, "{requests}");
        for _ in 0..40 {
            assert!(backoff.after_denial() <= DENIED_LAST.mul_f64(1.1));
        }
    }

    #[test]
    fn a_limit_is_obeyed_to_the_second_and_one_that_asks_for_nothing_grows_over_a_restart_too() {
        let mut backoff = Backoff::default();
        assert!(backoff.after_limit(Duration::from_secs(30)) >= Duration::from_secs(30));
        let mut backoff = Backoff::default();
        for time in 1..40 {
            let least = Duration::from_secs(2u64.saturating_pow(time).min(300));
            let wait = backoff.after_limit(Duration::ZERO);
            assert!(wait >= least && wait <= least * 2, "{time}: {wait:?}");
            backoff = Backoff::after(backoff.failures);
        }
    }
}
