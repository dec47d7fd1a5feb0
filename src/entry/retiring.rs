//! Stopping an idle listener without losing a job.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::ending::Why;
use super::hearing::Hearing;
use super::job::{JobWatch, LOOK_EVERY};
use super::means::Means;
use super::registrar::Registrar;
use crate::control::Phase;
use crate::provider::{Fault, Released, Standing};

/// How long a job may still turn up after the forge let an idle registration go: the assignment may have crossed.
const CROSSING: Duration = Duration::from_secs(3);
/// How long a listener has to show something of a job once the forge says that there is one.
const SHOW: Duration = Duration::from_secs(5);
/// How long a forge may take to say whether a registration that stays has a job.
const ANSWER: Duration = Duration::from_secs(5);

/// That a listener is to be stopped as soon as it has no job.
#[derive(Debug, Default)]
pub(super) struct Retirement {
    /// The first reason; `None` while the listener may go on.
    pub(super) why: Option<Why>,
    /// When it is tried next.
    pub(super) at: Option<Instant>,
    /// Whether the forge said that a job was assigned. It is not asked again.
    refused: bool,
}

impl Retirement {
    /// Begins it; the first reason stays.
    pub(super) fn begin(&mut self, why: Why) {
        if self.why.is_none() {
            self.why = Some(why);
            self.at = Some(Instant::now());
        }
    }

    /// Whether it has begun.
    pub(super) fn begun(&self) -> bool {
        self.why.is_some()
    }

    /// The forge says that a job was assigned: its listener is looked at again once it had time to show it.
    pub(super) fn refused(&mut self) {
        self.refused = true;
        self.at = Some(Instant::now() + SHOW);
    }

    /// Whether the forge said so.
    pub(super) fn was_refused(&self) -> bool {
        self.refused
    }

    /// The listener passed a job over. The forge may give it another one.
    pub(super) fn passed_over(&mut self) {
        if self.refused {
            self.at = Some(Instant::now() + SHOW);
        }
    }

    /// It is looked at again at this moment.
    pub(super) fn wait_until(&mut self, moment: Instant) {
        self.at = Some(moment);
    }
}

/// What became of an idle listener that should stop.
pub(super) enum Retired {
    /// It was interrupted and will end.
    Interrupted,
    /// A job runs.
    Working,
    /// The forge says that a job was assigned; nothing shows it yet.
    Assigned,
}

/// Stops an idle listener without losing a job: the forge is asked to let the registration go first, because only it
/// knows whether it has just given out a job.
pub(super) async fn retire(
    means: &Means,
    registrar: &mut Registrar,
    backoff: &mut Backoff,
    directory: &Path,
    job: &mut JobWatch,
    hearing: &mut Hearing,
) -> Retired {
    if job.runs_after_all(hearing) {
        return Retired::Working;
    }
    if means.common.persistent {
        // Its registration stays, so no removal can be refused: only the answer's way back is left for a job to be lost in. One
        // that the listener has not taken by then waits at the forge for the next incarnation.
        let standing = match registrar.ask() {
            Some(asking) => timeout(ANSWER, asking).await.ok().and_then(Result::ok),
            None => None,
        };
        means.provider.rest();
        return match (job.runs_after_all(hearing), standing) {
            (true, _) => Retired::Working,
            (false, Some(Standing::Busy)) => Retired::Assigned,
            (false, _) => Retired::Interrupted,
        };
    }
    means.board.enter(Phase::Unregistering);
    let given_up = Instant::now() + means.common.kill_timeout;
    loop {
        match registrar.release_current(directory, false).await {
            Ok(Released::Gone) => break,
            Ok(Released::Busy) if job.runs_after_all(hearing) => return Retired::Working,
            Ok(Released::Busy) => return Retired::Assigned,
            Err(fault) => {
                tracing::warn!("the registration cannot be removed yet: {fault}");
                if job.runs_after_all(hearing) {
                    return Retired::Working;
                }
                let wait = match fault {
                    Fault::Denied { .. } => return Retired::Interrupted,
                    Fault::Limited { wait, .. } => wait,
                    _ => backoff.after_fault().min(Duration::from_secs(5)),
                };
                if Instant::now() + wait >= given_up {
                    return Retired::Interrupted;
                }
                sleep(wait).await;
            }
        }
    }
    // Let go, but a job may have been assigned a moment before.
    let crossed = Instant::now() + CROSSING;
    while Instant::now() < crossed && job.listener_lives() {
        if job.runs_after_all(hearing) {
            return Retired::Working;
        }
        sleep(LOOK_EVERY).await;
    }
    Retired::Interrupted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_each_job_that_is_passed_over_gives_the_next_one_a_moment() {
        let mut retirement = Retirement::default();
        retirement.passed_over();
        assert_eq!((retirement.at, retirement.was_refused()), (None, false));
        retirement.begin(Why::Idle);
        retirement.refused();
        assert_eq!(retirement.at, Some(Instant::now() + SHOW));
        tokio::time::advance(SHOW / 2).await;
        retirement.passed_over();
        assert_eq!(retirement.at, Some(Instant::now() + SHOW));
        assert!(retirement.was_refused());
    }
}
