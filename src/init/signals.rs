//! Signals as events: blocked for good, taken one by one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::os::signal::{self, IgnoredAtStart, SignalSet};

/// All signals of this process, blocked, so that each waits to be taken.
#[derive(Debug)]
pub struct Signals {
    /// The mask in force before, for children.
    pub inherited_mask: SignalSet,
    /// The signals ignored before, for children.
    pub(crate) inherited_ignored: IgnoredAtStart,
}

/// One signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its number; real-time signals have no name.
    pub number: i32,
}

impl Caught {
    /// Whether it says that a child changed state.
    #[must_use]
    pub fn is_child(self) -> bool {
        self.number == Signal::SIGCHLD as i32
    }
}

impl Signals {
    /// Blocks all signals from now on. Call it before anything else: until then, the kernel drops what is sent to PID 1,
    /// and any other process dies of it. A blocked signal is kept even if it is ignored, by default or by inheritance.
    ///
    /// # Errors
    /// Never in practice.
    pub fn block() -> io::Result<Self> {
        let inherited_mask = signal::set_mask(SignalSet::ALL)?;
        Ok(Self { inherited_mask, inherited_ignored: IgnoredAtStart::hear_of_children()? })
    }

    /// Gives signals their usual effect again, for a program that is no init after all.
    pub(crate) fn release(&self) {
        // It cannot fail, and a program that is hard to interrupt would be better than none.
        let _ = signal::set_mask(self.inherited_mask);
    }

    /// The next signal, or `None` when none is waiting.
    ///
    /// # Errors
    /// Never in practice.
    pub(crate) fn next(&self) -> io::Result<Option<Caught>> {
        self.wait(Some(Duration::ZERO))
    }

    /// The next signal, for which it waits for ever or up to `timeout`; `None` when that is over, and, once in a while,
    /// sooner.
    ///
    /// # Errors
    /// Never in practice.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<Caught>> {
        Ok(signal::wait(timeout)?.map(|number| Caught { number }))
    }

    /// A descriptor that is readable while a signal waits to be taken by [`Self::next`].
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        signal::descriptor()
    }
}
