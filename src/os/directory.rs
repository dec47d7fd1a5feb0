//! Reading a directory by its descriptor, many entries at a time, without a stream or an allocation for each.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::stat::{FileStat, SFlag};

/// What the kernel's `struct linux_dirent64` has before the name: inode and offset (8 bytes each), length (2), type (1).
const HEAD: usize = 19;

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryEntry<'a> {
    /// Its name, of any bytes but a slash.
    pub name: &'a CStr,
    /// `DT_…`; not all file systems say.
    pub kind: u8,
}

/// Whether it is a directory's.
pub(crate) fn is_one(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Fills `buffer` with the next entries of the directory. The result is how much of it holds entries: none at the end.
///
/// # Errors
/// When `directory` is no directory, was removed, or cannot be read.
pub(crate) fn read(directory: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most as many bytes as the buffer has, which lives through the call.
    let filled = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
    usize::try_from(filled).map_err(|_| io::Error::last_os_error())
}

/// The entries that [`read`] left in a buffer, but for `.` and `..`.
pub(crate) fn entries(mut filled: &[u8]) -> impl Iterator<Item = DirectoryEntry<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*filled.get(16)?, *filled.get(17)?]));
        let (record, rest) = filled.split_at_checked(length)?;
        filled = rest;
        let name = CStr::from_bytes_until_nul(record.get(HEAD..)?).ok()?;
        Some(DirectoryEntry { name, kind: record[HEAD - 1] })
    })
    .filter(|entry| !matches!(entry.name.to_bytes(), b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn every_entry_is_seen_once_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut names: BTreeSet<Vec<u8>> = (0..500).map(|number| format!("{number:0200}").into_bytes()).collect();
        names.insert(b"\xff\n \x01".to_vec());
        for name in &names {
            fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
        }
        fs::create_dir(folder.path().join("d")).unwrap();
        let directory = File::open(folder.path()).unwrap();
        let (mut buffer, mut seen) = ([0; 4096], BTreeSet::new());
        loop {
            let filled = read(&directory, &mut buffer).unwrap();
            if filled == 0 {
                break;
            }
            for entry in entries(&buffer[..filled]) {
                assert!(entry.kind == libc::DT_UNKNOWN || (entry.kind == libc::DT_DIR) == (entry.name == c"d"));
                assert!(seen.insert(entry.name.to_bytes().to_vec()));
            }
        }
        names.insert(b"d".to_vec());
        assert_eq!(seen, names);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(read(&file, &mut [0; 512]).is_err());
    }
}
