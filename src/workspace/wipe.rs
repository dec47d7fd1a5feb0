//! Emptying a directory, safely against whatever is in it.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::ops::AddAssign;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

/// How many levels are held open at once. What lies deeper is moved up to the top first, so that a tree of any depth is
/// removed with this many descriptors.
const DEPTH: usize = 32;
/// How often the top is gone over again for what was moved up, before giving up.
const ROUNDS: usize = 100_000;
/// How many failures are described; the rest is counted only.
const DESCRIBED: usize = 20;

/// What a wipe did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wiped {
    /// Files, directories and other entries removed.
    pub entries: u64,
    /// Their disk space, in bytes.
    pub bytes: u64,
    /// Mount points met, which were left alone with their content.
    pub mounts: Vec<PathBuf>,
    /// What could not be removed, and why.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl AddAssign for Wiped {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.mounts.extend(other.mounts);
        self.failures.extend(other.failures);
        self.took += other.took;
    }
}

/// Removes everything in `top`, but not `top` itself. With `only_of`, entries of other users are left alone.
///
/// # Errors
/// When `top` cannot be opened as a directory, or is a link. What cannot be removed inside is in [`Wiped::failures`].
pub fn wipe(top: &Path, only_of: Option<Uid>) -> io::Result<Wiped> {
    let directory =
        open(top, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let device = fstat(&directory)?.st_dev;
    let mut walk =
        Walk { top: directory, device, mount_points: mount_points(top), only_of, moved: 0, wiped: Wiped::default() };
    for round in 0.. {
        let moved_before = walk.moved;
        walk.wiped.failures.clear();
        walk.wiped.mounts.clear();
        let top_again = reopen(&walk.top)?;
        walk.empty(top_again, &mut PathBuf::from(top), 0)?;
        // Nothing was moved up in this round, so the top holds only what cannot go.
        if walk.moved == moved_before || round >= ROUNDS {
            break;
        }
    }
    Ok(walk.wiped)
}

/// How directories are opened.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

struct Walk {
    top: OwnedFd,
    device: u64,
    /// Where something is mounted below the top.
    mount_points: HashSet<PathBuf>,
    only_of: Option<Uid>,
    moved: u64,
    wiped: Wiped,
}

impl Walk {
    /// Removes the content of one directory. Returns whether it is empty now, as far as could be seen.
    fn empty(&mut self, directory: OwnedFd, path: &mut PathBuf, depth: usize) -> io::Result<bool> {
        let mut stream = Dir::from_fd(directory)?;
        // Collected first: removing entries while reading may make the kernel skip some. Names only, so a directory of a
        // million files costs some tens of megabytes at worst; chunks keep it bounded.
        let mut all_gone = true;
        loop {
            let names = next_names(&mut stream);
            if names.is_empty() {
                return Ok(all_gone);
            }
            let handle = stream.as_fd().try_clone_to_owned()?;
            let mut progress = false;
            for name in &names {
                path.push(to_path(name));
                match self.remove(&handle, name, path, depth) {
                    Ok(true) => progress = true,
                    Ok(false) => all_gone = false,
                    Err(errno) => {
                        all_gone = false;
                        self.failed(path, errno);
                    }
                }
                path.pop();
            }
            if !progress {
                return Ok(all_gone);
            }
            // Start over: entries that remain are seen once more, new ones are not missed.
            if names.len() == CHUNK {
                all_gone = true;
                stream = Dir::from_fd(reopen(&handle)?)?;
            } else {
                return Ok(all_gone);
            }
        }
    }

    /// Removes one entry; `Ok(false)` when it was left alone on purpose.
    fn remove(&mut self, parent: &OwnedFd, name: &CStr, path: &mut PathBuf, depth: usize) -> Result<bool, Errno> {
        let stat = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(true),
            Err(errno) => return Err(errno),
        };
        if self.only_of.is_some_and(|uid| uid.as_raw() != stat.st_uid) {
            return Ok(false);
        }
        if !is_directory(&stat) {
            return self.unlink(parent, name, path, &stat);
        }
        if stat.st_dev != self.device {
            self.wiped.mounts.push(path.clone());
            return Ok(false);
        }
        if depth + 1 >= DEPTH && !self.mount_points.contains(path.as_path()) {
            return self.move_up(parent, name);
        }
        let directory = match self.open_directory(parent, name, path) {
            Ok(directory) => directory,
            // It was replaced between our look and now; what it became is seen in the next turn.
            Err(Errno::ENOTDIR | Errno::ELOOP | Errno::ENOENT) => return Ok(true),
            Err(Errno::EXDEV) => {
                self.wiped.mounts.push(path.clone());
                return Ok(false);
            }
            Err(errno) => return Err(errno),
        };
        let opened = fstat(&directory)?;
        if opened.st_mode & 0o700 != 0o700 {
            // Needed when we are not root; for root without DAC_OVERRIDE as well. A failure shows at the first unlink.
            let _ = fchmod(&directory, Mode::S_IRWXU);
        }
        let empty = self.empty(directory, path, depth + 1).map_err(|error| to_errno(&error))?;
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => {
                self.wiped.entries += 1;
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(true),
            // A mount point inside keeps its parents; the reason has been recorded below.
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if !empty => Ok(false),
            Err(errno) => Err(errno),
        }
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
                // A directory of mode 000, met without the capability to ignore it. fchmodat follows links, but only on the
                // last part of a name that was no link a moment ago, and at worst changes the mode of a file that is ours.
                fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                open()
            }
            other => other,
        }
    }

    fn unlink(&mut self, parent: &OwnedFd, name: &CStr, path: &Path, stat: &FileStat) -> Result<bool, Errno> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {
                self.wiped.entries += 1;
                if stat.st_nlink <= 1 {
                    self.wiped.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
                }
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(true),
            Err(Errno::EBUSY) => {
                self.wiped.mounts.push(path.to_owned());
                Ok(false)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Moves a deep directory to the top, where a later round removes it.
    fn move_up(&mut self, parent: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
        loop {
            self.moved += 1;
            let target = CString::new(format!(".oscr-wipe-{}", self.moved)).unwrap_or_default();
            match renameat(parent, name, &self.top, target.as_c_str()) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(true),
                // A job may have made this very name, as a file or a full directory.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn failed(&mut self, path: &Path, errno: Errno) {
        let text = if self.wiped.failures.len() < DESCRIBED {
            format!("{}: {}", path.display(), errno.desc())
        } else {
            String::new()
        };
        self.wiped.failures.push(text);
    }
}

/// How many names are held in memory at once.
const CHUNK: usize = 4096;

fn next_names(stream: &mut Dir) -> Vec<CString> {
    stream
        .iter()
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .take(CHUNK)
        .collect()
}

/// The mount points below `top`, as the kernel lists them. An unreadable list is an empty one: the list is only needed by
/// kernels without `openat2`, and for directories deeper than we hold open.
fn mount_points(top: &Path) -> HashSet<PathBuf> {
    let Ok(list) = fs::read("/proc/self/mountinfo") else { return HashSet::new() };
    list.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|path| PathBuf::from(OsStr::from_bytes(&unescape(path))))
        .filter(|path| path.starts_with(top) && path != top)
        .collect()
}

/// mountinfo writes white space and backslashes as three octal digits.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

fn reopen(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(directory, ".", OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
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
        let wiped = wipe(top.path(), None).unwrap();
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
        assert!(wipe(&directory.path().join("link"), None).is_err());
        assert!(directory.path().join("real/file").exists());
    }

    #[test]
    fn a_path_in_the_list_of_mounts_is_read_as_it_is() {
        assert_eq!(unescape(br"/a\040b\134c\x"), b"/a b\\c\\x");
        assert_eq!(unescape(br"/a\04"), br"/a\04");
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let top = tempfile::tempdir().unwrap();
        let mut directory = open(top.path(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            directory = openat(&directory, "d", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let wiped = wipe(top.path(), None).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
        assert_eq!(wiped.entries, 3000);
    }

    #[test]
    fn many_files_and_odd_names_and_modes_go() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..(CHUNK + 10) {
            fs::write(top.path().join(format!("f{number}")), "").unwrap();
        }
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\n*");
        fs::create_dir(top.path().join(odd)).unwrap();
        fs::write(top.path().join(odd).join("x"), "").unwrap();
        fs::set_permissions(top.path().join(odd), fs::Permissions::from_mode(0o000)).unwrap();
        wipe(top.path(), None).unwrap();
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn entries_of_others_stay_where_asked() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        let somebody = Uid::from_raw(Uid::effective().as_raw() + 1);
        let wiped = wipe(top.path(), Some(somebody)).unwrap();
        assert_eq!(wiped.entries, 0);
        assert!(top.path().join("file").exists());
    }
}
