//! Which numbers there are, and what each says.

/// What a family of numbers is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
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
    pub kind: MetricKind,
    /// Its labels, besides `replica`, which all have.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

const fn family(name: &'static str, kind: MetricKind, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind, labels, help }
}

/// Jobs last from seconds to hours, waits for hardware from nothing to hours, and a wipe takes no more than minutes.
pub(super) const JOB: &[f64] = &[10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 21600.0];
pub(super) const WAIT: &[f64] = &[0.1, 1.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];
pub(super) const WIPE: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

pub(super) const INFO: Family = family(
    "oscr_info",
    MetricKind::Gauge,
    &["version", "agent", "provider", "scope"],
    "Always 1; the labels say what runs here. The agent's version is empty until its listener has said it.",
);
pub(super) const PHASE: Family =
    family("oscr_phase", MetricKind::Gauge, &["phase"], "1 for the phase that the runner is in, 0 for all others.");
pub(super) const PHASE_SINCE: Family =
    family("oscr_phase_start_time_seconds", MetricKind::Gauge, &[], "When this phase began, in seconds since 1970.");
pub(super) const HEALTHY: Family =
    family("oscr_healthy", MetricKind::Gauge, &[], "1 if the health check says so, else 0.");
pub(super) const STARTED: Family =
    family("oscr_start_time_seconds", MetricKind::Gauge, &[], "When this incarnation began, in seconds since 1970.");
pub(super) const INCARNATIONS: Family =
    family("oscr_incarnations_total", MetricKind::Counter, &[], "Incarnations of this container, this one included.");
pub(super) const JOBS: Family =
    family("oscr_jobs_total", MetricKind::Counter, &["result"], "Jobs that are over, by their result.");
pub(super) const GHOST_JOBS: Family = family(
    "oscr_ghost_jobs_total",
    MetricKind::Counter,
    &[],
    "Jobs that the forge gave out and that never were: taken back, or refused to the agent, before a worker began them.",
);
pub(super) const JOB_SECONDS: Family = family(
    "oscr_job_seconds",
    MetricKind::Histogram(JOB),
    &[],
    "How long jobs ran, without the time that they waited for shared hardware.",
);
pub(super) const JOBS_WITHOUT_HOOK: Family = family(
    "oscr_jobs_without_hook",
    MetricKind::Gauge,
    &[],
    "Jobs in a row that failed before they reached their hook, most often in the step \"Set up job\". 0 where the agent has no hooks.",
);
pub(super) const LOCK_WAIT_SECONDS: Family = family(
    "oscr_lock_wait_seconds",
    MetricKind::Histogram(WAIT),
    &[],
    "How long shared hardware was waited for until it was had.",
);
pub(super) const WIPE_SECONDS: Family =
    family("oscr_wipe_seconds", MetricKind::Histogram(WIPE), &[], "How long making the slate clean took.");
pub(super) const REMOVAL_SECONDS: Family = family(
    "oscr_removal_seconds",
    MetricKind::Histogram(WIPE),
    &[],
    "How long it took to remove what was moved aside, where the runner went on meanwhile.",
);
pub(super) const REGISTRATIONS: Family = family(
    "oscr_registrations_total",
    MetricKind::Counter,
    &["event"],
    "Registrations: made, failed (attempts), removed (by us, or found gone).",
);
pub(super) const LEFTOVERS: Family = family(
    "oscr_leftover_registrations",
    MetricKind::Gauge,
    &[],
    "Registrations of earlier incarnations that the forge may still have.",
);
pub(super) const LEFT_IN_DOCKER: Family = family(
    "oscr_docker_left",
    MetricKind::Gauge,
    &[],
    "Containers, networks, images and volumes that jobs left in Docker and that could not be removed yet.",
);
pub(super) const SET_ASIDE: Family = family(
    "oscr_hardware_set_aside",
    MetricKind::Gauge,
    &["resource"],
    "1 for shared hardware that is set aside because the hooks for a new holder failed for one job after another, 0 for what else is wanted.",
);
pub(super) const API_REQUESTS: Family = family(
    "oscr_api_requests_total",
    MetricKind::Counter,
    &["code"],
    "Requests to the forge's API by status code; none: there was no answer.",
);
pub(super) const API_LEFT: Family = family(
    "oscr_api_rate_limit_remaining",
    MetricKind::Gauge,
    &[],
    "Requests that the forge still allows until the limit is reset, as its last answer said.",
);
pub(super) const API_LIMIT: Family = family(
    "oscr_api_rate_limit_limit",
    MetricKind::Gauge,
    &[],
    "Requests that the forge allows in all, as its last answer said.",
);
pub(super) const API_RESET: Family = family(
    "oscr_api_rate_limit_reset_time_seconds",
    MetricKind::Gauge,
    &[],
    "When the forge resets the limit, in seconds since 1970.",
);
pub(super) const AGENT_RELEASED: Family = family(
    "oscr_agent_release_time_seconds",
    MetricKind::Gauge,
    &[],
    "When the agent in use was released, or first seen to be offered, in seconds since 1970. Absent where that is not known.",
);
pub(super) const AGENT_NEWER: Family = family(
    "oscr_agent_newer_offered",
    MetricKind::Gauge,
    &[],
    "1 if the forge offers a newer agent than the one in use, as far as it was asked, else 0.",
);
pub(super) const AGENT_FAILURES: Family = family(
    "oscr_agent_update_failures",
    MetricKind::Gauge,
    &[],
    "How many attempts in a row to fetch a newer agent have failed.",
);
pub(super) const DISK_FREE: Family =
    family("oscr_disk_free_bytes", MetricKind::Gauge, &["place"], "Disk space that a job could use there.");
pub(super) const DISK_LEAST: Family =
    family("oscr_disk_least_bytes", MetricKind::Gauge, &["place"], "Below so much free disk space no job is taken.");
pub(super) const EVICTED: Family = family(
    "oscr_cache_evicted_bytes_total",
    MetricKind::Counter,
    &[],
    "Disk space that was freed in caches above their cap.",
);
pub(super) const LOG_LOST: Family = family(
    "oscr_log_lines_lost_total",
    MetricKind::Counter,
    &[],
    "Lines of the log that were dropped because nobody read standard output, or that could not be written to it.",
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
    GHOST_JOBS,
    JOB_SECONDS,
    JOBS_WITHOUT_HOOK,
    LOCK_WAIT_SECONDS,
    WIPE_SECONDS,
    REMOVAL_SECONDS,
    REGISTRATIONS,
    LEFTOVERS,
    LEFT_IN_DOCKER,
    SET_ASIDE,
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
    LOG_LOST,
];
