//! A directory that containers share and that is for root alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::workspace::trial::could_write;

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivateError {
    /// It cannot be made or looked at.
    #[error("{} cannot be used: {}", .0.display(), .1)]
    Unusable(PathBuf, io::Error),
    /// It is somebody else's.
    #[error("{} belongs to user {}", .0.display(), .1)]
    Foreign(PathBuf, u32),
}

/// Whether [`prepare`] would go well. Nothing is made or closed.
///
/// # Errors
/// As it.
pub(super) fn look(directory: &Path) -> Result<(), PrivateError> {
    if let Ok(meta) = fs::metadata(directory)
        && meta.uid() != Uid::effective().as_raw()
    {
        return Err(PrivateError::Foreign(directory.to_owned(), meta.uid()));
    }
    could_write(directory).map_err(|error| PrivateError::Unusable(directory.to_owned(), error))
}

/// Makes the directory if it is missing, and proves that it is ours alone. A new volume of Docker's can be read by all: that is
/// closed.
///
/// # Errors
/// When it is somebody else's, or cannot be made or closed.
pub(super) fn prepare(directory: &Path) -> Result<(), PrivateError> {
    let unusable = |error| PrivateError::Unusable(directory.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    let meta = fs::metadata(directory).map_err(unusable)?;
    if meta.uid() != Uid::effective().as_raw() {
        return Err(PrivateError::Foreign(directory.to_owned(), meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(unusable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_volume_is_closed_and_a_foreign_one_refused() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("deep/shared");
        look(&directory).unwrap();
        assert!(!directory.exists());
        prepare(&directory).unwrap();
        look(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        prepare(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&directory, Some(54321), None).unwrap();
            assert!(matches!(prepare(&directory), Err(PrivateError::Foreign(_, 54321))));
            assert!(matches!(look(&directory), Err(PrivateError::Foreign(_, 54321))));
        }
    }
}
