//! One container, one work directory: two that share one would wipe each other's jobs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The proof that this container alone uses its work directory, for as long as it is held.
#[derive(Debug)]
pub struct Owned {
    _lock: File,
}

/// Why the work directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Another living container holds it.
    #[error("{} is in use by another runner", .0.display())]
    Shared(PathBuf),
    /// The directory cannot be opened or locked.
    #[error("{} cannot be locked: {}", .0.display(), .1)]
    Unusable(PathBuf, io::Error),
}

impl Owned {
    /// Locks the work directory itself, which needs no file in it that a wipe would have to spare.
    ///
    /// # Errors
    /// [`OwnerError::Shared`] when another container has locked it.
    pub fn take(work: &Path) -> Result<Self, OwnerError> {
        let unusable = |error| OwnerError::Unusable(work.to_owned(), error);
        fs::create_dir_all(work).map_err(unusable)?;
        let lock = OpenOptions::new().read(true).open(work).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OwnerError::Shared(work.to_owned())),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_owner_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = Owned::take(directory.path()).unwrap();
        assert!(matches!(Owned::take(directory.path()), Err(OwnerError::Shared(_))));
        drop(first);
        assert!(Owned::take(directory.path()).is_ok());
    }
}
