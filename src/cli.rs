//! The command line.

mod foreign;
mod frequent;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::agent::hooks;
use crate::agent::interpreter::Interpreters;
use crate::config::values::{parse_duration, parse_flag};
use crate::config::{Environment, Places};
use crate::control::client::{self, ClientError};
use crate::control::{self, HookEvent, Request};
use crate::entry;
use crate::exit;
use crate::init::{Signals, exec};
use crate::log;
use crate::print;
use crate::provider::{FORGES, Forges};
use crate::resource::{LockPlace, Locks, ResourceId, Wanted, command as locking};
use crate::workspace::{command as wiping, sysv, trial};

const ABOUT: &str = "PID 1 of an ephemeral CI runner: registers the official agent, runs it as an unprivileged user, lets a \
running job finish on stop, removes the registration, wipes what the job left, and exits.";

const AFTER: &str = "Settings come from the environment; `oscr-entry check` prints those in force, and docs/configuration.md \
lists them all.

Signals to `run`: the first SIGTERM or SIGINT lets a running job finish (up to OSCR_STOP_TIMEOUT), the second cancels it, \
SIGUSR1 drains.

Exit codes: 0 done, 64 bad arguments, 70 a fault of OSCR or its host, 73 taken by others, 75 try again, 78 bad configuration; `exec` gives the \
child's, 128+n for a signal, 127 not found, 126 not executable.";

