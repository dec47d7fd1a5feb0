//! One thread's way through a tree.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::opening::{allow, reopen, to_errno};
use super::terms::Reins;
use super::tree::{Fate, Tree, name_of, to_path};
use crate::os::directory;
use crate::os::priority::step_back;

/// How many levels one thread holds open at once. What lies deeper is moved up to the top first, so that a tree of any depth
/// is removed with this many descriptors.
const DEPTH: usize = 32;
/// How often a directory is gone over again whose entries all went and that is not empty: some file systems skip entries when
/// others are removed meanwhile.
const PASSES: usize = 16;
/// Bytes of directory entries read at once.
const BUFFER: usize = 16 * 1024;

/// One thread's walk.
pub(super) struct Walk<'a> {
    all: &'a Tree<'a>,
    /// How many entries are removed before it stops.
    budget: Option<u64>,
    /// Memory for directory entries, to be used again.
    buffers: Vec<Vec<u8>>,
    /// Whether this thread makes way for others.
    behind: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(all: &'a Tree<'a>, budget: Option<u64>) -> Self {
        Self { all, budget, buffers: Vec::new(), behind: false }
    }

    /// Removes a subtree that was moved to the top.
    pub(super) fn subtree(&mut self, number: u64, path: &Path) {
        let name = name_of(number);
        let stat = fstatat(&self.all.top, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match stat.and_then(|stat| self.directory(&self.all.top, &name, &stat, path, 0)) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => self.all.failed(path, errno),
        }
    }

    /// Whether it should stop before it is done.
    pub(super) fn spent(&self) -> bool {
        self.all.halted() || self.budget.is_some_and(|budget| self.all.entries.load(Ordering::Relaxed) >= budget)
    }

    /// Removes the entries of one directory. Whether any of those seen remains.
    pub(super) fn pass(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> bool {
        if !self.behind && self.all.reins.is_some_and(Reins::behind) {
            self.behind = true;
            step_back();
        }
        let mut buffer = self.buffers.pop().unwrap_or_else(|| vec![0; BUFFER]);
        let mut remains = false;
        loop {
            let filled = match directory::read(directory, &mut buffer) {
                Ok(0) => break,
                Ok(filled) => filled,
                Err(error) => {
                    self.all.failed(path, to_errno(&error));
                    remains = true;
                    break;
                }
            };
            for entry in directory::entries(&buffer[..filled]) {
                if self.spent() {
                    remains = true;
                    break;
                }
                match self.entry(directory, entry.name, path, depth) {
                    Ok(Fate::Gone) => {}
                    Ok(Fate::Left) => remains = true,
                    Err(errno) => {
                        remains = true;
                        self.all.failed(&path.join(to_path(entry.name)), errno);
                    }
                }
            }
            if self.spent() {
                break;
            }
        }
        self.buffers.push(buffer);
        remains
    }

    /// Removes one entry.
    fn entry(&mut self, parent: &OwnedFd, name: &CStr, path: &Path, depth: usize) -> Result<Fate, Errno> {
        let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(Fate::Gone),
            Err(errno) => return Err(errno),
        };
        if self.all.only_of.is_some_and(|uid| uid.as_raw() != stat.st_uid) {
            return Ok(Fate::Left);
        }
        if !directory::is_one(&stat) {
            return self.all.unlink(parent, name, path, &stat);
        }
        let path = path.join(to_path(name));
        if stat.st_dev != self.all.device {
            return Ok(self.all.left_mounted(&path));
        }
        if self.all.kept.contains(&path) {
            return Ok(Fate::Left);
        }
        let fixed = self.all.fixed.contains(&path);
        if !fixed && self.all.move_aside(parent, name) {
            return Ok(Fate::Gone);
        }
        if !fixed && (depth + 1 >= DEPTH || has_directories(&stat) && self.all.somebody_waits()) {
            match self.all.move_up(parent, name, &path) {
                // A directory of an image's layer cannot be moved, nor one that is mounted on: it is emptied where it is.
                Err(Errno::EXDEV | Errno::EBUSY | Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::EDQUOT) => {}
                other => return other,
            }
        }
        self.directory(parent, name, &stat, &path, depth)
    }

    /// Empties and removes a directory.
    fn directory(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        stat: &FileStat,
        path: &Path,
        depth: usize,
    ) -> Result<Fate, Errno> {
        let directory = match self.all.open_directory(parent, name, path) {
            Ok(directory) => directory,
            // It was replaced between our look and now; what it became is seen in the next round.
            Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => return Ok(Fate::Gone),
            Err(Errno::EXDEV) => return Ok(self.all.left_mounted(path)),
            Err(errno) => return Err(errno),
        };
        if stat.st_mode & 0o700 != 0o700 {
            // Needed when we are not root; for root without DAC_OVERRIDE as well. A failure shows at the first unlink.
            let _ = allow(&directory);
        }
        let (mut directory, mut passes, mut released) = (directory, 1, false);
        loop {
            let remains = self.pass(&directory, path, depth + 1);
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) => {
                    self.all.entries.fetch_add(1, Ordering::Relaxed);
                    return Ok(Fate::Gone);
                }
                Err(Errno::ENOENT) => return Ok(Fate::Gone),
                // What remains has its reason, such as a mount further down.
                Err(Errno::ENOTEMPTY | Errno::EEXIST) if remains => return Ok(Fate::Left),
                Err(Errno::ENOTEMPTY | Errno::EEXIST) if passes < PASSES => {
                    directory = reopen(&directory)?;
                    passes += 1;
                }
                Err(Errno::EPERM) if !released && self.all.release(parent, name) => released = true,
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Whether a directory has others in it: one that has none is removed faster than given away. Where the file system does not
/// count them, it may have.
fn has_directories(stat: &FileStat) -> bool {
    stat.st_nlink != 2
}
