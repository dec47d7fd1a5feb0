//! The place where agents' roots are made: `doctor` uses one there too, and PID 1 empties all of it.
//!
//! Nothing there is spared, or a job could leave something in what is. One waits for the other instead, by a lock that the kernel
//! frees with its holder. Its file is root's alone. Where there is no root, a job may hold it too, but when the place is emptied
//! nothing of a job lives any more; and nobody waits for long.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

/// How long one waits for the other. An agent says its version in less than a second.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// By what those who need the roots keep out of each other's way.
#[derive(Debug, Clone)]
pub(crate) struct RootsLock {
    file: PathBuf,
    patience: Duration,
}

impl RootsLock {
    /// The one of a container, in the place for what ends with it.
    #[must_use]
    pub(crate) fn below(run: &Path) -> Self {
        Self { file: run.join("roots.lock"), patience: PATIENCE }
    }

    /// Waits until nobody else needs the roots, but not for ever. They are ours until the result is dropped, if there is one.
    #[must_use]
    pub(crate) fn hold(&self) -> Option<File> {
        // Whatever a job put in its place.
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(false).mode(0o600).custom_flags(O_NOFOLLOW | O_NONBLOCK);
        // Before the first start there is no place for it, and nobody to wait for.
        let file = open.open(&self.file).ok()?;
        if file.try_lock().is_ok() {
            return Some(file);
        }
        tracing::info!("waiting for a doctor, who tries the agent");
        let until = Instant::now() + self.patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(PAUSE),
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_has_the_roots_and_nobody_waits_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        assert!(RootsLock::below(&run).hold().is_none(), "there is no place for it");
        std::fs::create_dir(&run).unwrap();
        let lock = RootsLock { patience: PAUSE, ..RootsLock::below(&run) };
        let held = lock.hold();
        assert!(held.is_some() && lock.hold().is_none());
        assert_eq!(std::fs::metadata(&lock.file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(held);
        assert!(lock.hold().is_some());
        std::fs::remove_file(&lock.file).unwrap();
        nix::unistd::mkfifo(&lock.file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(lock.hold().is_none(), "no file, and no waiting for a reader");
    }
}
