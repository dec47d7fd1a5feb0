//! The kernel's list of file locks, which tells of a lock without opening its file.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::mounts;

/// The number by which the kernel knows the first namespace of processes (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: u64 = 0xefff_fffc;

/// Which locks of a file count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One that nobody else can have, too.
    Exclusive,
    /// Any, be it shared.
    Any,
}

/// Files that somebody holds a `flock(2)` of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileLocks {
    /// Device, as major and minor number, and inode.
    exclusive: Vec<(u64, u64, u64)>,
    shared: Vec<(u64, u64, u64)>,
}

impl FileLocks {
    /// All of this machine. `None` where not all are shown: the kernel leaves out those of processes in other namespaces than the
    /// reader's, and those whose process has ended while its open file lives on in another. In the first one it shows all.
    #[must_use]
    pub(crate) fn of_machine() -> Option<Self> {
        let own = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        if own != FIRST_NAMESPACE {
            return None;
        }
        fs::read("/proc/locks").ok().map(|list| Self::parse(&list))
    }

    /// Whether one of them is of this file. Some file systems (btrfs) name another device to those who ask for a file than to those who
    /// ask for locks or mounts; so either will do.
    #[must_use]
    pub(crate) fn hold(&self, path: &Path, file: &Metadata, mode: Mode) -> bool {
        let (dev, inode) = (file.dev(), file.ino());
        let of_mount = || {
            let all = mounts::list().ok()?;
            let path = fs::canonicalize(path).ok()?;
            let (major, minor) = mounts::under(&all, &path)?.device.split_once(':')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        let has = |(major, minor): (u64, u64)| {
            let file = (major, minor, inode);
            self.exclusive.contains(&file) || mode == Mode::Any && self.shared.contains(&file)
        };
        has((major(dev), minor(dev))) || of_mount().is_some_and(has)
    }

    /// `1: FLOCK  ADVISORY  WRITE 14318 08:01:944092 0 EOF`; one that waits has an arrow before its kind (proc_locks(5)).
    #[must_use]
    pub(crate) fn parse(list: &[u8]) -> Self {
        let text = String::from_utf8_lossy(list);
        let mut locks = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
            let ["FLOCK", _, mode, _, file, ..] = words[..] else { continue };
            match (mode, file_of(file)) {
                ("WRITE", Some(file)) => locks.exclusive.push(file),
                ("READ", Some(file)) => locks.shared.push(file),
                _ => {}
            }
        }
        locks
    }
}

/// `08:01:944092`: device and inode.
fn file_of(word: &str) -> Option<(u64, u64, u64)> {
    let mut numbers = word.split(':');
    let (major, minor, inode) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let device = |number| u64::from_str_radix(number, 16).ok();
    Some((device(major)?, device(minor)?, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_whole_files_count_and_waits_for_them_do_not() {
        let list = b"1: OFDLCK ADVISORY  READ -1 00:06:3 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 14318 00:62:944092 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 14319 00:62:944093 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 7 fe:1a:12 0 EOF\n\
                     4: POSIX  ADVISORY  WRITE 7 fe:1a:13 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 0 fe:1a:14 0 EOF\nnonsense\n";
        let locks = FileLocks::parse(list);
        assert_eq!(locks.exclusive, [(0, 0x62, 944_092), (0xfe, 0x1a, 14)]);
        assert_eq!(locks.shared, [(0xfe, 0x1a, 12)]);
    }

    #[test]
    fn a_file_that_is_locked_here_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = fs::File::create(&path).unwrap();
        let meta = fs::metadata(&path).unwrap();
        let held = || {
            let locks = FileLocks::parse(&fs::read("/proc/locks").unwrap());
            [Mode::Exclusive, Mode::Any].map(|mode| locks.hold(&path, &meta, mode))
        };
        file.lock().unwrap();
        assert_eq!(held(), [true, true]);
        file.unlock().unwrap();
        assert_eq!(held(), [false, false]);
        file.lock_shared().unwrap();
        assert_eq!(held(), [false, true]);
    }

    #[test]
    fn fuzz_locks() {
        crate::fuzz::run("locks", |bytes| FileLocks::parse(bytes).exclusive.len().min(6));
    }
}
