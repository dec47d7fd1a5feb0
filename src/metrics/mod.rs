//! Numbers for whoever watches many runners: counted here, written as Prometheus text.
//!
//! Like the log, this is one per process and may be told things from anywhere. What only ever grows is kept in a file over
//! restarts of the container, because an ephemeral runner ends with each job: counters that began anew every time would hide
//! what happened from somebody who looks once a minute. A container that is made anew begins at nothing, which Prometheus takes
//! for what it is.

mod file;
mod serve;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files;

pub use file::MetricsFile;
pub use serve::serve;

/// What a family of numbers is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows, but for restarts.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of durations by their length in seconds.
    Histogram(&'static [f64]),
}

/// One family of numbers.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, besides `replica`, which all have.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn family(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind, labels, help }
}

/// Jobs last from seconds to hours, waits for hardware from nothing to hours, and a wipe takes no more than minutes.
const JOB: &[f64] = &[10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 21600.0];
const WAIT: &[f64] = &[0.1, 1.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];
const WIPE: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

const INFO: Family = family(
    "oscr_info",
    Kind::Gauge,
    &["version", "agent", "provider", "scope"],
    "Always 1; the labels say what runs here. The agent's version is empty until its listener has said it.",
);
const PHASE: Family =
    family("oscr_phase", Kind::Gauge, &["phase"], "1 for the phase that the runner is in, 0 for all others.");
const PHASE_SINCE: Family =
    family("oscr_phase_start_time_seconds", Kind::Gauge, &[], "When this phase began, in seconds since 1970.");
const HEALTHY: Family = family("oscr_healthy", Kind::Gauge, &[], "1 if the health check says so, else 0.");
const STARTED: Family =
    family("oscr_start_time_seconds", Kind::Gauge, &[], "When this incarnation began, in seconds since 1970.");
const INCARNATIONS: Family =
    family("oscr_incarnations_total", Kind::Counter, &[], "Incarnations of this container, this one included.");
const JOBS: Family = family("oscr_jobs_total", Kind::Counter, &["result"], "Jobs that are over, by their result.");
const JOB_SECONDS: Family = family(
    "oscr_job_seconds",
    Kind::Histogram(JOB),
    &[],
    "How long jobs ran, without the time that they waited for shared hardware.",
);
const LOCK_WAIT_SECONDS: Family = family(
    "oscr_lock_wait_seconds",
    Kind::Histogram(WAIT),
    &[],
    "How long shared hardware was waited for until it was had.",
);
const WIPE_SECONDS: Family =
    family("oscr_wipe_seconds", Kind::Histogram(WIPE), &[], "How long making the slate clean took.");
const REMOVAL_SECONDS: Family = family(
    "oscr_removal_seconds",
    Kind::Histogram(WIPE),
    &[],
    "How long it took to remove what was moved aside, where the runner went on meanwhile.",
);
const REGISTRATIONS: Family = family(
    "oscr_registrations_total",
    Kind::Counter,
    &["event"],
    "Registrations: made, failed (attempts), removed (by us, or found gone).",
);
const LEFTOVERS: Family = family(
    "oscr_leftover_registrations",
    Kind::Gauge,
    &[],
    "Registrations of earlier incarnations that the forge may still have.",
);
const API_REQUESTS: Family = family(
    "oscr_api_requests_total",
    Kind::Counter,
    &["code"],
    "Requests to the forge's API by status code; none: there was no answer.",
);
const API_LEFT: Family = family(
    "oscr_api_rate_limit_remaining",
    Kind::Gauge,
    &[],
    "Requests that the forge still allows until the limit is reset, as its last answer said.",
);
const API_LIMIT: Family = family(
    "oscr_api_rate_limit_limit",
    Kind::Gauge,
    &[],
    "Requests that the forge allows in all, as its last answer said.",
);
const API_RESET: Family = family(
    "oscr_api_rate_limit_reset_time_seconds",
    Kind::Gauge,
    &[],
    "When the forge resets the limit, in seconds since 1970.",
);
const AGENT_RELEASED: Family = family(
    "oscr_agent_release_time_seconds",
    Kind::Gauge,
    &[],
    "When the agent in use was released, or first seen to be offered, in seconds since 1970. Absent where that is not known.",
);
const AGENT_NEWER: Family = family(
    "oscr_agent_newer_offered",
    Kind::Gauge,
    &[],
    "1 if the forge offers a newer agent than the one in use, as far as it was asked, else 0.",
);
const AGENT_FAILURES: Family = family(
    "oscr_agent_update_failures",
    Kind::Gauge,
    &[],
    "How many attempts in a row to fetch a newer agent have failed.",
);
const DISK_FREE: Family =
    family("oscr_disk_free_bytes", Kind::Gauge, &["place"], "Disk space that a job could use there.");