#[derive(Parser)]
#[command(name = "oscr-entry", version, about = ABOUT, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
#[cfg_attr(test, derive(Debug, PartialEq))]
enum Command {
    /// Live one incarnation of a runner (the default)
    Run,
    /// Be an init for any program: forward signals, reap orphans, pass the exit code on
    Exec(ExecArgs),
    /// Report a job to PID 1 and run the user's hooks; called by the agent
    Hook(HookArgs),
    /// Exit 0 if the runner does what it is there for, else 1 with the reason
    Health(SocketArgs),
    /// Print what the runner is doing
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Take no more jobs, wait for the running one and the removal of the registration
    Drain {
        /// Then leave (and let a restart policy start anew), rather than stay without taking jobs
        #[arg(long)]
        exit: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Use the locks of shared hardware, on the host or in a container
    Lock {
        /// The lock directory (default: RUNNER_LOCK_DIR, else /var/lock/oscr)
        #[arg(long, value_name = "PATH", global = true)]
        dir: Option<PathBuf>,
        #[command(subcommand)]
        command: LockCommand,
    },
    /// Look at all that a runner with this configuration needs, from DNS to Docker, with the cure for what is wrong
    Doctor,
    /// Write down what every file of this image is like, as the last step of building it
    #[command(hide = true)]
    Baseline,
    /// Remove the System V objects of this user
    #[command(name = sysv::COMMAND, hide = true)]
    WipeSysv,
    /// Empty a directory, as `run` does before and after each job
    #[command(name = wiping::COMMAND, hide = true)]
    Wipe {
        /// The directory, which itself stays
        directory: PathBuf,
    },
    /// Make and remove a file and a directory in each of these places
    #[command(name = trial::COMMAND, hide = true)]
    TryPlaces {
        /// The directories
        places: Vec<PathBuf>,
    },
    /// Validate the configuration and print it, without asking the forge
    Check,
}

#[derive(Subcommand)]
#[cfg_attr(test, derive(Debug, PartialEq))]
enum LockCommand {
    /// Wait for the hardware, run a command while holding it
    Run {
        /// board-1, or a,b for all of several, or a|b for any one (the command finds it in OSCR_RESOURCE)
        id: Wanted,
        /// Wait no longer than this, then exit with 73 (0: do not wait)
        #[arg(long, value_name = "TIME", value_parser = parse_grace)]
        timeout: Option<Duration>,
        /// Exit with this code then
        #[arg(long, value_name = "N", default_value_t = exit::TAKEN)]
        conflict_exit_code: u8,
        /// What those who wait are told besides your name and the program's
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// The command to run
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Print who holds and who waits; exit 1 where it can only be told what is recorded
    Status {
        /// One resource; all by default
        id: Option<ResourceId>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Bring a resource back that was set aside because its hooks failed for one job after another
    Repair {
        /// The resource
        id: ResourceId,
    },
    /// Wait until nobody has the resource and nobody waits for it
    WaitFree {
        /// The resource
        id: ResourceId,
    },
}

#[derive(Args)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct SocketArgs {
    /// The control socket of PID 1
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl SocketArgs {
    fn path(self) -> PathBuf {
        self.socket.unwrap_or_else(|| control::socket(&Places::below(root())))
    }
}

/// Below which OSCR's own places lie.
fn root() -> PathBuf {
    Environment::new(std::env::vars_os()).get("OSCR_ROOT").unwrap_or("/").into()
}

#[derive(Args)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct HookArgs {
    /// job-started or job-completed
    event: HookEvent,
    /// The control socket of PID 1
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The forge whose agent runs this hook
    #[arg(long, value_name = "NAME")]
    forge: Option<String>,
    /// The directory of the user's hooks
    #[arg(long, value_name = "PATH")]
    hooks: PathBuf,
    /// The image's agent, whose Node.js runs some of them
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// The directory of agents that were fetched in its place
    #[arg(long, value_name = "PATH")]
    fetched: Option<PathBuf>,
}

#[derive(Args)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct ExecArgs {
    /// Send signals to the child alone, not to its whole process group
    #[arg(long)]
    single_child: bool,
    /// Pass on another signal than the one received (names or numbers; 0 drops it)
    #[arg(long, value_name = "FROM:TO", value_parser = parse_rewrite)]
    rewrite: Vec<(i32, i32)>,
    /// Exit with another code than the child's
    #[arg(long, value_name = "FROM:TO", value_parser = parse_remap)]
    remap: Vec<(u8, u8)>,
    /// How long what the child leaves behind may take to obey SIGTERM before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_grace)]
    grace: Duration,
    /// Run as this user: USER[:GROUP], names or numbers
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Run in this directory
    #[arg(long, value_name = "PATH")]
    workdir: Option<PathBuf>,
    /// Run with this file creation mask (octal)
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    umask: Option<u32>,
    /// The signal that the child gets if this process dies, or this process' parent
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    pdeathsig: Option<Signal>,
    /// Forbid the child to gain privileges
    #[arg(long)]
    no_new_privs: bool,
    /// The command to run
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Parses the arguments, does what they say, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    main_with(FORGES)
}

/// The same for a program that serves other forges.
#[must_use]
pub fn main_with(forges: Forges) -> ExitCode {
    log::report_panics();
    // First of all: what is sent to PID 1 while the arguments are read must not be lost.
    let signals = match Signals::block() {
        Ok(signals) => signals,
        Err(error) => {
            print::say(&format!("signals cannot be blocked: {error}"));
            return ExitCode::from(exit::SOFTWARE);
        }
    };
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = match frequent::command(&words) {
        Some(command) => command,
        None => match any_command(&words) {
            Ok(command) => command,
            Err(code) => return code,
        },
    };
    drop(words);
    let starts_others =
        matches!(command, Command::Run | Command::Exec(_) | Command::Lock { command: LockCommand::Run { .. }, .. });
    if !starts_others {
        signals.release();
    }
    match command {
        Command::Run => entry::run(forges, signals),
        Command::Exec(arguments) => exec_command(arguments, &signals),
        Command::Hook(arguments) => hook(forges, &arguments),
        Command::Health(socket) => health(socket),
        Command::Status { json, socket } => status(json, socket),
        Command::Drain { exit, socket } => drain(exit, socket),
        Command::Lock { dir, command } => lock(dir, command, &signals),
        Command::Doctor => entry::doctor(forges, &mut print::out()).unwrap_or(ExitCode::FAILURE),
        Command::Baseline => entry::baseline(&root()),
        Command::WipeSysv => ExitCode::from(sysv::run()),
        Command::Wipe { directory } => ExitCode::from(wiping::run(&directory)),
        Command::TryPlaces { places } => ExitCode::from(trial::run(&places)),
        Command::Check => entry::check(forges, &mut print::out()).unwrap_or(ExitCode::from(exit::SOFTWARE)),
    }
}

/// What the words mean to the whole parser, or the code to exit with after it has said what is wrong with them, or what was asked of it.
fn any_command(words: &[OsString]) -> Result<Command, ExitCode> {
    let error = match Cli::try_parse_from(words) {
        Ok(cli) => return Ok(cli.command.unwrap_or(Command::Run)),
        Err(error) => error,
    };
    match foreign::advice(&Cli::command(), &error, words.iter().skip(1).cloned()) {
        Some(advice) => print::say(&advice),
        // A reader who has left is no fault here either.
        None => {
            let _ = error.print();
        }
    }
    Err(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(exit::USAGE),
    })
}

