//! Caches with a cap: between jobs, what was not used for longest goes first.
//!
//! A cache belongs to jobs, so it is as hostile as a work directory: it is measured and emptied by descriptor, without
//! following a link or crossing a mount. What is evicted is a whole entry of the cache's top directory, such as one version's
//! tool or one action's archive: half a tool would be worse than none.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::wipe::{Spare, wipe};
use crate::encode::seconds;
use crate::os::{directory, mounts};

/// How deep an entry may be for its size to be known. Only a hostile job's is deeper, and such an entry is evicted whatever its age.
const DEPTH: usize = 100;
/// How many files with several names are remembered, so that they count once.
const LINKED: usize = 100_000;

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// What became of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shrunk {
    /// Disk space of what is left, in bytes.
    pub left: u64,
    /// Disk space of what was removed.
    pub freed: u64,
    /// How many entries were removed.
    pub entries: u64,
    /// What should have been removed and could not be.
    pub failures: Vec<String>,
}

/// One entry of the top directory.
#[derive(Debug)]
struct Cached {
    name: CString,
    bytes: u64,
    /// When anything in it was last read or written, in seconds since 1970; 0 for what cannot be measured.
    used: i64,
    directory: bool,
}

/// Removes from `cache` what was not used for longest until it is no larger than `most` bytes.
///
/// # Errors
/// When `cache` cannot be opened as a directory, or is a link.
pub(crate) fn shrink(cache: &Path, most: u64) -> io::Result<Shrunk> {
    let top = open(cache, DIRECTORY, Mode::empty())?;
    let now = seconds(SystemTime::now()).cast_signed();
    // As the list of mounts has it, whatever links lead there.
    let path = fs::read_link(format!("/proc/self/fd/{}", top.as_raw_fd())).unwrap_or_else(|_| cache.to_owned());
    let mounted =
        mounts::below(&path).filter_map(|mount| Some(mount.point.strip_prefix(&path).ok()?.to_owned())).collect();
    let mut measure = Measure { device: fstat(&top)?.st_dev, now, mounted, linked: HashSet::new() };
    let mut entries = measure.top(&top)?;
    let mut shrunk = Shrunk { left: entries.iter().map(|entry| entry.bytes).sum(), ..Shrunk::default() };
    entries.sort_by_key(|entry| entry.used);
    for entry in entries {
        // What has no known size goes in any case, or it would be the way around the cap.
        if shrunk.left <= most && entry.used > 0 {
            continue;
        }
        let path = cache.join(OsStr::from_bytes(entry.name.to_bytes()));
        match remove(&top, &entry, &path) {
            Ok(()) => {
                shrunk.left -= entry.bytes;
                shrunk.freed += entry.bytes;
                shrunk.entries += 1;
            }
            Err(error) => shrunk.failures.push(format!("{}: {error}", path.display())),
        }
    }
    Ok(shrunk)
}

fn remove(top: &OwnedFd, entry: &Cached, path: &Path) -> io::Result<()> {
    if !entry.directory {
        return Ok(unlinkat(top, entry.name.as_c_str(), UnlinkatFlags::NoRemoveDir)?);
    }
    let wiped = wipe(path, &Spare::default())?;
    match (wiped.failures.first(), wiped.mounts.first()) {
        (Some(failure), _) => Err(io::Error::other(failure.clone())),
        (None, Some(mount)) => Err(io::Error::other(format!("{} is a mount", mount.display()))),
        (None, None) => Ok(unlinkat(top, entry.name.as_c_str(), UnlinkatFlags::RemoveDir)?),
    }
}

struct Measure {
    device: u64,
    now: i64,
    /// What is mounted somewhere in the cache, seen from there. One of the same file system is told by nothing else where the kernel
    /// cannot be asked to cross none.
    mounted: HashSet<PathBuf>,
    linked: HashSet<u64>,
}

