//! What the directories of a slate were marked with before a container's first job, and where that is written down.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::os::flags::Flags;
use crate::os::mounts::{self, Mount};
use crate::os::{born, xattr};

/// What the directories that stay were marked with before this container's first job.
#[derive(Debug, Clone, Default)]
pub(crate) struct FirstMarks {
    /// Where that is written down. `None` where no place is out of a job's reach.
    pub(super) file: Option<PathBuf>,
    /// `None` until somebody has looked.
    pub(super) known: Option<BTreeMap<PathBuf, KnownMarks>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownMarks {
    pub(super) on: On,
    pub(super) marks: Marks,
}

/// The mount that a directory is on. What is known of one must not be given to another that has taken its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum On {
    /// The one that this is written down on, which lives exactly as long.
    Here,
    /// One that a start of the container makes anew, so that it is not written down.
    Memory,
    /// Another one, known by the directory that is its root.
    Other {
        inode: u64,
        born: Option<Duration>,
        /// Only where the time of birth is not known: devices are numbered anew when the machine starts.
        device: Option<u64>,
    },
}

/// The marks of one directory, but for `user.*` attributes: no place needs any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    pub(super) mode: u32,
    pub(super) access: Option<Vec<u8>>,
    pub(super) default: Option<Vec<u8>>,
    pub(super) flags: Option<Flags>,
}

impl FirstMarks {
    /// To be written down in `file`, whose directory exists and is root's alone.
    #[must_use]
    pub(crate) fn at(file: PathBuf) -> Self {
        Self { file: Some(file), known: None }
    }

    pub(super) fn find(&self, top: &Path, on: &On) -> Option<&Marks> {
        self.known.as_ref()?.get(top).filter(|known| known.on == *on).map(|known| &known.marks)
    }

    /// The mode that a directory has got from us for good.
    pub(super) fn has_mode(&mut self, top: &Path, mode: u32) {
        if let Some(known) = self.known.as_mut().and_then(|known| known.get_mut(top)) {
            known.marks.mode = mode;
        }
    }

    /// The mount that this is written down on.
    pub(super) fn here<'a>(&self, mounts: &'a [Mount]) -> Option<&'a Mount> {
        let directory = fs::canonicalize(self.file.as_deref()?.parent()?).ok()?;
        mounts::under(mounts, &directory)
    }

    /// The mount that an open directory is on.
    pub(super) fn on(&self, directory: &OwnedFd, mounts: &[Mount]) -> io::Result<On> {
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let Some(mount) = mounts::under(mounts, &path) else { return Ok(On::Here) };
        if mount.in_memory() {
            return Ok(On::Memory);
        }
        if self.here(mounts).is_some_and(|here| here.point == mount.point) {
            return Ok(On::Here);
        }
        let root = open(&mount.point, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let (stat, born) = (fstat(&root)?, born(&root));
        Ok(On::Other { inode: stat.st_ino, born, device: born.is_none().then_some(stat.st_dev) })
    }

    /// Writes down what is known, if that is not what is written there: a job that was root may have changed it.
    pub(super) fn write_down(&self) -> io::Result<()> {
        let (Some(file), Some(known)) = (&self.file, &self.known) else { return Ok(()) };
        let lasts = known.iter().filter(|(top, known)| known.on != On::Memory && top.to_str().is_some());
        let kept: BTreeMap<_, _> = lasts.collect();
        let json = serde_json::to_vec(&kept)?;
        if fs::read(file).is_ok_and(|written| written == json) {
            return Ok(());
        }
        files::replace_on_disk(file, &json, 0o600)
    }
}

impl Marks {
    pub(super) fn of(directory: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            mode: fstat(directory)?.st_mode & 0o7777,
            access: xattr::of(directory, xattr::ACCESS)?,
            default: xattr::of(directory, xattr::DEFAULT)?,
            flags: Flags::of(directory)?,
        })
    }

    /// What is left of them where nobody knows what they were.
    pub(super) fn cleared(self, agents: bool) -> Self {
        // The agent must be able to work in what is its own.
        let mode = if agents { self.mode | 0o700 } else { self.mode };
        Self { mode, access: None, default: None, flags: self.flags.map(Flags::cleared) }
    }
}
