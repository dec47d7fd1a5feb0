//! One attempt to get what is wanted: the seats, the process that waits on them, and what came of it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::claim::Claim;
use super::directory::LockDirectory;
use super::queue::{QueueError, Seat, draw_and_wait};
use super::survey::Occupancy;
use super::wanted::{ResourceId, Wanted};
use crate::init::{Ended, Spawn};
use crate::os;
use crate::os::child::{ChildSession, Setup};
use crate::os::signal::SignalSet;
use crate::print::say;

/// The hidden command of the process that waits.
pub(crate) const COMMAND: &str = "lock-wait";
/// It exits with this much more than the index of the resource that it got of a pool, of which there are at most [`super::MOST`].
const WON: u8 = 100;
/// A ticket was swept: begin again.
const AGAIN: u8 = 75;

/// Seats in the queues of everything wanted, none of them drawn yet.
#[derive(Debug)]
pub(crate) struct Attempt {
    any: bool,
    directory: LockDirectory,
    seats: Vec<Seat>,
}

/// The resources that are held. Dropping it lets them go.
#[derive(Debug)]
pub(crate) struct Held {
    seats: Vec<Seat>,
}

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// The queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The process that waited ended otherwise than it should.
    #[error("the process that waited for {what} ended with {ended}")]
    Waiter {
        /// What it waited for.
        what: String,
        /// How it ended.
        ended: Ended,
    },
    /// A ticket was swept: begin again.
    #[error("a ticket was swept")]
    Again,
}

impl Attempt {
    /// Takes a seat for each resource wanted. Does not block.
    ///
    /// # Errors
    /// When a queue cannot be used.
    pub(super) fn begin(directory: &LockDirectory, wanted: &Wanted, claim: &Claim) -> Result<Self, AttemptError> {
        let seats = wanted.ids().iter().map(|id| Seat::take(directory, id, claim)).collect::<Result<_, _>>()?;
        Ok(Self { any: matches!(wanted, Wanted::Any(_)), directory: directory.clone(), seats })
    }

    /// What is waited for now, who has it, and how many come first.
    #[must_use]
    pub(crate) fn report(&self) -> String {
        let lines: Vec<String> = self
            .seats
            .iter()
            .map(|seat| (seat, Occupancy::of(&self.directory, seat.id())))
            .map(|(seat, survey)| (seat.id(), survey.ahead_of(seat.inode().unwrap_or(0)), survey))
            .filter(|(_, ahead, survey)| survey.held || *ahead > 0)
            .map(|(id, ahead, survey)| format!("{id}: {}, {ahead} ahead in the queue", survey.holder_line()))
            .collect();
        format!("waiting for {}", lines.join("; "))
    }

    /// The process that waits: this very program with a hidden command. Kill it to give up, then drop the attempt.
    ///
    /// # Errors
    /// When this program's own path is not known.
    pub(crate) fn waiter(&self) -> io::Result<(Spawn, Setup)> {
        let mut args: Vec<OsString> = vec![COMMAND.into(), self.directory.path().into()];
        args.push(if self.any { "any" } else { "all" }.into());
        for seat in &self.seats {
            args.extend(encode(seat.id(), seat.lock_descriptor(), seat.new_name()));
        }
        let keep = self.seats.iter().map(Seat::lock_descriptor).collect();
        waiter(args, keep)
    }

    /// What came of the attempt, once the process that waited has ended.
    ///
    /// # Errors
    /// [`AttemptError::Again`] when a ticket was swept, else why nothing is held.
    pub(crate) fn finish(mut self, ended: Ended) -> Result<Held, AttemptError> {
        match ended {
            Ended::Code(0) if !self.any => Ok(Held { seats: self.seats }),
            Ended::Code(code) if code == i32::from(AGAIN) => Err(AttemptError::Again),
            Ended::Code(code)
                if self.any && (0..self.seats.len()).any(|index| code == i32::from(WON) + index as i32) =>
            {
                let index = usize::try_from(code - i32::from(WON)).unwrap_or(0);
                // The others are given up by being dropped, even one that was won in the same moment.
                Ok(Held { seats: vec![self.seats.swap_remove(index)] })
            }
            ended => {
                let what: Vec<&str> = self.seats.iter().map(|seat| seat.id().as_str()).collect();
                Err(AttemptError::Waiter { what: what.join(", "), ended })
            }
        }
    }
}

impl Held {
    /// What is held.
    #[must_use]
    pub(crate) fn ids(&self) -> Vec<&ResourceId> {
        self.seats.iter().map(Seat::id).collect()
    }

