//! What clients of the control socket ask for: a stop, or an answer to a job's hook.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::stop::Stop;
use crate::control::server::{Hooked, Order};
use crate::control::{Board, HookAnswer, HookEvent};

/// Turns it into requests to stop and jobs that begin.
pub(super) async fn obey(
    mut orders: UnboundedReceiver<Order>,
    board: Board,
    stop: Stop,
    jobs: UnboundedSender<Hooked>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Drain { exit } => {
                tracing::info!("asked to drain");
                stop.drain(exit);
            }
            Order::Hook(hooked) if hooked.failed => drop(jobs.send(*hooked)),
            Order::Hook(hooked) => {
                let job = hooked.job.clone();
                match hooked.event {
                    HookEvent::JobStarted => {
                        let (repository, run_url) = (job.repository.as_deref(), job.run_url.as_deref());
                        tracing::info!(job = job.name.as_deref(), repository, run_url, "a job begins");
                        board.describe_job(job);
                        let _ = jobs.send(*hooked);
                    }
                    HookEvent::JobCompleted => {
                        tracing::info!(job = job.name.as_deref(), "the job's steps are over");
                        let _ = hooked.answers.send(HookAnswer::Go { resource: None });
                    }
                }
            }
        }
    }
}
