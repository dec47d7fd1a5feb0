//! Shared hardware for the jobs of this incarnation: waiting for it, the hooks between holders, letting it go.
//!
//! PID 1 holds the lock, so nothing that a job does or leaves behind can release it, and the kernel does when PID 1 dies.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use tokio::time::{Instant, interval_at, timeout};

use super::children::{Running, Starter};
use crate::agent::hooks::executables;
use crate::agent::interpreter::Interpreters;
use crate::config::{Hardware, LockScope, Places};
use crate::control::{Board, WaitNotice};
use crate::init::SpawnError;
use crate::metrics;
use crate::resource::{AttemptError, Claim, Held, Locks};

/// A job that gets its resource within this time is not told about waiting.
const UNREMARKABLE: Duration = Duration::from_millis(100);
/// How often a job that waits is told about it.
const REMIND: Duration = Duration::from_secs(30);

/// The shared hardware that jobs of this incarnation need.
pub(super) struct Guard {
    hardware: Hardware,
    locks: Locks,
    scope: LockScope,
    starter: Starter,
    hooks: PathBuf,
    interpreters: Interpreters,
    board: Board,
}

/// Why a job cannot have what it needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum HardwareError {
    /// It waited too long.
    #[error("{what} did not become free within {}: {state} (OSCR_LOCK_TIMEOUT)", humantime::format_duration(*after))]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// Who has it.
        state: String,
    },
    /// A hook failed.
    #[error("{0}")]
    Hook(String),
    /// The queue cannot be used.
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    /// The process that waits cannot be started.
    #[error("the process that waits cannot be started: {0}")]
    Waiter(#[from] SpawnError),
    /// Whoever asked is gone.
    #[error("nobody waits for it any more")]
    Abandoned,
}

impl Guard {
    pub(super) fn new(hardware: Hardware, locks: Locks, starter: Starter, places: &Places, board: Board) -> Self {
        let by_agent = if starter.facts.hooks.is_some() { LockScope::Job } else { LockScope::Listener };
        let scope = hardware.scope.unwrap_or(by_agent);
        let (hooks, interpreters) = (places.hooks(), Interpreters::of(places));
        Self { hardware, locks, scope, starter, hooks, interpreters, board }
    }

    /// When the resource is taken.
    pub(super) fn scope(&self) -> LockScope {
        self.scope
    }

    /// How long a holder may listen without a job.
    pub(super) fn idle(&self) -> Duration {
        self.hardware.idle
    }

    /// How long a job may wait.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.hardware.timeout
    }

    /// Waits for the resource, tells `say` what it waits for now and then, and runs the hooks for a new holder. Gives up when
    /// `abandoned` resolves; dropping the future gives up as well.
    pub(super) async fn acquire(
        self: Rc<Self>,
        claim: Claim,
        patience: Option<Duration>,
        mut say: impl FnMut(String),
        abandoned: impl Future<Output = ()>,
    ) -> Result<Held, HardwareError> {
        let waiting = self.board.waits_for(&self.hardware.wanted.to_string());
        let wait = async {
            loop {
                match self.attempt(&claim, &waiting, &mut say).await {
                    Err(HardwareError::Attempt(AttemptError::Again)) => {}
                    other => return other,
                }
            }
        };
        let bounded = async {
            match patience {
                None => wait.await,
                Some(patience) => match timeout(patience, wait).await {
                    Ok(result) => result,
                    Err(_) => Err(HardwareError::TimedOut {
                        what: self.hardware.wanted.to_string(),
                        after: patience,
                        state: self.locks.holders(&self.hardware.wanted),
                    }),
                },
            }
        };
        let held = tokio::select! {
            held = bounded => held?,
            () = abandoned => return Err(HardwareError::Abandoned),
        };
        metrics::lock_waited(waiting.lasted());
        drop(waiting);
        let Claim { who, scope, run_url, .. } = claim;
        held.say(&Claim::now(who, scope, run_url));
        tracing::info!(resource = held.names(), "has the hardware");
        match self.run_hooks("resource-acquired", &held).await {
            Ok(()) => Ok(held),
            Err(why) => {
                self.release(held).await;
                Err(HardwareError::Hook(why))
            }
        }
    }

    async fn attempt(
        &self,
        claim: &Claim,
        waiting: &WaitNotice,
        say: &mut impl FnMut(String),
    ) -> Result<Held, HardwareError> {
        let attempt = self.locks.begin(&self.hardware.wanted, claim)?;
        let (what, setup) = attempt.waiter().map_err(|error| SpawnError::Other("oscr-entry".into(), error))?;
        let running = self.starter.launch(&what, setup)?;
        let mut waiter = Waiter { running, ended: Cell::new(false) };
        let mut reminder = interval_at(Instant::now() + UNREMARKABLE, REMIND);
        let ended = loop {
            tokio::select! {
                ended = waiter.running.ended() => break ended,
                _ = reminder.tick() => {
                    let report = attempt.report();
                    waiting.report(&report);
                    say(report);
                }
            }
        };
        waiter.ended.set(true);
        Ok(attempt.finish(ended)?)
    }

    /// Runs the hooks for the end of a holder, and lets the resource go whatever they do.
    pub(super) async fn release(&self, held: Held) {
        if let Err(why) = self.run_hooks("resource-released", &held).await {
            tracing::error!("{why}");
        }
        tracing::info!(resource = held.names(), "lets the hardware go");
    }

    async fn run_hooks(&self, event: &str, held: &Held) -> Result<(), String> {
        for hook in executables(&self.hooks.join(event)) {
            let shown = PathBuf::from(&hook).display().to_string();
            let mut env = self.starter.env.clone();
            env.push(("OSCR_RESOURCE".into(), held.names().into()));
            let search = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
            let command = self.interpreters.command(hook.as_ref(), search).map_err(|why| why.to_string());
            let (program, arguments) = command.map_err(|why| format!("the hook {shown} cannot be run: {why}"))?;
            let mut running = match self.starter.command(program, arguments, env) {
                Ok(running) => running,
                Err(error) => return Err(format!("the hook {shown} cannot be run: {error}")),
            };
            match timeout(self.hardware.hook_timeout, running.ended()).await {
                Ok(crate::init::Ended::Code(0)) => {}
                Ok(ended) => return Err(format!("the hook {shown} failed ({ended})")),
                Err(_) => {
                    // It leads a session of its own, so this reaches all of it that did not run away.
                    let _ = killpg(running.pid, Signal::SIGKILL);
                    running.ended().await;
                    let bound = humantime::format_duration(self.hardware.hook_timeout);
                    return Err(format!("the hook {shown} took longer than {bound} (OSCR_LOCK_HOOK_TIMEOUT)"));
                }
            }
        }
        Ok(())
    }

    /// Resolves once somebody else waits for something that we hold.
    pub(super) async fn somebody_waits(&self, held: &Held) {
        self.locks.somebody_waits(held).await;
    }
}

/// The process that waits in our place; killed when it is not needed any more.
struct Waiter {
    running: Running,
    ended: Cell<bool>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.ended.get() {
            let _ = kill(self.running.pid, Signal::SIGKILL);
        }
    }
}
