//! Ending a listener: without losing a job if it is idle, and with all that it started.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::time::{Instant, sleep, timeout};

use super::children::Running;
use super::incarnation::Incarnation;
use super::job::{JobWatch, LOOK_EVERY};
use crate::agent::worker::{self, Worker};
use crate::control::Phase;
use crate::init::Ended;
use crate::init::leftovers::{descendants, signal_all};
use crate::init::process::Stat;
use crate::provider::{Fault, Released, Standing};

/// How long a job may still turn up after the forge let an idle registration go: the assignment may have crossed.
const CROSSING: Duration = Duration::from_secs(3);
/// How long after a refusal for being busy the release is tried again, if no worker has appeared.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long a forge may take to say whether a registration that stays has a job.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the kernel gets to end what was killed.
const TEARDOWN: Duration = Duration::from_secs(10);

/// Why an idle listener is stopped.
#[derive(Debug)]
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

/// That a listener is to be stopped as soon as it has no job.
#[derive(Debug, Default)]
pub(super) struct Retirement {
    /// The first reason; `None` while the listener may go on.
    pub(super) why: Option<Why>,
    /// When it is tried next.
    pub(super) at: Option<Instant>,
    /// Since when the forge has said that a job was assigned, without a worker.
    assigned: Option<Instant>,
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

    /// The forge says that a job was assigned. Tries again later, unless no worker has come within `patience`; `false` then.
    pub(super) fn wait_for_worker(&mut self, patience: Duration) -> bool {
        let since = *self.assigned.get_or_insert_with(Instant::now);
        self.at = Some(Instant::now() + ASK_AGAIN.min(patience));
        since.elapsed() < patience
    }
}

/// What became of an idle listener that should stop.
pub(super) enum Retired {
    /// It was interrupted and will end.
    Interrupted,
    /// A job runs.
    Working(Worker),
    /// The forge says that a job was assigned; its worker is not there yet.
    Assigned,
}

impl Incarnation {
    /// Stops an idle listener without losing a job: the forge is asked to let the registration go first, because only it
    /// knows whether it has just given out a job.
    pub(super) async fn retire(&mut self, root: &Path, listener: &Running, watch: &mut JobWatch) -> Retired {
        let worker_name = self.provider.agent().worker;
        let look = || worker::find(listener.pid, worker_name).ok().flatten();
        if let Some(worker) = watch.worker.take().or_else(look) {
            return Retired::Working(worker);
        }
        if self.common.persistent {
            // Its registration stays, so no removal can be refused: only the answer's way back is left for a job to be lost in. One
            // that the listener has not taken by then waits at the forge for the next incarnation.
            let standing = match self.ask_about_registration() {
                Some(asking) => timeout(ANSWER, asking).await.ok().and_then(Result::ok),
                None => None,
            };
            self.provider.rest();
            return match (look(), standing) {
                (Some(worker), _) => Retired::Working(worker),
                (None, Some(Standing::Busy)) => Retired::Assigned,
                (None, _) => Retired::Interrupted,
            };
        }
        self.board.enter(Phase::Unregistering);
        let given_up = Instant::now() + self.common.kill_timeout;
        loop {
            match self.release_current(root, false).await {
                Ok(Released::Gone) => break,
                Ok(Released::Busy) => return look().map_or(Retired::Assigned, Retired::Working),
                Err(fault) => {
                    tracing::warn!("the registration cannot be removed yet: {fault}");
                    if let Some(worker) = look() {
                        return Retired::Working(worker);
                    }
                    let wait = match fault {
                        Fault::Denied { .. } => return Retired::Interrupted,
                        Fault::Limited { wait, .. } => wait,
                        _ => self.backoff.after_fault().min(Duration::from_secs(5)),
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
        while Instant::now() < crossed && listener_lives(listener) {
            if let Some(worker) = look() {
                return Retired::Working(worker);
            }
            sleep(LOOK_EVERY).await;
        }
        Retired::Interrupted
    }

    /// Interrupts a process that must end, and kills it if it does not.
    pub(super) async fn interrupt(&self, process: &mut Running) -> Ended {
        process.signal(self.provider.agent().stop.abort);
        match timeout(self.common.kill_timeout, process.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(
                    "the agent did not end within {} of being interrupted: killing it",
                    humantime::format_duration(self.common.kill_timeout)
                );
                process.signal(Signal::SIGKILL);
                process.ended().await
            }
        }
    }

    /// Ends everything that descends from us but for `spared`: what a job started does not outlive it.
    pub(super) async fn end_processes(&self, spared: &[Pid]) {
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
}

fn listener_lives(listener: &Running) -> bool {
    Stat::read(listener.pid).is_some_and(|stat| stat.lives())
}
