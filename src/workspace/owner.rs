//! One container, one work directory: two that share one would wipe each other's jobs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// The proof that this container alone uses its work directory, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Owned {
    _lock: File,
}

/// Why the work directory is not ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    /// Another living container holds it.
    #[error("{} is in use by another runner", .0.display())]
    Shared(PathBuf),
    /// The directory cannot be opened or locked.
    #[error("{} cannot be locked: {}", .0.display(), .1)]
    Unusable(PathBuf, io::Error),
    /// The directory stays with the user that it was made for.
    #[error("{} cannot be taken over from the agent's user: {}", .0.display(), .1)]
    NotTaken(PathBuf, io::Error),
}

impl Owned {
    /// Locks the work directory itself, which needs no file in it that a wipe would have to spare.
    ///
    /// # Errors
    /// [`OwnerError::Shared`] when another container has locked it.
    pub(crate) fn take(work: &Path) -> Result<Self, OwnerError> {
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

/// Takes a directory of OSCR's own for root, if we are root. An image leaves it to the agent's user, so that a container can
/// run wholly as that user. What is in it then was put there by that user, and goes.
///
/// # Errors
/// When it stays with its owner.
pub(crate) fn take_for_root(directory: &Path) -> Result<(), OwnerError> {
    let take = || {
        let owner = match fs::symlink_metadata(directory) {
            Ok(meta) => meta.uid(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !Uid::effective().is_root() || owner == 0 {
            return Ok(());
        }
        match lchown(directory, Some(0), Some(0)) {
            // Then nobody can change it, and whoever needs to write there will say so.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
            taken => taken?,
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    take().map_err(|error| OwnerError::NotTaken(directory.to_owned(), error))
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

    #[test]
    fn root_takes_what_was_made_for_the_agents_user_but_nothing_in_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("d")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("state.new")).unwrap();
        take_for_root(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "it was ours before");
        if Uid::effective().is_root() {
            lchown(directory.path(), Some(1001), Some(1001)).unwrap();
            take_for_root(directory.path()).unwrap();
            assert_eq!(fs::metadata(directory.path()).unwrap().uid(), 0);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        }
        take_for_root(&directory.path().join("missing")).unwrap();
    }
}