const DISK_LEAST: Family =
    family("oscr_disk_least_bytes", Kind::Gauge, &["place"], "Below so much free disk space no job is taken.");
const EVICTED: Family = family(
    "oscr_cache_evicted_bytes_total",
    Kind::Counter,
    &[],
    "Disk space that was freed in caches above their cap.",
);

/// All families, in the order in which they are written.
pub const FAMILIES: &[Family] = &[
    INFO,
    PHASE,
    PHASE_SINCE,
    HEALTHY,
    STARTED,
    INCARNATIONS,
    JOBS,
    JOB_SECONDS,
    LOCK_WAIT_SECONDS,
    WIPE_SECONDS,
    REMOVAL_SECONDS,
    REGISTRATIONS,
    LEFTOVERS,
    API_REQUESTS,
    API_LEFT,
    API_LIMIT,
    API_RESET,
    AGENT_RELEASED,
    AGENT_NEWER,
    AGENT_FAILURES,
    DISK_FREE,
    DISK_LEAST,
    EVICTED,
];

/// How a job ended, as its listener said. A job runs as the same user as the listener and could write such a line itself, so
/// nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobResult {
    /// All went well.
    Succeeded,
    /// A step failed.
    Failed,
    /// It was cancelled.
    Canceled,
    /// It was never begun.
    Skipped,
    /// The forge gave it up.
    Abandoned,
    /// The listener died under it.
    Lost,
    /// The listener did not say, or said a word that we do not know.
    Unknown,
}

impl JobResult {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Succeeded, Self::Failed, Self::Canceled, Self::Skipped, Self::Abandoned, Self::Lost, Self::Unknown];

    /// Reads the listener's word.
    #[must_use]
    pub fn read(word: &str) -> Self {
        match word.trim().to_ascii_lowercase().as_str() {
            "succeeded" | "succeededwithissues" => Self::Succeeded,
            "failed" => Self::Failed,
            "canceled" | "cancelled" => Self::Canceled,
            "skipped" => Self::Skipped,
            "abandoned" => Self::Abandoned,
            _ => Self::Unknown,
        }
    }

    /// Its name in metrics and in the job's summary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
            Self::Abandoned => "abandoned",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It was made.
    Made,
    /// An attempt failed.
    Failed,
    /// It is gone.
    Removed,
}

impl Registered {
    const NAMES: [&'static str; 3] = ["made", "failed", "removed"];
}

/// What a forge says about how much it may still be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests left.
    pub remaining: u64,
    /// Requests in all.
    pub limit: Option<u64>,
    /// When it is reset, in seconds since 1970.
    pub reset: Option<u64>,
}

/// Durations counted by length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Histogram {
    /// For each bound how many were no longer, but longer than the bound before; the last is for those above all bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, bounds: &[f64], duration: Duration) {
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
struct Counters {
    version: u32,
    incarnations: u64,
    jobs: BTreeMap<String, u64>,
    registrations: BTreeMap<String, u64>,
    api_requests: BTreeMap<String, u64>,
    job_seconds: Histogram,
    lock_wait_seconds: Histogram,
    wipe_seconds: Histogram,
    removal_seconds: Histogram,
    evicted_bytes: u64,
}

