//! `oscr-entry exec -- CMD…`: an init for any program.
//!
//! With all signals blocked, spawn; then one loop: take a signal; reap if it is SIGCHLD, else pass it on. When the main child
//! is gone, end what it left and exit with its code. docs/init.md says what users may rely on.

use std::ffi::OsString;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, getpid, getsid, tcgetpgrp, tcsetpgrp};

use super::account::{AccountError, Accounts};
use super::leftovers::{any_child, signal_all};
use super::orphans::{Role, adopt_orphans};
use super::reap::{Change, Ended, reap};
use super::signals::Signals;
use super::sockets;
use super::spawn::{self, Spawn, SpawnError};
use crate::os::child::{ChildSession, Setup};
use crate::os::signal::kill;
use crate::os::stdin;
use crate::print::say;

/// How long the kernel gets to tear down processes that SIGKILL has been sent to. Only a process stuck in a system call
/// (a dead network file system, say) needs longer, and waiting for it would hang the container.
const TEARDOWN: Duration = Duration::from_secs(5);

/// How often SIGKILL is repeated: a process may have been forked between a look at the process table and the signal.
const KILL_AGAIN: Duration = Duration::from_millis(20);

/// What `exec` was asked to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
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
    /// The signal that the child gets if we die; and we, to pass it on, if our parent does.
    pub parent_death: Option<Signal>,
    /// Forbid the child to gain privileges.
    pub no_new_privs: bool,
    /// Variables to set besides those that we have.
    pub extra_env: Vec<(OsString, OsString)>,
    /// Descriptors that the child inherits besides its standard streams.
    pub keep: Vec<RawFd>,
}

/// Why the command could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// A system call failed that never does.
    #[error("the kernel does not let this process be an init: {0}")]
    Kernel(#[from] io::Error),
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
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Spawn(error) => error.exit_code(),
            Self::Kernel(_) | Self::Account(_) => 125,
        }
    }
}

/// Runs the command as its init and returns the code to exit with.
///
/// # Errors
/// When the command never ran.
pub(crate) fn exec(options: &Options, signals: &Signals) -> Result<u8, ExecError> {
    let account = options.user.as_deref().map(|user| Accounts::default().resolve(user)).transpose()?;
    if adopt_orphans() == Role::Bystander {
        say("not PID 1 and not allowed to be a subreaper: orphans will not be reaped here");
    }
    if let Some(signal) = options.parent_death {
        prctl::set_pdeathsig(signal).map_err(io::Error::from)?;
    }
    let terminal = Terminal::of_stdin();
    let [program, args @ ..] = options.command.as_slice() else {
        return Err(SpawnError::NotFound(PathBuf::new()).into());
    };
    let (mut env, mut sockets) = (None, Vec::new());
    if sockets::are_announced() || !options.extra_env.is_empty() {
        let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        sockets = sockets::handed_on(&mut variables, std::process::id());
        variables.extend(options.extra_env.iter().cloned());
        env = Some(variables);
    }
    let left = leave(options.directory.as_deref())?;
    let what = Spawn {
        program: program.clone(),
        args: args.to_vec(),
        env,
        directory: if left.is_some() { None } else { options.directory.clone() },
        captured: false,
    };
    let setup = Setup {
        session: if terminal.is_some() { ChildSession::Terminal } else { ChildSession::Own },
        directory: left,
        identity: account.map(|account| account.identity),
        mask: signals.inherited_mask,
        ignored: Some(signals.inherited_ignored),
        umask: options.umask.map(Mode::from_bits_truncate),
        no_new_privs: options.no_new_privs,
        no_capabilities: false,
        parent_death: options.parent_death,
        own_id: (!sockets.is_empty()).then_some(sockets::WHOSE),
        keep: options.keep.iter().copied().chain(sockets).collect(),
    };
    let stayed = setup.directory.is_none();
    let main = spawn::spawn(&what, setup)?.pid;
    if stayed {
        let _ = std::env::set_current_dir("/");
    }

    let mut init = Init { main, terminal, options };
    let ended = init.supervise(signals)?;
    init.end_leftovers(signals)?;
    if let Some(terminal) = &mut init.terminal {
        terminal.take_back();
    }
    let code = ended.exit_code();
    let remapped = options.remap.iter().find(|(from, _)| *from == code);
    Ok(remapped.map_or(code, |(_, to)| *to))
}

/// Goes to `/`: our directory is of no use to us, and the child may want to unmount it as its first act. Returns where the child
/// begins, `asked` or where we were; `None` if that cannot be opened, be it for want of a descriptor, and we stay.
fn leave(asked: Option<&Path>) -> Result<Option<Arc<OwnedFd>>, SpawnError> {
    if let Some(directory) = asked {
        spawn::enterable(directory).map_err(|error| SpawnError::Directory(directory.to_owned(), error))?;
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(directory) = open(asked.unwrap_or(Path::new(".")), flags, Mode::empty()) else {
        return Ok(None);
    };
    Ok(std::env::set_current_dir("/").is_ok().then(|| Arc::new(directory)))
}

struct Init<'a> {
    main: Pid,
    terminal: Option<Terminal>,
    options: &'a Options,
}

