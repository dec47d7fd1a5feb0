//! Whether an incarnation does, or will soon do, what it is there for.

use std::cell::Cell;
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
            ended_early: Cell::new(0),
        }
    }

    /// Why it is not well, if it is not.
    pub(super) fn trouble(&self, status: &Status) -> Option<String> {
        let error = || status.last_error.clone().unwrap_or_else(|| status.phase.to_string());
        let lasting = || {
            let since = [&self.faulty_since, &self.cut_off_since].into_iter().filter_map(Cell::get).min()?;
            (since.elapsed().unwrap_or_default() > TOLERATED_BACKOFF).then(error)
        };
        let dying = || {
            let ends = self.ended_early.get();
            (ends >= TOLERATED_ENDS)
                .then(|| format!("{ends} listeners in a row ended by themselves soon after they began: {}", error()))
        };
        match status.phase {
            Phase::Denied | Phase::Outdated | Phase::Dirty | Phase::Tainted | Phase::Full => Some(error()),
            Phase::BackingOff => dying().or_else(lasting),
            Phase::Starting | Phase::Cleaning | Phase::Registering | Phase::Unregistering => {
                let lasted = self.entered.get().elapsed().unwrap_or_default();
                let stays = (lasted > TOLERATED_PASSAGE).then(|| {
                    let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
                    format!("in this phase for {lasted}, which should pass in no time: see the log")
                });
                // One more attempt makes nothing well.
                stays.or_else(dying).or_else(lasting)
            }
            // A job may come at any moment; whoever asked has just had the registration taken back.
            Phase::Listening => shortage(&status.disk).or_else(dying).or_else(lasting),
            Phase::Waiting | Phase::Running | Phase::Draining | Phase::Resting | Phase::Drained => None,
        }
    }
}
