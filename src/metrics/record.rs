//! The one record of a process: whoever has something to count tells it, from anywhere.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::counters::{Counters, Metrics, RateLimit, Registered, count};
use super::families::{JOB, WAIT, WIPE};
use super::job_result::JobResult;
use super::page::{Now, text};
use crate::{files, log};

static METRICS: Mutex<Option<Metrics>> = Mutex::new(None);

fn with<T>(use_it: impl FnOnce(&mut Metrics) -> T) -> T {
    let mut metrics: MutexGuard<'_, Option<Metrics>> = METRICS.lock().unwrap_or_else(PoisonError::into_inner);
    use_it(metrics.get_or_insert_default())
}

/// A job is over, after so long, if that is known.
pub(crate) fn job_over(result: JobResult, ran: Option<Duration>) {
    with(|metrics| {
        count(&mut metrics.counters.jobs, result.name());
        if let Some(ran) = ran {
            metrics.counters.job_seconds.add(JOB, ran);
        }
    });
}

/// A job that was given out never was.
pub(crate) fn ghost_job() {
    with(|metrics| metrics.counters.ghost_jobs = metrics.counters.ghost_jobs.saturating_add(1));
}

/// Shared hardware is had, after so long.
pub(crate) fn lock_waited(waited: Duration) {
    with(|metrics| metrics.counters.lock_wait_seconds.add(WAIT, waited));
}

/// The slate is clean, after so long.
pub(crate) fn wiped(took: Duration) {
    with(|metrics| metrics.counters.wipe_seconds.add(WIPE, took));
}

/// What had been moved aside is removed, after so long.
pub(crate) fn removed(took: Duration) {
    with(|metrics| metrics.counters.removal_seconds.add(WIPE, took));
}

/// Something happened to a registration.
pub(crate) fn registration(event: Registered) {
    with(|metrics| count(&mut metrics.counters.registrations, Registered::NAMES[event as usize]));
}

/// The forge answered a request with this status code, or not at all.
pub(crate) fn api_request(code: Option<u16>, limit: Option<RateLimit>) {
    with(|metrics| {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        count(&mut metrics.counters.api_requests, &code);
        metrics.rate_limit = limit.or(metrics.rate_limit);
    });
}

/// So many jobs in a row failed before they reached their hook.
pub(crate) fn jobs_without_hook(jobs: u32) {
    with(|metrics| metrics.jobs_without_hook = jobs);
}

/// So much of a cache was removed.
pub(crate) fn evicted(bytes: u64) {
    with(|metrics| metrics.counters.evicted_bytes = metrics.counters.evicted_bytes.saturating_add(bytes));
}

/// Counts what the log, which must not wait for us, has lost since the last time.
fn ask_the_log(metrics: &mut Metrics) {
    metrics.counters.log_lines_lost = metrics.counters.log_lines_lost.saturating_add(log::lost());
}

/// Goes on counting where the incarnation ended that wrote this file, if there is one that makes sense.
pub(crate) fn resume(file: &Path) {
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
pub(crate) fn keep(file: &Path) -> io::Result<()> {
    let json = with(|metrics| {
        ask_the_log(metrics);
        serde_json::to_vec(&metrics.counters)
    })?;
    files::replace(file, &json, 0o600)
}

/// Everything, in Prometheus' text format.
#[must_use]
pub(crate) fn render(now: &Now) -> String {
    with(|metrics| {
        ask_the_log(metrics);
        text(metrics, now)
    })
}
