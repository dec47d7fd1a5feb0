//! The clean slate: places that a job can write are emptied and restored, so that no job finds anything of an earlier one.
//!
//! Deletion works on directory descriptors only: it never follows a link, never crosses a mount, and never leaves the tree
//! that it was given, whatever a job made of it.

mod owner;
mod pristine;
mod wipe;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::Uid;

use crate::os::child::Identity;

pub use owner::{Owned, OwnerError, take_for_root};
pub use wipe::{Wiped, wipe};

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
        others: usize,
    },
    /// A place cannot be made or opened.
    #[error("{} cannot be prepared: {source}", place.display())]
    Place {
        /// The place.
        place: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}

impl Slate {
    /// Empties all places, makes those that are missing, and restores the home.
    ///
    /// # Errors
    /// At the first place that cannot be made clean.
    pub fn clean(&self) -> Result<Wiped, SlateError> {
        let started = Instant::now();
        let mut total = Wiped::default();
        // In a container that is not root, others' files in shared directories are neither ours to remove nor a job's doing.
        let only_of = (!Uid::effective().is_root()).then(Uid::effective);
        for place in self.temporary.iter().chain([&self.agent_roots, &self.work]) {
            total += empty(place, only_of)?;
        }
        if self.home != Path::new("/") {
            total += empty(&self.home, only_of)?;
            pristine::restore(&self.pristine_home, &self.home, &self.agent)
                .map_err(|source| SlateError::Place { place: self.home.clone(), source })?;
        }
        for place in [&self.work, &self.agent_roots] {
            prepare(place, place == &self.work, &self.agent)
                .map_err(|source| SlateError::Place { place: place.clone(), source })?;
        }
        total.took = started.elapsed();
        Ok(total)
    }
}

fn empty(place: &Path, only_of: Option<Uid>) -> Result<Wiped, SlateError> {
    let wiped = match wipe(place, only_of) {
        Ok(wiped) => wiped,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Wiped::default()),
        Err(source) => {
            return Err(SlateError::Place { place: place.to_owned(), source });
        }
    };
    match wiped.failures.first() {
        None => Ok(wiped),
        Some(first) => Err(SlateError::NotEmpty {
            place: place.to_owned(),
            first: first.clone(),
            others: wiped.failures.len() - 1,
        }),
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
