//! Shared hardware for the jobs of this incarnation: waiting for it, the hooks between holders, letting it go.
//!
//! PID 1 holds the lock, so nothing that a job does or leaves behind can release it, and the kernel does when PID 1 dies.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use tokio::time::{Instant, interval_at, sleep, sleep_until};

use super::children::{Running, Starter};
use crate::agent::hook_files;
use crate::agent::interpreter::Interpreters;
use crate::config::{Hardware, LockScope, Places};
use crate::control::Board;
use crate::init::{Ended, SpawnError};
use crate::resource::{Aside, AttemptError, Claim, Held, Locks, Missing, Shelf, Wanted};

/// A job that gets its resource within this time is not told about waiting.
const UNREMARKABLE: Duration = Duration::from_millis(100);
/// How often a job that waits is told about it.
const REMIND: Duration = Duration::from_secs(30);
/// How often it is looked whether a new place in a queue is drawn, which takes a few milliseconds.
const LOOK_AT_PLACE: Duration = Duration::from_millis(5);
/// How often somebody who waits looks whether something that was set aside is back.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// The event of the hooks for a new holder.
const ACQUIRED: &str = "resource-acquired";
/// The most lines of a hook that its job is told.
const LINES: usize = 1000;

/// The shared hardware that jobs of this incarnation need.
pub(super) struct Guard {
    pub(super) hardware: Hardware,
    pub(super) locks: Locks,
    pub(super) scope: LockScope,
    starter: Starter,
    hooks: PathBuf,
    interpreters: Interpreters,
    pub(super) board: Board,
    /// What a wish has got while the hooks for a new holder run.
    preparing: RefCell<Option<Held>>,
    /// What is set aside of it.
    pub(super) shelf: Shelf,
}

/// What whoever waits for hardware is told.
pub(super) enum News {
    /// Who has it, and how many come first.
    Waits(String),
    /// It is had, and made ready from now on.
    Has,
    /// A line of a hook that makes it ready.
    Said(String),
}

