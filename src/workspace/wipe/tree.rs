//! The tree that is wiped, as all threads know it: what stays in it, what went, and how single entries go.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::crew::{Crew, lock};
use super::opening::{DIRECTORY, allow};
use super::terms::{Reins, Spare, Terms, Wiped};
use crate::os::flags::clear_flags;
use crate::os::mounts;

/// How many failures are described; the rest is counted only.
const DESCRIBED: usize = 20;
/// A path longer than this is not remembered.
const LABEL: usize = 4096;
/// How a subtree at the top is called.
const MOVED: &str = ".oscr-wipe-";

/// What all threads know of it.
pub(super) struct Tree<'a> {
    pub(super) top: OwnedFd,
    /// Where the top is.
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) only_of: Option<Uid>,
    aside: Option<BorrowedFd<'a>>,
    pub(super) reins: Option<&'a Reins>,
    mount_points: HashSet<PathBuf>,
    pub(super) kept: HashSet<PathBuf>,
    /// What stays where it is: mount points, kept directories, and all above them.
    pub(super) fixed: HashSet<PathBuf>,
    /// Number of the last subtree that was moved up.
    moved: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) wiped: Mutex<Wiped>,
    pub(super) crew: Crew,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Gone,
    /// Left alone on purpose.
    Left,
}

impl<'a> Tree<'a> {
    pub(super) fn new(top: &Path, directory: OwnedFd, spare: &Spare, manner: Terms<'a>) -> io::Result<Self> {
        // As the list of mounts has it, whatever links lead there.
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap_or_else(|_| top.to_owned());
        let kept: HashSet<PathBuf> =
            spare.kept.iter().filter_map(|kept| Some(path.join(kept.strip_prefix(top).ok()?))).collect();
        let mount_points: HashSet<PathBuf> = mounts::below(&path).map(|mount| mount.point).collect();
        let fixed = kept.iter().chain(&mount_points).flat_map(|place| place.ancestors()).map(Path::to_owned).collect();
        let device = fstat(&directory)?.st_dev;
        // A mount that is not known of would be moved with its directory.
        let movable = spare.only_of.is_none() && mounts::list().is_ok();
        let aside = manner.aside.filter(|aside| movable && fstat(aside).is_ok_and(|stat| stat.st_dev == device));
        Ok(Self {
            device,
            aside,
            reins: manner.reins,
            top: directory,
            path,
            only_of: spare.only_of,
            mount_points,
            kept,
            fixed,
            moved: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            wiped: Mutex::default(),
            crew: Crew::default(),
        })
    }

