//! What a wipe is asked to do, and what it did.

use std::ops::AddAssign;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::unistd::Uid;

/// What a wipe did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wiped {
    /// Files, directories and other entries removed.
    pub entries: u64,
    /// Their disk space, in bytes.
    pub bytes: u64,
    /// Mount points met, which were left alone with their content.
    pub mounts: Vec<PathBuf>,
    /// What could not be removed, and why; the first few.
    pub failures: Vec<String>,
    /// How much could not be removed.
    pub failed: u64,
    /// How long it took.
    pub took: Duration,
}

impl AddAssign for Wiped {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.mounts.extend(other.mounts);
        self.failures.extend(other.failures);
        self.failed += other.failed;
        self.took += other.took;
    }
}

/// What is spared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spare {
    /// If set, only this user's entries are removed.
    pub only_of: Option<Uid>,
    /// Directories that are left alone with their content, and keep those above them.
    pub kept: Vec<PathBuf>,
}

/// What may be done about a tree that takes long to remove.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    /// A directory that whole directories are moved into where they can be, for somebody to empty later. On another file system, or
    /// where others' entries are spared, nothing is moved.
    pub aside: Option<BorrowedFd<'a>>,
    /// By which it can be stopped.
    pub reins: Option<&'a Reins>,
}

/// By which a removal is stopped, or told that nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct Reins {
    halted: AtomicBool,
    behind: AtomicBool,
}

impl Reins {
    /// Has the removal end soon, wherever it is.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to end.
    #[must_use]
    pub(crate) fn halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    /// Nobody waits for the removal any more: it goes on with what others leave of the machine.
    pub(crate) fn fall_behind(&self) {
        self.behind.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for it.
    #[must_use]
    pub(crate) fn behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }
}
