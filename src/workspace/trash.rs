//! What is moved out of the places that jobs can write, to be removed while the runner goes on.
//!
//! The trash lies beside PID 1's state and is root's alone: no job sees or reaches what is in it. Every cleaning empties it, whoever
//! filled it, so that what one incarnation had no time to remove goes with the next.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{open, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::error::{SlateError, nothing_left};
use super::wipe::{DIRECTORY, Reins, Spare, Terms, Wiped, wipe_so};
use crate::os::directory;

/// The directory in which things wait for their removal.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    place: PathBuf,
}

/// A new directory in the trash, to move things into. It goes when it is dropped empty.
#[derive(Debug)]
pub(crate) struct Heap {
    trash: OwnedFd,
    name: CString,
    directory: OwnedFd,
}

impl Trash {
    /// The trash at `place`, which need not exist. The directory above it must be out of a job's reach.
    #[must_use]
    pub(crate) fn at(place: PathBuf) -> Self {
        Self { place }
    }

    /// Makes the trash, if it is missing, and a new directory in it.
    ///
    /// # Errors
    /// When there is no room for one, or something else is in its place.
    pub(crate) fn heap(&self) -> io::Result<Heap> {
        match DirBuilder::new().mode(0o700).create(&self.place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let trash = self.open()?;
        fchown(&trash, Some(Uid::effective()), Some(Gid::effective()))?;
        fchmod(&trash, Mode::S_IRWXU)?;
        let name = CString::new(format!("{:016x}", getrandom::u64().map_err(io::Error::other)?))?;
        mkdirat(&trash, name.as_c_str(), Mode::S_IRWXU)?;
        let directory = openat(&trash, name.as_c_str(), DIRECTORY, Mode::empty())?;
        Ok(Heap { trash, name, directory })
    }

    fn open(&self) -> nix::Result<OwnedFd> {
        open(&self.place, DIRECTORY, Mode::empty())
    }

    /// Whether nothing is in it.
    ///
    /// # Errors
    /// When something that is no directory is in its place, or it cannot be read.
    pub(crate) fn is_empty(&self) -> Result<bool, SlateError> {
        let look = || {
            let trash = match self.open() {
                Err(Errno::ENOENT) => return Ok(true),
                opened => opened?,
            };
            // More than the two entries that every directory has, however long their neighbour's name.
            let mut buffer = [0; 512];
            loop {
                let filled = directory::read(&trash, &mut buffer)?;
                if filled == 0 || directory::entries(&buffer[..filled]).next().is_some() {
                    return Ok(filled == 0);
                }
            }
        };
        look().map_err(|source| SlateError::Place { place: self.place.clone(), source })
    }

    /// Removes all that is in it, unless it is halted before.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn empty(&self, reins: &Reins) -> Result<Wiped, SlateError> {
        let manner = Terms { reins: Some(reins), ..Terms::default() };
        let mut wiped = nothing_left(&self.place, wipe_so(&self.place, &Spare::default(), manner))?;
        // What leads to a mount is not moved here. One that is here all the same keeps something of a job alive.
        match wiped.mounts.pop() {
            None => Ok(wiped),
            Some(mount) => Err(SlateError::NotEmpty {
                place: self.place.clone(),
                first: format!("{} is a mount", mount.display()),
                others: wiped.mounts.len() as u64,
            }),
        }
    }
}

impl AsFd for Heap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // It stays if something is in it.
        let _ = unlinkat(&self.trash, self.name.as_c_str(), UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn trash() -> (tempfile::TempDir, Trash) {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::at(root.path().join("trash"));
        (root, trash)
    }

    #[test]
    fn a_heap_without_anything_in_it_leaves_no_trace_and_nobody_else_may_look() {
        let (root, trash) = trash();
        assert!(trash.is_empty().unwrap());
        let heap = trash.heap().unwrap();
        let meta = fs::metadata(root.path().join("trash")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o700, Uid::effective().as_raw()));
        assert!(!trash.is_empty().unwrap());
        drop(heap);
        assert!(trash.is_empty().unwrap());
    }

    #[test]
    fn a_trash_that_was_opened_to_others_is_closed_again() {
        let (root, trash) = trash();
        drop(trash.heap().unwrap());
        fs::set_permissions(root.path().join("trash"), fs::Permissions::from_mode(0o777)).unwrap();
        drop(trash.heap().unwrap());
        assert_eq!(fs::metadata(root.path().join("trash")).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_link_in_place_of_the_trash_is_neither_filled_nor_followed() {
        let (root, trash) = trash();
        fs::create_dir(root.path().join("precious")).unwrap();
        fs::write(root.path().join("precious/file"), "x").unwrap();
        symlink(root.path().join("precious"), root.path().join("trash")).unwrap();
        assert!(trash.heap().is_err());
        assert!(trash.is_empty().is_err(), "no job is taken");
        assert!(trash.empty(&Reins::default()).is_err());
        assert_eq!(fs::read_dir(root.path().join("precious")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_halted_stays_for_the_next_time() {
        let (root, trash) = trash();
        let heap = trash.heap().unwrap();
        let full = root.path().join("trash").join(heap.name.to_str().unwrap()).join("full");
        fs::create_dir(&full).unwrap();
        drop(heap);
        let reins = Reins::default();
        reins.halt();
        assert_eq!(trash.empty(&reins).unwrap().entries, 0);
        assert!(full.exists());
        assert_eq!(trash.empty(&Reins::default()).unwrap().entries, 2);
        assert!(trash.is_empty().unwrap());
    }
}
