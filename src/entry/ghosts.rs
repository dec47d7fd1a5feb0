//! Jobs that never were: given out by the forge, and taken back or refused before anything of them ran.

use crate::metrics;

/// Counts them under one listener, each once.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// The one that was offered last is counted.
    counted: bool,
}

impl Ghosts {
    /// The listener is about to take a job.
    pub(super) fn offered(&mut self) {
        self.counted = false;
    }

    /// Nothing came of the job that was given out last.
    pub(super) fn vanished(&mut self) {
        if !std::mem::replace(&mut self.counted, true) {
            metrics::ghost_job();
        }
    }
}
