//! Why a slate is not clean.

use std::io;
use std::path::{Path, PathBuf};

use super::wipe::Wiped;

/// Why the slate is not clean. No job may be taken then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlateError {
    /// A place cannot be emptied.
    #[error("{} cannot be emptied: {}{}", place.display(), first, more(*others))]
    NotEmpty {
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
        place: PathBuf,
        /// What it has.
        what: &'static str,
        /// Why it stays.
        source: io::Error,
    },
    /// Objects of System V IPC remain.
    #[error("shared memory, semaphores or message queues that a job left cannot be removed: {0}")]
    Sysv(String),
    /// What is outside cannot be compared with what it should be.
    #[error("the file system cannot be compared with what it was: {0}")]
    Unreadable(io::Error),
    /// A place cannot be made or opened.
    #[error("{} cannot be prepared: {source}", place.display())]
    Place { place: PathBuf, source: io::Error },
}

fn more(others: u64) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}

/// What was wiped of a place, if all was.
pub(super) fn nothing_left(place: &Path, wiped: io::Result<Wiped>) -> Result<Wiped, SlateError> {
    let wiped = wiped.map_err(|source| SlateError::Place { place: place.to_owned(), source })?;
    match wiped.failures.first() {
        None => Ok(wiped),
        Some(first) => {
            Err(SlateError::NotEmpty { place: place.to_owned(), first: first.clone(), others: wiped.failed - 1 })
        }
    }
}
