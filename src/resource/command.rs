//! `oscr-entry lock …`: the same locks for people and scripts, on the host and in a container.

use std::io::Write;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::attempt::{AttemptError, Held};
pub(crate) use super::attempt::{COMMAND as WAIT, run_waiter};
use super::claim::Claim;
use super::locks::Locks;
use super::survey::Occupancy;
use super::wanted::{ResourceId, Wanted};
use crate::exit;
use crate::init::exec::{ExecError, Options, exec};
use crate::init::spawn::spawn;
use crate::init::{Change, Signals, SpawnError, reap};
use crate::print::say;

/// Somebody who gets the resource within this time is not told about waiting.
const UNREMARKABLE: Duration = Duration::from_millis(200);

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The queue cannot be used.
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    /// The command, or the process that waits for its turn, cannot be started.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// Signals, or the lock directory, cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A signal came while waiting, by number.
    #[error("interrupted while waiting")]
    Interrupted(i32),
}

impl CommandError {
    /// The code to exit with.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exec(error) => error.exit_code(),
            Self::Interrupted(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
            Self::Attempt(_) | Self::Io(_) => exit::TEMPORARY,
        }
    }
}

/// Waits for the resources, runs the command as its init, and lets go when it and what it left are gone. The command
/// inherits the lock, as with `flock(1)`: if this process is killed, the command has the resource for as long as it lives.
///
/// # Errors
/// When the command never ran.
pub(crate) fn run(locks: &Locks, wanted: &Wanted, mut options: Options, signals: &Signals) -> Result<u8, CommandError> {
    let words: Vec<String> = options.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let who = format!("{} (process {})", words.join(" "), std::process::id());
    let held = loop {
        match wait(signals, locks, wanted, &Claim::now(who.clone(), None, None)) {
            Err(CommandError::Attempt(AttemptError::Again)) => {}
            other => break other?,
        }
    };
    held.say(&Claim::now(who, None, None));
    options.extra_env.push(("OSCR_RESOURCE".into(), held.names().into()));
    options.keep = held.descriptors();
    let code = exec(&options, signals)?;
    drop(held);
    Ok(code)
}

fn wait(signals: &Signals, locks: &Locks, wanted: &Wanted, claim: &Claim) -> Result<Held, CommandError> {
    let attempt = locks.begin(wanted, claim)?;
    let (what, setup) = attempt.waiter()?;
    let waiter = spawn(&what, setup).map_err(|error: SpawnError| ExecError::Spawn(error))?.pid;
    let mut remark = Some(UNREMARKABLE);
    loop {
        let Some(caught) = signals.wait(remark)? else {
            if remark.take().is_some() {
                say(&attempt.report());
            }
            continue;
        };
        if caught.is_child() {
            for change in reap() {
                if let Change::Ended(pid, ended) = change
                    && pid == waiter
                {
                    return Ok(attempt.finish(ended)?);
                }
            }
        } else if ends_a_wait(caught.number) {
            let _ = kill(waiter, Signal::SIGKILL);
            return Err(CommandError::Interrupted(caught.number));
        }
    }
}

fn ends_a_wait(number: i32) -> bool {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].iter().any(|signal| *signal as i32 == number)
}

/// Prints who holds and who waits, for one resource or all.
///
/// # Errors
/// When the directory cannot be read or the output is gone.
pub(crate) fn status(
    locks: &Locks,
    id: Option<&ResourceId>,
    json: bool,
    out: &mut dyn Write,
) -> Result<u8, CommandError> {
    let ids = match id {
        Some(id) => vec![id.clone()],
        None => locks.known()?,
    };
    let surveys: Vec<Occupancy> = ids.iter().map(|id| locks.look(id)).collect();
    if json {
        writeln!(out, "{}", serde_json::to_string(&surveys).map_err(std::io::Error::from)?)?;
        return Ok(0);
    }
    if surveys.is_empty() {
        writeln!(out, "no resource has been used in {locks}")?;
    }
    for survey in &surveys {
        writeln!(out, "{}  {}", survey.resource, survey.holder_line())?;
        for (place, waiting) in survey.queue.iter().enumerate() {
            writeln!(out, "  {}. {}", place + 1, waiting.claim)?;
        }
    }
    Ok(0)
}

/// Waits until nobody has the resource and nobody waits for it.
///
/// # Errors
/// When the queue cannot be used.
pub(crate) fn wait_free(locks: &Locks, id: &ResourceId) -> Result<u8, CommandError> {
    locks.wait_until_free(id)?;
    Ok(0)
}