fn exec_command(arguments: ExecArgs, signals: &Signals) -> ExitCode {
    let options = exec::Options {
        command: arguments.command,
        single_child: arguments.single_child,
        rewrite: arguments.rewrite,
        remap: arguments.remap,
        grace: arguments.grace,
        user: arguments.user,
        directory: arguments.workdir,
        umask: arguments.umask,
        parent_death: arguments.pdeathsig,
        no_new_privs: arguments.no_new_privs,
        extra_env: Vec::new(),
        keep: Vec::new(),
    };
    match exec::exec(&options, signals) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print::say(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn lock(dir: Option<PathBuf>, command: LockCommand, signals: &Signals) -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    let directory = dir.or_else(|| environment.get("RUNNER_LOCK_DIR").map(PathBuf::from));
    let directory = directory.unwrap_or_else(|| LockPlace::USUAL.into());
    let allow_nfs = environment.get("OSCR_LOCK_ALLOW_NFS").and_then(parse_flag).unwrap_or(false);
    let place = LockPlace { directory, allow_nfs };
    let opened = match command {
        LockCommand::Run { .. } | LockCommand::Repair { .. } => Locks::open(&place),
        LockCommand::Status { .. } | LockCommand::WaitFree { .. } => Locks::to_look_at(&place),
    };
    let locks = match opened {
        Ok(locks) => locks,
        Err(error) => {
            print::say(&error.to_string());
            return ExitCode::from(exit::CONFIG);
        }
    };
    let result = match command {
        LockCommand::Run { id, timeout, conflict_exit_code: taken, note, command } => {
            let manners = locking::Manners { timeout, taken, note };
            locking::run(&locks, &id, exec::Options { command, ..exec::Options::default() }, &manners, signals)
        }
        LockCommand::Status { id, json } => locking::status(&locks, id.as_ref(), json, &mut print::out()),
        LockCommand::Repair { id } => locking::repair(&locks, &id, &mut print::out()),
        LockCommand::WaitFree { id } => locking::wait_free(&locks, &id),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print::say(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn hook(forges: Forges, arguments: &HookArgs) -> ExitCode {
    let named = arguments.forge.as_deref().unwrap_or(forges.usual().name);
    let Some(forge) = forges.named(named) else {
        print::say(&format!("{named:?} is no forge that this program knows"));
        return ExitCode::from(exit::USAGE);
    };
    let HookArgs { event, socket, hooks, agent, fetched, .. } = arguments;
    let usual = Interpreters::of(&Places::below(root()));
    let interpreters =
        Interpreters { agent: agent.clone().unwrap_or(usual.agent), fetched: fetched.clone().unwrap_or(usual.fetched) };
    ExitCode::from(hooks::run(forge, *event, socket, hooks, &interpreters))
}

fn health(socket: SocketArgs) -> ExitCode {
    let mut out = print::out();
    let (text, code) = match client::status(&socket.path()) {
        Ok(status) if status.healthy => (status.phase.to_string(), ExitCode::SUCCESS),
        Ok(status) => (format!("{}: {}", status.phase, status.reason.unwrap_or_default()), ExitCode::FAILURE),
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    let _ = writeln!(out, "{text}");
    code
}

fn status(json: bool, socket: SocketArgs) -> ExitCode {
    let status = match client::status(&socket.path()) {
        Ok(status) => status,
        Err(error) => {
            print::say(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let mut out = print::out();
    let text = if json { serde_json::to_string(&status).unwrap_or_default() } else { status.to_string() };
    let _ = writeln!(out, "{text}");
    ExitCode::SUCCESS
}

fn drain(exit: bool, socket: SocketArgs) -> ExitCode {
    match client::ask(&socket.path(), &Request::Drain { exit }) {
        // It left while we waited, as it was told to.
        Ok(_) | Err(ClientError::Ended) => ExitCode::SUCCESS,
        Err(error) => {
            print::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn signal_number(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse() {
        return if (0..=libc::SIGRTMAX()).contains(&number) {
            Ok(number)
        } else {
            Err(format!("{number} is no signal"))
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|signal| signal as i32).map_err(|_| format!("{text:?} is no signal"))
}

fn parse_rewrite(text: &str) -> Result<(i32, i32), String> {
    let (from, to) = text.split_once(':').ok_or("write FROM:TO")?;
    match signal_number(from)? {
        0 => Err("0 cannot be received".to_owned()),
        from => Ok((from, signal_number(to)?)),
    }
}

fn parse_remap(text: &str) -> Result<(u8, u8), String> {
    let (from, to) = text.split_once(':').ok_or("write FROM:TO")?;
    let code = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a code from 0 to 255"));
    Ok((code(from)?, code(to)?))
}

fn parse_grace(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write seconds (90) or a number with s, m or h (30m)".to_owned())
}

fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| format!("{text:?} is no octal mode"))
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    Signal::try_from(signal_number(text)?).map_err(|_| format!("{text:?} is no signal with a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(parse_rewrite("TERM:INT"), Ok((15, 2)));
        assert_eq!(parse_rewrite("SIGHUP:0"), Ok((1, 0)));
        assert_eq!(parse_rewrite("15:34"), Ok((15, 34)));
        assert!(parse_rewrite("TERM").is_err() && parse_rewrite("0:1").is_err() && parse_rewrite("FOO:1").is_err());
        assert_eq!(parse_remap("143:0"), Ok((143, 0)));
        assert!(parse_remap("256:0").is_err());
        assert_eq!(parse_mode("027"), Ok(0o27));
        assert!(parse_mode("1777").is_err() && parse_mode("9").is_err());
    }
}
