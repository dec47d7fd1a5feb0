//! Jobs that never were: given out by the forge, and taken back or refused before anything of them ran.

use crate::metrics;
use crate::provider::Sign;

/// Counts them under one listener, each once.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// The one that was offered last is counted.
    counted: bool,
}

impl Ghosts {
    /// What a listener without a job says of one.
    pub(super) fn heard(&mut self, sign: Sign) {
        match sign {
            Sign::Acquiring => self.counted = false,
            Sign::Skipped | Sign::Refused => self.vanished(),
            _ => {}
        }
    }

    /// Nothing came of the job that was given out last.
    pub(super) fn vanished(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            metrics::ghost_job();
        }
    }
}
