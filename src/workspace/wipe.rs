//! Emptying a directory, safely against whatever is in it.
//!
//! Several threads share the work. One that has none is given a whole subtree, which is renamed up to the top first. So
//! nobody waits for anybody, and a tree of any depth or width needs no more memory and descriptors than a small one.

use std::collections::{HashSet, VecDeque};
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::ops::AddAssign;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use crate::os::flags::unlock;
use crate::os::priority::step_back;
use crate::os::{directory, mounts};

/// How many levels one thread holds open at once. What lies deeper is moved up to the top first, so that a tree of any depth
/// is removed with this many descriptors.
const DEPTH: usize = 32;
/// How often the top is gone over again while there is progress.
const ROUNDS: usize = 10_000;
/// How often a directory is gone over again whose entries all went and that is not empty: some file systems skip entries when
/// others are removed meanwhile.
const PASSES: usize = 16;
/// How many failures are described; the rest is counted only.
const DESCRIBED: usize = 20;
/// Entries that one thread removes before others are asked to help. Starting them costs as much as some dozens of these.
const ALONE: u64 = 1000;
/// The most threads. More only wait for the file system's own locks.
const THREADS: usize = 4;
/// Bytes of directory entries read at once.
const BUFFER: usize = 16 * 1024;
/// How many subtrees wait in memory to be removed. The rest is found again at the top.
const WAITING: usize = 1024;
/// A path longer than this is not remembered.
const LABEL: usize = 4096;
/// How a subtree at the top is called.
const MOVED: &str = ".oscr-wipe-";

/// What a wipe did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiped {
    /// Files, directories and other entries removed.
    pub entries: u64,
    /// Their disk space, in bytes.
    pub bytes: u64,
    /// Mount points met, which were left alone with their content.
    pub mounts: Vec<PathBuf>,
    /// What could not be removed, and why; the first few.
    pub failures: Vec<String>,
    /// How much could not be removed.
    pub failed: u64,
    /// How long it took.
    pub took: Duration,
}

impl AddAssign for Wiped {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.mounts.extend(other.mounts);
        self.failures.extend(other.failures);
        self.failed += other.failed;
        self.took += other.took;
    }
}

/// What is spared.
#[derive(Debug, Clone, Default)]
pub struct Spare {
    /// If set, only this user's entries are removed.
    pub only_of: Option<Uid>,
    /// Directories that are left alone with their content, and keep those above them.
    pub kept: Vec<PathBuf>,
}

/// What may be done about a tree that takes long to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner<'a> {
    /// A directory that whole directories are moved into where they can be, for somebody to empty later. On another file system, or
    /// where others' entries are spared, nothing is moved.
    pub aside: Option<BorrowedFd<'a>>,
    /// By which it can be stopped.
    pub reins: Option<&'a Reins>,
}

/// By which a removal is stopped, or told that nobody waits for it any more.
#[derive(Debug, Default)]
pub struct Reins {
    halted: AtomicBool,
    behind: AtomicBool,
}

impl Reins {
    /// Has the removal end soon, wherever it is.
    pub fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to end.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed)
    }

    /// Nobody waits for the removal any more: it goes on with what others leave of the machine.
    pub fn fall_behind(&self) {
        self.behind.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for it.
    #[must_use]
    pub fn behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }
}

/// Removes everything in `top`, but not `top` itself.
///
/// # Errors
/// When `top` cannot be opened as a directory, or is a link. What cannot be removed inside is in [`Wiped::failures`].
pub fn wipe(top: &Path, spare: &Spare) -> io::Result<Wiped> {
    wipe_so(top, spare, Manner::default())
}

