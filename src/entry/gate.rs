//! What a job passes before it may run: hooks that ask for it, and the shared hardware that it may need.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

use super::hardware::{Guard, HardwareError, News};
use super::means::Means;
use super::patience::Patience;
use super::state::StateFile;
use super::stop::Urgency;
use crate::config::LockScope;
use crate::config::name::hostname;
use crate::control::server::Hooked;
use crate::control::{Job, Phase};
use crate::resource::{Claim, Held};

/// Who lets jobs pass.
pub(super) struct Gate {
    means: Rc<Means>,
    /// The shared hardware that jobs need, if any.
    pub(super) guard: Option<Rc<Guard>>,
    /// What of it is held.
    pub(super) held: Option<Held>,
    /// Hooks before a job, which wait for an answer.
    pub(super) hooks: UnboundedReceiver<Hooked>,
}

impl Gate {
    pub(super) fn new(means: Rc<Means>, guard: Option<Rc<Guard>>, hooks: UnboundedReceiver<Hooked>) -> Self {
        Self { means, guard, held: None, hooks }
    }

    /// For a scope of `listener`: has the hardware there, however long it takes. `false` when asked to stop before.
    pub(super) async fn before_listening(&mut self, patience: &mut Patience, state: &mut StateFile) -> bool {
        let Some(guard) = self.guard.clone().filter(|guard| guard.scope() == LockScope::Listener) else {
            return true;
        };
        let Means { board, stop, .. } = &*self.means;
        loop {
            board.enter(Phase::Waiting);
            let claim = self.claim(String::new(), &Job::default());
            let say = |news| match news {
                News::Waits(report) => tracing::info!("{report}"),
                News::Has => board.enter(Phase::Starting),
                News::Said(_) => {}
            };
            let acquired =
                Rc::clone(&guard).acquire(claim, None, say, async move { stop.reached(Urgency::Finish).await });
            match acquired.await {
                Ok(held) => {
                    board.set_resource(Some(held.names()));
                    self.held = Some(held);
                    return true;
                }
                Err(HardwareError::Abandoned) => {
                    if let Some(held) = guard.unprepared() {
                        guard.release(held).await;
                    }
                    return false;
                }
                Err(error) => {
                    let wait = patience.backoff.after_fault();
                    patience.wait_out(state, Phase::BackingOff, &error.to_string(), wait).await;
                    if stop.urgency() > Urgency::None {
                        return false;
                    }
                }
            }
        }
    }

    /// Whom to call the holder when somebody asks.
    pub(super) fn claim(&self, who: String, job: &Job) -> Claim {
        let provider = &self.means.provider;
        // One whose configuration was given has no name that is known here.
        let who = if who.is_empty() { format!("a runner in {}", hostname()) } else { who };
        let of_job = job.repository.as_deref().and_then(|repository| repository.split_once('/'));
        Claim {
            scope: Some(provider.scope()),
            owner: of_job.map(|(owner, _)| owner.to_owned()).or_else(|| provider.owner()),
            repository: job.repository.clone(),
            run_url: job.run_url.clone(),
            job: job.name.clone(),
            ..Claim::now(who)
        }
    }

    /// What is held may have been taken before there was a runner or a job. Writes down who has it now, for others to read: the
    /// runner `who`, and its job as it was described first.
    pub(super) fn record(&self, who: String) {
        if let (Some(guard), Some(held)) = (&self.guard, &self.held) {
            let job = self.means.board.status().job.unwrap_or_default();
            guard.record(held, &self.claim(who, &job));
        }
    }

    /// Lets the hardware go, if any is held. What could use it must be dead by now.
    pub(super) async fn release(&mut self) {
        if let (Some(guard), Some(held)) = (&self.guard, self.held.take()) {
            guard.release(held).await;
            self.means.board.set_resource(None);
        }
    }
}

/// When an idle holder of hardware must make room, in the scope of `listener`.
pub(super) struct Yielding {
    idle: Option<Duration>,
    idle_until: Option<Instant>,
}

impl Yielding {
    /// For a listener that begins with what is held now.
    pub(super) fn of(gate: &Gate) -> Self {
        let guard = gate.guard.as_ref().filter(|_| gate.held.is_some());
        Self { idle: guard.map(|guard| guard.idle()), idle_until: None }
    }

    /// The listener listens from now on.
    pub(super) fn begin(&mut self) {
        self.idle_until = self.idle_until.or_else(|| self.idle.map(|idle| Instant::now() + idle));
    }

    /// Resolves once the time is over and somebody waits.
    pub(super) async fn due(&self, guard: Option<&Rc<Guard>>, held: Option<&Held>) {
        match (self.idle_until, guard, held) {
            (Some(until), Some(guard), Some(held)) => {
                sleep_until(until).await;
                guard.somebody_waits(held).await;
            }
            _ => std::future::pending().await,
        }
    }
}
