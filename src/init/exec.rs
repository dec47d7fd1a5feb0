//! `oscr-entry exec -- CMD…`: an init for any program.
//!
//! Block signals, spawn, then one loop: read a signal; reap if it is SIGCHLD, else pass it on. When the main child is gone,
//! end what it left and exit with its code.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, getpid, getsid, isatty, tcgetpgrp, tcsetpgrp};

use super::account::{AccountError, Accounts};
use super::leftovers::{any_child, signal_all};
use super::signals::Caught;
use super::{Change, Ended, Role, Signals, Spawn, SpawnError, adopt_orphans, reap, spawn};
use crate::os::child::{self, Session, Setup};

/// How long the kernel gets to tear down processes that SIGKILL has been sent to. Only a process stuck in a system call
/// (a dead network file system, say) needs longer, and waiting for it would hang the container.
const TEARDOWN: Duration = Duration::from_secs(5);

/// What `exec` was asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command and its arguments; not empty.
    pub command: Vec<OsString>,
    /// Signals go to the child alone rather than to its whole group.
    pub single_child: bool,
    /// Signals to translate before they are passed on; a target of 0 drops them.
    pub rewrite: Vec<(i32, i32)>,
    /// Exit codes to translate.
    pub remap: Vec<(u8, u8)>,
    /// How long what the child left may take to obey SIGTERM.
    pub grace: Duration,
    /// The user to become: `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// Working directory.
    pub directory: Option<PathBuf>,
    /// File creation mask.
    pub umask: Option<u32>,
    /// The signal that the child gets if we die.
    pub parent_death: Option<Signal>,
    /// Forbid the child to gain privileges.
    pub no_new_privs: bool,
}

/// Why the command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The kernel did not give us a signal descriptor, or took it away.
    #[error("signals cannot be read: {0}")]
    Signals(#[from] io::Error),
    /// The user is unknown.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The command cannot be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl ExecError {
    /// 127 not found, 126 not executable, 125 a fault before that.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Spawn(error) => error.exit_code(),
            Self::Signals(_) | Self::Account(_) => 125,
        }
    }
}

/// Runs the command as its init and returns the code to exit with.
///
/// # Errors
/// When the command never ran.
pub fn exec(options: &Options) -> Result<u8, ExecError> {
    let signals = Signals::block()?;
    let account = options
        .user
        .as_deref()
        .map(|user| Accounts::default().resolve(user))
        .transpose()?;
    if adopt_orphans() == Role::Bystander {
        eprintln!(
            "oscr-entry: not PID 1 and not allowed to be a subreaper: orphans will not be reaped here"
        );
    }
    let terminal = Terminal::of_stdin();
    let [program, args @ ..] = options.command.as_slice() else {
        return Err(SpawnError::NotFound(PathBuf::new()).into());
    };
    let what = Spawn {
        program: program.clone(),
        args: args.to_vec(),
        env: None,
        directory: options.directory.clone(),
        captured: false,
    };
    let setup = Setup {
        session: if terminal.is_some() {
            Session::Foreground
        } else {
            Session::Own
        },
        identity: account.map(|account| account.identity),
        mask: signals.inherited_mask,
        ignored: signals.inherited_ignored.clone(),
        ignored_realtime: signals.inherited_ignored_realtime.clone(),
        umask: options.umask.map(Mode::from_bits_truncate),
        no_new_privs: options.no_new_privs,
        parent_death: options.parent_death,
    };
    if terminal.is_some() {
        child::ignore_terminal_stops()?;
    }
    let main = spawn::spawn(&what, setup)?.pid;

    let init = Init {
        main,
        terminal,
        options,
    };
    let ended = init.supervise(&signals)?;
    init.end_leftovers(&signals)?;
    if let Some(terminal) = &init.terminal {
        terminal.take_back();
    }
    let code = ended.exit_code();
    let remapped = options
        .remap
        .iter()
        .find(|(from, _)| *from == code)
        .map_or(code, |(_, to)| *to);
    Ok(remapped)
}

struct Init<'a> {
    main: Pid,
    terminal: Option<Terminal>,
    options: &'a Options,
}