impl Init<'_> {
    /// Passes signals on and reaps until the main child has ended.
    fn supervise(&mut self, signals: &Signals) -> io::Result<Ended> {
        loop {
            let Some(caught) = signals.wait(None)? else {
                continue;
            };
            if !caught.is_child() {
                self.pass_on(caught.number);
                continue;
            }
            let mut ended = None;
            for change in reap() {
                match change {
                    Change::Ended(pid, how) if pid == self.main => ended = Some(how),
                    Change::Stopped(pid, signal) if pid == self.main => self.main_stopped(signal),
                    Change::Ended(..) | Change::Stopped(..) => {}
                }
            }
            if let Some(how) = ended {
                return Ok(how);
            }
        }
    }

    fn pass_on(&mut self, received: i32) {
        let mut number = self.rewritten(received);
        let stops = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].iter().any(|stop| *stop as i32 == received);
        let can_be_continued = self.terminal.as_ref().is_some_and(|t| t.below_a_shell);
        if stops && !can_be_continued && number == received {
            // The kernel discards a terminal's stop signals where no shell could undo them, which is where the child is
            // (its group's leader has a parent, us, in another session). SIGSTOP does what the sender meant.
            number = Signal::SIGSTOP as i32;
        }
        if number == 0 {
            return;
        }
        if number == Signal::SIGCONT as i32
            && let Some(terminal) = &mut self.terminal
        {
            terminal.lend(self.main);
        }
        self.signal_child(number);
        if stops && self.terminal.is_none() {
            // Stop with the child, so that whoever watches us sees it. The kernel ignores this for PID 1.
            let _ = kill(getpid().as_raw(), Signal::SIGSTOP as i32);
        }
    }

    fn rewritten(&self, number: i32) -> i32 {
        let rule = self.options.rewrite.iter().find(|(from, _)| *from == number);
        rule.map_or(number, |(_, to)| *to)
    }

    fn signal_child(&self, number: i32) {
        let main = self.main.as_raw();
        // ESRCH: the group is gone and SIGCHLD is on its way. EPERM: it became another user; nothing can be done.
        let _ = kill(if self.options.single_child { main } else { -main }, number);
    }

    /// The child was stopped. If it was by Ctrl-Z, step back to the shell that started us, as a part of its job. Its `fg`
    /// gives us the terminal and sends SIGCONT, which [`Self::pass_on`] hands on, both of them.
    fn main_stopped(&mut self, signal: i32) {
        let Some(terminal) = &mut self.terminal else {
            return;
        };
        let wants_terminal = [libc::SIGTTIN, libc::SIGTTOU].contains(&signal);
        if wants_terminal && terminal.lend(self.main) {
            // Started in the background, and brought to the foreground since.
            self.signal_child(Signal::SIGCONT as i32);
        } else if terminal.below_a_shell {
            terminal.take_back();
            let _ = kill(0, Signal::SIGSTOP as i32);
        } else if signal == libc::SIGTSTP {
            // There is no shell above us that could continue it (`docker run -it`).
            self.signal_child(Signal::SIGCONT as i32);
        }
    }

    /// SIGTERM, the grace, SIGKILL, and reaping until nothing is left.
    fn end_leftovers(&self, signals: &Signals) -> io::Result<()> {
        reap().for_each(drop);
        if !any_child() {
            return Ok(());
        }
        signal_all(Signal::SIGTERM as i32, &[]);
        // One that is stopped would not see it.
        signal_all(Signal::SIGCONT as i32, &[]);
        let begun = Instant::now();
        let mut next_kill = self.options.grace;
        let give_up = next_kill.saturating_add(TEARDOWN);
        loop {
            reap().for_each(drop);
            if !any_child() {
                return Ok(());
            }
            let now = begun.elapsed();
            if now >= give_up {
                say("leaving processes behind that SIGKILL does not end");
                return Ok(());
            }
            if now >= next_kill {
                signal_all(Signal::SIGKILL as i32, &[]);
                next_kill = now + KILL_AGAIN;
            }
            match signals.wait(Some(next_kill.saturating_sub(now)))? {
                Some(caught) if !caught.is_child() => match self.rewritten(caught.number) {
                    0 => {}
                    number => signal_all(number, &[]),
                },
                _ => {}
            }
        }
    }
}

/// The terminal on standard input, if it is the one of our session.
struct Terminal {
    /// Something in our own session, such as a shell with job control, started us.
    below_a_shell: bool,
    /// The foreground is the child's; it was ours.
    lent: bool,
}

impl Terminal {
    fn of_stdin() -> Option<Self> {
        // This fails for a terminal of another session, which has no foreground for us to hand over.
        let foreground = tcgetpgrp(stdin()).ok()?;
        let parent = Pid::parent();
        Some(Self {
            // The parent of a namespace's first process is 0, and says nothing.
            below_a_shell: parent.as_raw() > 0 && getsid(None) == getsid(Some(parent)),
            // What `ChildSession::Terminal` makes the child do.
            lent: foreground == getpgrp(),
        })
    }

    /// Gives the foreground to the child's group, if we have it.
    fn lend(&mut self, main: Pid) -> bool {
        let ours = tcgetpgrp(stdin()) == Ok(getpgrp());
        if ours {
            self.lent = tcsetpgrp(stdin(), main).is_ok();
        }
        ours
    }

    /// Takes it from whichever of the child's groups has it now. SIGTTOU, the price of doing so in the background, is blocked.
    fn take_back(&mut self) {
        if std::mem::take(&mut self.lent) {
            let _ = tcsetpgrp(stdin(), getpgrp());
        }
    }
}
