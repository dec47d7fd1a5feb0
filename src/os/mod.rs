//! System calls that neither the standard library nor nix wraps safely, each in one small function.
//!
//! This is the only place in the crate where `unsafe` may stand. nix and the standard library serve everywhere else; here rustix
//! serves too, where it has what they have not.

#![allow(unsafe_code, reason = "the one module that may; each block says why it is sound")]

pub(crate) mod access;
pub(crate) mod attempt;
pub(crate) mod caps;
pub(crate) mod child;
pub(crate) mod directory;
pub mod flags;
mod identity;
pub(crate) mod interrupt;
pub(crate) mod locks;
pub mod memory;
pub(crate) mod mounts;
pub(crate) mod priority;
pub(crate) mod program;
pub mod signal;
pub(crate) mod sysv;
pub mod xattr;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::process::PidfdFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use identity::Identity;
// The standard library's has a buffer behind it, which is made with the first look at it.
pub(crate) use rustix::stdio::stdin;

/// Opens a descriptor that becomes readable when the process `pid` ends, whoever its parent is.
///
/// # Errors
/// `ESRCH` if there is no such process any more.
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Writes `content` to an anonymous file in memory that survives an `exec`, and gives its descriptor's number.
///
/// # Errors
/// When the kernel refuses the file or it cannot be written.
pub(crate) fn stash(content: &[u8]) -> io::Result<(OwnedFd, RawFd)> {
    let fd = memfd_create(c"oscr", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    file.rewind()?;
    let fd = OwnedFd::from(file);
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let number = fd.as_raw_fd();
    Ok((fd, number))
}

/// Reads and closes what [`stash`] left behind before an `exec`.
///
/// # Errors
/// When `number` is not such a descriptor.
pub(crate) fn unstash(number: RawFd) -> io::Result<Vec<u8>> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let link = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
    if !link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:oscr") {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the link above proves that the descriptor is open and is our own memfd; it was inherited through exec, so
    // no other owner exists in this process.
    let mut file = unsafe { File::from_raw_fd(number) };
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content)
}

/// When an open file was made, on its file system's clock. `None` where that is not known.
#[must_use]
pub(crate) fn born(file: &impl AsFd) -> Option<Duration> {
    let facts = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    if facts.stx_mask & StatxFlags::BTIME.bits() == 0 {
        return None;
    }
    Some(Duration::new(u64::try_from(facts.stx_btime.tv_sec).ok()?, facts.stx_btime.tv_nsec))
}

/// Lets the runtime wait until `fd` is readable.
///
/// # Errors
/// When the descriptor is of a kind that cannot be waited for, or the runtime has no room.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always gives the same number, and is not replaced while the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(io::Error::from)
}
