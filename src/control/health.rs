//! Whether an incarnation does, or will soon do, what it is there for.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use super::status::{Phase, Status};
use crate::workspace::space::shortage;

/// How long faults of the forge may last before the container counts as unhealthy.
pub(super) const TOLERATED_BACKOFF: Duration = Duration::from_secs(5 * 60);
/// So many listeners that ended by themselves soon after they began, one after the other, are no chance any more.
const TOLERATED_ENDS: u32 = 3;
/// How long a phase may last that only leads to another one. The agent's configure step alone may take five minutes.
const TOLERATED_PASSAGE: Duration = Duration::from_secs(10 * 60);

/// What has happened, and when, that health is judged by.
#[derive(Debug)]
pub(super) struct Times {
    /// When the incarnation began.
    pub(super) started: SystemTime,
    /// When its phase began.
    pub(super) entered: Cell<SystemTime>,
    /// When faults began, while they last.
    pub(super) faulty_since: Cell<Option<SystemTime>>,
    /// When the listener lost its connection, while it is not known to have it back.
    pub(super) cut_off_since: Cell<Option<SystemTime>>,
    /// Whether they had lasted for too long when the last one came.
    pub(super) lasted: Cell<bool>,
    /// Why phases in which nothing goes on were entered, until that is known to be over; the last one last.
    pub(super) reasons: RefCell<Vec<(Phase, String)>>,
    /// How many listeners in a row ended by themselves before they had proved that they work.
    pub(super) ended_early: Cell<u32>,
}

impl Times {
    /// Those of an incarnation that begins now.
    pub(super) fn begin() -> Self {
        let started = SystemTime::now();
        Self {
            started,
            entered: Cell::new(started),
            faulty_since: Cell::new(None),
            cut_off_since: Cell::new(None),
            lasted: Cell::new(false),
            reasons: RefCell::default(),
            ended_early: Cell::new(0),
        }
    }

    /// Whether faults have lasted for too long.
    pub(super) fn lasts(&self) -> bool {
        let since = [&self.faulty_since, &self.cut_off_since].into_iter().filter_map(Cell::get).min();
        since.is_some_and(|since| since.elapsed().unwrap_or_default() > TOLERATED_BACKOFF)
    }

    /// Why it is not well, if it is not.
    pub(super) fn trouble(&self, status: &Status) -> Option<String> {
        let error = || status.last_error.clone().unwrap_or_else(|| status.phase.to_string());
        let reasons = self.reasons.borrow();
        let kept = || reasons.last().map(|(_, why)| why.clone());
        let lasting = || self.lasts().then(error);
        let dying = || {
            let ends = self.ended_early.get();
            (ends >= TOLERATED_ENDS)
                .then(|| format!("{ends} listeners in a row ended by themselves soon after they began: {}", error()))
        };
        match status.phase {
            Phase::Denied | Phase::Outdated | Phase::Dirty | Phase::Tainted | Phase::Full => {
                let own = reasons.iter().find(|(phase, _)| *phase == status.phase).map(|(_, why)| why.clone());
                Some(own.unwrap_or_else(error))
            }
            Phase::BackingOff => kept().or_else(dying).or_else(lasting),
            Phase::Starting | Phase::Cleaning | Phase::Registering | Phase::Unregistering => {
                let lasted = self.entered.get().elapsed().unwrap_or_default();
                let stays = (lasted > TOLERATED_PASSAGE).then(|| {
                    let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
                    format!("in this phase for {lasted}, which should pass in no time: see the log")
                });
                // One more attempt makes nothing well.
                kept().or(stays).or_else(dying).or_else(lasting)
            }
            // A job may come at any moment; whoever asked has just had the registration taken back.
            Phase::Listening => shortage(&status.disk).or_else(kept).or_else(dying).or_else(lasting),
            // It can be long, and says nothing against what was found to last before.
            Phase::Waiting => kept().or_else(dying).or_else(|| self.lasted.get().then(error)),
            Phase::Running | Phase::Draining | Phase::Resting | Phase::Drained => None,
        }
    }
}
