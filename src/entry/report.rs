//! What there is to say about a job when all is over: one line of JSON, for whoever bills, plans or investigates.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::ended_by::EndedBy;
use crate::control::Job;
use crate::log;
use crate::metrics::{self, JobResult};

/// A job that is over, and whose slate is yet to be cleaned.
#[derive(Debug)]
pub(super) struct JobReport {
    job: Job,
    runner: String,
    began: SystemTime,
    result: JobResult,
    ended_by: Option<EndedBy>,
    /// These three are not known of one whose end nobody saw.
    idle: Option<Duration>,
    waited: Option<Duration>,
    ran: Option<Duration>,
}

/// The line's `summary`. Durations are in seconds.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    version: u32,
    repository: Option<&'a str>,
    workflow: Option<&'a str>,
    job: Option<&'a str>,
    run: Option<&'a str>,
    attempt: Option<&'a str>,
    run_url: Option<&'a str>,
    runner: &'a str,
    result: &'static str,
    ended_by: Option<&'static str>,
    began: String,
    /// No forge tells its agent for how long the job had been waiting for one.
    queued: Option<f64>,
    idle: Option<f64>,
    waited: Option<f64>,
    ran: Option<f64>,
    wiped: Option<f64>,
}

/// When which part of a job's time began and ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spans {
    /// When the job was announced.
    pub began: SystemTime,
    /// For how long the runner had listened.
    pub idle: Duration,
    /// For how long the job waited for shared hardware.
    pub waited: Duration,
    /// From the job's announcement to the end of its worker, waiting included.
    pub lasted: Duration,
}

impl JobReport {
    /// A job is over, and may have been `ended_by` something before its steps were; counts it.
    #[must_use]
    pub(super) fn new(job: Job, runner: String, result: JobResult, ended_by: Option<EndedBy>, spans: Spans) -> Self {
        let ran = spans.lasted.saturating_sub(spans.waited);
        metrics::job_over(result, Some(ran));
        let Spans { began, idle, waited, .. } = spans;
        Self { job, runner, began, result, ended_by, idle: Some(idle), waited: Some(waited), ran: Some(ran) }
    }

    /// A job of an earlier incarnation is over, and nobody saw its end; counts it.
    #[must_use]
    pub(super) fn unseen(job: Job, runner: String, began: SystemTime, result: JobResult) -> Self {
        metrics::job_over(result, None);
        Self { job, runner, began, result, ended_by: None, idle: None, waited: None, ran: None }
    }

    /// Writes the line; `wiped` is how long the slate took, if it came clean.
    pub(super) fn say(self, wiped: Option<Duration>) {
        let seconds = |duration: Duration| (duration.as_secs_f64() * 1000.0).round() / 1000.0;
        let summary = Summary {
            version: 1,
            repository: self.job.repository.as_deref(),
            workflow: self.job.workflow.as_deref(),
            job: self.job.name.as_deref(),
            run: self.job.run.as_deref(),
            attempt: self.job.attempt.as_deref(),
            run_url: self.job.run_url.as_deref(),
            runner: &self.runner,
            result: self.result.name(),
            ended_by: self.ended_by.map(EndedBy::name),
            began: humantime::format_rfc3339_seconds(self.began).to_string(),
            queued: None,
            idle: self.idle.map(seconds),
            waited: self.waited.map(seconds),
            ran: self.ran.map(seconds),
            wiped: wiped.map(seconds),
        };
        match serde_json::to_value(&summary) {
            Ok(summary) => log::object("job summary", "summary", summary),
            Err(error) => tracing::warn!("the job's summary cannot be written: {error}"),
        }
    }
}