/// The same in this manner.
///
/// # Errors
/// As [`wipe`].
pub fn wipe_so(top: &Path, spare: &Spare, manner: Manner<'_>) -> io::Result<Wiped> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let started = Instant::now();
    let directory = enter(AT_FDCWD, top)?;
    let all = Shared::new(top, directory, spare, manner)?;
    for round in 0..=ROUNDS {
        let before = all.progress();
        all.begin_round();
        let mut alone = Walk::new(&all, (round == 0).then_some(ALONE));
        alone.pass(&reopen(&all.top)?, &all.path, 0);
        if alone.spent() || all.waits() {
            all.together(threads)?;
        }
        if all.progress() == before || all.halted() {
            break;
        }
        if round == ROUNDS {
            all.failed(&all.path, Errno::EBUSY);
        }
    }
    let mut wiped = lock(&all.wiped).clone();
    wiped.entries = all.entries.load(Ordering::Relaxed);
    wiped.bytes = all.bytes.load(Ordering::Relaxed);
    wiped.took = started.elapsed();
    Ok(wiped)
}

/// How directories are opened.
pub const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// Opens a directory, but no link to one, in an open one.
pub fn enter(parent: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<OwnedFd, Errno> {
    match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            // Locked by its owner, and met without the capability to ignore it.
            let locked = openat(&parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            allow(&locked).map_err(|_| Errno::EACCES)?;
            openat(&parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

/// What is mounted below a directory, but not on it. An unreadable list is an empty one: it is needed to keep what leads to a mount,
/// and where the kernel has no `openat2`.
pub fn mounts_below(top: &Path) -> impl Iterator<Item = mounts::Mount> {
    let all = mounts::list().unwrap_or_default().into_iter();
    all.filter(move |mount| mount.point.starts_with(top) && mount.point != top)
}

/// What all threads know.
struct Shared<'a> {
    top: OwnedFd,
    /// Where the top is.
    path: PathBuf,
    device: u64,
    only_of: Option<Uid>,
    aside: Option<BorrowedFd<'a>>,
    reins: Option<&'a Reins>,
    mount_points: HashSet<PathBuf>,
    kept: HashSet<PathBuf>,
    /// What stays where it is: mount points, kept directories, and all above them.
    fixed: HashSet<PathBuf>,
    /// Number of the last subtree that was moved up.
    moved: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    wiped: Mutex<Wiped>,
    /// Threads without work, less subtrees that wait for one.
    hungry: AtomicIsize,
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Subtrees at the top, by their numbers, and where they were.
    work: VecDeque<(u64, PathBuf)>,
    /// Threads that are busy.
    busy: usize,
    /// Threads that wait for work.
    idle: usize,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Gone,
    /// Left alone on purpose.
    Left,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Shared<'a> {
    fn new(top: &Path, directory: OwnedFd, spare: &Spare, manner: Manner<'a>) -> io::Result<Self> {
        // As the list of mounts has it, whatever links lead there.
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap_or_else(|_| top.to_owned());
        let kept: HashSet<PathBuf> =
            spare.kept.iter().filter_map(|kept| Some(path.join(kept.strip_prefix(top).ok()?))).collect();
        let mount_points: HashSet<PathBuf> = mounts_below(&path).map(|mount| mount.point).collect();
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
            hungry: AtomicIsize::new(0),
            queue: Mutex::default(),
            news: Condvar::new(),
        })
    }

    /// A number that changes whenever something happens.
    fn progress(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.moved.load(Ordering::Relaxed))
    }

    /// What could not go in the last round may go now.
    fn begin_round(&self) {
        *lock(&self.wiped) = Wiped::default();
    }

    fn failed(&self, path: &Path, errno: Errno) {
        let mut wiped = lock(&self.wiped);
        wiped.failed += 1;
        if wiped.failures.len() < DESCRIBED {
            wiped.failures.push(format!("{}: {}", path.display(), errno.desc()));
        }
    }

    fn left_mounted(&self, path: &Path) -> Fate {
        let mut wiped = lock(&self.wiped);
        if !wiped.mounts.iter().any(|known| known == path) {
            wiped.mounts.push(path.to_owned());
        }
        Fate::Left
    }

    /// Whether somebody wants this to end before it is done.
    fn halted(&self) -> bool {
        self.reins.is_some_and(Reins::halted)
    }

    fn waits(&self) -> bool {
        !lock(&self.queue).work.is_empty()
    }

    /// Goes over the top and all that waits, by several threads.
    fn together(&self, threads: usize) -> io::Result<()> {
        let top = reopen(&self.top)?;
        lock(&self.queue).busy = 1;
        std::thread::scope(|scope| {
            for _ in 1..threads {
                lock(&self.queue).busy += 1;
                let helper = || Walk::new(self, None).work();
                if std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, helper).is_err() {
                    // The limit of processes is reached: then fewer do it.
                    lock(&self.queue).busy -= 1;
                    break;
                }
            }
            let mut walk = Walk::new(self, None);
            walk.pass(&top, &self.path, 0);
            walk.work();
        });
        Ok(())
    }

    /// Whether a thread has nothing to do that could be helped out with a subtree. Others' entries stay where they are.
    fn somebody_waits(&self) -> bool {
        self.only_of.is_none() && self.hungry.load(Ordering::Relaxed) > 0
    }

    /// To be called after each change of the queue.
    fn count_the_hungry(&self, queue: &Queue) {
        let signed = |count: usize| isize::try_from(count).unwrap_or(isize::MAX);
        self.hungry.store(signed(queue.idle) - signed(queue.work.len()), Ordering::Relaxed);
    }

    /// Moves a directory aside. `false` when it must be emptied where it is: for one of an image's layer, one of another mount, one
    /// that is marked immutable, or where there is no room.
    fn move_aside(&self, parent: &OwnedFd, name: &CStr) -> bool {
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
    fn move_up(&self, parent: &OwnedFd, name: &CStr, path: &Path) -> Result<Fate, Errno> {
        loop {
            let number = self.moved.fetch_add(1, Ordering::Relaxed) + 1;
            match renameat(parent, name, &self.top, name_of(number).as_c_str()) {
                Ok(()) => {
                    let mut queue = lock(&self.queue);
                    if queue.work.len() < WAITING {
                        // Only to be told to people, so a path of any length is cut.
                        let path = if path.as_os_str().len() < LABEL { path.to_owned() } else { self.path.join("…") };
                        queue.work.push_back((number, path));
                        self.count_the_hungry(&queue);
                        self.news.notify_one();
                    }
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
    fn unlink(&self, parent: &OwnedFd, name: &CStr, path: &Path, stat: &FileStat) -> Result<Fate, Errno> {
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
    fn release(&self, parent: &OwnedFd, name: &CStr) -> bool {
        let entry = || {
            let entry = openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            let kind = fstat(&entry)?.st_mode & SFlag::S_IFMT.bits();
            if kind != SFlag::S_IFREG.bits() && kind != SFlag::S_IFDIR.bits() {
                // Nothing else can be asked for its flags without side effects.
                return Ok(false);
            }
            // The same inode again, whatever the name has become.
            let readable = fs::File::open(format!("/proc/self/fd/{}", entry.as_raw_fd()))?;
            unlock(&readable)
        };
        let released: [io::Result<bool>; 2] = [unlock(parent), entry()];
        released.into_iter().any(|released| released.unwrap_or(false))
    }

    /// Opens a directory, but not one that something is mounted on (`EXDEV`): a bind mount of the same file system has the
    /// same device number, so only the kernel, or its list of mounts, can tell.
    fn open_directory(&self, parent: &OwnedFd, name: &CStr, path: &Path) -> Result<OwnedFd, Errno> {
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

/// One thread's walk.
struct Walk<'a> {
    all: &'a Shared<'a>,
    /// How many entries are removed before it stops.
    budget: Option<u64>,
    /// Memory for directory entries, to be used again.
    buffers: Vec<Vec<u8>>,
    /// Whether this thread makes way for others.
    behind: bool,
}

impl<'a> Walk<'a> {
    fn new(all: &'a Shared<'a>, budget: Option<u64>) -> Self {
        Self { all, budget, buffers: Vec::new(), behind: false }
    }

    /// Removes the subtrees that wait, until nobody has any left.
    fn work(&mut self) {
        let mut queue = lock(&self.all.queue);
        loop {
            queue.busy -= 1;
            queue.idle += 1;
            self.all.count_the_hungry(&queue);
            let (number, path) = loop {
                if let Some(work) = queue.work.pop_front() {
                    break work;
                }
                if queue.busy == 0 {
                    queue.idle -= 1;
                    self.all.count_the_hungry(&queue);
                    self.all.news.notify_all();
                    return;
                }
                queue = self.all.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            queue.idle -= 1;
            queue.busy += 1;
            self.all.count_the_hungry(&queue);
            drop(queue);
            if let Err(errno) = self.directory(&self.all.top, &name_of(number), &path, 0) {
                self.all.failed(&path, errno);
            }
            queue = lock(&self.all.queue);
        }
    }

    /// Whether it should stop before it is done.
    fn spent(&self) -> bool {
        self.all.halted() || self.budget.is_some_and(|budget| self.all.entries.load(Ordering::Relaxed) >= budget)
    }

    /// Removes the entries of one directory. Whether any of those seen remains.
    fn pass(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> bool {
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
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFDIR.bits() {
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
        self.directory(parent, name, &path, depth)
    }

    /// Empties and removes a directory.
    fn directory(&mut self, parent: &OwnedFd, name: &CStr, path: &Path, depth: usize) -> Result<Fate, Errno> {
        let directory = match self.all.open_directory(parent, name, path) {
            Ok(directory) => directory,
            // It was replaced between our look and now; what it became is seen in the next round.
            Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => return Ok(Fate::Gone),
            Err(Errno::EXDEV) => return Ok(self.all.left_mounted(path)),
            Err(errno) => return Err(errno),
        };
        if fstat(&directory)?.st_mode & 0o700 != 0o700 {
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

/// Gives the owner all permissions of an open directory, and nobody else any.
fn allow(directory: &OwnedFd) -> Result<(), Errno> {
    // By way of /proc, because a descriptor of a path alone takes no fchmod, and a name may have become something else.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| to_errno(&error))
}

fn reopen(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(directory, ".", DIRECTORY, Mode::empty())
}

fn name_of(number: u64) -> CString {
    CString::new(format!("{MOVED}{number}")).unwrap_or_default()
}

fn to_path(name: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

fn to_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn everything_goes_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "x").unwrap();
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        fs::write(top.path().join("a/b/file"), vec![0; 10_000]).unwrap();
        symlink(outside.path(), top.path().join("a/link")).unwrap();
        symlink("/", top.path().join("root")).unwrap();
        nix::unistd::mkfifo(&top.path().join("a/fifo"), Mode::S_IRWXU).unwrap();
        let wiped = wipe(top.path(), &Spare::default()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
        assert_eq!(wiped.entries, 7);
        assert!(wiped.bytes >= 10_000, "{wiped:?}");
        assert!(wiped.failures.is_empty());
    }

    #[test]
    fn a_link_in_place_of_the_top_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        fs::write(directory.path().join("real/file"), "x").unwrap();
        symlink(directory.path().join("real"), directory.path().join("link")).unwrap();
        assert!(wipe(&directory.path().join("link"), &Spare::default()).is_err());
        assert!(directory.path().join("real/file").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let top = tempfile::tempdir().unwrap();
        let mut directory = enter(AT_FDCWD, top.path()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            directory = openat(&directory, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let wiped = wipe(top.path(), &Spare::default()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        assert_eq!(wiped.entries, 3000);
    }

    #[test]
    fn many_files_and_odd_names_and_modes_go() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..5000 {
            fs::write(top.path().join(format!("f{number}")), "").unwrap();
        }
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\n*");
        fs::create_dir(top.path().join(odd)).unwrap();
        fs::write(top.path().join(odd).join("x"), "").unwrap();
        fs::set_permissions(top.path().join(odd), fs::Permissions::from_mode(0o000)).unwrap();
        wipe(top.path(), &Spare::default()).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn entries_of_others_stay_where_asked() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        let somebody = Uid::from_raw(Uid::effective().as_raw() + 1);
        let wiped = wipe(top.path(), &Spare { only_of: Some(somebody), ..Spare::default() }).unwrap();
        assert_eq!(wiped.entries, 0);
        assert!(top.path().join("file").exists());
    }
}
