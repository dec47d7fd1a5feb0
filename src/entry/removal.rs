//! Emptying the trash: waited for as long as it takes when nothing else follows, and otherwise no longer than anybody notices.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::incarnation::{Incarnation, Work};
use super::stop::Urgency;
use crate::metrics;
use crate::workspace::{Reins, Slate, SlateError, Wiped};

/// How long what comes next waits for it. Within this time nearly every job's leftovers are gone, and all is said at once.
const BUDGET: Duration = Duration::from_secs(1);

/// A removal that goes on. It is stopped by being dropped, and what it leaves is found by the next one.
pub(super) struct Removal {
    reins: Arc<Reins>,
    work: Work<Result<Wiped, SlateError>>,
}

impl Removal {
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

impl Drop for Removal {
    fn drop(&mut self) {
        // Its end is not waited for: it may hang in the kernel, and a second one does not disturb it.
        self.reins.halt();
    }
}

/// Resolves once the removal has ended; never, if there is none.
pub(super) async fn removed(removal: &mut Option<Removal>) -> Result<Wiped, SlateError> {
    match removal {
        Some(going_on) => {
            let result = going_on.done().await;
            *removal = None;
            result
        }
        None => std::future::pending().await,
    }
}

impl Incarnation {
    /// Empties the trash: all of it if we are asked to leave, if it could not be emptied before, or if there is too little disk space
    /// with it; else as much as can be removed in a moment, and the rest goes on to be removed.
    pub(super) async fn empty_trash(&mut self) -> Result<Wiped, SlateError> {
        let Some(mut removal) = Removal::begin(&self.slate)? else { return Ok(Wiped::default()) };
        if let Ok(result) = timeout(BUDGET, removal.done()).await {
            self.removal_failed &= result.is_err();
            return result;
        }
        let why = if self.stop.urgency() > Urgency::None {
            Some("nothing stays behind a runner that was stopped".to_owned())
        } else if self.removal_failed {
            // Or a runner would be registered and retired in turns.
            Some("it could not be before".to_owned())
        } else {
            self.board.shortage()
        };
        if let Some(why) = why {
            tracing::info!("waiting until what was left is removed: {why}");
            let result = removal.done().await;
            self.removal_failed &= result.is_err();
            return result;
        }
        removal.reins.fall_behind();
        tracing::info!("what was left is moved aside, out of any job's reach, and removed while the runner goes on");
        self.removal = Some(removal);
        Ok(Wiped::default())
    }

    /// Before the end: what goes on to be removed is waited for if nobody may come after us to see to it, and otherwise left to
    /// the next incarnation.
    pub(super) async fn finish_removal(&mut self) {
        if self.removal.is_none() {
            return;
        }
        let last = self.stop.urgency() > Urgency::None;
        let patience = if last { Duration::MAX } else { Duration::ZERO };
        match timeout(patience, removed(&mut self.removal)).await {
            Ok(result) => {
                if let Err(error) = self.tell_of_removal(result) {
                    tracing::warn!("{error}");
                }
            }
            Err(_) => tracing::info!("the next incarnation removes the rest of what was moved aside"),
        }
    }

    /// A removal that went on has ended. Gives back why it failed, if it did.
    pub(super) fn tell_of_removal(&mut self, result: Result<Wiped, SlateError>) -> Result<(), SlateError> {
        self.removal_failed = result.is_err();
        let wiped = result?;
        metrics::removed(wiped.took);
        self.numbers.keep();
        tracing::info!(
            entries = wiped.entries,
            bytes = wiped.bytes,
            ms = u64::try_from(wiped.took.as_millis()).unwrap_or(u64::MAX),
            "removed what had been moved aside"
        );
        Ok(())
    }
}