impl Counters {
    /// Reads what an earlier incarnation kept; nothing if it makes no sense, since nothing depends on it.
    fn read(bytes: &[u8]) -> Option<Self> {
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

fn count(of: &mut BTreeMap<String, u64>, name: &str) {
    let count = of.entry(name.to_owned()).or_default();
    *count = count.saturating_add(1);
}

/// Everything that was counted.
#[derive(Debug, Default)]
struct Metrics {
    counters: Counters,
    rate_limit: Option<RateLimit>,
}

static METRICS: Mutex<Option<Metrics>> = Mutex::new(None);

fn with<T>(use_it: impl FnOnce(&mut Metrics) -> T) -> T {
    let mut metrics: MutexGuard<'_, Option<Metrics>> = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    use_it(metrics.get_or_insert_default())
}

/// A job is over.
pub fn job_over(result: JobResult, ran: Duration) {
    with(|metrics| {
        count(&mut metrics.counters.jobs, result.name());
        metrics.counters.job_seconds.add(JOB, ran);
    });
}

/// Shared hardware is had, after so long.
pub fn lock_waited(waited: Duration) {
    with(|metrics| metrics.counters.lock_wait_seconds.add(WAIT, waited));
}

/// The slate is clean, after so long.
pub fn wiped(took: Duration) {
    with(|metrics| metrics.counters.wipe_seconds.add(WIPE, took));
}

/// What had been moved aside is removed, after so long.
pub fn removed(took: Duration) {
    with(|metrics| metrics.counters.removal_seconds.add(WIPE, took));
}

/// Something happened to a registration.
pub fn registration(event: Registered) {
    with(|metrics| count(&mut metrics.counters.registrations, Registered::NAMES[event as usize]));
}

/// The forge answered a request with this status code, or not at all.
pub fn api_request(code: Option<u16>, limit: Option<RateLimit>) {
    with(|metrics| {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        count(&mut metrics.counters.api_requests, &code);
        metrics.rate_limit = limit.or(metrics.rate_limit);
    });
}

/// So much of a cache was removed.
pub fn evicted(bytes: u64) {
    with(|metrics| metrics.counters.evicted_bytes = metrics.counters.evicted_bytes.saturating_add(bytes));
}

/// Goes on counting where the incarnation ended that wrote this file, if there is one that makes sense.
pub fn resume(file: &Path) {
    let kept = fs::read(file).ok().and_then(|bytes| Counters::read(&bytes));
    with(|metrics| {
        metrics.counters = kept.unwrap_or_default();
        metrics.counters.version = 1;
        metrics.counters.incarnations = metrics.counters.incarnations.saturating_add(1);
    });
}

/// Keeps the counts for the next incarnation. Not forced onto the disk: what is lost to a power cut is only a count.
///
/// # Errors
/// When the file cannot be written; the old one is intact then.
pub fn keep(file: &Path) -> io::Result<()> {
    let json = with(|metrics| serde_json::to_vec(&metrics.counters))?;
    files::replace(file, &json, 0o600)
}

/// What is shown besides the counts: how things are at this moment. Times are in seconds since 1970.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// The container, for telling replicas apart.
    pub replica: String,
    /// The version of OSCR.
    pub version: String,
    /// The version of the agent, once known.
    pub agent: String,
    /// `CI_PROVIDER`.
    pub provider: String,
    /// Whose runner it is.
    pub scope: String,
    /// The phase.
    pub phase: &'static str,
    /// All phases that there are.
    pub phases: Vec<&'static str>,
    /// Since when it is in its phase.
    pub phase_since: u64,
    /// When the incarnation began.
    pub started: u64,
    /// What the health check says.
    pub healthy: bool,
    /// Registrations that are still to be let go.
    pub leftovers: u64,
    /// When the agent in use was released, if that is known.
    pub agent_released: Option<u64>,
    /// Whether a newer one is offered.
    pub agent_newer: bool,
    /// How many attempts in a row to fetch it have failed.
    pub agent_failures: u32,
    /// Places on disk: free bytes, and how many must be free.
    pub disk: Vec<(String, u64, u64)>,
}

/// Everything, in Prometheus' text format.
#[must_use]
pub fn render(now: &Now) -> String {
    with(|metrics| text(metrics, now))
}

fn text(metrics: &Metrics, now: &Now) -> String {
    let counters = &metrics.counters;
    let mut page = Page { text: String::with_capacity(8 * 1024), replica: escaped(&now.replica) };
    page.gauge(INFO, [(vec![now.version.as_str(), &now.agent, &now.provider, &now.scope], 1)]);
    page.gauge(PHASE, now.phases.iter().map(|phase| (vec![*phase], u64::from(*phase == now.phase))));
    page.gauge(PHASE_SINCE, [(vec![], now.phase_since)]);
    page.gauge(HEALTHY, [(vec![], u64::from(now.healthy))]);
    page.gauge(STARTED, [(vec![], now.started)]);
    page.gauge(INCARNATIONS, [(vec![], counters.incarnations)]);
    // All of the few results are always there, so that the first of a kind is an increase and not a new series.
    let of = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
    page.gauge(JOBS, JobResult::ALL.map(|result| (vec![result.name()], of(&counters.jobs, result.name()))));
    page.histogram(JOB_SECONDS, &counters.job_seconds);
    page.histogram(LOCK_WAIT_SECONDS, &counters.lock_wait_seconds);
    page.histogram(WIPE_SECONDS, &counters.wipe_seconds);
    page.histogram(REMOVAL_SECONDS, &counters.removal_seconds);
    page.gauge(REGISTRATIONS, Registered::NAMES.map(|name| (vec![name], of(&counters.registrations, name))));
    page.gauge(LEFTOVERS, [(vec![], now.leftovers)]);
    page.gauge(API_REQUESTS, counters.api_requests.iter().map(|(code, count)| (vec![code.as_str()], *count)));
    let limit = metrics.rate_limit;
    let maybe = |value: Option<u64>| value.map(|value| (vec![], value));
    page.gauge(API_LEFT, maybe(limit.map(|limit| limit.remaining)));
    page.gauge(API_LIMIT, maybe(limit.and_then(|limit| limit.limit)));
    page.gauge(API_RESET, maybe(limit.and_then(|limit| limit.reset)));
    page.gauge(AGENT_RELEASED, maybe(now.agent_released));
    page.gauge(AGENT_NEWER, [(vec![], u64::from(now.agent_newer))]);
    page.gauge(AGENT_FAILURES, [(vec![], u64::from(now.agent_failures))]);
    page.gauge(DISK_FREE, now.disk.iter().map(|(place, free, _)| (vec![place.as_str()], *free)));
    page.gauge(DISK_LEAST, now.disk.iter().map(|(place, _, least)| (vec![place.as_str()], *least)));
    page.gauge(EVICTED, [(vec![], counters.evicted_bytes)]);
    page.text
}

struct Page {
    text: String,
    replica: String,
}

impl Page {
    fn head(&mut self, family: Family) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let _ = write!(self.text, "# HELP {0} {1}\n# TYPE {0} {kind}\n", family.name, family.help);
    }

