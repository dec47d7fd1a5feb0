//! `oscr-entry lock …`: the same locks for people and scripts, on the host and in a container.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;
use serde::Serialize;

use super::aside::Aside;
use super::attempt::{Attempt, AttemptError, Held};
use super::claim::{Claim, Tell};
use super::locks::Locks;
use super::person::introduce;
use super::queue::QueueError;
use super::survey::{Certainty, Occupancy};
use super::wanted::{ResourceId, Wanted};
use crate::exit;
use crate::init::exec::{ExecError, Options, exec};
use crate::init::{Signals, reap};
use crate::print::say;

/// Somebody who gets the resource within this time is not told about waiting.
const UNREMARKABLE: Duration = Duration::from_millis(200);

/// So long a wait may take to be given up.
const ANSWER: Duration = Duration::from_secs(1);

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The queue cannot be used.
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    /// The command, or the thread that waits for its turn, cannot be started.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// Signals, or the lock directory, cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A signal came while waiting, by number.
    #[error("interrupted while waiting")]
    Interrupted(i32),
    /// It did not become free in time.
    #[error("{words}")]
    Taken {
        /// For people: who has it.
        words: String,
        /// The code to exit with.
        code: u8,
    },
}

/// How `run` waits, and what it says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Manners {
    /// For how long; zero: not at all.
    pub timeout: Option<Duration>,
    /// The code to exit with when that is over.
    pub taken: u8,
    /// What others are told besides who it is.
    pub note: Option<String>,
}

impl CommandError {
    /// The code to exit with.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Exec(error) => error.exit_code(),
            Self::Interrupted(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
            Self::Taken { code, .. } => *code,
            Self::Attempt(AttemptError::Queue(QueueError::Closed { .. })) => exit::CONFIG,
            Self::Attempt(_) | Self::Io(_) => exit::TEMPORARY,
        }
    }
}

/// Waits for the resources, runs the command as its init, and lets go when it and what it left are gone. The command
/// inherits the lock, as with `flock(1)`: if this process is killed, the command has the resource for as long as it lives.
///
/// # Errors
/// When the command never ran.
pub(crate) fn run(
    locks: &Locks,
    wanted: &Wanted,
    mut options: Options,
    manners: &Manners,
    signals: &Signals,
) -> Result<u8, CommandError> {
    let program = options.command.first().cloned().unwrap_or_default();
    let claim = Claim { note: manners.note.clone(), ..Claim::now(introduce(&program)) };
    let until = manners.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let held = loop {
        match wait(signals, locks, wanted, &claim, manners, until) {
            Err(CommandError::Attempt(AttemptError::Again)) => {}
            other => break other?,
        }
    };
    // What a person says is meant for all who wait.
    if let Some(words) = held.say(&claim, Tell::All) {
        say(&words);
    }
    options.extra_env.push(("OSCR_RESOURCE".into(), held.names().into()));
    options.keep = held.descriptors();
    let code = exec(&options, signals)?;
    drop(held);
    Ok(code)
}

fn wait(
    signals: &Signals,
    locks: &Locks,
    wanted: &Wanted,
    claim: &Claim,
    manners: &Manners,
    until: Option<Instant>,
) -> Result<Held, CommandError> {
    let attempt = locks.begin(wanted, claim)?;
    let now = manners.timeout == Some(Duration::ZERO);
    // One that waits for nobody comes back by itself.
    let mut until = until.filter(|_| !now);
    // It says so as a child would. All threads block that signal, so it waits to be taken.
    let tell = || {
        let _ = kill(getpid(), Signal::SIGCHLD);
    };
    let mut waiting = attempt.wait(now, tell).map_err(ExecError::Spawn)?;
    let mut remark_at = Some(Instant::now() + UNREMARKABLE).filter(|_| !now);
    let mut over = None;
    loop {
        let next = [remark_at, until].into_iter().flatten().min();
        let caught = signals.wait(next.map(|next| next.saturating_duration_since(Instant::now())))?;
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        match caught {
            None if passed(until) => match over.take() {
                // It cannot answer, as where the server of its file system does not.
                Some(over) => return Err(over),
                None => {
                    over = Some(taken(&attempt, wanted, manners));
                    (remark_at, until) = (None, Instant::now().checked_add(ANSWER));
                    // It may have got the hardware in this moment, which its answer will say.
                    waiting.give_up();
                }
            },
            None if passed(remark_at) => {
                remark_at = None;
                if let Some(missing) = attempt.missing(Tell::All) {
                    say(&missing.report);
                }
            }
            None => {}
            Some(caught) if caught.is_child() => {
                // Children that our caller left to us.
                reap().for_each(drop);
                match waiting.if_over() {
                    None => {}
                    Some(Err(QueueError::GivenUp)) => return Err(over.unwrap_or(CommandError::Interrupted(0))),
                    Some(Err(QueueError::Taken)) => return Err(taken(&attempt, wanted, manners)),
                    Some(outcome) => return Ok(attempt.finish(outcome)?),
                }
            }
            Some(caught) if ends_a_wait(caught.number) => return Err(CommandError::Interrupted(caught.number)),
            Some(_) => {}
        }
    }
}

