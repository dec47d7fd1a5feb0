//! Who holds a resource and who waits, for people. Looking disturbs nobody: it takes locks for a moment and without waiting, and where
//! it may not open a file it takes the kernel's word.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::claim::{Claim, Tell};
use super::directory::LockDirectory;
use super::queue::{is_locked, is_taken, numbers};
use super::shown::ShownHolder;
use super::wanted::ResourceId;
use crate::os::locks::{FileLocks, Mode};
use crate::plain::plain;

/// What is known of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// Somebody has it.
    Held,
    /// Nobody has it.
    Free,
    /// Only what the records say, which may be over: neither can the lock be tried, nor are all locks shown here.
    Recorded,
}

/// The state of one resource at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// The resource.
    pub resource: String,
    /// What is known of it.
    pub state: Certainty,
    /// Whether somebody has it, or may have it: all but [`Certainty::Free`].
    pub held: bool,
    /// Who has it; `None` while it is free, or when it is held by something that leaves no record, such as `flock(1)`.
    pub holder: Option<Claim>,
    /// Whether those who wait can be seen from here.
    pub queue_seen: bool,
    /// Those who wait, first in line first.
    pub queue: Vec<Waiting>,
    /// Which ticket the holder's record is.
    #[serde(skip)]
    ticket: Option<u64>,
    /// There is a record of the holder, which may not be read from here.
    #[serde(skip)]
    closed: bool,
}

/// One who waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The number drawn.
    pub number: u64,
    /// Who it is.
    pub claim: Claim,
    #[serde(skip)]
    inode: u64,
}

