//! The command line.

mod foreign;
mod frequent;
mod line;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::agent::hooks;
use crate::agent::interpreter::Interpreters;
use crate::config::values::parse_flag;
use crate::config::{Environment, Places};
use crate::control::client::{self, ClientError};
use crate::control::{self, Request};
use crate::entry;
use crate::exit;
use crate::init::{Signals, exec};
use crate::log;
use crate::print;
use crate::provider::{FORGES, Forges};
use crate::resource::{LockPlace, Locks, command as locking};
use crate::workspace::{command as wiping, sysv, trial};
use line::{Cli, Command, ExecArgs, HookArgs, LockCommand, SocketArgs};

/// The command line, for those who make man pages and completions of it.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The control socket of PID 1.
fn path_of(arguments: SocketArgs) -> PathBuf {
    arguments.socket.unwrap_or_else(|| control::socket(&Places::below(root())))
}

/// Below which OSCR's own places lie.
fn root() -> PathBuf {
    Environment::new(std::env::vars_os()).get("OSCR_ROOT").unwrap_or("/").into()
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
    let (text, code) = match client::status(&path_of(socket)) {
        Ok(status) if status.healthy => (status.phase.to_string(), ExitCode::SUCCESS),
        Ok(status) => (format!("{}: {}", status.phase, status.reason.unwrap_or_default()), ExitCode::FAILURE),
        Err(error) => (error.to_string(), ExitCode::FAILURE),
    };
    let _ = writeln!(out, "{text}");
    code
}

fn status(json: bool, socket: SocketArgs) -> ExitCode {
    let status = match client::status(&path_of(socket)) {
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
    match client::ask(&path_of(socket), &Request::Drain { exit }) {
        // It left while we waited, as it was told to.
        Ok(_) | Err(ClientError::Ended) => ExitCode::SUCCESS,
        Err(error) => {
            print::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
