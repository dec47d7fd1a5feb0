//! What happens in the child between `fork` and `exec`, and how its end is learnt.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fchdir, fork, getpgrp, getpid, setpgid, setsid, tcgetpgrp, tcsetpgrp};
use rustix::process::{WaitOptions, wait};
use rustix::stdio::stdin;

use super::caps::{self, Capabilities};
use super::directory;
use super::identity::{Identity, become_user};
use super::program::Program;
use super::signal::{self, IgnoredAtStart, SignalSet};

/// Where the child stands towards the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildSession {
    /// A session of its own, without a terminal.
    Own,
    /// A process group of its own in our session. It gets the foreground of the terminal on standard input if we have it.
    Terminal,
}

/// Everything that is settled between `fork` and `exec`.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// ChildSession or process group.
    pub session: ChildSession,
    /// The directory that it starts in, if its parent is not in it any more.
    pub directory: Option<Arc<OwnedFd>>,
    /// The user to become, if not ours.
    pub identity: Option<Identity>,
    /// The signals that the child starts with as blocked.
    pub mask: SignalSet,
    /// The signals that it starts with as ignored, if any; all others get their default action.
    pub ignored: Option<IgnoredAtStart>,
    /// File creation mask, if not inherited.
    pub umask: Option<Mode>,
    /// No set-user-id program can raise the child's privileges.
    pub no_new_privs: bool,
    /// It starts without any capability, and where we may see to it (SETPCAP), no program gives one back.
    pub no_capabilities: bool,
    /// The signal that the kernel sends to the child when we die.
    pub parent_death: Option<Signal>,
    /// Descriptors that the child inherits, besides its standard streams, under the same numbers.
    pub keep: Vec<RawFd>,
    /// A variable of its environment that names it by its process id.
    pub own_id: Option<&'static str>,
}

/// Makes `command` apply `setup` in the child and then execute `program`, whatever the command's own is. All signals must be
/// blocked by then.
pub(crate) fn prepare(command: &mut Command, setup: Setup, mut program: Program) {
    let parent = getpid();
    // SAFETY: the closure runs in the forked child and calls only functions that are async-signal-safe; it allocates nothing. So it
    // needs no lock that another thread of the parent could have held when it was forked.
    unsafe {
        command.pre_exec(move || {
            apply(&setup, parent)?;
            Err(program.execute())
        });
    }
}

/// Room for what a child calls until it executes its program: no buffer there is larger than a page.
const STACK: usize = 64 * 1024;

/// Memory for a stack, given back at once.
struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(start)) }
    }

    /// Where it begins: it grows downwards.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and whoever ran on it is gone.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

/// What the child of [`start`] is told, and tells.
struct Start<'a> {
    setup: &'a Setup,
    program: &'a mut Program,
    parent: Pid,
    failed: Option<io::Error>,
}