impl Measure {
    fn top(&mut self, top: &OwnedFd) -> io::Result<Vec<Cached>> {
        let mut entries = Vec::new();
        for item in Dir::from_fd(reopen(top)?)?.iter().filter_map(Result::ok).filter(is_entry) {
            let name = item.file_name().to_owned();
            if self.mounted.contains(Path::new(OsStr::from_bytes(name.to_bytes()))) {
                continue;
            }
            let Ok(stat) = fstatat(top, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            let mut entry = Cached { name, bytes: 0, used: 0, directory: directory::is_one(&stat) };
            let name = entry.name.clone();
            entry.used = match self.add(top, &name, &stat, &mut entry.bytes, 0) {
                Ok(used) => used.max(1),
                Err(Errno::EXDEV) => continue,
                Err(_) => 0,
            };
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Adds an entry's size to `bytes`, and gives when anything in it was last used. `EXDEV` for a mount, which is not ours.
    fn add(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        stat: &FileStat,
        bytes: &mut u64,
        depth: usize,
    ) -> Result<i64, Errno> {
        let directory = directory::is_one(stat);
        if stat.st_dev != self.device {
            return Err(Errno::EXDEV);
        }
        let counted = !directory && stat.st_nlink > 1 && {
            let known = self.linked.contains(&stat.st_ino);
            if self.linked.len() < LINKED {
                self.linked.insert(stat.st_ino);
            }
            known
        };
        if !counted {
            *bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
        }
        // A directory is read by whoever looks for something else, too. A time that is yet to come would make an entry immortal.
        let used = if directory { stat.st_mtime } else { stat.st_atime.max(stat.st_mtime) };
        let mut used = used.min(self.now);
        if !directory {
            return Ok(used);
        }
        if depth >= DEPTH {
            return Err(Errno::ELOOP);
        }
        let handle = open_beneath(parent, name)?;
        // One at a time: how many there are is up to a job.
        for item in Dir::from_fd(reopen(&handle)?)?.iter().filter_map(Result::ok).filter(is_entry) {
            let name = item.file_name();
            let stat = match fstatat(&handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            match self.add(&handle, name, &stat, bytes, depth + 1) {
                Ok(inside) => used = used.max(inside),
                Err(Errno::EXDEV | Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(used)
    }
}

/// Opens a directory, but not one that something is mounted on, and without making it look used.
fn open_beneath(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = |flags| OpenHow::new().flags(flags).resolve(resolve);
    match openat2(parent, name, how(DIRECTORY | OFlag::O_NOATIME)) {
        // Only its owner, or somebody with the capability FOWNER, may ask for that.
        Err(Errno::EPERM) => match openat2(parent, name, how(DIRECTORY)) {
            // A filter that does not know the call.
            Err(Errno::EPERM) => openat(parent, name, DIRECTORY, Mode::empty()),
            other => other,
        },
        // Before Linux 5.6. Mounts were told by their device, or by the list of them.
        Err(Errno::ENOSYS) => openat(parent, name, DIRECTORY, Mode::empty()),
        other => other,
    }
}

fn reopen(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    match openat(directory, ".", DIRECTORY | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => openat(directory, ".", DIRECTORY, Mode::empty()),
        other => other,
    }
}

fn is_entry(item: &nix::dir::Entry) -> bool {
    !matches!(item.file_name().to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};

    const KIB: u64 = 1024;

    /// An entry of this size, last used so many hours ago.
    fn entry(cache: &Path, name: &str, size: u64, hours: u64) {
        let place = cache.join(name);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("data"), vec![1; usize::try_from(size).unwrap()]).unwrap();
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        for path in [place.join("data"), place] {
            let times = FileTimes::new().set_accessed(then).set_modified(then);
            File::open(path).unwrap().set_times(times).unwrap();
        }
    }

    fn left(cache: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_longest_unused_goes_first_and_no_more_than_must() {
        let cache = tempfile::tempdir().unwrap();
        for (name, hours) in [("a", 5), ("b", 90), ("c", 1), ("d", 40)] {
            entry(cache.path(), name, 100 * KIB, hours);
        }
        let shrunk = shrink(cache.path(), 1 << 30).unwrap();
        assert_eq!((shrunk.freed, shrunk.entries), (0, 0));
        let shrunk = shrink(cache.path(), 250 * KIB).unwrap();
        assert_eq!(left(cache.path()), ["a", "c"]);
        assert_eq!(shrunk.entries, 2);
        assert!(shrunk.freed >= 200 * KIB && shrunk.left <= 250 * KIB, "{shrunk:?}");
        // To be looked at is not to be used: the order has not changed.
        shrink(cache.path(), 150 * KIB).unwrap();
        assert_eq!(left(cache.path()), ["c"]);
    }

    #[test]
    fn an_entry_is_as_fresh_as_the_freshest_file_in_it() {
        let cache = tempfile::tempdir().unwrap();
        entry(cache.path(), "tool", 100 * KIB, 90);
        entry(cache.path(), "tool/1.2/x64", 100 * KIB, 1);
        File::open(cache.path().join("tool"))
            .unwrap()
            .set_times(FileTimes::new().set_accessed(UNIX_EPOCH).set_modified(UNIX_EPOCH))
            .unwrap();
        entry(cache.path(), "other", 100 * KIB, 2);
        shrink(cache.path(), 250 * KIB).unwrap();
        assert_eq!(left(cache.path()), ["tool"]);
    }

    #[test]
    fn links_are_neither_followed_nor_counted_and_hard_links_count_once() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), vec![1; 1 << 20]).unwrap();
        let cache = tempfile::tempdir().unwrap();
        symlink(outside.path(), cache.path().join("link")).unwrap();
        entry(cache.path(), "a", 100 * KIB, 1);
        fs::hard_link(cache.path().join("a/data"), cache.path().join("a/again")).unwrap();
        assert_eq!(shrink(cache.path(), 200 * KIB).unwrap().entries, 0);
        shrink(cache.path(), 0).unwrap();
        assert_eq!(left(cache.path()).len(), 0);
        assert!(outside.path().join("precious").exists());
        let link = outside.path().join("cache");
        symlink(cache.path(), &link).unwrap();
        assert!(shrink(&link, 0).is_err());
    }

    #[test]
    fn neither_depth_nor_a_time_to_come_is_a_way_around_the_cap() {
        let cache = tempfile::tempdir().unwrap();
        let mut directory = open(cache.path(), DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..1000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            directory = openat(&directory, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(directory);
        entry(cache.path(), "future", 100 * KIB, 0);
        let to_come = SystemTime::now() + Duration::from_secs(1 << 30);
        let times = FileTimes::new().set_accessed(to_come).set_modified(to_come);
        File::open(cache.path().join("future/data")).unwrap().set_times(times).unwrap();
        let shrunk = shrink(cache.path(), 1 << 30).unwrap();
        assert_eq!((left(cache.path()), shrunk.entries), (vec!["future".to_owned()], 1));
        entry(cache.path(), "now", 100 * KIB, 0);
        shrink(cache.path(), 0).unwrap();
        assert_eq!(left(cache.path()).len(), 0);
    }

    #[test]
    fn files_in_the_top_directory_are_entries_too() {
        let cache = tempfile::tempdir().unwrap();
        fs::write(cache.path().join("archive.tar.gz"), vec![1; 100 * 1024]).unwrap();
        assert_eq!(shrink(cache.path(), 10 * KIB).unwrap().entries, 1);
        assert_eq!(left(cache.path()).len(), 0);
    }
}
