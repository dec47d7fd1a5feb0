//! A listener's withdrawal once it is to be stopped: the forge is asked first, and a job that shows itself is seen through.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::retiring::{Retired, retire};
use super::session::{Parts, Session};
use super::stop::Urgency;
use crate::control::Phase;
use crate::init::Ended;

impl Session<'_> {
    /// Stops the listener if it has no job.
    pub(super) async fn retire(&mut self) -> ControlFlow<Ended> {
        self.retirement.at = None;
        if self.job.over() {
            // The listener is about to end.
            return ControlFlow::Continue(());
        }
        if self.retirement.was_refused() {
            return self.look_for_job().await;
        }
        let Parts { means, registrar, patience, .. } = &mut self.parts;
        // A second signal must get through while the forge is being asked.
        let retired = tokio::select! {
            retired = retire(means, registrar, &mut patience.backoff, self.directory, &mut self.job, &mut self.hearing) => retired,
            () = means.stop.reached(Urgency::Cancel) => return ControlFlow::Continue(()),
        };
        match retired {
            Retired::Working => self.drain(),
            Retired::Assigned => {
                tracing::info!("a job has been assigned: waiting for it");
                self.retirement.refused();
                self.job.expect();
                self.parts.means.board.enter(Phase::Draining);
            }
            Retired::Interrupted => {
                self.interrupted = true;
                return self.interrupt().await;
            }
        }
        ControlFlow::Continue(())
    }

    /// A job runs, and none will follow.
    fn drain(&mut self) {
        tracing::info!("a job is running: waiting for it to finish");
        if let Some(finish) = self.parts.means.provider.agent().stop.finish {
            self.listener.signal(finish);
        }
        // Its beginning may still be to be heard, after all that was said before it.
        if self.job.runs() {
            self.job_runs();
        }
        self.parts.means.board.enter(Phase::Draining);
    }

    /// The forge said that there is a job, and does not say it better by being asked again. Its listener shows one, or has none:
    /// a registration that is busy with nothing cannot be let go now, and gets no other job for long.
    async fn look_for_job(&mut self) -> ControlFlow<Ended> {
        if self.job.runs_after_all(&mut self.hearing) {
            self.drain();
            return ControlFlow::Continue(());
        }
        match self.watchdog.acquires_until() {
            Some(until) if until > Instant::now() => {
                self.retirement.wait_until(until);
                ControlFlow::Continue(())
            }
            _ => {
                tracing::warn!("the forge says that a job was assigned, but the listener shows none: giving it up");
                self.ghosts.vanished();
                self.interrupted = true;
                self.interrupt().await
            }
        }
    }
}
