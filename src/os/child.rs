//! What happens in the child between `fork` and `exec`.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::prctl;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, getpid, setgid, setgroups, setpgid, setsid, setuid, tcsetpgrp};

/// The user that a child becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// All supplementary groups; the parent's are dropped.
    pub groups: Vec<Gid>,
}

/// Where the child stands towards the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// A session of its own, without a terminal.
    Own,
    /// A process group of its own in our session, made the terminal's foreground group.
    Foreground,
}

/// Everything that is settled between `fork` and `exec`.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Session or foreground group.
    pub session: Session,
    /// The user to become, if not ours.
    pub identity: Option<Identity>,
    /// The signal mask that the child starts with.
    pub mask: SigSet,
    /// Signals that stay ignored in the child; all others get their default action.
    pub ignored: Vec<Signal>,
    /// The real-time signals that stay ignored, by number.
    pub ignored_realtime: Vec<i32>,
    /// File creation mask, if not inherited.
    pub umask: Option<Mode>,
    /// No set-user-id program can raise the child's privileges.
    pub no_new_privs: bool,
    /// The signal that the kernel sends to the child when we die.
    pub parent_death: Option<Signal>,
}

/// Makes `command` apply `setup` in the child, just before `exec`.
pub fn prepare(command: &mut Command, setup: Setup) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child of a process that has one thread at this point, and calls only
    // functions that are async-signal-safe; it allocates nothing.
    unsafe {
        command.pre_exec(move || apply(&setup, parent));
    }
}

fn apply(setup: &Setup, parent: Pid) -> io::Result<()> {
    match setup.session {
        Session::Own => {
            setsid()?;
        }
        Session::Foreground => take_foreground()?,
    }
    close_inherited()?;
    if let Some(mode) = setup.umask {
        umask(mode);
    }
    if let Some(identity) = &setup.identity {
        // Groups first and user last: each step needs the privilege that the next one gives up.
        setgroups(&identity.groups)?;
        setgid(identity.gid)?;
        setuid(identity.uid)?;
    }
    if setup.no_new_privs {
        prctl::set_no_new_privs()?;
    }
    if let Some(signal) = setup.parent_death {
        // After setuid, which clears it. If the parent died before this line, nobody would tell us.
        prctl::set_pdeathsig(signal)?;
        if Pid::parent() != parent && Pid::parent() != Pid::from_raw(0) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    restore_signals(setup)
}

/// Takes the terminal, as an interactive shell does for a job: in the child and before `exec`, so that the program never
/// runs in the background, and with SIGTTOU ignored because the caller is in the background at that moment.
fn take_foreground() -> io::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    set_disposition(libc::SIGTTOU, libc::SIG_IGN)?;
    // SAFETY: descriptor 0 stays open for the life of this call; nothing closes it between fork and exec.
    let terminal = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
    match tcsetpgrp(terminal, getpid()) {
        Ok(())
        | Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::ENXIO | nix::errno::Errno::EPERM) => {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Marks all descriptors but the standard streams close-on-exec (closing them here would cut the pipe over which the
/// standard library reports a failed `exec`).
fn close_inherited() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
    let first: libc::c_uint = 3;
    // SAFETY: close_range takes three integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return Ok(());
    }
    // Before Linux 5.11, or under a filter that does not know the call: one by one.
    let limit = match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) => i32::try_from(soft.min(1 << 16)).unwrap_or(1 << 16),
        Err(_) => 1024,
    };
    for fd in 3..limit {
        // SAFETY: F_SETFD on a number that is not open fails with EBADF and changes nothing.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

fn restore_signals(setup: &Setup) -> io::Result<()> {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        let handler = if setup.ignored.contains(&signal) {
            SigHandler::SigIgn
        } else {
            SigHandler::SigDfl
        };
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: only the default and the ignore actions are installed; no handler code is involved.
        unsafe { sigaction(signal, &action) }?;
    }
    for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        let action = if setup.ignored_realtime.contains(&number) {
            libc::SIG_IGN
        } else {
            libc::SIG_DFL
        };
        set_disposition(number, action)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&setup.mask), None)?;
    Ok(())
}

/// Sets the action of one signal, by number, to the default or to ignore.
fn set_disposition(number: i32, action: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: `action` is SIG_DFL or SIG_IGN, so no handler code is involved; the struct is plain data and zero is valid
    // for each of its fields.
    let result = unsafe {
        let mut what: libc::sigaction = std::mem::zeroed();
        what.sa_sigaction = action;
        libc::sigaction(number, &raw const what, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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

/// The signals that this process was started with as ignored: the ones nix names, and the real-time ones by number.
#[must_use]
pub fn ignored_at_start() -> (Vec<Signal>, Vec<i32>) {
    let named = Signal::iterator()
        .filter(|signal| match signal {
            Signal::SIGPIPE => SIGPIPE_IGNORED.load(Ordering::Relaxed),
            other => is_ignored(*other as i32),
        })
        .collect();
    let realtime = (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .filter(|number| is_ignored(*number))
        .collect();
    (named, realtime)
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: with a null second argument, sigaction only writes the current action into the struct, which is plain data.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut current) == 0
            && current.sa_sigaction == libc::SIG_IGN
    }
}

/// Blocks every signal that can be blocked, real-time ones included, and returns the mask that was in force.
///
/// # Errors
/// Never in practice: the arguments are valid.
pub fn block_all_signals() -> io::Result<SigSet> {
    let mut before = SigSet::empty();
    sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    Ok(before)
}

/// Ignores the terminal's stop signals in this process: an init that reads or hands over the terminal must not be stopped
/// by it. The child gets its own actions back before `exec`.
///
/// # Errors
/// Never in practice: the arguments are valid.
pub fn ignore_terminal_stops() -> io::Result<()> {
    set_disposition(libc::SIGTTIN, libc::SIG_IGN)?;
    set_disposition(libc::SIGTTOU, libc::SIG_IGN)
}

/// Sends a signal by number, which may be a real-time one that nix has no name for. A negative `target` is a group.
///
/// # Errors
/// `ESRCH` when there is no such process or group, `EPERM` when it is not ours to signal.
pub fn kill(target: i32, number: i32) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    if unsafe { libc::kill(target, number) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
