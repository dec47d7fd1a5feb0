//! Numbers for whoever watches many runners: counted here, written as Prometheus text.
//!
//! Like the log, this is one per process and may be told things from anywhere. What only ever grows is kept in a file over
//! restarts of the container, because an ephemeral runner ends with each job: counters that began anew every time would hide
//! what happened from somebody who looks once a minute. A container that is made anew begins at nothing, which Prometheus takes
//! for what it is.

mod counters;
mod families;
mod file;
mod job_result;
mod page;
mod record;
mod serve;

pub(crate) use counters::{RateLimit, Registered};
pub use families::{FAMILIES, Family, MetricKind};
pub(crate) use file::MetricsFile;
pub(crate) use job_result::JobResult;
pub(crate) use page::Now;
pub(crate) use record::{
    api_request, evicted, ghost_job, job_over, jobs_without_hook, keep, lock_waited, registration, removed, render,
    resume, wiped,
};
pub(crate) use serve::serve;