    /// The names, as `OSCR_RESOURCE` gives them to a job.
    #[must_use]
    pub(crate) fn names(&self) -> String {
        self.ids().into_iter().map(ResourceId::as_str).collect::<Vec<_>>().join(",")
    }

    /// The descriptors that keep what is held, for a command to inherit: if we are killed, it must not go on without.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.seats.iter().flat_map(|seat| [seat.lock_descriptor(), seat.ticket_descriptor()]).collect()
    }

    /// Replaces what the records say of the holder.
    pub(crate) fn say(&self, claim: &Claim) {
        for seat in &self.seats {
            if let Err(error) = seat.say(claim) {
                tracing::debug!("the record of {} cannot be written: {error}", seat.id());
            }
        }
    }
}

fn waiter(args: Vec<OsString>, keep: Vec<RawFd>) -> io::Result<(Spawn, Setup)> {
    let what = Spawn {
        program: std::env::current_exe()?.into(),
        args,
        env: Some(Vec::new()),
        directory: None,
        captured: false,
    };
    let setup = Setup {
        session: ChildSession::Own,
        directory: None,
        identity: None,
        mask: SignalSet::EMPTY,
        ignored: SignalSet::EMPTY,
        umask: None,
        no_new_privs: true,
        no_capabilities: true,
        parent_death: Some(Signal::SIGKILL),
        keep,
        own_id: None,
    };
    Ok((what, setup))
}

/// Three arguments for a seat: id, descriptor of the lock, name of the ticket.
fn encode(id: &ResourceId, lock: RawFd, new: &Path) -> [OsString; 3] {
    [id.as_str().into(), lock.to_string().into(), new.into()]
}

/// The process that waits: draws for each seat and waits, all in turn or any of them. Returns its exit code.
#[must_use]
pub(crate) fn run_waiter(arguments: &[OsString]) -> u8 {
    match wait(arguments) {
        Ok(code) => code,
        Err(error) => {
            say(&error.to_string());
            1
        }
    }
}

fn wait(arguments: &[OsString]) -> Result<u8, Box<dyn std::error::Error>> {
    let [directory, mode, seats @ ..] = arguments else { return Err("bad arguments".into()) };
    let directory = LockDirectory::checked(Path::new(directory));
    let mut parsed: Vec<(ResourceId, RawFd, PathBuf)> = Vec::new();
    for seat in seats.chunks(3) {
        let [id, lock, new] = seat else { return Err("bad arguments".into()) };
        let (id, lock) = (id.to_str().ok_or("bad id")?.parse()?, lock.to_str().ok_or("bad descriptor")?.parse()?);
        parsed.push((id, lock, PathBuf::from(new)));
    }
    if mode == "any" && parsed.len() > 1 {
        return wait_for_any(&directory, &parsed);
    }
    for (id, lock, new) in &parsed {
        // Never closed here: the open file is the caller's, and this process is about to end.
        let lock: File = os::inherited(*lock)?;
        match draw_and_wait(&directory, id, new, &lock) {
            Err(QueueError::Swept) => return Ok(AGAIN),
            other => other?,
        }
        std::mem::forget(lock);
    }
    Ok(if mode == "any" { WON } else { 0 })
}

/// One process for each resource of the pool; the first that gets its resource decides.
fn wait_for_any(
    directory: &LockDirectory,
    seats: &[(ResourceId, RawFd, PathBuf)],
) -> Result<u8, Box<dyn std::error::Error>> {
    let mut waiters: Vec<Pid> = Vec::new();
    for (id, lock, new) in seats {
        let mut args: Vec<OsString> = vec![COMMAND.into(), directory.path().into(), "all".into()];
        args.extend(encode(id, *lock, new));
        let (what, setup) = waiter(args, vec![*lock])?;
        waiters.push(crate::init::spawn::spawn(&what, setup)?.pid);
    }
    let code = loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, 0) => {
                let index = waiters.iter().position(|waiter| *waiter == pid).unwrap_or(0);
                break WON + u8::try_from(index)?;
            }
            WaitStatus::Exited(_, code) => break u8::try_from(code).unwrap_or(1),
            WaitStatus::Signaled(..) => break 1,
            _ => {}
        }
    };
    for waiter in &waiters {
        let _ = kill(*waiter, Signal::SIGKILL);
    }
    while waitpid(None, None).is_ok() {}
    Ok(code)
}
