//! One attempt to get what is wanted: the seats, the threads that wait on them, and what came of it.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::claim::{Claim, Tell};
use super::directory::LockDirectory;
use super::queue::{QueueError, Seat};
use super::survey::Occupancy;
use super::wanted::{ResourceId, Wanted};
use crate::init::SpawnError;
use crate::os::interrupt::Interruptible;

/// Seats in the queues of everything wanted, none of them drawn yet.
#[derive(Debug)]
pub(crate) struct Attempt {
    any: bool,
    directory: LockDirectory,
    claim: Claim,
    seats: Vec<Arc<Seat>>,
}

/// The resources that are held. Dropping it lets them go.
#[derive(Debug)]
pub(crate) struct Held {
    seats: Vec<Arc<Seat>>,
    since: String,
}

/// Threads that wait: one for all seats in turn, or, where any will do, one for each. Dropping it has those give up that still wait.
#[derive(Debug)]
pub(crate) struct WaitThreads {
    /// Those that have answered are nobody any more.
    threads: Vec<Option<Interruptible>>,
    answers: UnboundedReceiver<WaitAnswer>,
    taken: usize,
}

/// What came of a thread's wait: by which number it goes, and whether what it waited for is had.
type WaitAnswer = (usize, Result<(), QueueError>);

/// What came of waiting: which of the threads was the first to have what it waited for.
pub(crate) type WaitResult = Result<usize, QueueError>;

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
        let seats =
            wanted.ids().iter().map(|id| Seat::take(directory, id, claim).map(Arc::new)).collect::<Result<_, _>>()?;
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
        let names = |seats: &[(&Arc<Seat>, Occupancy)], separator| {
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

    /// Has threads draw for each seat and wait, and calls `tell` on such a thread when it has answered. With `now` they wait for nobody.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(crate) fn wait(&self, now: bool, tell: impl Fn() + Send + Clone + 'static) -> Result<WaitThreads, SpawnError> {
        let (sender, answers) = unbounded_channel();
        let mut waiting = WaitThreads { threads: Vec::new(), answers, taken: 0 };
        for (index, seats) in self.seats.chunks(if self.any { 1 } else { self.seats.len() }).enumerate() {
            let (seats, sender, tell) = (seats.to_vec(), sender.clone(), tell.clone());
            let thread = Interruptible::begin(move || {
                let result = seats.iter().try_for_each(|seat| seat.wait(now));
                // Where nobody wants them any more, they are let go here.
                drop(seats);
                let _ = sender.send((index, result));
                tell();
            });
            let error = |error| SpawnError::Other(PathBuf::from("the thread that waits"), error);
            waiting.threads.push(Some(thread.map_err(error)?));
        }
        Ok(waiting)
    }

    /// What is held, once the wait is over.
    ///
    /// # Errors
    /// [`AttemptError::Again`] when a ticket was swept, else why nothing is held.
    pub(crate) fn finish(mut self, outcome: WaitResult) -> Result<Held, AttemptError> {
        match outcome {
            // The others are given up by being dropped, even one that was won in the same moment.
            Ok(index) if self.any => Ok(Held::since_now(vec![self.seats.swap_remove(index)])),
            Ok(_) => Ok(Held::since_now(self.seats)),
            Err(QueueError::Swept) => Err(AttemptError::Again),
            Err(QueueError::Taken) => Err(AttemptError::Taken),
            Err(error) => Err(error.into()),
        }
    }
}

impl WaitThreads {
    /// Resolves once the wait is over.
    pub(crate) async fn over(&mut self) -> WaitResult {
        loop {
            // Every thread answers before it ends.
            let answer = self.answers.recv().await.unwrap_or((0, Err(QueueError::GivenUp)));
            if let Some(outcome) = self.decide(answer) {
                return outcome;
            }
        }
    }

    /// The same for those who are told otherwise; `None` while the wait goes on.
    pub(crate) fn if_over(&mut self) -> Option<WaitResult> {
        loop {
            let answer = match self.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => (0, Err(QueueError::GivenUp)),
            };
            if let Some(outcome) = self.decide(answer) {
                return Some(outcome);
            }
        }
    }

    /// The first that has what it waits for decides, and the first that cannot wait; who finds it taken only if all do.
    fn decide(&mut self, (index, result): WaitAnswer) -> Option<WaitResult> {
        if let Some(thread) = self.threads.get_mut(index) {
            *thread = None;
        }
        self.taken += usize::from(matches!(result, Err(QueueError::Taken)));
        match result {
            Err(QueueError::Taken) if self.taken < self.threads.len() => None,
            result => Some(result.map(|()| index)),
        }
    }

    /// Asks all to give up; each answers.
    pub(crate) fn give_up(&self) {
        self.threads.iter().flatten().for_each(Interruptible::interrupt);
    }
}

