//! One attempt to get what is wanted: the seats, the process that waits on them, and what came of it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::claim::{Claim, Tell};
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
/// Somebody else has it, and it was not to be waited for.
const TAKEN: u8 = 73;
/// Follows the way of waiting where nothing is to be waited for.
const NOW: &str = "-now";

/// Seats in the queues of everything wanted, none of them drawn yet.
#[derive(Debug)]
pub(crate) struct Attempt {
    any: bool,
    directory: LockDirectory,
    claim: Claim,
    seats: Vec<Seat>,
}

/// The resources that are held. Dropping it lets them go.
#[derive(Debug)]
pub(crate) struct Held {
    seats: Vec<Seat>,
    since: String,
}

/// What an attempt still waits for, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The names.
    pub what: String,
    /// Who has each.
    pub holders: String,
    /// What is waited for, who has it, how many come first, and what is had already.
    pub report: String,
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
    /// Somebody else has it, and it was not to be waited for.
    #[error("it is taken")]
    Taken,
}

impl Attempt {
    /// Takes a seat for each resource wanted. Does not block.
    ///
    /// # Errors
    /// When a queue cannot be used.
    pub(super) fn begin(directory: &LockDirectory, wanted: &Wanted, claim: &Claim) -> Result<Self, AttemptError> {
        let seats = wanted.ids().iter().map(|id| Seat::take(directory, id, claim)).collect::<Result<_, _>>()?;
        Ok(Self { any: matches!(wanted, Wanted::Any(_)), directory: directory.clone(), claim: claim.clone(), seats })
    }

    /// What is not had yet; `None` once there is nothing to wait for. Of others' jobs as much is said as `tell` allows.
    #[must_use]
    pub(crate) fn missing(&self, tell: Tell) -> Option<Missing> {
        let looked = self.seats.iter().map(|seat| (seat, Occupancy::of(&self.directory, seat.id())));
        // It may be ours before we are told, and one of several is ours long before the others are.
        let (had, missing): (Vec<_>, Vec<_>) =
            looked.partition(|(seat, seen)| seat.inode().is_some_and(|ours| seen.is_held_by(ours)));
        if missing.is_empty() || (self.any && !had.is_empty()) {
            return None;
        }
        let names = |seats: &[(&Seat, Occupancy)], separator| {
            seats.iter().map(|(seat, _)| seat.id().as_str()).collect::<Vec<_>>().join(separator)
        };
        let what = names(&missing, if self.any { "|" } else { "," });
        let mut report: Vec<String> = Vec::new();
        let mut holders: Vec<String> = Vec::new();
        for (seat, seen) in &missing {
            let ahead = seat.inode().map_or(0, |ours| seen.ahead_of(ours));
            let holder = seen.clone().told_to(&self.claim, tell).holder_line();
            if seen.held || ahead > 0 {
                report.push(format!("{}: {holder}, {ahead} ahead in the queue", seat.id()));
            }
            holders.push(format!("{} is {holder}", seat.id()));
        }
        if report.is_empty() {
            report.push(format!("{what}, which has just become free"));
        }
        let mut report = format!("waiting for {}", report.join("; "));
        if !had.is_empty() {
            report.push_str(&format!(" (has {} already)", names(&had, ", ")));
        }
        Some(Missing { what, holders: holders.join(", "), report })
    }

    /// Whether it has its place where it waits first.
    #[must_use]
    pub(crate) fn drawn(&self) -> bool {
        let first = if self.any { self.seats.len() } else { 1 };
        self.seats.iter().take(first).all(|seat| !seat.new_name().exists())
    }

    /// The process that waits: this very program with a hidden command. Kill it to give up, then drop the attempt. With `now` it
    /// waits for nobody.
    ///
    /// # Errors
    /// When this program's own path is not known.
    pub(crate) fn waiter(&self, now: bool) -> io::Result<(Spawn, Setup)> {
        let mut args: Vec<OsString> = vec![COMMAND.into(), self.directory.path().into()];
        args.push(format!("{}{}", if self.any { "any" } else { "all" }, if now { NOW } else { "" }).into());
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
            Ended::Code(0) if !self.any => Ok(Held::since_now(self.seats)),
            Ended::Code(code) if code == i32::from(AGAIN) => Err(AttemptError::Again),
            Ended::Code(code) if code == i32::from(TAKEN) => Err(AttemptError::Taken),
            Ended::Code(code)
                if self.any && (0..self.seats.len()).any(|index| code == i32::from(WON) + index as i32) =>
            {
                let index = usize::try_from(code - i32::from(WON)).unwrap_or(0);
                // The others are given up by being dropped, even one that was won in the same moment.
                Ok(Held::since_now(vec![self.seats.swap_remove(index)]))
            }
            ended => {
                let what: Vec<&str> = self.seats.iter().map(|seat| seat.id().as_str()).collect();
                Err(AttemptError::Waiter { what: what.join(", "), ended })
            }
        }
    }
}

