//! Getting hardware whose hooks may fail for one job after another: it is set aside then, and jobs take another of a pool, or wait
//! for their turn to try it.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::hardware::{Guard, HardwareError, LOOK, News, reached};
use crate::config::LockScope;
use crate::control::WaitNotice;
use crate::metrics;
use crate::resource::{Aside, AttemptError, Claim, Held, Wanted};

/// How long a job waits for what is set aside where `OSCR_LOCK_TIMEOUT` says nothing.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How far a wait is.
struct Wait {
    began: Instant,
    /// When it is over, and how long it may take.
    over: Option<(Instant, Duration)>,
    /// The turn to try what is set aside.
    turn: Option<Held>,
}

impl Guard {
    /// Waits for what is wanted, and makes it ready. If it was set aside and its hooks fail again, the wait goes on.
    pub(super) async fn obtain(
        &self,
        claim: &Claim,
        patience: Option<Duration>,
        say: &mut impl FnMut(News),
    ) -> Result<Held, HardwareError> {
        let began = Instant::now();
        let mut wait = Wait { began, over: patience.map(|patience| (began + patience, patience)), turn: None };
        loop {
            let notice = self.board.waits_for(&self.hardware.wanted.to_string());
            let held = self.wait(claim, &mut wait, &notice, say).await?;
            metrics::lock_waited(notice.lasted());
            drop(notice);
            self.record(&held, claim);
            tracing::info!(resource = held.names(), "has the hardware");
            say(News::Has);
            let tries = self.aside(&held).is_some();
            match self.prepare(held, claim, say).await {
                Err(HardwareError::Hook(why)) if tries => tracing::warn!("what was set aside was tried in vain: {why}"),
                result => return result,
            }
        }
    }

    async fn wait(
        &self,
        claim: &Claim,
        wait: &mut Wait,
        notice: &WaitNotice,
        say: &mut impl FnMut(News),
    ) -> Result<Held, HardwareError> {
        loop {
            let wanted = match self.shelf.wanted() {
                Some(wanted) => wanted,
                None => self.take_turn(claim, wait, notice, say).await?,
            };
            let tell = |report: String| {
                notice.report(&report);
                say(News::Waits(report));
            };
            let held = tokio::select! {
                held = self.attempt(&wanted, claim, wait.over, &mut wait.turn, tell) => held,
                held = self.attempt_what_is_back(&wanted, claim) => held,
            };
            let held = match held {
                Err(HardwareError::Attempt(AttemptError::Again)) => continue,
                Err(HardwareError::TimedOut { missing, after }) => {
                    self.is_there(after)?;
                    return Err(HardwareError::TimedOut { missing, after });
                }
                result => result?,
            };
            // While it was waited for, it may have been set aside, or tried by somebody else.
            if self.aside(&held).is_none_or(|aside| aside.is_due()) {
                return Ok(held);
            }
        }
    }

    /// Gets what of the pool is set aside no more, without giving up a place in the queues of the rest.
    async fn attempt_what_is_back(&self, waited_for: &Wanted, claim: &Claim) -> Result<Held, HardwareError> {
        if waited_for == &self.hardware.wanted {
            return std::future::pending().await;
        }
        loop {
            match self.shelf.back(waited_for) {
                Some(wanted) => return self.attempt(&wanted, claim, None, &mut None, |_| {}).await,
                None => sleep(LOOK).await,
            }
        }
    }

    /// Waits until it is this one's turn to try what is set aside and it is time to, or until it was repaired: what to wait for then.
    async fn take_turn(
        &self,
        claim: &Claim,
        wait: &mut Wait,
        notice: &WaitNotice,
        say: &mut impl FnMut(News),
    ) -> Result<Wanted, HardwareError> {
        if self.scope == LockScope::Job {
            let bound = PATIENCE + Duration::from_secs(wait.began.elapsed().as_secs());
            wait.over.get_or_insert_with(|| (Instant::now() + PATIENCE, bound));
        }
        for aside in self.shelf.asides() {
            let report = format!("waiting for what is set aside: {aside}");
            notice.report(&report);
            self.board.wrong(&aside.to_string());
            say(News::Waits(report));
        }
        while wait.turn.is_none() {
            match self.attempt(&self.shelf.turn(), claim, wait.over, &mut None, |_| {}).await {
                Err(HardwareError::Attempt(AttemptError::Again)) => {}
                Err(HardwareError::TimedOut { after, .. }) => return self.is_there(after),
                result => wait.turn = Some(result?),
            }
        }
        loop {
            if let Some(wanted) = self.shelf.ready() {
                return Ok(wanted);
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                after = reached(wait.over) => return self.is_there(after),
            }
        }
    }

    /// What to wait for at the end of a wait that could take this long, which nobody waits for if it is set aside.
    fn is_there(&self, after: Duration) -> Result<Wanted, HardwareError> {
        match self.shelf.asides().into_iter().next() {
            Some(aside) => Err(HardwareError::Aside { aside: Box::new(aside), after }),
            None => Ok(self.hardware.wanted.clone()),
        }
    }

    /// Whether what is held is set aside.
    fn aside(&self, held: &Held) -> Option<Aside> {
        self.shelf.look(self.shelf.unit(held)?)
    }

    /// The hooks have made this ready.
    pub(super) fn hooks_worked(&self, held: &Held) {
        if let Some(unit) = self.shelf.unit(held) {
            self.shelf.worked(unit);
        }
    }

    /// The hooks have failed to make this ready.
    pub(super) fn hooks_failed(&self, held: &Held, claim: &Claim, why: &str) {
        let Some(unit) = self.shelf.unit(held) else { return };
        // A job fails with its hooks, so each failure is another one's; a runner that waits before it listens tries again and again.
        let job = match self.scope {
            LockScope::Job => format!("{} {:?}", claim.who, SystemTime::now()),
            LockScope::Listener => claim.who.clone(),
        };
        match self.shelf.failed(unit, &job, claim, why) {
            Ok(None) => {}
            Ok(Some(aside)) => {
                tracing::error!("{aside}");
                self.board.wrong(&aside.to_string());
            }
            Err(error) => tracing::warn!("that {} failed cannot be recorded: {error}", held.names()),
        }
    }
}