    /// A number that changes whenever something happens.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.moved.load(Ordering::Relaxed))
    }

    /// What could not go in the last round may go now.
    pub(super) fn begin_round(&self) {
        *lock(&self.wiped) = Wiped::default();
    }

    pub(super) fn failed(&self, path: &Path, errno: Errno) {
        let mut wiped = lock(&self.wiped);
        wiped.failed += 1;
        if wiped.failures.len() < DESCRIBED {
            wiped.failures.push(format!("{}: {}", path.display(), errno.desc()));
        }
    }

    pub(super) fn left_mounted(&self, path: &Path) -> Fate {
        let mut wiped = lock(&self.wiped);
        if !wiped.mounts.iter().any(|known| known == path) {
            wiped.mounts.push(path.to_owned());
        }
        Fate::Left
    }

    /// Whether somebody wants this to end before it is done.
    pub(super) fn halted(&self) -> bool {
        self.reins.is_some_and(Reins::halted)
    }

    /// Whether a thread could be helped out with a subtree. Others' entries stay where they are.
    pub(super) fn somebody_waits(&self) -> bool {
        self.only_of.is_none() && self.crew.is_hungry()
    }

    /// Moves a directory aside. `false` when it must be emptied where it is: for one of an image's layer, one of another mount, one
    /// that is marked immutable, or where there is no room.
    pub(super) fn move_aside(&self, parent: &OwnedFd, name: &CStr) -> bool {
        let Some(aside) = self.aside else { return false };
        // By its own name if it is free, which tells people more.
        let mut to = name.to_owned();
        loop {
            match renameat(parent, name, aside, to.as_c_str()) {
                Ok(()) => {
                    self.moved.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {
                    to = name_of(self.moved.fetch_add(1, Ordering::Relaxed) + 1);
                }
                Err(_) => return false,
            }
        }
    }

    /// Moves a directory to the top, where somebody will remove it.
    pub(super) fn move_up(&self, parent: &OwnedFd, name: &CStr, path: &Path) -> Result<Fate, Errno> {
        loop {
            let number = self.moved.fetch_add(1, Ordering::Relaxed) + 1;
            match renameat(parent, name, &self.top, name_of(number).as_c_str()) {
                Ok(()) => {
                    // Only to be told to people, so a path of any length is cut.
                    let known = path.as_os_str().len() < LABEL;
                    self.crew.offer(number, || if known { path.to_owned() } else { self.path.join("…") });
                    return Ok(Fate::Gone);
                }
                Err(Errno::ENOENT) => return Ok(Fate::Gone),
                // A job may have made this very name, as a file or a full directory.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Removes an entry that is no directory.
    pub(super) fn unlink(&self, parent: &OwnedFd, name: &CStr, path: &Path, stat: &FileStat) -> Result<Fate, Errno> {
        let unlink = || unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        let mut result = unlink();
        if result == Err(Errno::EPERM) && self.release(parent, name) {
            result = unlink();
        }
        match result {
            Ok(()) => {
                self.entries.fetch_add(1, Ordering::Relaxed);
                if stat.st_nlink <= 1 {
                    self.bytes.fetch_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512, Ordering::Relaxed);
                }
                Ok(Fate::Gone)
            }
            Err(Errno::ENOENT) => Ok(Fate::Gone),
            Err(Errno::EBUSY) => Ok(self.left_mounted(&path.join(to_path(name)))),
            Err(errno) => Err(errno),
        }
    }

    /// Takes the flags off that forbid to remove an entry, from it and from its directory. Whether any were taken off.
    pub(super) fn release(&self, parent: &OwnedFd, name: &CStr) -> bool {
        let entry = || {
            let entry = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            let kind = fstat(&entry)?.st_mode & SFlag::S_IFMT.bits();
            if kind != SFlag::S_IFREG.bits() && kind != SFlag::S_IFDIR.bits() {
                // Nothing else can be asked for its flags without side effects.
                return Ok(false);
            }
            // The same inode again, whatever the name has become.
            let readable = fs::File::open(format!("/proc/self/fd/{}", entry.as_raw_fd()))?;
            clear_flags(&readable)
        };
        let released: [io::Result<bool>; 2] = [clear_flags(parent), entry()];
        released.into_iter().any(|released| released.unwrap_or(false))
    }

    /// Opens a directory, but not one that something is mounted on (`EXDEV`): a bind mount of the same file system has the
    /// same device number, so only the kernel, or its list of mounts, can tell.
    pub(super) fn open_directory(&self, parent: &OwnedFd, name: &CStr, path: &Path) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(DIRECTORY)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
        let open = || match openat2(parent, name, how) {
            // Before Linux 5.6, or under a filter that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) if self.mount_points.contains(path) => Err(Errno::EXDEV),
            Err(Errno::ENOSYS | Errno::EPERM) => openat(parent, name, DIRECTORY, Mode::empty()),
            other => other,
        };
        match open() {
            Err(Errno::EACCES) => {
                // A directory of mode 000, met without the capability to ignore it.
                let entry = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
                allow(&entry)?;
                open()
            }
            other => other,
        }
    }
}

/// How the subtree with this number is called.
pub(super) fn name_of(number: u64) -> CString {
    CString::new(format!("{MOVED}{number}")).unwrap_or_default()
}

/// A name as a path.
pub(super) fn to_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}
