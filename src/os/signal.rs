//! Signals by number, all 64 of them.
//!
//! These are the kernel's own calls, not the C library's: musl and glibc keep two or three real-time signals to themselves
//! and take them out of every set that passes through their functions, and an init must forward those as well.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The highest signal that the kernel has.
pub const LAST: i32 = 64;

/// The size of a set, as the kernel wants to be told it.
const SET_BYTES: usize = size_of::<SignalSet>();

/// A set of signals: bit n-1 stands for signal n, as in the kernel and in `/proc/<pid>/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const ALL: Self = Self(u64::MAX);

    /// Every signal but this one.
    #[must_use]
    pub(crate) fn all_but(number: i32) -> Self {
        (1..=LAST).filter(|other| *other != number).collect()
    }

    /// Whether signal `number` is in it.
    #[cfg(test)]
    fn contains(self, number: i32) -> bool {
        (1..=LAST).contains(&number) && self.0 & (1 << (number - 1)) != 0
    }
}

impl FromIterator<i32> for SignalSet {
    fn from_iter<I: IntoIterator<Item = i32>>(numbers: I) -> Self {
        let bits = numbers.into_iter().filter(|number| (1..=LAST).contains(number));
        Self(bits.fold(0, |set, number| set | 1 << (number - 1)))
    }
}

/// Replaces the set of blocked signals and returns the one that was in force.
///
/// # Errors
/// Never in practice: the arguments are valid.
pub fn set_mask(mask: SignalSet) -> io::Result<SignalSet> {
    let mut before = SignalSet::EMPTY;
    // SAFETY: both sets live through the call and are of the size given.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, SET_BYTES)
    };
    if result == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
}

/// Takes the next signal, waiting for `timeout` at most; for ever without one. `None` when the time is over, and when the
/// wait was broken off because this process was stopped and continued. All signals must be blocked.
///
/// # Errors
/// Never in practice: the arguments are valid.
pub fn wait(timeout: Option<Duration>) -> io::Result<Option<i32>> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        // Less than a thousand million, so it fits.
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let set = SignalSet::ALL;
    // SAFETY: the set and the time live through the call; no information beyond the number is asked for.
    let number = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            std::ptr::null_mut::<libc::siginfo_t>(),
            timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            SET_BYTES,
        )
    };
    if number > 0 {
        return Ok(i32::try_from(number).ok());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(None),
        _ => Err(error),
    }
}

/// A descriptor that is readable while a signal waits to be taken, for an event loop. It only tells; [`wait`] takes.
///
/// # Errors
/// When this process has no descriptor left.
pub(crate) fn descriptor() -> io::Result<OwnedFd> {
    let set = SignalSet::ALL;
    // SAFETY: the set lives through the call and is of the size given.
    let fd = unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const set, SET_BYTES, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel just made this descriptor for us and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends signal `number`. A negative `target` is a group; -1 is everything that this process may signal.
///
/// # Errors
/// `ESRCH` when there is no such process or group, `EPERM` when it is not ours to signal.
pub fn kill(target: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(target, number) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's `struct sigaction`, the same on x86_64 and aarch64. Only the action is ever set or looked at here.
#[repr(C)]
#[derive(Default)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: SignalSet,
}

/// Ignores signal `number`, or gives it its default action. Returns whether it was ignored before.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn ignore(number: i32, ignored: bool) -> io::Result<bool> {
    let action = Action { handler: if ignored { libc::SIG_IGN } else { libc::SIG_DFL }, ..Action::default() };
    let mut before = Action::default();
    // SAFETY: both structures are the kernel's and live through the call; the action is not a function, so no code of ours
    // can be called through it.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const action, &raw mut before, SET_BYTES) };
    if result == 0 { Ok(before.handler == libc::SIG_IGN) } else { Err(io::Error::last_os_error()) }
}

fn is_ignored(number: i32) -> bool {
    let mut action = Action::default();
    // SAFETY: the structure is the kernel's and lives through the call, which only writes the current action to it.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, number, std::ptr::null::<Action>(), &raw mut action, SET_BYTES)
    };
    result == 0 && action.handler == libc::SIG_IGN
}

/// Whether SIGPIPE was ignored when this program was executed. Rust's runtime ignores it before `main`, so it must be
/// asked earlier than that, or a child would inherit our choice in place of our parent's.
static SIGPIPE_IGNORED: AtomicBool = AtomicBool::new(false);

// SAFETY: the loader calls each entry of this section once, before `main`, with arguments that a function without
// parameters may ignore under the C calling convention. The function only queries a signal and stores to an atomic.
#[used]
#[unsafe(link_section = ".init_array")]
static ASK_BEFORE_MAIN: extern "C" fn() = ask_before_main;

extern "C" fn ask_before_main() {
    SIGPIPE_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

/// Which of the signals whose action was changed here were ignored when this program was executed. A program inherits no other
/// action than this and the default one, and all that is not changed here it inherits through us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IgnoredAtStart {
    child: bool,
    pipe: bool,
}

impl IgnoredAtStart {
    /// Gives SIGCHLD its default action: while it is ignored, the kernel throws away how children ended.
    ///
    /// # Errors
    /// Never in practice.
    pub(crate) fn hear_of_children() -> io::Result<Self> {
        Ok(Self { child: ignore(libc::SIGCHLD, false)?, pipe: SIGPIPE_IGNORED.load(Ordering::Relaxed) })
    }

    /// Undoes what was changed, in a child. Async-signal-safe.
    pub(super) fn restore(self) -> io::Result<()> {
        ignore(libc::SIGCHLD, self.child)?;
        ignore(libc::SIGPIPE, self.pipe)?;
        Ok(())
    }
}

/// Gives all signals their default action, in a child. Async-signal-safe.
pub(super) fn ignore_none() -> io::Result<()> {
    for number in (1..=LAST).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
        ignore(number, false)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_signals_put_into_it_and_no_others() {
        let set: SignalSet = [1, 15, 32, 64, 0, 65, -1].into_iter().collect();
        let members: Vec<i32> = (-2..70).filter(|number| set.contains(*number)).collect();
        assert_eq!(members, [1, 15, 32, 64]);
        assert!((1..=LAST).all(|number| SignalSet::ALL.contains(number)));
        assert!((1..=LAST).all(|number| !SignalSet::EMPTY.contains(number)));
    }
}
