//! One container, one work directory: two that share one would wipe each other's jobs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::trial::could_write;

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

/// Whether [`Owned::take`] would go well, as far as nobody comes in between. A directory that is missing is not made.
///
/// # Errors
/// As it.
pub(crate) fn could_take(work: &Path) -> Result<(), OwnerError> {
    match fs::metadata(work) {
        Ok(meta) if meta.is_dir() => Owned::take(work).map(drop),
        Ok(_) => Err(OwnerError::Unusable(work.to_owned(), io::ErrorKind::NotADirectory.into())),
        Err(_) => could_write(work).map_err(|error| OwnerError::Unusable(work.to_owned(), error)),
    }
}

/// Whether [`take_for_root`] would go well.
///
/// # Errors
/// As it.
pub(crate) fn could_take_for_root(directory: &Path) -> Result<(), OwnerError> {
    let Ok(meta) = fs::symlink_metadata(directory) else { return Ok(()) };
    if !Uid::effective().is_root() || meta.uid() == 0 {
        return Ok(());
    }
    // Giving it to its owner changes nothing, and needs what giving it to another one needs.
    match lchown(directory, Some(meta.uid()), None) {
        Err(error) if error.kind() != io::ErrorKind::ReadOnlyFilesystem => {
            Err(OwnerError::NotTaken(directory.to_owned(), error))
        }
        _ => Ok(()),
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
        assert!(matches!(could_take(directory.path()), Err(OwnerError::Shared(_))));
        drop(first);
        assert!(could_take(directory.path()).is_ok());
        assert!(Owned::take(directory.path()).is_ok());
        let missing = directory.path().join("missing");
        assert!(could_take(&missing).is_ok() && !missing.exists());
        fs::write(&missing, "").unwrap();
        assert!(matches!(could_take(&missing), Err(OwnerError::Unusable(..))));
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
