//! Tickets and the wait, as the module's documentation describes them.
//!
//! The wait blocks, and so a thread of its own does it ([`draw_and_wait`]), which can be asked to give up at any moment. A lock belongs
//! to the open file, not to the thread that asked for it, and a [`Seat`] is let go by whoever has it last: the thread or who began it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::claim::Claim;
use super::directory::LockDirectory;
use super::shown::ShownHolder;
use super::wanted::ResourceId;
use crate::os::interrupt;

/// What follows a killed holder waits this much longer. The kernel closes PID 1's files before it kills the other processes
/// of its container, and those close theirs, a serial port perhaps, only after giving back their memory.
const SETTLE: Duration = Duration::from_millis(500);

/// How often, and after how long each time, a lock is tried that may not be waited for: who looks at it holds it for a moment.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// More of the file of the last number is not read.
const LONGEST: u64 = 64;

/// Why a place in the queue is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    /// A file of the queue cannot be used.
    #[error("the queue of {id} in {} cannot be used: {source}", directory.display())]
    Unusable {
        /// The resource.
        id: ResourceId,
        /// The lock directory.
        directory: PathBuf,
        source: io::Error,
    },
    /// Whoever looks may not open what must be opened to wait.
    #[error("to wait for {id}, {} must be opened, and this user may not ({source}): run it as root, or as one of a group that may write the lock directory and its files", path.display())]
    Closed {
        /// The resource.
        id: ResourceId,
        /// The file or directory.
        path: PathBuf,
        source: io::Error,
    },
    /// Somebody removed our ticket before it had its number. A new one will do.
    #[error("the ticket was swept before it was drawn")]
    Swept,
    /// Somebody has it, or comes first, and it was not to be waited for.
    #[error("it is taken")]
    Taken,
    /// The thread was asked to give up, and has let go of all.
    #[error("the wait was given up")]
    GivenUp,
}

/// A place in a resource's queue, and later the resource itself. Dropping it gives both up.
#[derive(Debug)]
pub(super) struct Seat {
    id: ResourceId,
    directory: LockDirectory,
    /// `None` where the disk has no room for one.
    ticket: Option<Ticket>,
    lock: File,
}

#[derive(Debug)]
struct Ticket {
    file: File,
    /// Its name before it is drawn.
    new: PathBuf,
}

impl Seat {
    /// Makes a ticket that is locked but has no number yet, and opens the lock. Does not block.
    pub(super) fn take(directory: &LockDirectory, id: &ResourceId, claim: &Claim) -> Result<Self, QueueError> {
        let unusable = |source| QueueError::Unusable { id: id.clone(), directory: directory.path().to_owned(), source };
        let lock = directory.open_lock(id).map_err(unusable)?;
        let ticket = match Ticket::make(directory, id) {
            Ok(ticket) => Some(ticket),
            Err(error) if is_full(&error) => None,
            Err(error) => return Err(unusable(error)),
        };
        let seat = Self { id: id.clone(), directory: directory.clone(), ticket, lock };
        match seat.say(claim) {
            Err(error) if !is_full(&error) => Err(unusable(error)),
            _ => Ok(seat),
        }
    }

    /// The resource.
    pub(super) fn id(&self) -> &ResourceId {
        &self.id
    }

