//! Emptying the trash: waited for as long as it takes when nothing else follows, and otherwise no longer than anybody notices.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::means::Means;
use super::stop::Urgency;
use super::work::Work;
use crate::metrics;
use crate::workspace::{Reins, Slate, SlateError, Wiped};

/// How long what comes next waits for it. Within this time nearly every job's leftovers are gone, and all is said at once.
const BUDGET: Duration = Duration::from_secs(1);

/// An emptying that goes on. It is stopped by being dropped, and what it leaves is found by the next one.
struct Emptying {
    reins: Arc<Reins>,
    work: Work<Result<Wiped, SlateError>>,
}

impl Emptying {
    /// Begins to empty the trash, if anything is in it.
    fn begin(slate: &Slate) -> Result<Option<Self>, SlateError> {
        let Some(trash) = slate.trash.clone() else { return Ok(None) };
        if trash.is_empty()? {
            return Ok(None);
        }
        let reins = Arc::new(Reins::default());
        let held = Arc::clone(&reins);
        Ok(Some(Self { reins, work: Work::begin(move || trash.empty(&held)) }))
    }

    /// Waits for its end. To be dropped then.
    async fn done(&mut self) -> Result<Wiped, SlateError> {
        self.work.done().await
    }
}

impl Drop for Emptying {
    fn drop(&mut self) {
        // Its end is not waited for: it may hang in the kernel, and a second one does not disturb it.
        self.reins.halt();
    }
}

/// Who has the trash emptied.
pub(super) struct Emptier {
    means: Rc<Means>,
    /// What was moved aside, while it is being removed.
    going_on: Option<Emptying>,
    /// Whether one of them failed while the runner went on.
    failed: bool,
}

impl Emptier {
    pub(super) fn new(means: Rc<Means>) -> Self {
        Self { means, going_on: None, failed: false }
    }

    /// Another one follows, which finds what this one leaves, and is in nobody's way.
    pub(super) fn give_up(&mut self) {
        self.going_on = None;
    }

    /// Empties the trash: all of it if we are asked to leave, if it could not be emptied before, or if there is too little disk space
    /// with it; else as much as can be removed in a moment, and the rest goes on to be removed.
    pub(super) async fn empty(&mut self, slate: &Slate) -> Result<Wiped, SlateError> {
        let Some(mut emptying) = Emptying::begin(slate)? else { return Ok(Wiped::default()) };
        if let Ok(result) = timeout(BUDGET, emptying.done()).await {
            self.failed &= result.is_err();
            return result;
        }
        let why = if self.means.stop.urgency() > Urgency::None {
            Some("nothing stays behind a runner that was stopped".to_owned())
        } else if self.failed {
            // Or a runner would be registered and retired in turns.
            Some("it could not be before".to_owned())
        } else {
            self.means.board.shortage()
        };
        if let Some(why) = why {
            tracing::info!("waiting until what was left is removed: {why}");
            let result = emptying.done().await;
            self.failed &= result.is_err();
            return result;
        }
        emptying.reins.fall_behind();
        tracing::info!("what was left is moved aside, out of any job's reach, and removed while the runner goes on");
        self.going_on = Some(emptying);
        Ok(Wiped::default())
    }

    /// Resolves once an emptying that goes on has ended; never, if there is none. Its result must be [told](Self::tell).
    pub(super) async fn ended(&mut self) -> Result<Wiped, SlateError> {
        match &mut self.going_on {
            Some(emptying) => {
                let result = emptying.done().await;
                self.going_on = None;
                result
            }
            None => std::future::pending().await,
        }
    }

    /// It has ended. Gives back why it failed, if it did.
    pub(super) fn tell(&mut self, result: Result<Wiped, SlateError>) -> Result<(), SlateError> {
        self.failed = result.is_err();
        let wiped = result?;
        metrics::removed(wiped.took);
        self.means.numbers.keep();
        tracing::info!(
            entries = wiped.entries,
            bytes = wiped.bytes,
            ms = u64::try_from(wiped.took.as_millis()).unwrap_or(u64::MAX),
            "removed what had been moved aside"
        );
        Ok(())
    }

    /// Before the end: what goes on to be removed is waited for if nobody may come after us to see to it, and otherwise left to
    /// the next incarnation.
    pub(super) async fn finish(&mut self) {
        if self.going_on.is_none() {
            return;
        }
        let last = self.means.stop.urgency() > Urgency::None;
        let patience = if last { Duration::MAX } else { Duration::ZERO };
        match timeout(patience, self.ended()).await {
            Ok(result) => {
                if let Err(error) = self.tell(result) {
                    tracing::warn!("{error}");
                }
            }
            Err(_) => tracing::info!("the next incarnation removes the rest of what was moved aside"),
        }
    }
}
