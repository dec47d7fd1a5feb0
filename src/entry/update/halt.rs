//! By which work on a thread is stopped when nobody wants it any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whoever made it halts the work by dropping it; the work looks at what it [holds](Halt::held).
#[derive(Debug, Default)]
pub(super) struct Halt {
    halted: Arc<AtomicBool>,
    /// Whether this is the work's.
    held: bool,
}

impl Halt {
    /// For the work.
    pub(super) fn held(&self) -> Self {
        Self { halted: Arc::clone(&self.halted), held: true }
    }

    /// Goes on, or ends the work.
    ///
    /// # Errors
    /// That it is to end.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.halted.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "nobody waits for it any more"));
        }
        Ok(())
    }
}

impl Drop for Halt {
    fn drop(&mut self) {
        if !self.held {
            self.halted.store(true, Ordering::Relaxed);
        }
    }
}
