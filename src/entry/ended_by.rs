//! Why a job ended before its steps were over.

/// Who or what ended it. Its result is another matter: a cancelled job may have failed, or succeeded in its last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// A second request to stop.
    Signal,
    /// The first one, and `OSCR_STOP_TIMEOUT` was over.
    StopTimeout,
    /// It ran for longer than `OSCR_JOB_MAX`.
    JobMaximum,
    /// The policy speaks against it.
    Policy,
    /// It could not have its hardware.
    Lock,
    /// A hook around it failed, or was killed while it waited.
    Hook,
    /// It stopped its worker or its listener, again and again.
    Stopped,
    /// A person or the forge cancelled it, or gave it up.
    Forge,
}

impl EndedBy {
    /// Its name in the job's summary.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::StopTimeout => "stop-timeout",
            Self::JobMaximum => "job-maximum",
            Self::Policy => "policy",
            Self::Lock => "lock",
            Self::Hook => "hook",
            Self::Stopped => "stopped",
            Self::Forge => "forge",
        }
    }
}
