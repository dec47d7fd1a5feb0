//! The clean slate: places that a job can write are emptied and restored, so that no job finds anything of an earlier one.
//!
//! Deletion works on directory descriptors only: it never follows a link, never crosses a mount, and never leaves the tree
//! that it was given, whatever a job made of it.

mod caches;
pub mod command;
pub mod evict;
pub mod ipc;
mod marks;
mod owner;
mod pristine;
pub mod space;
pub mod taint;
mod trash;
mod wipe;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::Uid;

use crate::os::Identity;
use crate::os::mounts;

pub use marks::Origin;
pub use owner::{Owned, OwnerError, take_for_root};
pub use space::Space;
pub use trash::Trash;
use wipe::{Manner, wipe_so};
pub use wipe::{Reins, Spare, Wiped, wipe};

/// The places that make up a slate.
#[derive(Debug, Clone)]
pub struct Slate {
    /// Where jobs work.
    pub work: PathBuf,
    /// Where the agents' roots are made, one per incarnation.
    pub agent_roots: PathBuf,
    /// Directories for temporary files.
    pub temporary: Vec<PathBuf>,
    /// The agent's home and the pristine copy that it is restored from.
    pub home: PathBuf,
    /// The pristine copy.
    pub pristine_home: PathBuf,
    /// The agent's user.
    pub agent: Identity,
    /// Directories that the user names: they survive, in the places above and elsewhere.
    pub kept: Vec<PathBuf>,
    /// Where what takes long to remove is moved, so that nobody need wait for it. `None` where no place is out of a job's reach.
    pub trash: Option<Trash>,
    /// What the places themselves were like before the first job.
    pub origin: Origin,
}

/// Why the slate is not clean. No job may be taken then.
#[derive(Debug, thiserror::Error)]
pub enum SlateError {
    /// A place cannot be emptied.
    #[error("{} cannot be emptied: {}{}", place.display(), first, more(*others))]
    NotEmpty {
        /// The place.
        place: PathBuf,
        /// The first thing that could not be removed, and why.
        first: String,
        /// How many others there were.
        others: u64,
    },
    /// A place is not what it was.
    #[error(
        "{}: {what} that a job can have set on it cannot be taken back: {source}. Take off what chattr, setfacl or setfattr set on \
         what is mounted there, and make the container anew: docker compose up -d --force-recreate",
        place.display()
    )]
    Marked {
        /// The place.
        place: PathBuf,
        /// What it has.
        what: &'static str,
        /// Why it stays.
        source: io::Error,
    },
    /// Objects of System V IPC remain.
    #[error("shared memory, semaphores or message queues that a job left cannot be removed: {0}")]
    Ipc(String),
    /// What is outside cannot be compared with what it should be.
    #[error("the file system cannot be compared with what it was: {0}")]
    Unreadable(io::Error),
    /// A place cannot be made or opened.
    #[error("{} cannot be prepared: {source}", place.display())]
    Place {
        /// The place.
        place: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn more(others: u64) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}

/// The first IPC namespace that the kernel makes, which is the machine's (`PROC_IPC_INIT_INO` in its sources).
const MACHINES_IPC: &str = "ipc:[4026531839]";

impl Slate {
    /// All places that are emptied.
    fn places(&self) -> impl Iterator<Item = PathBuf> {
        let home = (self.home != Path::new("/")).then_some(&self.home);
        self.temporary.iter().chain([&self.agent_roots, &self.work]).chain(home).cloned()
    }