/// Why a job cannot have what it needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum HardwareError {
    /// It waited too long.
    #[error("{} did not become free within {}: {} (OSCR_LOCK_TIMEOUT)", missing.what, humantime::format_duration(*after), missing.holders)]
    TimedOut {
        /// What was not to be had, and who has it.
        missing: Missing,
        /// For how long it was waited for.
        after: Duration,
    },
    /// It is set aside, and did not work again in time.
    #[error("{aside}; it did not work again within {}", humantime::format_duration(*after))]
    Aside {
        /// What is set aside, and why.
        aside: Box<Aside>,
        /// For how long it was waited for.
        after: Duration,
    },
    /// A hook failed.
    #[error("{0}")]
    Hook(String),
    /// The queue cannot be used.
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    /// The thread that waits cannot be started.
    #[error(transparent)]
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
        let shelf = Shelf::new(locks.clone(), &hardware.wanted, &contents(&hooks.join(ACQUIRED)), hardware.tell);
        board.set_shelf(shelf.clone());
        Self { hardware, locks, scope, starter, hooks, interpreters, board, preparing: RefCell::default(), shelf }
    }

    /// When the resource is taken.
    pub(super) fn scope(&self) -> LockScope {
        self.scope
    }

    /// How long a holder may listen without a job.
    pub(super) fn idle(&self) -> Duration {
        self.hardware.idle
    }

    /// Where it is shown what goes on.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// What a wish that nobody has any more had got, if it was still being made ready. It is to be released.
    pub(super) fn unprepared(&self) -> Option<Held> {
        self.preparing.take()
    }

    /// How long a job may wait.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.hardware.timeout
    }

    /// Waits for the resource, tells `say` how that goes, and runs the hooks for a new holder. Gives up when `abandoned` resolves;
    /// dropping the future gives up as well. Whoever gives up looks whether it was [`Self::unprepared`].
    pub(super) async fn acquire(
        self: Rc<Self>,
        claim: Claim,
        patience: Option<Duration>,
        mut say: impl FnMut(News),
        abandoned: impl Future<Output = ()>,
    ) -> Result<Held, HardwareError> {
        tokio::select! {
            result = self.obtain(&claim, patience, &mut say) => result,
            () = abandoned => Err(HardwareError::Abandoned),
        }
    }

    /// Runs the hooks for a new holder.
    pub(super) async fn prepare(
        &self,
        held: Held,
        claim: &Claim,
        say: &mut impl FnMut(News),
    ) -> Result<Held, HardwareError> {
        let names = held.names();
        self.preparing.replace(Some(held));
        let mut lines = 0;
        let tell = |name: &str, line: &str| {
            lines += 1;
            if lines <= LINES {
                say(News::Said(format!("{name}: {line}")));
            } else if lines == LINES + 1 {
                say(News::Said(format!("{name}: more of it is in the runner's log")));
            }
        };
        let result = self.run_hooks(ACQUIRED, &names, tell).await;
        // Only who gives up takes it, and then nothing comes back here.
        let Some(held) = self.unprepared() else { return Err(HardwareError::Abandoned) };
        match result {
            Ok(()) => {
                self.hooks_worked(&held);
                Ok(held)
            }
            Err(why) => {
                self.hooks_failed(&held, claim, &why);
                self.release(held).await;
                Err(HardwareError::Hook(why))
            }
        }
    }

    /// Waits for this, and tells `tell` now and then how that goes. A `turn` is given up once there is a place in the queue, unless
    /// what is waited for is to be tried.
    pub(super) async fn attempt(
        &self,
        wanted: &Wanted,
        claim: &Claim,
        mut over: Option<(Instant, Duration)>,
        turn: &mut Option<Held>,
        mut tell: impl FnMut(String),
    ) -> Result<Held, HardwareError> {
        let attempt = self.locks.begin(wanted, claim)?;
        let mut waiting = attempt.wait(false, || {})?;
        let mut reminder = interval_at(Instant::now() + UNREMARKABLE, REMIND);
        let mut look = LOOK_AT_PLACE;
        let outcome = loop {
            tokio::select! {
                outcome = waiting.over() => break outcome,
                _ = reminder.tick() => {
                    if let Some(Missing { report, .. }) = attempt.missing(self.hardware.tell) {
                        tell(report);
                    }
                }
                () = sleep(look), if turn.is_some() => {
                    // It may come back while it is waited for.
                    look = if self.shelf.wanted().is_none() { LOOK } else { LOOK_AT_PLACE };
                    if look == LOOK_AT_PLACE && attempt.drawn() {
                        turn.take();
                    }
                }
                after = reached(over) => match attempt.missing(self.hardware.tell) {
                    Some(missing) => return Err(HardwareError::TimedOut { missing, after }),
                    // It has all that it wants, and is about to say so.
                    None => over = None,
                },
            }
        };
        Ok(attempt.finish(outcome)?)
    }

    /// Writes down who has it, for others to read.
    pub(super) fn record(&self, held: &Held, claim: &Claim) {
        if let Some(words) = held.say(claim, self.hardware.tell) {
            tracing::warn!("{words}");
        }
    }

    /// Runs the hooks for the end of a holder, and lets the resource go whatever they do.
    pub(super) async fn release(&self, held: Held) {
        if let Err(why) = self.run_hooks("resource-released", &held.names(), |_, _| {}).await {
            tracing::error!("{why}");
        }
        tracing::info!(resource = held.names(), "lets the hardware go");
    }

    /// Runs the hooks for an event in turn, and tells `tell` each line of them. Why the first that fails did, with its last line.
    async fn run_hooks(&self, event: &str, names: &str, mut tell: impl FnMut(&str, &str)) -> Result<(), String> {
        for hook in hook_files::hooks(&self.hooks.join(event)).map_err(|unfit| unfit.to_string())? {
            let shown = hook.display();
            let name = hook.file_name().unwrap_or_default().to_string_lossy();
            let mut env = self.starter.env.clone();
            env.push(("OSCR_RESOURCE".into(), names.into()));
            let search = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
            let command = self.interpreters.command(&hook, search).map_err(|why| why.to_string());
            let (program, arguments) = command.map_err(|why| format!("the hook {shown} cannot be run: {why}"))?;
            let mut helper = match self.starter.command(program, arguments, env) {
                Ok(running) => Helper::new(running),
                Err(error) => return Err(format!("the hook {shown} cannot be run: {error}")),
            };
            let mut lines = helper.running.tail.follow();
            let until = Instant::now() + self.hardware.hook_timeout;
            let ended = loop {
                tokio::select! {
                    ended = helper.running.ended() => break Some(ended),
                    Some(line) = lines.recv() => tell(&name, &line),
                    () = sleep_until(until) => break None,
                }
            };
            if ended.is_none() {
                helper.kill();
                helper.running.ended().await;
            }
            helper.ended.set(true);
            let fails = ended != Some(Ended::Code(0));
            // Something that a hook left running may keep its output open; the next holder does not wait for that.
            let last = if fails || event == ACQUIRED { helper.running.tail.last_words().await.pop() } else { None };
            while let Ok(line) = lines.try_recv() {
                tell(&name, &line);
            }
            let saying = last.map(|line| format!(": {line}")).unwrap_or_default();
            match ended {
                Some(Ended::Code(0)) => {}
                Some(ended) => return Err(format!("the hook {shown} failed ({ended}){saying}")),
                None => {
                    let bound = humantime::format_duration(self.hardware.hook_timeout);
                    return Err(format!("the hook {shown} took longer than {bound} (OSCR_LOCK_HOOK_TIMEOUT){saying}"));
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

/// Resolves at the end of a wait that is bounded, with its bound.
pub(super) async fn reached(over: Option<(Instant, Duration)>) -> Duration {
    match over {
        Some((at, bound)) => {
            sleep_until(at).await;
            bound
        }
        None => std::future::pending().await,
    }
}

/// The names and contents of the hooks in a directory.
fn contents(directory: &Path) -> Vec<String> {
    let hooks = hook_files::hooks(directory).unwrap_or_default().into_iter();
    let both = |hook: PathBuf| {
        let content = std::fs::read(&hook).unwrap_or_default();
        let name = hook.file_name().unwrap_or_default().to_string_lossy().into_owned();
        [name, String::from_utf8_lossy(&content).into_owned()]
    };
    hooks.flat_map(both).collect()
}

/// The process of a hook; killed when it is not needed any more.
struct Helper {
    running: Running,
    ended: Cell<bool>,
}

impl Helper {
    fn new(running: Running) -> Self {
        Self { running, ended: Cell::new(false) }
    }

    /// It leads a session of its own, so this reaches all of it that did not run away.
    fn kill(&self) {
        let _ = kill(self.running.pid, Signal::SIGKILL);
        let _ = killpg(self.running.pid, Signal::SIGKILL);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.ended.get() {
            self.kill();
        }
    }
}