    /// Samples of one number each. A family without samples is left out.
    fn gauge<'v>(&mut self, family: Family, samples: impl IntoIterator<Item = (Vec<&'v str>, u64)>) {
        let mut first = true;
        for (values, number) in samples {
            if std::mem::take(&mut first) {
                self.head(family);
            }
            let _ = write!(self.text, "{}{{replica=\"{}\"", family.name, self.replica);
            for (label, value) in family.labels.iter().zip(values) {
                let _ = write!(self.text, ",{label}=\"{}\"", escaped(value));
            }
            let _ = writeln!(self.text, "}} {number}");
        }
    }

    fn histogram(&mut self, family: Family, histogram: &Histogram) {
        let Kind::Histogram(bounds) = family.kind else { return };
        self.head(family);
        let (name, replica) = (family.name, &self.replica);
        let mut total = 0u64;
        for (at, bound) in bounds.iter().enumerate() {
            total = total.saturating_add(histogram.counts.get(at).copied().unwrap_or(0));
            let _ = writeln!(self.text, "{name}_bucket{{replica=\"{replica}\",le=\"{bound}\"}} {total}");
        }
        total = total.saturating_add(histogram.counts.get(bounds.len()).copied().unwrap_or(0));
        let _ = writeln!(self.text, "{name}_bucket{{replica=\"{replica}\",le=\"+Inf\"}} {total}");
        let _ = writeln!(self.text, "{name}_sum{{replica=\"{replica}\"}} {:.3}", histogram.sum);
        let _ = writeln!(self.text, "{name}_count{{replica=\"{replica}\"}} {total}");
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => plain.push_str("\\\\"),
            '"' => plain.push_str("\\\""),
            '\n' => plain.push_str("\\n"),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Metrics {
        let mut metrics = Metrics::default();
        for seconds in [5.0, 10.0, 11.0, 100_000.0] {
            metrics.counters.job_seconds.add(JOB, Duration::from_secs_f64(seconds));
        }
        count(&mut metrics.counters.jobs, "succeeded");
        count(&mut metrics.counters.api_requests, "201");
        metrics
    }

    fn here() -> Now {
        Now {
            replica: "a\"b\\c\nd".to_owned(),
            phase: "listening",
            phases: vec!["listening", "running"],
            agent_released: Some(5),
            disk: vec![("/work".to_owned(), 7, 3)],
            ..Now::default()
        }
    }

    #[test]
    fn a_duration_counts_for_its_bound_and_all_above() {
        let page = text(&some(), &here());
        for line in [
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="10"} 2"#,
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="30"} 3"#,
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="21600"} 3"#,
            r#"oscr_job_seconds_bucket{replica="a\"b\\c\nd",le="+Inf"} 4"#,
            r#"oscr_job_seconds_sum{replica="a\"b\\c\nd"} 100026.000"#,
            r#"oscr_job_seconds_count{replica="a\"b\\c\nd"} 4"#,
            r#"oscr_phase{replica="a\"b\\c\nd",phase="running"} 0"#,
            r#"oscr_disk_least_bytes{replica="a\"b\\c\nd",place="/work"} 3"#,
        ] {
            assert!(page.lines().any(|known| known == line), "{line}\n{page}");
        }
    }

    #[test]
    fn every_line_is_of_a_known_family_with_its_own_labels() {
        let mut metrics = some();
        metrics.rate_limit = Some(RateLimit { remaining: 1, limit: Some(2), reset: Some(3) });
        let page = text(&metrics, &here());
        let mut seen = Vec::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            let family = FAMILIES
                .iter()
                .find(|family| match family.kind {
                    Kind::Histogram(_) => name.strip_prefix(family.name).is_some_and(|rest| rest.starts_with('_')),
                    _ => name == family.name,
                })
                .unwrap_or_else(|| panic!("{line}"));
            for label in family.labels {
                assert!(line.contains(&format!(",{label}=\"")), "{line}");
            }
            seen.push(family.name);
        }
        seen.dedup();
        let all: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        assert_eq!(seen, all, "each family is written, once, in order");
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

    #[test]
    fn the_listeners_words_are_read() {
        assert_eq!(JobResult::read("Succeeded"), JobResult::Succeeded);
        assert_eq!(JobResult::read("SucceededWithIssues"), JobResult::Succeeded);
        assert_eq!(JobResult::read(" Canceled\r"), JobResult::Canceled);
        assert_eq!(JobResult::read("Exploded"), JobResult::Unknown);
        for result in JobResult::ALL.into_iter().filter(|result| *result != JobResult::Lost) {
            assert_eq!(JobResult::read(result.name()), result);
        }
    }

    #[test]
    fn fuzz_counters() {
        crate::fuzz::run("counters", |bytes| {
            let counters = Counters::read(bytes);
            if let Some(counters) = &counters {
                let metrics = Metrics { counters: counters.clone(), rate_limit: None };
                for line in text(&metrics, &here()).lines().filter(|line| !line.starts_with('#')) {
                    let number = line.rsplit(' ').next().unwrap();
                    assert!(line.starts_with("oscr_") && number.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
                }
            }
            counters
                .map(|counters| (counters.jobs.len(), counters.api_requests.len(), counters.job_seconds.counts.len()))
        });
    }
}
