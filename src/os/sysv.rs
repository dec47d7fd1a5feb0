//! Removing System V objects.

use std::fmt;
use std::io;

/// What kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SysvKind {
    /// Shared memory.
    Memory,
    /// A set of semaphores.
    Semaphores,
    /// A queue of messages.
    Messages,
}

impl fmt::Display for SysvKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "shared memory",
            Self::Semaphores => "set of semaphores",
            Self::Messages => "queue of messages",
        })
    }
}

/// Removes an object. Memory goes once no process has it attached.
///
/// # Errors
/// `EPERM` when it belongs to somebody else, `EINVAL` when it is gone.
pub(crate) fn remove(kind: SysvKind, id: i32) -> io::Result<()> {
    // SAFETY: each call takes the object's number; for this command the last argument is not looked at.
    let result = unsafe {
        match kind {
            SysvKind::Memory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            SysvKind::Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
            SysvKind::Messages => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
