//! Signals as a descriptor: blocked for good, read in order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::os::child::{block_all_signals, ignored_at_start};

/// All signals of this process, blocked and queued on a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    /// The mask in force before, for children.
    pub inherited_mask: SigSet,
    /// The signals ignored before, for children.
    pub inherited_ignored: Vec<Signal>,
    /// The real-time signals ignored before, by number.
    pub inherited_ignored_realtime: Vec<i32>,
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
    /// Blocks all signals from now on. Call it before anything that could be interrupted, and before the first child.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub fn block() -> io::Result<Self> {
        let (inherited_ignored, inherited_ignored_realtime) = ignored_at_start();
        let inherited_mask = block_all_signals()?;
        let fd = SignalFd::with_flags(
            &SigSet::all(),
            SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
        )?;
        Ok(Self {
            fd,
            inherited_mask,
            inherited_ignored,
            inherited_ignored_realtime,
        })
    }

    /// The next signal, or `None` when none is waiting.
    ///
    /// # Errors
    /// When the descriptor cannot be read, which does not happen on a working kernel.
    pub fn next(&self) -> io::Result<Option<Caught>> {
        let info = self.fd.read_signal()?;
        Ok(info.map(|info| Caught {
            number: i32::try_from(info.ssi_signo).unwrap_or(0),
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
