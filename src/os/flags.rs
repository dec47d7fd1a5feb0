//! Inode flags, as `chattr` sets them, and what some file systems keep besides them: a project, hints about where data goes.
//!
//! Much of it is inherited by what is made in a directory.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use serde::{Deserialize, Serialize};

/// `FS_…_FL` of the kernel's sources: what `chattr` can set and take off. The others belong to the file system itself.
const CHANGEABLE: u32 = IMMUTABLE
    | APPEND_ONLY
    | 0x0000_0001 // SECRM
    | 0x0000_0002 // UNRM
    | 0x0000_0004 // COMPR
    | 0x0000_0008 // SYNC
    | 0x0000_0040 // NODUMP
    | 0x0000_0080 // NOATIME
    | 0x0000_0400 // NOCOMP
    | 0x0000_8000 // NOTAIL
    | 0x0001_0000 // DIRSYNC
    | 0x0002_0000 // TOPDIR
    | 0x0080_0000 // NOCOW
    | 0x0200_0000 // DAX
    | PROJECT_INHERITED
    | 0x4000_0000; // CASEFOLD
const IMMUTABLE: u32 = 0x10;
const APPEND_ONLY: u32 = 0x20;
/// Whose owner can set it on an empty directory, and nobody can take it off.
const ENCRYPTED: u32 = 0x800;
const PROJECT_INHERITED: u32 = 0x2000_0000;

/// `FS_XFLAG_…`: what says how a file is and not how it should be (REALTIME, PREALLOC, VERITY, HASATTR), and what is among the
/// plain ones too (IMMUTABLE, APPEND, SYNC, NOATIME, NODUMP).
const NOT_TOLD_HERE: u32 = 0x1 | 0x2 | 0x2_0000 | 0x8000_0000 | 0xf8;
/// What whoever makes a file system, or gives a volume a size, sets for all that is in it: RTINHERIT, PROJINHERIT, EXTSZINHERIT,
/// COWEXTSIZE.
const OF_THE_VOLUME: u32 = 0x100 | 0x200 | 0x1000 | 0x1_0000;

/// The flags of a file or directory, as far as somebody could have set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    plain: u32,
    /// `None` where the file system has the plain ones alone.
    more: Option<More>,
}