/// Starts a child that is of our user, applies `setup` and then executes `program`. All signals must be blocked by then.
///
/// Unlike a fork this copies nothing: until the program is executed the child borrows our memory, and we wait. One that becomes another
/// user should not, since it could be stopped or ended by that user's processes with our memory in its hands.
///
/// # Errors
/// What failed, here or there; nothing is left to be reaped then.
pub(crate) fn start(setup: &Setup, program: &mut Program) -> io::Result<Pid> {
    let stack = Stack::new()?;
    let mut start = Start { setup, program, parent: getpid(), failed: None };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: with CLONE_VFORK this thread goes on only when the child has executed a program or is gone, so the stack and `start`
    // live for as long as it uses them, and nobody else does. Like a forked one it calls only what is async-signal-safe, which needs no
    // lock that another thread could hold, and allocates nothing.
    let pid = unsafe { libc::clone(in_child, stack.top(), flags, (&raw mut start).cast()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = Pid::from_raw(pid);
    let Some(error) = start.failed else { return Ok(pid) };
    while waitpid(pid, None) == Err(Errno::EINTR) {}
    Err(error)
}

extern "C" fn in_child(start: *mut libc::c_void) -> libc::c_int {
    // SAFETY: this is the `Start` of the thread that waits for us.
    let start = unsafe { &mut *start.cast::<Start<'_>>() };
    start.failed = Some(match apply(start.setup, start.parent) {
        Ok(()) => start.program.execute(),
        Err(error) => error,
    });
    // Nobody hears of it: the error does.
    1
}

fn apply(setup: &Setup, parent: Pid) -> io::Result<()> {
    if let Some(directory) = &setup.directory {
        // Before the change of user: with the rights with which we were in it ourselves.
        fchdir(directory)?;
    }
    match setup.session {
        ChildSession::Own => {
            setsid()?;
        }
        ChildSession::Terminal => lead_a_group()?,
    }
    close_inherited();
    for fd in &setup.keep {
        // SAFETY: F_SETFD changes a flag of a descriptor number; one that is not open fails with EBADF.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if let Some(mode) = setup.umask {
        umask(mode);
    }
    if setup.no_capabilities {
        // Without SETPCAP the set stays as the container has it; no_new_privs keeps anybody from drawing on it.
        let _ = caps::empty_bounding_set();
    }
    if let Some(identity) = &setup.identity {
        become_user(identity)?;
    }
    if setup.no_capabilities {
        // A change of user leaves the inheritable set as it is, and without one everything stays.
        caps::limit(Capabilities::NONE)?;
    }
    if setup.no_new_privs {
        prctl::set_no_new_privs()?;
    }
    if let Some(signal) = setup.parent_death {
        // After setuid, which clears it. If the parent died before this line, nobody would tell us.
        prctl::set_pdeathsig(signal)?;
        if Pid::parent() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    match setup.ignored {
        Some(as_at_our_start) => as_at_our_start.restore()?,
        None => signal::ignore_none()?,
    }
    signal::set_mask(setup.mask)?;
    Ok(())
}

/// Makes a group as an interactive shell does for a job: in the child and before `exec`, so that the program never runs in
/// the background. SIGTTOU, which a change of the foreground group brings upon a background process, is still blocked.
fn lead_a_group() -> io::Result<()> {
    let terminal = stdin();
    let foreground = tcgetpgrp(terminal) == Ok(getpgrp());
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    if foreground {
        // It fails if the terminal was hung up just now, which the program will find out by itself.
        let _ = tcsetpgrp(terminal, getpid());
    }
    Ok(())
}

/// Marks all descriptors but the standard streams close-on-exec (closing them here would cut the pipe over which the
/// standard library reports a failed `exec`, and those that are to be kept).
fn close_inherited() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;
    let first: libc::c_uint = 3;
    // SAFETY: close_range takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return;
    }
    // Before Linux 5.11, in gVisor, or under a filter that does not know the call: those that are open, one by one.
    if close_listed(first.cast_signed()).is_ok() {
        return;
    }
    // Without /proc: all that could be, as far as descriptors go. Where a million are allowed that takes a tenth of a second.
    let limit = match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) => i32::try_from(hard.min(1 << 20)).unwrap_or(1 << 20),
        Err(_) => 1 << 16,
    };
    (3..limit).for_each(close_on_exec);
}

/// The same for each descriptor from `first` on that the kernel lists.
fn close_listed(first: RawFd) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let list = open(c"/proc/self/fd", flags, Mode::empty())?;
    let mut buffer = [0; 4096];
    loop {
        let filled = directory::read(&list, &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        let numbers = directory::entries(&buffer[..filled]).filter_map(|entry| entry.name.to_str().ok()?.parse().ok());
        numbers.filter(|fd| *fd >= first).for_each(close_on_exec);
    }
}

fn close_on_exec(fd: RawFd) {
    // SAFETY: F_SETFD on a number that is not open fails with EBADF and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Makes a process of this user (our own where there is none), which ends at once, lets `look` look at it, and takes it away.
///
/// # Errors
/// When there is no room for a process.
pub(crate) fn look_at_a_child<T>(identity: Option<&Identity>, look: impl FnOnce(Pid) -> T) -> io::Result<T> {
    // SAFETY: the child calls only what is async-signal-safe, allocates nothing, and leaves by `_exit`.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let code = i32::from(identity.is_some_and(|identity| become_user(identity).is_err()));
            // SAFETY: `_exit` takes an integer and does not return.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    };
    // It is there, as a zombie and with all that tells whose it was, until it is waited for in earnest.
    while waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let seen = look(child);
    while waitpid(child, None) == Err(Errno::EINTR) {}
    Ok(seen)
}

/// Takes one child that ended or was stopped, whichever it is, without blocking. `None` when all children are running.
///
/// Unlike nix's, this knows children that a real-time signal ended.
///
/// # Errors
/// `ECHILD` when there is no child.
pub(crate) fn wait_any() -> io::Result<Option<(Pid, ExitStatus)>> {
    let ended = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)?;
    Ok(ended.map(|(pid, status)| (Pid::from_raw(pid.as_raw_pid()), ExitStatus::from_raw(status.as_raw()))))
}
