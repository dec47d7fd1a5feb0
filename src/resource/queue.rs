//! Tickets and the wait, as the module's documentation describes them.
//!
//! The wait blocks, and a blocking `flock` cannot be given up but by ending the process. So PID 1 opens the files
//! ([`Seat`]), and a short-lived child that inherits them waits in its place ([`draw_and_wait`]): a lock belongs to the open
//! file, not to the process that asked for it, and is PID 1's as soon as the child has it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::claim::Claim;
use super::directory::LockDirectory;
use super::wanted::ResourceId;

/// What follows a killed holder waits this much longer. The kernel closes PID 1's files before it kills the other processes
/// of its container, and those close theirs, a serial port perhaps, only after giving back their memory.
const SETTLE: Duration = Duration::from_millis(500);

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
    /// Somebody removed our ticket before it had its number. A new one will do.
    #[error("the ticket was swept before it was drawn")]
    Swept,
}

/// A place in a resource's queue, and later the resource itself. Dropping it gives both up.
#[derive(Debug)]
pub(super) struct Seat {
    id: ResourceId,
    directory: LockDirectory,
    ticket: File,
    /// The ticket's name before it is drawn.
    new: PathBuf,
    lock: File,
}

impl Seat {
    /// Makes a ticket that is locked but has no number yet, and opens the lock. Does not block.
    pub(super) fn take(directory: &LockDirectory, id: &ResourceId, claim: &Claim) -> Result<Self, QueueError> {
        let unusable = |source| QueueError::Unusable { id: id.clone(), directory: directory.path().to_owned(), source };
        let queue = directory.make_queue(id).map_err(unusable)?;
        let lock = directory.open_lock(id).map_err(unusable)?;
        loop {
            let new = queue.join(format!(".new-{:016x}", random()));
            let ticket = directory.create(&new).map_err(unusable)?;
            match ticket.try_lock() {
                Ok(()) => {
                    let seat = Self { id: id.clone(), directory: directory.clone(), ticket, new, lock };
                    seat.say(claim).map_err(unusable)?;
                    return Ok(seat);
                }
                // A sweeper looked at the ticket between its birth and its lock, and has removed it. Another one.
                Err(TryLockError::WouldBlock) => {
                    let _ = fs::remove_file(&new);
                }
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
    }

    /// The resource.
    pub(super) fn id(&self) -> &ResourceId {
        &self.id
    }

    /// The descriptor of the lock, for the process that waits to inherit.
    pub(super) fn lock_descriptor(&self) -> RawFd {
        self.lock.as_raw_fd()
    }

    pub(super) fn ticket_descriptor(&self) -> RawFd {
        self.ticket.as_raw_fd()
    }

    /// The ticket's name before it is drawn, which the process that waits must know.
    pub(super) fn new_name(&self) -> &Path {
        &self.new
    }

    /// The number by which the file system knows the ticket under any name.
    pub(super) fn inode(&self) -> io::Result<u64> {
        Ok(self.ticket.metadata()?.ino())
    }

    /// Replaces what the ticket says of its owner.
    pub(super) fn say(&self, claim: &Claim) -> io::Result<()> {
        let json = serde_json::to_vec(claim)?;
        self.ticket.write_all_at(&json, 0)?;
        self.ticket.set_len(json.len() as u64)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Names first, while the locks still say that they are ours. All of this is tidiness: a name without a lock is dead
        // for everybody, and swept by whoever comes next.
        let Ok(ours) = self.inode() else { return };
        let holder = self.directory.holder(&self.id);
        if fs::metadata(&holder).is_ok_and(|meta| meta.ino() == ours) {
            // The usual end, and the next holder waits for it: nothing else is looked at.
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
/// files that were given. Blocks for as long as that takes.
/// [`QueueError::Swept`] when the ticket is gone.
pub(super) fn draw_and_wait(
    directory: &LockDirectory,
    id: &ResourceId,
    new: &Path,
    lock: &File,
) -> Result<(), QueueError> {
    let unusable = |source| QueueError::Unusable { id: id.clone(), directory: directory.path().to_owned(), source };
    let queue = directory.make_queue(id).map_err(unusable)?;
    let number = match draw(&queue, new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(QueueError::Swept),
        drawn => drawn.map_err(unusable)?,
    };
    while let Some(predecessor) = predecessor(&queue, number).map_err(unusable)? {
        wait_for(&queue.join(name(predecessor))).map_err(unusable)?;
    }
    lock.lock().map_err(unusable)?;
    let holder = directory.holder(id);
    // One that let go has removed its record.
    if fs::exists(&holder).map_err(unusable)? {
        thread::sleep(SETTLE);
    }
    fs::rename(queue.join(name(number)), holder).map_err(unusable)
}

/// Waits until nobody holds the resource and nobody waits for it, without joining the queue. Blocks for as long as that takes.
pub(super) fn wait_until_free(directory: &LockDirectory, id: &ResourceId) -> Result<(), QueueError> {
    let unusable = |source| QueueError::Unusable { id: id.clone(), directory: directory.path().to_owned(), source };
    let queue = directory.make_queue(id).map_err(unusable)?;
    let lock = directory.open_lock(id).map_err(unusable)?;
    loop {
        while let Some(last) = numbers(&queue).map_err(unusable)?.last() {
            wait_for(&queue.join(name(*last))).map_err(unusable)?;
        }
        lock.lock_shared().map_err(unusable)?;
        let free = numbers(&queue).map_err(unusable)?.is_empty();
        lock.unlock().map_err(unusable)?;
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
fn draw(queue: &Path, new: &Path) -> io::Result<u64> {
    let mut mutex = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(queue.join(".mutex"))?;
    mutex.lock()?;
    sweep(queue, new)?;
    let mut text = String::new();
    mutex.read_to_string(&mut text)?;
    // Never smaller than a number in use, whatever became of the file.
    let last = numbers(queue)?.last().copied().unwrap_or(0).max(text.trim().parse().unwrap_or(0));
    let next = last + 1;
    mutex.rewind()?;
    mutex.write_all(name(next).as_bytes())?;
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

/// Whether somebody holds the lock of this file. A file that is gone is not locked.
pub(super) fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
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
    file.lock_shared()?;
    // Its owner is dead if the name is still there; a holder's ticket has moved. Numbers are not used twice, so the name
    // cannot have come to mean another ticket.
    match fs::remove_file(ticket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn take(directory: &LockDirectory) -> (Seat, Duration) {
        let id: ResourceId = "board".parse().unwrap();
        let seat = Seat::take(directory, &id, &Claim::default()).unwrap();
        let began = Instant::now();
        draw_and_wait(directory, &id, seat.new_name(), &seat.lock).unwrap();
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
}
