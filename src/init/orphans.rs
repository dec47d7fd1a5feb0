//! Becoming the process that orphans are given to.

use nix::sys::prctl;
use nix::unistd::{Pid, getpid};

/// Whether orphans come to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// PID 1 of the namespace.
    Init,
    /// Not PID 1, but the kernel gives us the orphans of our own descendants.
    Subreaper,
    /// Neither: orphans go to somebody else.
    Bystander,
}

/// Makes this process the one that orphans are given to, as far as that is possible.
#[must_use]
pub(crate) fn adopt_orphans() -> Role {
    if getpid() == Pid::from_raw(1) {
        return Role::Init;
    }
    match prctl::set_child_subreaper(true) {
        Ok(()) => Role::Subreaper,
        Err(_) => Role::Bystander,
    }
}