impl Drop for WaitThreads {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Held {
    fn since_now(seats: Vec<Arc<Seat>>) -> Self {
        Self { seats, since: Claim::now(String::new()).since }
    }

    /// What is held.
    #[must_use]
    pub(crate) fn ids(&self) -> Vec<&ResourceId> {
        self.seats.iter().map(|seat| seat.id()).collect()
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;

    use super::*;
    use crate::resource::queue::draw_and_wait;

    /// Waits for what others have, and is told of each answer.
    fn waits(directory: &LockDirectory, wanted: &str) -> (Attempt, WaitThreads, Receiver<()>) {
        let attempt = Attempt::begin(directory, &wanted.parse().unwrap(), &Claim::default()).unwrap();
        let (tell, told) = channel();
        let waiting = attempt.wait(false, move || tell.send(()).unwrap_or_default()).unwrap();
        while !attempt.seats.iter().all(|seat| Occupancy::of(directory, seat.id()).queue.len() == 1) {
            thread::yield_now();
        }
        (attempt, waiting, told)
    }

    fn held(directory: &LockDirectory, id: &str) -> File {
        let lock = directory.open_lock(&id.parse().unwrap()).unwrap();
        lock.lock().unwrap();
        lock
    }

    /// Comes back once nobody has it and nobody waits for it, without a look at what would free it.
    fn comes_free(directory: &LockDirectory, id: &str) {
        let id = id.parse().unwrap();
        let lock = directory.open_lock(&id).unwrap();
        lock.lock().unwrap();
        lock.unlock().unwrap();
        while !std::fs::read_dir(directory.queue(&id)).unwrap().all(|entry| entry.unwrap().file_name() == ".mutex") {
            thread::yield_now();
        }
    }

    #[test]
    fn whoever_gives_up_gives_up_all_places() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let other = held(&directory, "b");
        let attempt = Attempt::begin(&directory, &"a,b".parse().unwrap(), &Claim::default()).unwrap();
        let waiting = attempt.wait(false, || {}).unwrap();
        while attempt.missing(Tell::All).is_none_or(|missing| missing.what != "b") {
            thread::yield_now();
        }
        drop((attempt, waiting));
        comes_free(&directory, "a");
        drop(other);
        comes_free(&directory, "b");
    }

    #[test]
    fn the_first_of_a_pool_decides_and_the_others_give_up() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let [a, b] = ["a", "b"].map(|id| held(&directory, id));
        let (attempt, mut waiting, told) = waits(&directory, "a|b");
        assert!(waiting.if_over().is_none());
        drop(b);
        told.recv().unwrap();
        let ours = attempt.finish(waiting.if_over().unwrap()).unwrap();
        assert_eq!(ours.names(), "b");
        drop(waiting);
        drop(a);
        comes_free(&directory, "a");
        assert!(Occupancy::of(&directory, &"b".parse().unwrap()).held);
        drop(ours);
        comes_free(&directory, "b");
    }

    #[test]
    fn of_two_that_are_won_in_the_same_moment_one_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let both = ["a", "b"].map(|id| held(&directory, id));
        let (attempt, mut waiting, told) = waits(&directory, "a|b");
        drop(both);
        told.recv().unwrap();
        told.recv().unwrap();
        let ours = attempt.finish(waiting.if_over().unwrap()).unwrap();
        let other = if ours.names() == "a" { "b" } else { "a" };
        comes_free(&directory, other);
    }

    #[test]
    fn whoever_is_asked_to_give_up_answers_so() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let _other = held(&directory, "a");
        let (attempt, mut waiting, told) = waits(&directory, "a");
        waiting.give_up();
        told.recv().unwrap();
        let outcome = waiting.if_over().unwrap();
        assert!(matches!(attempt.finish(outcome), Err(AttemptError::Queue(QueueError::GivenUp))));
    }

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