impl Init<'_> {
    /// Passes signals on and reaps until the main child has ended.
    fn supervise(&self, signals: &Signals) -> io::Result<Ended> {
        loop {
            wait_readable(signals.as_fd(), PollTimeout::NONE)?;
            while let Some(caught) = signals.next()? {
                if !caught.is_child() {
                    self.pass_on(caught);
                    continue;
                }
                let mut ended = None;
                for change in reap() {
                    match change {
                        Change::Ended(pid, how) if pid == self.main => ended = Some(how),
                        Change::Stopped(pid, _) if pid == self.main => self.main_stopped(),
                        Change::Ended(..) | Change::Stopped(..) => {}
                    }
                }
                if let Some(how) = ended {
                    return Ok(how);
                }
            }
        }
    }

    fn pass_on(&self, caught: Caught) {
        let wanted = self
            .options
            .rewrite
            .iter()
            .find(|(from, _)| *from == caught.number);
        let mut number = wanted.map_or(caught.number, |(_, to)| *to);
        if number == 0 {
            return;
        }
        let stops = is_terminal_stop(number);
        if stops && self.terminal.is_none() {
            // The child's group is orphaned (its leader's parent, us, is in another session), and the kernel discards the
            // terminal's stop signals for such a group. SIGSTOP does what the sender meant.
            number = Signal::SIGSTOP as i32;
        }
        if number == Signal::SIGCONT as i32
            && let Some(terminal) = &self.terminal
        {
            terminal.give_if_ours(self.main);
        }
        let target = if self.options.single_child {
            self.main.as_raw()
        } else {
            -self.main.as_raw()
        };
        // ESRCH: the group is already gone and SIGCHLD is on its way. EPERM: it became another user; nothing to be done.
        let _ = child::kill(target, number);
        if stops {
            // Stop with the child, so that whoever watches us sees it. The kernel ignores this for PID 1.
            let _ = child::kill(getpid().as_raw(), Signal::SIGSTOP as i32);
        }
    }

    /// The child was stopped from the terminal: step back to the shell that started us, as a part of its job. Its `fg`
    /// sends SIGCONT to our group, which [`Self::pass_on`] turns into the child's foreground and continuation.
    fn main_stopped(&self) {
        if let Some(terminal) = &self.terminal
            && terminal.below_a_shell
        {
            terminal.take_back();
            let _ = child::kill(0, Signal::SIGSTOP as i32);
        }
    }

    /// SIGTERM, the grace, SIGKILL, and reaping until nothing is left.
    fn end_leftovers(&self, signals: &Signals) -> io::Result<()> {
        reap();
        if !any_child() {
            return Ok(());
        }
        signal_all(Signal::SIGTERM as i32, &[]);
        signal_all(Signal::SIGCONT as i32, &[]);
        let killed_at = Instant::now() + self.options.grace;
        let given_up_at = killed_at + TEARDOWN;
        loop {
            let now = Instant::now();
            if now >= given_up_at {
                return Ok(());
            }
            let next = if now >= killed_at {
                // Again on each turn: a process may have been forked between our look and the signal.
                signal_all(Signal::SIGKILL as i32, &[]);
                Duration::from_millis(20)
            } else {
                killed_at - now
            };
            reap();
            if !any_child() {
                return Ok(());
            }
            let timeout = PollTimeout::try_from(next.max(Duration::from_millis(1)))
                .unwrap_or(PollTimeout::MAX);
            wait_readable(signals.as_fd(), timeout)?;
            while let Some(caught) = signals.next()? {
                if !caught.is_child() && caught.number != Signal::SIGCONT as i32 {
                    let _ = signal_all(caught.number, &[]);
                }
            }
        }
    }
}

fn wait_readable(fd: BorrowedFd<'_>, timeout: PollTimeout) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
        // EINTR happens after SIGSTOP and SIGCONT even with everything blocked.
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_terminal_stop(number: i32) -> bool {
    [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU]
        .iter()
        .any(|signal| *signal as i32 == number)
}

/// The terminal on standard input.
struct Terminal {
    /// A process of our own session, such as a shell with job control, started us.
    below_a_shell: bool,
}

impl Terminal {
    fn of_stdin() -> Option<Self> {
        let stdin = io::stdin();
        if !isatty(&stdin).unwrap_or(false) || tcgetpgrp(&stdin).is_err() {
            // A terminal that is not our controlling one has no foreground that we could hand over.
            return None;
        }
        let session = getsid(None).ok();
        let below_a_shell = session.is_some()
            && session == getsid(Some(Pid::parent())).ok()
            && Pid::parent().as_raw() > 0;
        Some(Self { below_a_shell })
    }

    fn take_back(&self) {
        let _ = tcsetpgrp(io::stdin(), getpgrp());
    }

    fn give_if_ours(&self, main: Pid) {
        if tcgetpgrp(io::stdin()) == Ok(getpgrp()) {
            let _ = tcsetpgrp(io::stdin(), main);
        }
    }
}