    /// The descriptor of the lock, for a command to inherit.
    pub(super) fn lock_descriptor(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    pub(super) fn ticket_descriptor(&self) -> Option<RawFd> {
        Some(self.ticket.as_ref()?.file.as_raw_fd())
    }

    /// The ticket's name before it is drawn; nothing without a ticket.
    pub(super) fn new_name(&self) -> &Path {
        self.ticket.as_ref().map_or(Path::new(""), |ticket| &ticket.new)
    }

    /// The number by which the file system knows the ticket under any name.
    pub(super) fn inode(&self) -> Option<u64> {
        Some(self.ticket.as_ref()?.file.metadata().ok()?.ino())
    }

    /// Waits until the resource is this seat's, as [`draw_and_wait`] does.
    pub(super) fn wait(&self, now: bool) -> Result<(), QueueError> {
        let waited = draw_and_wait(&self.directory, &self.id, self.new_name(), &self.lock, now);
        // Whatever came of it: who is asked has let the lock go.
        if interrupt::asked() { Err(QueueError::GivenUp) } else { waited }
    }

    /// Replaces what the ticket says of its owner.
    pub(super) fn say(&self, claim: &Claim) -> io::Result<()> {
        let Some(Ticket { file, .. }) = &self.ticket else { return Err(io::ErrorKind::StorageFull.into()) };
        let json = serde_json::to_vec(claim)?;
        let written = file.write_all_at(&json, 0);
        // Nothing rather than a half.
        file.set_len(if written.is_ok() { json.len() as u64 } else { 0 })?;
        written
    }

    /// Replaces what those can read of a holder who may not open its ticket.
    pub(super) fn show(&self, claim: Claim) -> io::Result<()> {
        let Some(ticket) = self.inode() else { return Err(io::ErrorKind::StorageFull.into()) };
        let shown = self.directory.shown(&self.id);
        let new = shown.with_extension("shown-new");
        let written = self.directory.create_shown(&new).and_then(|mut file| {
            file.write_all(&serde_json::to_vec(&ShownHolder { ticket, claim })?)?;
            fs::rename(&new, &shown)
        });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

impl Ticket {
    fn make(directory: &LockDirectory, id: &ResourceId) -> io::Result<Self> {
        let queue = directory.make_queue(id)?;
        loop {
            let random = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
            let new = queue.join(format!(".new-{random:016x}"));
            let file = directory.create(&new)?;
            match file.try_lock() {
                Ok(()) => return Ok(Self { file, new }),
                // A sweeper looked at the ticket between its birth and its lock, and has removed it. Another one.
                Err(TryLockError::WouldBlock) => {
                    let _ = fs::remove_file(&new);
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// Whether there was no room, on the disk or in what its owner may use of it, or a disk with faults is only read any more.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EROFS))
        || error.kind() == io::ErrorKind::StorageFull
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Names first, while the locks still say that they are ours. All of this is tidiness: a name without a lock is dead
        // for everybody, and swept by whoever comes next.
        let Some(ours) = self.inode() else { return };
        let holder = self.directory.holder(&self.id);
        if fs::metadata(&holder).is_ok_and(|meta| meta.ino() == ours) {
            // The usual end, and the next holder waits for it: nothing else is looked at.
            let _ = fs::remove_file(self.directory.shown(&self.id));
            let _ = fs::remove_file(&holder);
            return;
        }
        let tickets = fs::read_dir(self.directory.queue(&self.id)).into_iter().flatten().flatten();
        for ticket in tickets.filter(|ticket| ticket.ino() == ours) {
            let _ = fs::remove_file(ticket.path());
        }
    }
}

/// Draws a number for a ticket, waits until it is the first and the lock is free, and returns with the lock held by the open
/// files that were given. Blocks for as long as that takes; with `now` it does not, and says [`QueueError::Taken`].
/// [`QueueError::Swept`] when the ticket is gone. Without a ticket (no `new`) the wait is for the lock itself.
pub(super) fn draw_and_wait(
    directory: &LockDirectory,
    id: &ResourceId,
    new: &Path,
    lock: &File,
    now: bool,
) -> Result<(), QueueError> {
    let unusable = |source| QueueError::Unusable { id: id.clone(), directory: directory.path().to_owned(), source };
    let mut ticket = None;
    if new != Path::new("") {
        let queue = directory.make_queue(id).map_err(unusable)?;
        let number = match draw(directory, id, new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(QueueError::Swept),
            Err(error) if is_full(&error) => None,
            drawn => Some(drawn.map_err(unusable)?),
        };
        while let Some(predecessor) = number.map_or(Ok(None), |number| predecessor(&queue, number)).map_err(unusable)? {
            let predecessor = queue.join(name(predecessor));
            if now && is_locked(&predecessor) {
                return Err(QueueError::Taken);
            }
            wait_for(&predecessor).map_err(unusable)?;
        }
        ticket = number.map(|number| queue.join(name(number)));
    }
    if now {
        try_for_a_moment(lock)?
    } else {
        interrupt::lock(lock, false).map_err(unusable)?
    }
    let holder = directory.holder(id);
    // One that let go has removed its record.
    if fs::exists(&holder).map_err(unusable)? {
        interrupt::sleep(SETTLE).map_err(unusable)?;
        // It is about the one that was killed.
        let _ = fs::remove_file(directory.shown(id));
    }
    let Some(ticket) = ticket else {
        // A record that is there is not ours.
        let _ = fs::remove_file(holder);
        return Ok(());
    };
    match fs::rename(ticket, holder) {
        // Without room for the name, or the right to replace another's, the ticket stays where it is: those behind it wait for
        // it there, until it is let go together with the lock.
        Err(error) if is_full(&error) || error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        moved => moved.map_err(unusable),
    }
}

fn try_for_a_moment(lock: &File) -> Result<(), QueueError> {
    for _ in 1..TRIES {
        if lock.try_lock().is_ok() {
            return Ok(());
        }
        thread::sleep(TRY_AGAIN);
    }
    lock.try_lock().map_err(|_| QueueError::Taken)
}

/// Whether somebody has the lock, be it a shared one, as of `flock --shared`. Who looks has it for a moment, and so it is tried again.
pub(super) fn is_taken(lock: &File) -> bool {
    for left in (0..TRIES).rev() {
        match lock.try_lock() {
            Ok(()) => {
                let _ = lock.unlock();
                return false;
            }
            Err(TryLockError::WouldBlock) if left > 0 => thread::sleep(TRY_AGAIN),
            Err(TryLockError::WouldBlock) => {}
            // A file system of another machine may want it open for writing.
            Err(TryLockError::Error(_)) => return matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)),
        }
    }
    true
}

/// Waits until nobody holds the resource and nobody waits for it, without joining the queue. Blocks for as long as that takes. It
/// makes and removes nothing: who may read will do.
pub(super) fn wait_until_free(directory: &LockDirectory, id: &ResourceId) -> Result<(), QueueError> {
    let queue = directory.queue(id);
    let closed = |path: &Path, source| QueueError::Closed { id: id.clone(), path: path.to_owned(), source };
    let path = directory.lock(id);
    let lock = match File::open(&path) {
        // Nobody has used it yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock.map_err(|source| closed(&path, source))?,
    };
    let living = || match numbers(&queue) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        numbers => {
            let tickets = numbers.map_err(|source| closed(&queue, source))?;
            Ok(tickets.into_iter().rev().map(|number| queue.join(name(number))).find(|ticket| is_locked(ticket)))
        }
    };
    loop {
        while let Some(last) = living()? {
            match File::open(&last) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => file.and_then(|file| file.lock_shared()).map_err(|source| closed(&last, source))?,
            }
        }
        lock.lock().or_else(|_| lock.lock_shared()).map_err(|source| closed(&path, source))?;
        let free = living()?.is_none();
        lock.unlock().map_err(|source| closed(&path, source))?;
        if free {
            return Ok(());
        }
    }
}

/// A ticket's name: sorts like its number.
fn name(number: u64) -> String {
    format!("{number:020}")
}

/// The number of a ticket's name; `None` for other files.
pub(super) fn number(name: &str) -> Option<u64> {
    (name.len() == 20).then(|| name.parse().ok())?
}

pub(super) fn numbers(queue: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> =
        fs::read_dir(queue)?.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Under the mutex: sweeps the dead and gives `new` the next number.
fn draw(directory: &LockDirectory, id: &ResourceId, new: &Path) -> io::Result<u64> {
    let queue = directory.queue(id);
    let mut mutex = match directory.open_mutex(id) {
        // Its directory keeps the order then, as well as it can.
        Err(error) if is_full(&error) => File::open(&queue)?,
        mutex => mutex?,
    };
    interrupt::lock(&mutex, false)?;
    sweep(&queue, new)?;
    let mut text = String::new();
    // What cannot be read counts as nothing: numbers in use are looked at in any case.
    let _ = (&mutex).take(LONGEST).read_to_string(&mut text);
    // Never smaller than a number in use, whatever became of the file.
    let last = numbers(&queue)?.last().copied().unwrap_or(0).max(text.trim().parse().unwrap_or(0));
    let mut next = last + 1;
    if mutex.rewind().and_then(|()| mutex.write_all(name(next).as_bytes())).is_err() {
        // Nobody will know that it was drawn, so it must be one that is not drawn again.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        next = next.max(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1));
    }
    fs::rename(new, queue.join(name(next)))?;
    Ok(next)
}

/// Removes tickets that nobody locks. Only under the mutex: outside of it, a ticket may be about to be locked.
fn sweep(queue: &Path, own: &Path) -> io::Result<()> {
    for entry in fs::read_dir(queue)?.flatten() {
        let path = entry.path();
        let file_name = entry.file_name();
        let is_ticket = file_name.to_str().is_some_and(|name| number(name).is_some() || name.starts_with(".new-"));
        if is_ticket && path != own && !is_locked(&path) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Whether somebody holds the lock of this file. A file that is gone is not locked; one that may not be opened must be taken for locked.
pub(super) fn is_locked(path: &Path) -> bool {
    let file = match File::open(path) {
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
        Ok(file) => file,
    };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The largest number before ours that has a ticket.
fn predecessor(queue: &Path, ours: u64) -> io::Result<Option<u64>> {
    Ok(numbers(queue)?.into_iter().rev().find(|number| *number < ours))
}

/// Waits until the owner of this ticket has let it go, and removes it.
fn wait_for(ticket: &Path) -> io::Result<()> {
    let file = match File::open(ticket) {
        // It went while we looked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    interrupt::lock(&file, true)?;
    // Its owner is dead if the name is still there; a holder's ticket has moved. Numbers are not used twice, so the name
    // cannot have come to mean another ticket.
    match fs::remove_file(ticket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::resource::survey::Occupancy;

    fn take(directory: &LockDirectory) -> (Seat, Duration) {
        let id: ResourceId = "board".parse().unwrap();
        let seat = Seat::take(directory, &id, &Claim::default()).unwrap();
        let began = Instant::now();
        draw_and_wait(directory, &id, seat.new_name(), &seat.lock, false).unwrap();
        (seat, began.elapsed())
    }

    #[test]
    fn who_follows_a_killed_holder_gives_its_processes_time_to_die() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let (killed, _) = take(&directory);
        let record = directory.holder(killed.id());
        let text = fs::read(&record).unwrap();
        drop(killed);
        fs::write(&record, text).unwrap();

        let (follower, waited) = take(&directory);
        assert!(waited >= SETTLE, "{waited:?}");

        // One that let go keeps nobody waiting: there is nothing left of it that would.
        drop(follower);
        assert!(!record.exists());
    }

    #[test]
    fn who_waits_for_nobody_is_told_that_it_is_taken_and_passes_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let (holder, _) = take(&directory);
        let id = holder.id().clone();
        let attempt = || {
            let seat = Seat::take(&directory, &id, &Claim::default()).unwrap();
            draw_and_wait(&directory, &id, seat.new_name(), &seat.lock, true).map(|()| seat)
        };
        assert!(matches!(attempt(), Err(QueueError::Taken)));
        let waiting = Seat::take(&directory, &id, &Claim::default()).unwrap();
        draw(&directory, &id, waiting.new_name()).unwrap();
        drop(holder);
        assert!(matches!(attempt(), Err(QueueError::Taken)), "somebody comes first");
        let queue = directory.queue(&id);
        let dead = queue.join(name(numbers(&queue).unwrap()[0]));
        drop(waiting);
        fs::write(dead, "").unwrap();
        attempt().unwrap();
    }

    #[test]
    fn a_number_that_cannot_be_written_down_is_not_drawn_twice() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let id: ResourceId = "board".parse().unwrap();
        let drawn = || {
            let seat = Seat::take(&directory, &id, &Claim::default()).unwrap();
            // As where the disk has no room for it.
            let mutex = directory.queue(&id).join(".mutex");
            let _ = fs::remove_file(&mutex);
            std::os::unix::fs::symlink("/dev/full", &mutex).unwrap();
            draw(&directory, &id, seat.new_name()).unwrap()
        };
        let (first, second) = (drawn(), drawn());
        assert!(first < second, "{first} {second}");
        fs::remove_file(directory.queue(&id).join(".mutex")).unwrap();
        let seat = Seat::take(&directory, &id, &Claim::default()).unwrap();
        assert_eq!(draw(&directory, &id, seat.new_name()).unwrap(), 1, "none is in use");
    }

    #[test]
    fn without_a_ticket_the_wait_is_for_the_lock_itself() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let (holder, _) = take(&directory);
        let id = holder.id().clone();
        let lock = directory.open_lock(&id).unwrap();
        let attempt = || draw_and_wait(&directory, &id, Path::new(""), &lock, true);
        assert!(matches!(attempt(), Err(QueueError::Taken)));
        drop(holder);
        attempt().unwrap();
        assert!(Occupancy::of(&directory, &id).held);
    }

    #[test]
    fn a_free_resource_is_seen_without_removing_the_dead() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let (seat, _) = take(&directory);
        let id = seat.id().clone();
        drop(seat);
        let dead = directory.queue(&id).join(name(7));
        fs::write(&dead, "").unwrap();
        wait_until_free(&directory, &id).unwrap();
        assert!(dead.exists());
        wait_until_free(&directory, &"never-used".parse().unwrap()).unwrap();
    }
}