/// It was not free in time, and who has it.
fn taken(attempt: &Attempt, wanted: &Wanted, manners: &Manners) -> CommandError {
    let missing = attempt.missing(Tell::All);
    let what = missing.as_ref().map_or_else(|| wanted.to_string(), |missing| missing.what.clone());
    let holders = missing.map(|missing| format!(": {}", missing.holders)).unwrap_or_default();
    let words = match manners.timeout.filter(|timeout| !timeout.is_zero()) {
        Some(timeout) => format!("{what} did not become free within {}{holders}", humantime::format_duration(timeout)),
        None => format!("{what} is taken{holders}"),
    };
    CommandError::Taken { words, code: manners.taken }
}

fn ends_a_wait(number: i32) -> bool {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].iter().any(|signal| *signal as i32 == number)
}

/// A resource as programs read it.
#[derive(Serialize)]
struct Seen<'a> {
    #[serde(flatten)]
    survey: &'a Occupancy,
    /// Whether it is set aside: once for each set of hooks that failed.
    set_aside: Vec<Aside>,
}

/// Prints who holds and who waits, for one resource or all. 1 where not of all of them it can be told whether somebody has it.
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
    let code = u8::from(surveys.iter().any(|survey| survey.state == Certainty::Recorded));
    let asides = |id: &ResourceId| locks.asides(id);
    if json {
        let seen: Vec<Seen> =
            surveys.iter().zip(&ids).map(|(survey, id)| Seen { survey, set_aside: asides(id) }).collect();
        writeln!(out, "{}", serde_json::to_string(&seen).map_err(std::io::Error::from)?)?;
        return Ok(code);
    }
    if surveys.is_empty() {
        writeln!(out, "no resource has been used in {locks}")?;
    }
    for (survey, id) in surveys.iter().zip(&ids) {
        writeln!(out, "{}  {}", survey.resource, survey.holder_line())?;
        for (place, waiting) in survey.queue.iter().enumerate() {
            writeln!(out, "  {}. {}", place + 1, waiting.claim)?;
        }
        if !survey.queue_seen {
            writeln!(out, "  who waits is not for this user to see")?;
        }
        for aside in asides(id) {
            writeln!(out, "  {aside}; the last was {}", aside.who)?;
        }
    }
    Ok(code)
}

/// Brings a resource back that was set aside.
///
/// # Errors
/// When the lock directory cannot be written, or the output is gone.
pub(crate) fn repair(locks: &Locks, id: &ResourceId, out: &mut dyn Write) -> Result<u8, CommandError> {
    match locks.repair(id)? {
        0 => writeln!(out, "{id} is not set aside in {locks}")?,
        _ => writeln!(out, "{id} is back: its hooks run for the next who gets it")?,
    }
    Ok(0)
}

/// Waits until nobody has the resource and nobody waits for it.
///
/// # Errors
/// When the queue may not be looked at.
pub(crate) fn wait_free(locks: &Locks, id: &ResourceId) -> Result<u8, CommandError> {
    locks.wait_until_free(id)?;
    Ok(0)
}
