//! What PID 1 owes the kernel, in one place for `run` and `exec`: start a child in a well-defined state, read signals in
//! order, reap everything, and turn a wait status into an exit code.
//!
//! All signals are blocked from the first moment and taken one by one, so none is lost, whenever it arrives, and nothing
//! ever runs inside a signal handler. Children are waited for in one place only ([`reap`]), so nobody can wait
//! for the wrong child.

pub mod account;
pub mod exec;
pub mod leftovers;
pub mod process;
pub mod signals;
pub mod spawn;

use std::iter;
use std::os::unix::process::ExitStatusExt;

use nix::sys::prctl;
use nix::unistd::{Pid, getpid};

use crate::os::child::wait_any;

pub use signals::{Caught, Signals};
pub use spawn::{Spawn, SpawnError};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it, by number.
    Signal(i32),
}

impl Ended {
    /// The code that a shell would report: the child's own, or 128 + n.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signal(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "{signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// What [`reap`] learnt about one child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The child is gone.
    Ended(Pid, Ended),
    /// The child was stopped by this signal.
    Stopped(Pid, i32),
}

/// Collects every child that changed state, without blocking. One SIGCHLD may stand for many children, so the caller must
/// go through all of them each time it reads one, and must not wait for children in any other way.
pub fn reap() -> impl Iterator<Item = Change> {
    // No error but ECHILD is possible: the arguments are valid, and with all signals blocked nothing interrupts.
    let next = || wait_any().ok().flatten();
    iter::from_fn(next).map(|(pid, status)| match (status.code(), status.signal(), status.stopped_signal()) {
        (Some(code), ..) => Change::Ended(pid, Ended::Code(code)),
        (_, Some(signal), _) => Change::Ended(pid, Ended::Signal(signal)),
        (.., stopped) => Change::Stopped(pid, stopped.unwrap_or_default()),
    })
}

/// Whether orphans come to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// PID 1 of the namespace.
    Init,
    /// Not PID 1, but the kernel gives us the orphans of our own descendants.
    Subreaper,
    /// Neither: orphans go to somebody else.
    Bystander,
}

/// Makes this process the one that orphans are given to, as far as that is possible.
#[must_use]
pub fn adopt_orphans() -> Role {
    if getpid() == Pid::from_raw(1) {
        return Role::Init;
    }
    match prctl::set_child_subreaper(true) {
        Ok(()) => Role::Subreaper,
        Err(_) => Role::Bystander,
    }
}
