//! The words of the command line, as they are documented and parsed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::signal::Signal;

use crate::config::values::parse_duration;
use crate::control::HookEvent;
use crate::exit;
use crate::resource::{ResourceId, Wanted};
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
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Subcommand)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) enum Command {
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
pub(super) enum LockCommand {
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
pub(super) struct SocketArgs {
    /// The control socket of PID 1
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

#[derive(Args)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct HookArgs {
    /// job-started or job-completed
    pub(super) event: HookEvent,
    /// The control socket of PID 1
    #[arg(long, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// The forge whose agent runs this hook
    #[arg(long, value_name = "NAME")]
    pub(super) forge: Option<String>,
    /// The directory of the user's hooks
    #[arg(long, value_name = "PATH")]
    pub(super) hooks: PathBuf,
    /// The image's agent, whose Node.js runs some of them
    #[arg(long, value_name = "PATH")]
    pub(super) agent: Option<PathBuf>,
    /// The directory of agents that were fetched in its place
    #[arg(long, value_name = "PATH")]
    pub(super) fetched: Option<PathBuf>,
}

#[derive(Args)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct ExecArgs {
    /// Send signals to the child alone, not to its whole process group
    #[arg(long)]
    pub(super) single_child: bool,
    /// Pass on another signal than the one received (names or numbers; 0 drops it)
    #[arg(long, value_name = "FROM:TO", value_parser = parse_rewrite)]
    pub(super) rewrite: Vec<(i32, i32)>,
    /// Exit with another code than the child's
    #[arg(long, value_name = "FROM:TO", value_parser = parse_remap)]
    pub(super) remap: Vec<(u8, u8)>,
    /// How long what the child leaves behind may take to obey SIGTERM before SIGKILL
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_grace)]
    pub(super) grace: Duration,
    /// Run as this user: USER[:GROUP], names or numbers
    #[arg(long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// Run in this directory
    #[arg(long, value_name = "PATH")]
    pub(super) workdir: Option<PathBuf>,
    /// Run with this file creation mask (octal)
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub(super) umask: Option<u32>,
    /// The signal that the child gets if this process dies, or this process' parent
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    pub(super) pdeathsig: Option<Signal>,
    /// Forbid the child to gain privileges
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// The command to run
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
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
    use clap::CommandFactory;

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
