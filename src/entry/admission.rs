//! A job's admission: whether it may run at all, and the wait for the hardware that it needs.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout};

use super::gate::Gate;
use super::hardware::{Guard, HardwareError, News};
use crate::control::HookAnswer;
use crate::control::server::Hooked;
use crate::policy::{Denial, Policy, ReadOrigin};
use crate::resource::{Claim, Held};

/// How long a hook may take to tell its job's log that the job has failed.
const TELL: Duration = Duration::from_secs(2);

/// A job's wish for hardware: the wait, and where its hook hears of it.
struct Wish {
    wait: Pin<Box<dyn Future<Output = Result<Held, HardwareError>>>>,
    answers: UnboundedSender<HookAnswer>,
    told: Rc<Notify>,
    since: Instant,
}

impl Wish {
    /// Joins the queue for a hook that asks.
    fn new(guard: Rc<Guard>, claim: Claim, hooked: Hooked) -> Self {
        let answers = hooked.answers.clone();
        let (to_say, gone) = (answers.clone(), answers.clone());
        let patience = guard.patience();
        let board = guard.board().clone();
        let say = move |news| {
            let why = match news {
                News::Waits(report) => {
                    tracing::info!("the job is {report}");
                    board.waits_again();
                    report
                }
                News::Has => return board.waited(),
                News::Said(line) => line,
            };
            let _ = to_say.send(HookAnswer::Wait { why });
        };
        Self {
            wait: Box::pin(guard.acquire(claim, patience, say, async move { gone.closed().await })),
            answers,
            told: hooked.told,
            since: Instant::now(),
        }
    }
}

/// Why a hook's job is not admitted.
pub(super) enum Objection {
    /// It is not the hook of our job.
    Stranger,
    /// The policy speaks against the job.
    Denied(Denial),
}

/// How far a listener's job has come.
#[derive(Default)]
pub(super) struct Admission {
    /// Whether the policy has let it pass.
    judged: bool,
    /// Its wait for hardware.
    wish: Option<Wish>,
    /// For how long it waited.
    pub(super) waited: Duration,
    /// Whether the forge cancelled the job before it had what it waits for.
    pub(super) cancelled: bool,
    /// A hook that was told why its job may not go on. It is not let go before the listener has ended, or steps that run
    /// `always()` would run without the hardware.
    refused: Option<UnboundedSender<HookAnswer>>,
}

impl Admission {
    /// Holds the job against the policy, once: a step of it may call the hook again, with whatever it likes. `ours` says whether
    /// the hook belongs to our job, and `read` knows the payloads of its events.
    pub(super) fn judge(
        &mut self,
        hooked: &Hooked,
        ours: bool,
        policy: &Policy,
        read: ReadOrigin,
    ) -> Result<(), Objection> {
        if !self.judged && !policy.allows_everything() {
            if !ours {
                return Err(Objection::Stranger);
            }
            policy.judge(&hooked.evidence, read).map_err(Objection::Denied)?;
        }
        self.judged = true;
        Ok(())
    }

    /// Whether the job may not go on before its own hook has asked: it was not judged, or has not got its hardware.
    pub(super) fn needs_its_hook(&self, policy: &Policy, gate: &Gate) -> bool {
        let judged = self.judged || policy.allows_everything();
        let has_its_hardware = gate.guard.is_none() || gate.held.is_some() || self.wish.is_some();
        self.refused.is_none() && !(judged && has_its_hardware)
    }

    /// Whether the job waits for its hardware.
    pub(super) fn waits(&self) -> bool {
        self.wish.is_some()
    }

    /// Lets a job that was judged go on, or has it join the queue for its hardware: `true` then. `who` is the runner.
    pub(super) fn admit(&mut self, hooked: Hooked, ours: bool, gate: &Gate, who: String) -> bool {
        let Some(guard) = gate.guard.clone() else {
            let _ = hooked.answers.send(HookAnswer::Go { resource: None });
            return false;
        };
        if let Some(held) = &gate.held {
            gate.record(who);
            let _ = hooked.answers.send(HookAnswer::Go { resource: Some(held.names()) });
        } else if self.wish.is_some() {
            turn_away(&hooked, "this job waits for its hardware already");
        } else if ours {
            self.wish = Some(Wish::new(guard, gate.claim(who, &hooked.job), hooked));
            return true;
        } else {
            turn_away_stranger(&hooked);
        }
        false
    }

    /// Resolves when the wish for hardware is granted, or cannot be.
    pub(super) async fn granted(&mut self) -> Result<Held, HardwareError> {
        match &mut self.wish {
            Some(wish) => wish.wait.as_mut().await,
            None => std::future::pending().await,
        }
    }

    /// The wait is over: where its hook hears of it.
    pub(super) fn end_wait(&mut self) -> Option<(UnboundedSender<HookAnswer>, Rc<Notify>)> {
        let wish = self.wish.take()?;
        self.waited += wish.since.elapsed();
        Some((wish.answers, wish.told))
    }

    /// The job is gone: its place in the queue goes with it.
    pub(super) fn give_up(&mut self) {
        self.wish = None;
    }

    /// Tells the job's log why the job may not go on. The listener is to be interrupted now.
    pub(super) async fn refuse(&mut self, answers: UnboundedSender<HookAnswer>, told: &Notify, why: String) {
        self.refused = Some(tell_and_hold(answers, told, why).await);
    }

    /// The listener has ended: no hook waits any more.
    pub(super) fn end(&mut self) {
        drop(self.refused.take());
        drop(self.wish.take());
    }
}

/// Answers a hook that does not belong to our job.
pub(super) fn turn_away_stranger(hooked: &Hooked) {
    turn_away(hooked, "this is not the hook of a job of this runner");
}

fn turn_away(hooked: &Hooked, why: &str) {
    let _ = hooked.answers.send(HookAnswer::Refused { why: why.to_owned() });
}

/// Has a hook say in its job's log why the job may not go on. The hook waits for as long as the result is kept, so that the
/// listener can be interrupted meanwhile.
async fn tell_and_hold(
    answers: UnboundedSender<HookAnswer>,
    told: &Notify,
    why: String,
) -> UnboundedSender<HookAnswer> {
    let _ = answers.send(HookAnswer::Failed { why });
    // Its log first: the interruption ends the hook that writes it.
    let _ = timeout(TELL, told.notified()).await;
    answers
}