    /// Empties all places, makes those that are missing, restores the home, and gives each back what it was marked with. Directories are moved into the trash where they can
    /// be; it is somebody else's to empty.
    ///
    /// # Errors
    /// At the first place that cannot be made clean.
    pub fn clean(&mut self) -> Result<Wiped, SlateError> {
        let started = Instant::now();
        let mounts = mounts::list().unwrap_or_default();
        let lasting = self.lasting(&mounts);
        self.learn_marks(&lasting, &mounts)?;
        let mut total = Wiped::default();
        let heap = self.trash.as_ref().and_then(|trash| {
            let heap = trash.heap();
            heap.inspect_err(|error| tracing::debug!("everything is removed where it is: no trash can be had: {error}"))
                .ok()
        });
        for place in self.places() {
            // The agents' programs are links to the image's: removing one changes the time of the other's last change, which must not
            // happen once all has been found well.
            let aside = heap.as_ref().filter(|_| place != self.agent_roots).map(AsFd::as_fd);
            // What is mounted further in comes later in the list.
            let mounted = self.mounts_to_empty(&place);
            for place in mounted.iter().rev().chain([&place]) {
                let spare = Spare { only_of: self.only_of(place), kept: self.kept.clone() };
                match wipe_so(place, &spare, Manner { aside, reins: None }) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    wiped => total += nothing_left(place, wiped)?,
                }
            }
            total.mounts.retain(|mount| !mounted.contains(mount));
        }
        for top in &lasting {
            self.unmark(top, &mounts)?;
        }
        if self.home != Path::new("/") {
            pristine::restore(&self.pristine_home, &self.home, &self.agent)
                .map_err(|source| SlateError::Place { place: self.home.clone(), source })?;
        }
        for place in [&self.work, &self.agent_roots] {
            prepare(place, place == &self.work, &self.agent)
                .map_err(|source| SlateError::Place { place: place.clone(), source })?;
        }
        self.prepare_caches()?;
        self.give_lists_back(&lasting, &mounts)?;
        total.took = started.elapsed();
        Ok(total)
    }

    /// Whose entries alone may be removed from a place, if not everybody's.
    fn only_of(&self, place: &Path) -> Option<Uid> {
        if !Uid::effective().is_root() {
            // Others' files in shared directories are neither ours to remove nor a job's doing.
            return Some(Uid::effective());
        }
        // With `--ipc=host` these are the host's, and others there rely on what is theirs.
        let shared = place.ends_with("dev/shm") || place.ends_with("dev/mqueue");
        let machines = || std::fs::read_link("/proc/self/ns/ipc").is_ok_and(|link| link == Path::new(MACHINES_IPC));
        (shared && machines()).then_some(self.agent.uid)
    }
}

/// What was wiped of a place, if all was.
fn nothing_left(place: &Path, wiped: io::Result<Wiped>) -> Result<Wiped, SlateError> {
    let wiped = wiped.map_err(|source| SlateError::Place { place: place.to_owned(), source })?;
    match wiped.failures.first() {
        None => Ok(wiped),
        Some(first) => {
            Err(SlateError::NotEmpty { place: place.to_owned(), first: first.clone(), others: wiped.failed - 1 })
        }
    }
}

