//! Opening what a job left, and nothing that it leads to.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// How directories are opened.
pub(crate) const DIRECTORY: OFlag =
    OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// Opens a directory, but no link to one, in an open one.
pub(crate) fn enter(parent: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<OwnedFd, Errno> {
    match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            // Locked by its owner, and met without the capability to ignore it.
            let locked = openat(&parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            allow(&locked).map_err(|_| Errno::EACCES)?;
            openat(&parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// Gives the owner all permissions of an open directory, and nobody else any.
pub(super) fn allow(directory: &OwnedFd) -> Result<(), Errno> {
    // By way of /proc, because a descriptor of a path alone takes no fchmod, and a name may have become something else.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| to_errno(&error))
}

/// Opens the same directory from its beginning.
pub(super) fn reopen(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(directory, ".", DIRECTORY, Mode::empty())
}

pub(super) fn to_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
