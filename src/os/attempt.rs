//! What a user may do, tried out in a child: besides the permission bits, lists of rights, filters and security modules have a say.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{AccessFlags, ForkResult, access, fork};

use super::caps::{Capabilities, limit};
use super::identity::{Identity, become_user};

/// What a child ends with that was to try something out and could not become the user who tries.
const NOT_THAT_USER: i32 = 2;

/// Whether this user, with no capability, may make a user namespace, inside of which it would be root over an own set of mounts
/// and networks. Tried out in a child: Docker's filter, the kernel's settings and its security modules all have a say.
///
/// # Errors
/// When no child can be made.
pub(crate) fn may_make_user_namespace(identity: Option<&Identity>) -> io::Result<bool> {
    // SAFETY: unshare takes an integer, and a forked child has one thread.
    let attempt = || Errno::result(unsafe { libc::unshare(libc::CLONE_NEWUSER) }).map(drop);
    // SAFETY: it is one system call and allocates nothing.
    unsafe { try_out(identity, attempt) }
}

/// Whether `user` (our own where there is none) can list a directory and what is in it. `None` where that cannot be tried, as with a directory that is not there.
#[must_use]
pub(crate) fn can_list(user: Option<&Identity>, directory: &Path) -> Option<bool> {
    fs::metadata(directory).ok()?;
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let attempt = || {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        drop(open(path.as_c_str(), flags, Mode::empty())?);
        access(path.as_c_str(), AccessFlags::X_OK)
    };
    // SAFETY: it opens, closes and asks by a path that was made before, and allocates nothing.
    unsafe { try_out(user, attempt) }.ok()
}

/// Whether `user` (our own where there is none) may do with a file what `flags` say. To execute one, its mount must allow that too.
/// `None` where that cannot be tried.
#[must_use]
pub(crate) fn can_access(user: Option<&Identity>, file: &Path, flags: AccessFlags) -> Option<bool> {
    let path = CString::new(file.as_os_str().as_bytes()).ok()?;
    // SAFETY: it asks by a path that was made before, and allocates nothing.
    unsafe { try_out(user, || access(path.as_c_str(), flags)) }.ok()
}

/// Whether `attempt` goes well in a child of this user (our own where there is none) that has no capability.
///
/// # Errors
/// When there is no room for a process, or it cannot become that user.
///
/// # Safety
/// `attempt` may call only what is async-signal-safe, and allocate nothing.
unsafe fn try_out(identity: Option<&Identity>, attempt: impl FnOnce() -> nix::Result<()>) -> io::Result<bool> {
    let prepare = || -> io::Result<()> {
        if let Some(identity) = identity {
            become_user(identity)?;
        }
        limit(Capabilities::NONE)
    };
    // SAFETY: the child calls only what is async-signal-safe, allocates nothing, and leaves by `_exit`.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = if prepare().is_ok() { i32::from(attempt().is_err()) } else { NOT_THAT_USER };
            // SAFETY: `_exit` takes an integer and does not return.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => loop {
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, NOT_THAT_USER)) => return Err(Errno::EPERM.into()),
                Ok(status) => return Ok(matches!(status, WaitStatus::Exited(_, 0))),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_is_listed_by_whoever_may_read_and_search_it() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(can_list(None, &inner), Some(true));
        assert_eq!(can_list(None, &directory.path().join("absent")), None);
        if !Uid::effective().is_root() {
            return;
        }
        let somebody = Identity { uid: Uid::from_raw(54321), gid: Gid::from_raw(54321), groups: Vec::new() };
        for (outer, own, listed) in [
            (0o755, 0o755, true),
            (0o711, 0o755, true),
            (0o700, 0o755, false),
            (0o755, 0o711, false),
            (0o755, 0o704, false),
        ] {
            mode(directory.path(), outer);
            mode(&inner, own);
            assert_eq!(can_list(Some(&somebody), &inner), Some(listed), "{outer:o} {own:o}");
        }
    }
}