impl Occupancy {
    /// Looks at a resource.
    pub(super) fn of(directory: &LockDirectory, id: &ResourceId) -> Self {
        let mut seen = match File::open(directory.lock(id)) {
            Ok(lock) => Self::by_trying(directory, id, &lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::empty(id, Certainty::Free),
            Err(_) => Self::by_the_kernel(directory, id, FileLocks::of_machine().as_ref()),
        };
        seen.look_at_queue(&directory.queue(id));
        seen
    }

    fn empty(id: &ResourceId, state: Certainty) -> Self {
        Self {
            resource: id.to_string(),
            state,
            held: state != Certainty::Free,
            holder: None,
            queue_seen: true,
            queue: Vec::new(),
            ticket: None,
            closed: false,
        }
    }

    fn by_trying(directory: &LockDirectory, id: &ResourceId, lock: &File) -> Self {
        let path = directory.holder(id);
        let living = is_locked(&path);
        let holder = living.then(|| read(&path)).flatten();
        // Only without a living record is the lock itself tried, so that a holder never meets us there.
        let held = holder.is_some() || is_taken(lock);
        let ticket = living.then(|| fs::metadata(&path).ok()).flatten().map(|meta| meta.ino());
        let holder = holder.or_else(|| shown(directory, id, ticket.filter(|_| held)));
        Self { holder, ticket, ..Self::empty(id, if held { Certainty::Held } else { Certainty::Free }) }
    }

    /// What can be told without opening a lock or a ticket. `locks` is `None` where the kernel does not show all of them.
    fn by_the_kernel(directory: &LockDirectory, id: &ResourceId, locks: Option<&FileLocks>) -> Self {
        let locked = |path: &Path| {
            let file = fs::metadata(path).ok();
            file.map(|file| (locks.map(|locks| locks.hold(path, &file, Mode::Exclusive)), file.ino()))
        };
        let lock = directory.lock(id);
        let taken = locks.zip(fs::metadata(&lock).ok()).map(|(locks, file)| locks.hold(&lock, &file, Mode::Any));
        let state = match taken {
            Some(true) => Certainty::Held,
            Some(false) => Certainty::Free,
            None => Certainty::Recorded,
        };
        let ticket =
            locked(&directory.holder(id)).filter(|(locked, _)| *locked != Some(false)).map(|(_, ticket)| ticket);
        let ticket = ticket.filter(|_| state != Certainty::Free);
        let holder = shown(directory, id, ticket);
        Self { closed: ticket.is_some() && holder.is_none(), holder, ticket, ..Self::empty(id, state) }
    }

    fn look_at_queue(&mut self, queue: &Path) {
        let numbers = numbers(queue);
        self.queue_seen = !numbers.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        let waiting = numbers.unwrap_or_default().into_iter().filter_map(|number| {
            let path = queue.join(format!("{number:020}"));
            let inode = fs::metadata(&path).ok()?.ino();
            is_locked(&path).then(|| Waiting { number, claim: read(&path).unwrap_or_default(), inode })
        });
        self.queue = waiting.collect();
    }

    /// How many wait before the ticket with this inode, and so before us.
    pub(super) fn ahead_of(&self, inode: u64) -> usize {
        self.queue.iter().take_while(|waiting| waiting.inode != inode).count()
    }

    /// Whether the holder has this ticket.
    pub(super) fn is_held_by(&self, inode: u64) -> bool {
        self.ticket == Some(inode)
    }

    /// The same as `asker` may know it.
    #[must_use]
    pub(super) fn told_to(mut self, asker: &Claim, tell: Tell) -> Self {
        self.holder = self.holder.map(|holder| holder.told_to(asker, tell));
        self
    }

    /// One line about the holder.
    #[must_use]
    pub(crate) fn holder_line(&self) -> String {
        let unknown = "whether that is so now cannot be told from here";
        match (self.state, &self.holder) {
            (Certainty::Held, Some(holder)) => format!("held by {holder}"),
            (Certainty::Held, None) if self.closed => "held by somebody whose record this user may not read".to_owned(),
            (Certainty::Held, None) => "held by something that leaves no record, such as flock(1)".to_owned(),
            (Certainty::Free, _) => "free".to_owned(),
            (Certainty::Recorded, Some(holder)) => format!("recorded as held by {holder}; {unknown}"),
            (Certainty::Recorded, None) if self.closed => format!("recorded as held by somebody; {unknown}"),
            (Certainty::Recorded, None) => format!("recorded as held by nobody; {unknown}"),
        }
    }
}

/// What is shown of the holder that has this ticket.
fn shown(directory: &LockDirectory, id: &ResourceId, ticket: Option<u64>) -> Option<Claim> {
    let shown: ShownHolder = serde_json::from_slice(&fs::read(directory.shown(id)).ok()?).ok()?;
    (ticket == Some(shown.ticket)).then(|| cleaned(shown.claim))
}

fn read(path: &Path) -> Option<Claim> {
    let claim: Claim = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(cleaned(claim))
}

/// Whoever may use the lock wrote it, and it is shown on others' terminals and in their jobs' logs.
fn cleaned(claim: Claim) -> Claim {
    let clean = |text: Option<String>| text.as_deref().map(plain);
    Claim {
        who: plain(&claim.who),
        scope: clean(claim.scope),
        owner: clean(claim.owner),
        repository: clean(claim.repository),
        run_url: clean(claim.run_url),
        job: clean(claim.job),
        note: clean(claim.note),
        since: plain(&claim.since),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_opening_a_lock_it_is_held_or_free_where_all_locks_are_shown_and_else_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let directory = LockDirectory::checked(folder.path());
        let id: ResourceId = "board".parse().unwrap();
        let lock = directory.open_lock(&id).unwrap();
        let all = || FileLocks::parse(&fs::read("/proc/locks").unwrap());
        let state = |locks: Option<&FileLocks>| Occupancy::by_the_kernel(&directory, &id, locks);
        let ticket = File::create(directory.holder(&id)).unwrap();
        let claim = Claim::now("oscr-1".to_owned());
        let shown = ShownHolder { ticket: ticket.metadata().unwrap().ino(), claim };
        fs::write(directory.shown(&id), serde_json::to_vec(&shown).unwrap()).unwrap();

        assert_eq!(state(Some(&all())).state, Certainty::Free);
        assert_eq!(state(Some(&all())).holder, None, "what is left of one that was killed");
        let unknown = state(None);
        assert_eq!((unknown.state, unknown.held), (Certainty::Recorded, true));
        assert!(unknown.holder_line().starts_with("recorded as held by oscr-1 since"), "{}", unknown.holder_line());

        lock.lock_shared().unwrap();
        let seen = |state: Occupancy| (state.state, state.holder);
        assert_eq!(seen(state(Some(&all()))), (Certainty::Held, None), "a shared lock of flock(1)");
        assert_eq!(seen(Occupancy::of(&directory, &id)), (Certainty::Held, None), "the same where it can be tried");
        lock.unlock().unwrap();
        assert_eq!(Occupancy::of(&directory, &id).state, Certainty::Free);
        lock.lock().unwrap();
        assert_eq!(
            (state(Some(&all())).state, state(Some(&all())).holder),
            (Certainty::Held, None),
            "a lock of flock(1)"
        );
        ticket.lock().unwrap();
        assert_eq!(state(Some(&all())).holder.unwrap().who, "oscr-1");
        fs::remove_file(directory.shown(&id)).unwrap();
        assert!(state(Some(&all())).holder_line().contains("may not read"));
        fs::remove_file(directory.holder(&id)).unwrap();
        assert!(state(None).holder_line().starts_with("recorded as held by nobody"));
    }

    #[test]
    fn fuzz_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holder");
        crate::fuzz::run("holder", |bytes| {
            fs::write(&path, bytes).unwrap();
            read(&path).map(|claim| {
                crate::fuzz::assert_plain(&claim.to_string());
                (claim.scope.is_some(), claim.run_url.is_some())
            })
        });
    }
}
