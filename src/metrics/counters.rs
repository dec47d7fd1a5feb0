//! What is counted, and what of it outlives a restart of the container.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::families::{JOB, WAIT, WIPE};
use super::job_result::JobResult;

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    Made,
    /// An attempt failed.
    Failed,
    /// It is gone.
    Removed,
}

impl Registered {
    pub(super) const NAMES: [&'static str; 3] = ["made", "failed", "removed"];
}

/// What a forge says about how much it may still be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Requests left.
    pub remaining: u64,
    /// Requests in all.
    pub limit: Option<u64>,
    /// When it is reset, in seconds since 1970.
    pub reset: Option<u64>,
}

/// Durations counted by length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Histogram {
    /// For each bound how many were no longer, but longer than the bound before; the last is for those above all bounds.
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn add(&mut self, bounds: &[f64], duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.counts.resize(bounds.len() + 1, 0);
        let at = bounds.iter().position(|bound| seconds <= *bound).unwrap_or(bounds.len());
        self.counts[at] = self.counts[at].saturating_add(1);
        self.sum += seconds;
    }

    /// Whether it can be one of ours: the file that it was read from may be damaged.
    fn sane(&self, bounds: &[f64]) -> bool {
        (self.counts.is_empty() || self.counts.len() == bounds.len() + 1) && self.sum.is_finite() && self.sum >= 0.0
    }
}

/// What only grows, and outlives a restart of the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Counters {
    pub(super) version: u32,
    pub(super) incarnations: u64,
    pub(super) jobs: BTreeMap<String, u64>,
    pub(super) ghost_jobs: u64,
    pub(super) registrations: BTreeMap<String, u64>,
    pub(super) api_requests: BTreeMap<String, u64>,
    pub(super) job_seconds: Histogram,
    pub(super) lock_wait_seconds: Histogram,
    pub(super) wipe_seconds: Histogram,
    pub(super) removal_seconds: Histogram,
    pub(super) evicted_bytes: u64,
    pub(super) log_lines_lost: u64,
}

impl Counters {
    /// Reads what an earlier incarnation kept; nothing if it makes no sense, since nothing depends on it.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut counters: Self = serde_json::from_slice(bytes).ok()?;
        let known = |name: &String, names: &[&str]| names.contains(&name.as_str());
        counters.jobs.retain(|name, _| known(name, &JobResult::ALL.map(JobResult::name)));
        counters.registrations.retain(|name, _| known(name, &Registered::NAMES));
        counters.api_requests.retain(|code, _| code == "none" || (code.len() == 3 && code.parse::<u16>().is_ok()));
        let sane = counters.version == 1
            && counters.job_seconds.sane(JOB)
            && counters.lock_wait_seconds.sane(WAIT)
            && counters.wipe_seconds.sane(WIPE)
            && counters.removal_seconds.sane(WIPE);
        sane.then_some(counters)
    }
}

pub(super) fn count(of: &mut BTreeMap<String, u64>, name: &str) {
    let count = of.entry(name.to_owned()).or_default();
    *count = count.saturating_add(1);
}

/// Everything that was counted.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) counters: Counters,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) jobs_without_hook: u32,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::metrics) fn some() -> Metrics {
        let mut metrics = Metrics::default();
        for seconds in [5.0, 10.0, 11.0, 100_000.0] {
            metrics.counters.job_seconds.add(JOB, Duration::from_secs_f64(seconds));
        }
        count(&mut metrics.counters.jobs, "succeeded");
        count(&mut metrics.counters.api_requests, "201");
        metrics
    }

    #[test]
    fn what_is_kept_is_gone_on_with_and_what_makes_no_sense_is_not() {
        let metrics = some();
        let json = serde_json::to_vec(&Counters { version: 1, ..metrics.counters.clone() }).unwrap();
        let kept = Counters::read(&json).unwrap();
        assert_eq!(Counters { version: 0, ..kept }, metrics.counters);
        for damaged in [
            &b""[..],
            b"{",
            br#"{"version":2}"#,
            br#"{"version":1,"job_seconds":{"counts":[1],"sum":1.0}}"#,
            br#"{"version":1,"job_seconds":{"counts":[],"sum":-1.0}}"#,
        ] {
            assert_eq!(Counters::read(damaged), None);
        }
        let strange = br#"{"version":1,"jobs":{"x\"y":3,"failed":2},"api_requests":{"no\nne":1,"none":4}}"#;
        let read = Counters::read(strange).unwrap();
        assert_eq!(read.jobs, [("failed".to_owned(), 2)].into());
        assert_eq!(read.api_requests, [("none".to_owned(), 4)].into());
    }
}