impl Held {
    fn since_now(seats: Vec<Seat>) -> Self {
        Self { seats, since: Claim::now(String::new()).since }
    }

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
        self.seats.iter().flat_map(|seat| [Some(seat.lock_descriptor()), seat.ticket_descriptor()]).flatten().collect()
    }

    /// Replaces what the records say of the holder, and what others may read of it. Gives back what is to be said where that
    /// cannot be written: the hardware is held all the same.
    #[must_use]
    pub(crate) fn say(&self, claim: &Claim, tell: Tell) -> Option<String> {
        let claim = Claim { since: self.since.clone(), ..claim.clone() };
        let mut silent = None;
        for seat in &self.seats {
            // What others may read is less, and not worth a word: the record is there.
            if let Err(error) = seat.say(&claim) {
                let words = format!(
                    "{} is held without a record of who has it, so others are not told ({error}): look after the disk of the lock directory",
                    seat.id()
                );
                silent = silent.or(Some(words));
            }
            if let Err(error) = seat.show(claim.for_strangers(tell)) {
                tracing::debug!("what others may read of {} cannot be written: {error}", seat.id());
            }
        }
        silent
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
        ignored: None,
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
    let mode = mode.to_str().ok_or("bad arguments")?;
    let (mode, now) = mode.strip_suffix(NOW).map_or((mode, false), |mode| (mode, true));
    let directory = LockDirectory::checked(Path::new(directory));
    let mut parsed: Vec<(ResourceId, RawFd, PathBuf)> = Vec::new();
    for seat in seats.chunks(3) {
        let [id, lock, new] = seat else { return Err("bad arguments".into()) };
        let (id, lock) = (id.to_str().ok_or("bad id")?.parse()?, lock.to_str().ok_or("bad descriptor")?.parse()?);
        parsed.push((id, lock, PathBuf::from(new)));
    }
    if mode == "any" && parsed.len() > 1 {
        return wait_for_any(&directory, &parsed, now);
    }
    for (id, lock, new) in &parsed {
        // Never closed here: the open file is the caller's, and this process is about to end.
        let lock: File = os::inherited(*lock)?;
        match draw_and_wait(&directory, id, new, &lock, now) {
            Err(QueueError::Swept) => return Ok(AGAIN),
            Err(QueueError::Taken) => return Ok(TAKEN),
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
    now: bool,
) -> Result<u8, Box<dyn std::error::Error>> {
    let mut waiters: Vec<Pid> = Vec::new();
    for (id, lock, new) in seats {
        let mut args: Vec<OsString> =
            vec![COMMAND.into(), directory.path().into(), format!("all{}", if now { NOW } else { "" }).into()];
        args.extend(encode(id, *lock, new));
        let (what, setup) = waiter(args, vec![*lock])?;
        waiters.push(crate::init::spawn::spawn(&what, setup)?.pid);
    }
    let mut taken = 0;
    let code = loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, 0) => {
                let index = waiters.iter().position(|waiter| *waiter == pid).unwrap_or(0);
                break WON + u8::try_from(index)?;
            }
            WaitStatus::Exited(_, code) if code == i32::from(TAKEN) => {
                taken += 1;
                if taken == waiters.len() {
                    break TAKEN;
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_waited_for_and_nobody_waits_for_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let wanted: Wanted = "board-1,power-2".parse().unwrap();
        let attempt = Attempt::begin(&directory, &wanted, &Claim::now("oscr-1".to_owned())).unwrap();
        let somebody = directory.open_lock(&wanted.ids()[1]).unwrap();
        somebody.lock().unwrap();
        let draw = |seat: &Seat| {
            let lock = File::open(directory.lock(seat.id())).unwrap();
            draw_and_wait(&directory, seat.id(), seat.new_name(), &lock, false).unwrap();
            lock
        };
        let holds = draw(&attempt.seats[0]);
        let missing = attempt.missing(Tell::Owner).unwrap();
        assert_eq!(missing.what, "power-2");
        assert_eq!(missing.holders, "power-2 is held by something that leaves no record, such as flock(1)");
        let report = "waiting for power-2: held by something that leaves no record, such as flock(1), 0 ahead in the queue \
                      (has board-1 already)";
        assert_eq!(missing.report, report);

        somebody.unlock().unwrap();
        let free = attempt.missing(Tell::Owner).unwrap().report;
        assert_eq!(free, "waiting for power-2, which has just become free (has board-1 already)");
        let also = draw(&attempt.seats[1]);
        assert_eq!(attempt.missing(Tell::Owner), None, "it has all, and has not been told yet");
        drop((holds, also));
    }
}
