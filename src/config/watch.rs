//! The settings of the watchdog.

use std::time::Duration;

use super::reader::Reader;

/// What the watchdog goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// How often the forge is asked about an idle runner; `None` is never.
    pub interval: Option<Duration>,
    /// How long it may call a runner offline that listens.
    pub offline: Duration,
    /// How long it may call a runner offline and idle whose job runs, before the job is ended; `None` is for ever.
    pub job_offline: Option<Duration>,
    /// How long a job may be without a worker.
    pub worker: Duration,
    /// How long a runner may be idle.
    pub max_idle: Option<Duration>,
    /// How long a job may run.
    pub job_max: Option<Duration>,
}

impl Watch {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        Self {
            interval: some(reader.duration("OSCR_WATCH_INTERVAL", Duration::from_secs(10 * 60))),
            offline: reader.duration("OSCR_OFFLINE_TIMEOUT", Duration::from_secs(3 * 60)),
            job_offline: some(reader.duration("OSCR_JOB_OFFLINE_TIMEOUT", Duration::from_secs(15 * 60))),
            worker: reader.duration("OSCR_WORKER_TIMEOUT", Duration::from_secs(60)),
            max_idle: reader.optional_duration("OSCR_MAX_IDLE"),
            job_max: reader.optional_duration("OSCR_JOB_MAX"),
        }
    }
}
