//! What the end of a listener means, by what went before it.

use crate::init::Ended;
use crate::provider::{Provider, Reading};

/// How the time with one listener ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A job ran and is over.
    JobDone,
    /// A job ran, and the listener died under it.
    JobBroken(String),
    /// It was stopped.
    Stopped(Why),
    /// No job ran, and another try may do.
    Again(String),
    /// No job ran, and the forge does not have the registration any more.
    Lost(String),
    /// The forge wants another version of the agent.
    Outdated(String),
    /// The agent cannot work here.
    Fatal(String),
}

/// Why a listener is stopped. For all but a request to stop it must have no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody asked us to stop.
    Asked,
    /// Somebody else waits for the hardware that it holds.
    Yield,
    /// The disk is full.
    Full,
    /// What an earlier job left cannot be removed.
    Unclean,
    /// There is a newer agent to run.
    Update,
    /// It was idle for as long as it may be.
    Idle,
    /// The watchdog found that it can get no job.
    Replace(String),
}

/// What went before a listener's end.
#[derive(Debug)]
pub(super) struct Past {
    /// Why it was to be stopped, if it was.
    pub(super) why: Option<Why>,
    /// Whether it was interrupted because it was idle, or its job had to be cancelled.
    pub(super) interrupted: bool,
    /// Whether we are asked to stop.
    pub(super) asked: bool,
    /// Whether a job was announced.
    pub(super) job_seen: bool,
    /// Whether a job ran for certain.
    pub(super) job_ran: bool,
}

impl Ending {
    /// Tells from what went before, and from the listener's own exit code where that leaves it open.
    pub(super) fn of(past: Past, ended: Ended, provider: &dyn Provider) -> Self {
        let Past { why, interrupted, asked, job_seen, job_ran } = past;
        match why {
            _ if interrupted && asked => return Self::Stopped(Why::Asked),
            Some(why @ (Why::Yield | Why::Full | Why::Unclean | Why::Update)) if interrupted && !job_seen => {
                return Self::Stopped(why);
            }
            // Nobody asked for it, and no job ran after all.
            Some(why @ (Why::Idle | Why::Replace(_))) if !job_ran && !asked => return Self::Stopped(why),
            _ => {}
        }
        match provider.read_exit(ended, job_seen) {
            Reading::Done => Self::JobDone,
            Reading::Retry(why) | Reading::Lost(why) | Reading::Outdated(why) | Reading::Fatal(why) if job_seen => {
                Self::JobBroken(why)
            }
            Reading::Lost(why) => Self::Lost(why),
            Reading::Retry(why) => Self::Again(why),
            Reading::Outdated(why) => Self::Outdated(why),
            Reading::Fatal(why) => Self::Fatal(why),
        }
    }

    /// Whether what is kept of the registration is worth nothing any more.
    pub(super) fn loses_registration(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Stopped(Why::Replace(_)))
    }

    /// Whether even a registration that is meant to stay is let go.
    pub(super) fn gives_registration_up(&self) -> bool {
        self.loses_registration() || matches!(self, Self::Again(_) | Self::Outdated(_) | Self::Fatal(_))
    }

    /// Whether it speaks of trouble, when it comes soon after the start and nobody wanted it.
    pub(super) fn is_trouble(&self) -> bool {
        matches!(self, Self::Again(_) | Self::Lost(_) | Self::Fatal(_))
    }
}