/// The kernel's `struct fsxattr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
struct More {
    flags: u32,
    extent_size: u32,
    #[serde(skip)]
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    #[serde(skip)]
    padding: [u8; 8],
}

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`, which libc does not have, on the processors that this is built for.
const GET_MORE: u32 = 0x801c_581f;
const SET_MORE: u32 = 0x401c_5820;

impl Flags {
    /// The flags of an open file. `None` where the file system knows of none.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(file: &impl AsFd) -> io::Result<Option<Self>> {
        let Some(plain) = plain(file)? else { return Ok(None) };
        let more = more(file)?.map(|more| More { flags: more.flags & !NOT_TOLD_HERE, extents: 0, ..more });
        Ok(Some(Self { plain: plain & (CHANGEABLE | ENCRYPTED), more }))
    }

    /// What is left of them when all goes that only a user of the volume can have set. Its project, by which it may have a size, stays.
    #[must_use]
    pub(crate) fn cleared(self) -> Self {
        let more = self.more.map(|more| More { flags: more.flags & OF_THE_VOLUME, ..more });
        Self { plain: self.plain & (PROJECT_INHERITED | ENCRYPTED), more }
    }

    /// The same and some that every owner may set.
    #[cfg(test)]
    pub(crate) fn marked(self) -> Self {
        Self { plain: self.plain | 0x0001_00c0, ..self }
    }

    /// Sets and takes off what differs. Nothing happens where the file system knows of none.
    ///
    /// # Errors
    /// When something cannot be changed, for want of the capability `LINUX_IMMUTABLE`, say.
    pub(crate) fn give(self, file: &impl AsFd) -> io::Result<()> {
        let Some(now) = plain(file)? else { return Ok(()) };
        let wanted = now & !CHANGEABLE | self.plain & CHANGEABLE;
        if now != wanted {
            set_plain(file, wanted)?;
        }
        if let (Some(now), Some(wanted)) = (more(file)?, self.more) {
            let flags = now.flags & NOT_TOLD_HERE | wanted.flags & !NOT_TOLD_HERE;
            let wanted = More { flags, extents: now.extents, ..wanted };
            if now != wanted {
                set_more(file, wanted)?;
            }
        }
        // Not every file system says so when it leaves them as they are.
        let kept = Self::of(file)?.is_some_and(|now| {
            now.plain != self.plain || now.more.zip(self.more).is_some_and(|(now, wanted)| now != wanted)
        });
        if kept { Err(io::Error::other("the file system keeps them")) } else { Ok(()) }
    }
}

/// Takes the flags off a file that keep even its owner from removing it (`chattr +i`, `chattr +a`). `false` when it had none.
///
/// # Errors
/// When the file system knows no flags, or this process lacks the capability `LINUX_IMMUTABLE`.
pub(crate) fn clear_flags(file: &impl AsFd) -> io::Result<bool> {
    let flags = plain(file)?.ok_or(io::ErrorKind::Unsupported)?;
    if flags & (IMMUTABLE | APPEND_ONLY) == 0 {
        return Ok(false);
    }
    set_plain(file, flags & !(IMMUTABLE | APPEND_ONLY))?;
    Ok(true)
}

fn plain(file: &impl AsFd) -> io::Result<Option<u32>> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes one `int` (in spite of the request's name, which says `long`), which lives through the call.
    let done = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &raw mut flags) };
    Ok(known(done)?.then_some(flags.cast_unsigned()))
}

fn set_plain(file: &impl AsFd, flags: u32) -> io::Result<()> {
    let flags = flags.cast_signed();
    // SAFETY: the kernel reads one `int`, which lives through the call.
    let done = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &raw const flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn more(file: &impl AsFd) -> io::Result<Option<More>> {
    let mut more = More::default();
    // SAFETY: the kernel writes one `struct fsxattr`, which ours is to the byte, and which lives through the call.
    let done = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), GET_MORE as _, &raw mut more) };
    Ok(known(done)?.then_some(more))
}

fn set_more(file: &impl AsFd, more: More) -> io::Result<()> {
    // SAFETY: the kernel reads one `struct fsxattr`, which ours is to the byte, and which lives through the call.
    let done = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), SET_MORE as _, &raw const more) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether a file system answered what it was asked: some do not know the question.
fn known(done: libc::c_int) -> io::Result<bool> {
    if done >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => Ok(false),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn what_was_set_is_taken_off_and_what_was_there_comes_back() {
        // Where the file system has such flags, which one in memory may not.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let directory = File::open(folder.path()).unwrap();
        let Some(before) = Flags::of(&directory).unwrap() else {
            println!("skipped: this file system has no flags");
            return;
        };
        let marked = before.marked();
        marked.give(&directory).unwrap();
        assert_eq!(Flags::of(&directory).unwrap().unwrap().plain, marked.plain);
        fs::create_dir(folder.path().join("inside")).unwrap();
        let inside = File::open(folder.path().join("inside")).unwrap();
        assert_ne!(plain(&inside).unwrap().unwrap() & 0x0001_00c0, 0, "they are inherited");
        before.give(&directory).unwrap();
        assert_eq!(Flags::of(&directory).unwrap().unwrap().plain, before.plain);
        assert_eq!(marked.cleared(), before.cleared());
    }

    #[test]
    fn where_there_are_no_flags_there_is_nothing_to_set() {
        let nothing = File::open("/proc").unwrap();
        assert_eq!(Flags::of(&nothing).unwrap(), None);
        Flags { plain: 0x40, more: None }.give(&nothing).unwrap();
    }
}
