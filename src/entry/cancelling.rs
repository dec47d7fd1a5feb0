//! Jobs that are ended for what they are or do: over their time, given up by the forge, or stopping what runs them.

use std::ops::ControlFlow;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::ended_by::EndedBy;
use super::session::Session;
use super::stopped::{AGAIN, Remedy, is_stopped};
use super::teardown::end_processes;
use crate::init::Ended;
use crate::init::leftovers::signal_all;

impl Session<'_> {
    /// Cancels a job that is over its time.
    pub(super) async fn cancel_overdue(&mut self) -> ControlFlow<Ended> {
        tracing::warn!("cancelling the running job: it has run for longer than OSCR_JOB_MAX allows");
        self.ends_job(EndedBy::JobMaximum);
        self.end_wait("OSCR_JOB_MAX was over").await;
        self.interrupt().await
    }

    /// Ends a job that the forge has believed in no more for as long as it may.
    pub(super) async fn forge_gave_up(&mut self, limit: Duration) -> ControlFlow<Ended> {
        tracing::warn!(
            "ending the running job: for {} the forge has called its runner offline and not busy \
             (OSCR_JOB_OFFLINE_TIMEOUT)",
            humantime::format_duration(limit)
        );
        self.ends_job(EndedBy::Forge);
        self.end_wait("the forge had given it up").await;
        self.interrupt().await
    }

    /// Lets a stopped worker or listener go on, and ends a job that stops them again.
    pub(super) async fn look_at_stopped(&mut self) -> ControlFlow<Ended> {
        let (worker, listener) = (self.job.worker_alive(), self.listener.pid);
        let stopped = [worker.is_some_and(is_stopped), is_stopped(listener)];
        let remedies = self.stopped.look(stopped);
        for (what, process, remedy) in [("worker", worker, remedies[0]), ("listener", Some(listener), remedies[1])] {
            if let (Some(process), Remedy::GoOn) = (process, remedy) {
                tracing::warn!("the job's {what} was stopped (SIGSTOP): letting it go on");
                let _ = kill(process, Signal::SIGCONT);
            }
        }
        if !remedies.contains(&Remedy::End) {
            return ControlFlow::Continue(());
        }
        if worker.is_some() {
            tracing::error!(
                "ending the job: its worker or listener was stopped again within {} of being let go on",
                humantime::format_duration(AGAIN)
            );
            self.ends_job(EndedBy::Stopped);
            // Whoever stops them goes with the worker. The listener is left to tell the forge that the job failed, and must go on
            // to reap what is killed.
            signal_all(Signal::SIGKILL as i32, &[listener]);
            let _ = kill(listener, Signal::SIGCONT);
            end_processes(&[listener]).await;
        } else {
            tracing::error!("the listener was stopped again, and no worker is left: killing it");
            if self.job.runs() {
                self.ends_job(EndedBy::Stopped);
            }
            self.made_to_end = true;
            self.listener.signal(Signal::SIGKILL);
            return ControlFlow::Break(self.listener.ended().await);
        }
        ControlFlow::Continue(())
    }
}
