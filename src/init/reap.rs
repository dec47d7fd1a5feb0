//! How children end, and the one place where that is learnt.

use std::fmt;
use std::iter;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::os::child::wait_any;

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
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signal(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
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