/// The work directory belongs to the agent; the directory of agent roots to us, and the agent may pass through.
fn prepare(place: &Path, agents: bool, agent: &Identity) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(place)?;
    if Uid::effective().is_root() {
        let (uid, gid) = if agents { (agent.uid.as_raw(), agent.gid.as_raw()) } else { (0, 0) };
        std::os::unix::fs::lchown(place, Some(uid), Some(gid))?;
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A slate below `root` whose agent is ourselves.
    pub(super) fn slate_in(root: &Path) -> Slate {
        Slate {
            work: root.join("work"),
            agent_roots: root.join("runner"),
            temporary: vec![root.join("tmp"), root.join("dev/shm")],
            home: root.join("home/runner"),
            pristine_home: root.join("pristine"),
            agent: Identity { uid: nix::unistd::getuid(), gid: nix::unistd::getgid(), groups: vec![] },
            kept: Vec::new(),
            trash: Some(Trash::at(root.join("trash"))),
            origin: Origin::at(root.join("marks.json")),
        }
    }

    #[test]
    fn only_what_is_named_survives() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        let cache = root.path().join("work/a/cache");
        slate.kept = vec![cache.clone(), root.path().join("home/runner/.cache/tool"), root.path().join("opt/new")];
        for directory in ["work/a/cache/deep", "work/a/other", "work/b", "home/runner/.cache/tool"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
            fs::write(root.path().join(directory).join("file"), "x").unwrap();
        }
        slate.clean().unwrap();
        assert!(cache.join("deep/file").exists() && root.path().join("home/runner/.cache/tool/file").exists());
        assert_eq!(fs::read_dir(root.path().join("work/a")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 1);
        assert!(root.path().join("opt/new").is_dir(), "a cache that is missing is made");
    }

    #[test]
    fn a_link_in_place_of_a_cache_goes_and_a_directory_comes() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        fs::create_dir_all(root.path().join("work/a")).unwrap();
        fs::create_dir(root.path().join("precious")).unwrap();
        fs::write(root.path().join("precious/file"), "x").unwrap();
        std::os::unix::fs::symlink(root.path().join("precious"), root.path().join("work/a/cache")).unwrap();
        slate.kept = vec![root.path().join("work/a/cache")];
        slate.clean().unwrap();
        assert!(fs::symlink_metadata(root.path().join("work/a/cache")).unwrap().is_dir());
        assert!(root.path().join("precious/file").exists());
    }

    /// What is in the trash, below the one heap in it.
    fn moved_aside(root: &Path) -> Vec<PathBuf> {
        let entries = |place: PathBuf| fs::read_dir(place).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries(root.join("trash")).flat_map(entries).collect();
        found.sort();
        found.into_iter().map(|path| path.strip_prefix(root.join("trash")).unwrap().iter().skip(1).collect()).collect()
    }

    #[test]
    fn whole_directories_are_moved_aside_and_nothing_that_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        slate.kept = vec![root.path().join("work/a/cache")];
        for directory in ["work/a/cache/deep", "work/a/other/deep", "work/b/deep", "tmp/b/deep", "runner/c/bin"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("work/file"), "x").unwrap();
        slate.clean().unwrap();
        assert!(root.path().join("work/a/cache/deep").exists());
        assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 1);
        let names: Vec<PathBuf> = moved_aside(root.path());
        let named = |name: &str| names.iter().filter(|path| path.as_os_str() == name).count();
        // The second b has another name; the agent's root has gone where it was.
        assert_eq!((names.len(), named("other"), named("b")), (3, 1, 1), "{names:?}");
        let trash = slate.trash.unwrap();
        assert_eq!(trash.empty(&Reins::default()).unwrap().entries, 3 * 2 + 1);
        assert!(trash.is_empty().unwrap());
    }

    #[test]
    fn links_go_where_they_are_and_what_they_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        for directory in ["work/a", "precious/deep"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(root.path().join("precious"), root.path().join("work/link")).unwrap();
        std::os::unix::fs::symlink(root.path().join("precious"), root.path().join("work/a/link")).unwrap();
        slate.clean().unwrap();
        assert_eq!(moved_aside(root.path()), [Path::new("a")]);
        slate.trash.unwrap().empty(&Reins::default()).unwrap();
        assert!(root.path().join("precious/deep").exists());
    }

    #[test]
    fn on_another_file_system_all_is_removed_where_it_is() {
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut slate = Slate { work: elsewhere.path().join("work"), ..slate_in(root.path()) };
        fs::create_dir_all(slate.work.join("a/b")).unwrap();
        assert_eq!(slate.clean().unwrap().entries, 2);
        assert!(slate.trash.unwrap().is_empty().unwrap());
    }

    #[test]
    fn without_a_trash_all_is_removed_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        fs::create_dir_all(root.path().join("work/a/b")).unwrap();
        fs::write(root.path().join("trash"), "no directory").unwrap();
        assert_eq!(slate.clean().unwrap().entries, 2, "something else is in its place");
        fs::create_dir_all(root.path().join("work/a/b")).unwrap();
        slate.trash = None;
        assert_eq!(slate.clean().unwrap().entries, 2, "an ordinary user has none");
    }
}
