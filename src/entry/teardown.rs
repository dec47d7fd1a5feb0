//! Ending processes: one that is asked first, and all that a job left running.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::time::{Instant, sleep, timeout};

use super::children::Running;
use super::means::Means;
use super::stopped::is_stopped;
use crate::init::Ended;
use crate::init::leftovers::{descendants, signal_all};

/// How long the kernel gets to end what was killed.
const TEARDOWN: Duration = Duration::from_secs(10);

/// Interrupts a process of the agent that must end, and kills it if it does not.
pub(super) async fn interrupt(means: &Means, process: &mut Running) -> Ended {
    process.signal(means.provider.agent().stop.abort);
    // One that its job has stopped would hear of it never.
    if is_stopped(process.pid) {
        process.signal(Signal::SIGCONT);
    }
    match timeout(means.common.kill_timeout, process.ended()).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!(
                "the agent did not end within {} of being interrupted: killing it",
                humantime::format_duration(means.common.kill_timeout)
            );
            process.signal(Signal::SIGKILL);
            process.ended().await
        }
    }
}

/// Ends everything that descends from us but for `spared`: what a job started does not outlive it.
pub(super) async fn end_processes(spared: &[Pid]) {
    let until = Instant::now() + TEARDOWN;
    let left = descendants(spared).len();
    if left > 0 {
        tracing::info!(processes = left, "ending what the job left running");
    }
    while !descendants(spared).is_empty() {
        if Instant::now() >= until {
            tracing::error!("{} processes cannot be killed", descendants(spared).len());
            return;
        }
        // Again each time: a process may have been forked between the look and the signal.
        signal_all(Signal::SIGKILL as i32, spared);
        sleep(Duration::from_millis(10)).await;
    }
}
