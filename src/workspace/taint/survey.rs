//! All files below a root, in one order, so that two lists of them can be compared while both are read.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstatat, lstat};

use crate::os::directory;

/// What is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    /// Neither it nor what is in it.
    All,
    /// What is in it.
    Content,
}

/// Paths that are not looked at, from the root on.
pub(crate) type Skips = HashMap<PathBuf, Skip>;

/// How often a directory is listed, at most, until no name comes twice. fuse-overlayfs sometimes gives a name twice and leaves
/// another out, when a listing is read in several pieces while others use the same file system.
const LISTINGS: u32 = 8;

/// How many threads list and look ahead. Most of a look is waiting for the file system, with fuse-overlayfs for another process.
const HELPERS: usize = 3;

/// How many entries are known ahead, at most, before helpers rest.
const AHEAD: usize = 1 << 13;

/// How much of a directory is read at once, in bytes.
const READ: usize = 1 << 14;

/// A walk. Parents come before their children, and names in the order of their bytes, which is the order of `Path`.
pub(super) struct Survey<'a> {
    tree: &'a Surveyed<'a>,
    listings: &'a Listings,
    /// The path of the one that came last.
    path: Vec<u8>,
    /// The root, until it has come.
    top: Option<FileStat>,
    /// The directories that lead to what comes next, the root first.
    above: Vec<Level>,
}

/// A directory, and what of it is still to come.
struct Level {
    content: Listing,
    /// How long the path of the directory is.
    length: usize,
}

/// Goes through everything below `root`, which itself comes first and has an empty path. Helpers are there until `visit` returns.
///
/// # Errors
/// Those of `visit`, and when the root cannot be looked at.
pub(super) fn walk<T>(
    root: &Path,
    skips: &Skips,
    visit: impl FnOnce(&mut Survey<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let (tree, listings) = (Surveyed::of(root, skips), Listings::default());
    let top = match lstat(root) {
        Err(Errno::ENOENT) => None,
        top => Some(top.map_err(|error| within(Path::new(""), error.into()))?),
    };
    thread::scope(|scope| {
        // Ends the helpers when it is dropped.
        let mut survey = Survey { tree: &tree, listings: &listings, path: Vec::new(), top, above: Vec::new() };
        for _ in 0..HELPERS {
            let helper = thread::Builder::new().spawn_scoped(scope, || listings.help(&tree));
            if helper.is_err() {
                break;
            }
        }
        visit(&mut survey)
    })
}

impl Survey<'_> {
    /// The next: what the file system says of it. A directory's content follows only after [`Survey::enter`].
    pub(super) fn next(&mut self) -> Option<FileStat> {
        if let Some(top) = self.top.take() {
            return Some(top);
        }
        loop {
            let level = self.above.last_mut()?;
            self.path.truncate(level.length);
            if let Some(entry) = level.content.entries.pop() {
                if level.length > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(level.content.name(&entry));
                return Some(entry.stat);
            }
            self.above.pop();
        }
    }

    /// Where the one is that came last, from the root on.
    pub(super) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// How many directories lead to the one that came last.
    pub(super) fn depth(&self) -> usize {
        self.above.len()
    }

    /// Has the content of the directory follow that came last.
    ///
    /// # Errors
    /// When it cannot be read, or something in it not be looked at.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let directory = self.path();
        if self.tree.skips.contains_key(directory) {
            return Ok(());
        }
        let content = self.listings.take(directory, || self.tree.list(directory))?;
        self.listings.want(directory, &content);
        self.above.push(Level { content, length: self.path.len() });
        Ok(())
    }
}

impl Drop for Survey<'_> {
    fn drop(&mut self) {
        self.listings.lock().over = true;
        self.listings.wanted.notify_all();
    }
}

/// Directories that are listed ahead of the walk.
#[derive(Default)]
struct Listings {
    ahead: Mutex<Ahead>,
    /// Something is wanted, or there is room for what is, or all is over.
    wanted: Condvar,
    /// What the walk waits for is there.
    listed: Condvar,
}

#[derive(Default)]
struct Ahead {
    /// What will be entered, the next last.
    wanted: Vec<PathBuf>,
    /// What a helper is at; `None` until it is done.
    begun: HashMap<PathBuf, Option<io::Result<Listing>>>,
    /// How many entries wait to be taken.
    entries: usize,
    /// How many helpers rest. To wake one takes a system call, be there one or not.
    resting: usize,
    /// What the walk waits for.
    awaited: Option<PathBuf>,
    /// Nothing will be entered any more.
    over: bool,
}

impl Listings {
    fn lock(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes as many of those who rest as there is work for.
    fn wake(&self, ahead: &Ahead) {
        if ahead.entries < AHEAD {
            (0..ahead.resting.min(ahead.wanted.len())).for_each(|_| self.wanted.notify_one());
        }
    }

    /// All in a directory that will be entered.
    fn want(&self, directory: &Path, content: &Listing) {
        let mut ahead = self.lock();
        let inner = content.entries.iter().filter(|entry| entry.enters);
        ahead.wanted.extend(inner.map(|entry| directory.join(OsStr::from_bytes(content.name(entry)))));
        self.wake(&ahead);
    }

    /// What is in a directory, from a helper if one has begun with it.
    fn take(&self, directory: &Path, list: impl FnOnce() -> io::Result<Listing>) -> io::Result<Listing> {
        let mut ahead = self.lock();
        while matches!(ahead.begun.get(directory), Some(None)) {
            ahead.awaited = Some(directory.to_owned());
            ahead = self.listed.wait(ahead).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(listing) = ahead.begun.remove(directory).flatten() {
            ahead.entries -= listing.as_ref().map_or(0, |listing| listing.entries.len());
            self.wake(&ahead);
            return listing;
        }
        if let Some(place) = ahead.wanted.iter().rposition(|wanted| wanted == directory) {
            ahead.wanted.remove(place);
        }
        drop(ahead);
        list()
    }

    /// Lists what is wanted until the walk is over.
    fn help(&self, tree: &Surveyed<'_>) {
        let mut ahead = self.lock();
        while !ahead.over {
            let next = if ahead.entries < AHEAD { ahead.wanted.pop() } else { None };
            let Some(directory) = next else {
                ahead.resting += 1;
                ahead = self.wanted.wait(ahead).unwrap_or_else(PoisonError::into_inner);
                ahead.resting -= 1;
                continue;
            };
            ahead.begun.insert(directory.clone(), None);
            drop(ahead);
            let listing = tree.list(&directory);
            ahead = self.lock();
            ahead.entries += listing.as_ref().map_or(0, |listing| listing.entries.len());
            if ahead.awaited.as_ref() == Some(&directory) {
                ahead.awaited = None;
                self.listed.notify_one();
            }
            ahead.begun.insert(directory, Some(listing));
        }
    }
}

/// What is looked at.
struct Surveyed<'a> {
    root: &'a Path,
    skips: &'a Skips,
    /// The same by the directory in which they are.
    skips_in: HashMap<&'a Path, Vec<(&'a OsStr, Skip)>>,
}

/// What is in a directory. The names are in one piece of memory, and so are the rest: there are thousands, and four threads.
#[derive(Default)]
struct Listing {
    /// Each with the zero that ends it.
    names: Vec<u8>,
    /// The first last.
    entries: Vec<Entry>,
}

struct Entry {
    /// Where its name is.
    name: Range<usize>,
    stat: FileStat,
    /// Whether it is a directory whose content is looked at.
    enters: bool,
}

impl Listing {
    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name.clone()]
    }
}

impl<'a> Surveyed<'a> {
    fn of(root: &'a Path, skips: &'a Skips) -> Self {
        let mut skips_in: HashMap<&Path, Vec<_>> = HashMap::new();
        for (path, skip) in skips {
            if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
                skips_in.entry(directory).or_default().push((name, *skip));
            }
        }
        Self { root, skips, skips_in }
    }

    /// A directory, the names in it, and where each is, the last name first.
    fn names(&self, directory: &Path) -> io::Result<(OwnedFd, Vec<u8>, Vec<Range<usize>>)> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let place = self.root.join(directory);
        let mut listings = 0;
        loop {
            let handle = open(&place, flags, Mode::empty())?;
            let (mut names, mut places, mut buffer) = (Vec::new(), Vec::new(), [0; READ]);
            while let filled @ 1.. = directory::read(&handle, &mut buffer)? {
                for entry in directory::entries(&buffer[..filled]) {
                    let start = names.len();
                    names.extend_from_slice(entry.name.to_bytes_with_nul());
                    places.push(start..names.len() - 1);
                }
            }
            places.sort_unstable_by(|a, b| names[b.clone()].cmp(&names[a.clone()]));
            let listed = places.len();
            places.dedup_by(|a, b| names[a.clone()] == names[b.clone()]);
            listings += 1;
            if places.len() == listed || listings == LISTINGS {
                return Ok((handle, names, places));
            }
        }
    }

    /// What is in a directory, but for what is skipped and what goes meanwhile.
    fn list(&self, directory: &Path) -> io::Result<Listing> {
        let (handle, names, places) = self.names(directory).map_err(|error| within(directory, error))?;
        let skips = self.skips_in.get(directory).map_or(&[][..], Vec::as_slice);
        let mut entries = Vec::with_capacity(places.len());
        for place in places {
            let name = &names[place.clone()];
            let skip = skips.iter().find(|(skipped, _)| skipped.as_bytes() == name).map(|(_, skip)| *skip);
            if skip == Some(Skip::All) {
                continue;
            }
            // With the zero after it.
            let c_name = CStr::from_bytes_with_nul(&names[place.start..=place.end]).unwrap_or_default();
            match fstatat(&handle, c_name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    entries.push(Entry { name: place, enters: skip.is_none() && directory::is_one(&stat), stat })
                }
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(within(&directory.join(OsStr::from_bytes(name)), error.into())),
            }
        }
        Ok(Listing { names, entries })
    }
}

/// Whether a path is one that is not looked at, or lies in one.
pub(super) fn is_skipped(skips: &Skips, path: &Path) -> bool {
    skips.get(path) == Some(&Skip::All) || path.ancestors().skip(1).any(|above| skips.contains_key(above))
}

fn within(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("/{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_order_is_that_of_paths_and_what_is_skipped_is_not_seen() {
        let root = tempfile::tempdir().unwrap();
        for file in ["a/b/c", "a.b", "a/b.c", "mnt/x", "tmp/x", "z"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let skips: Skips = [("mnt".into(), Skip::All), ("tmp".into(), Skip::Content)].into();
        let mut seen = Vec::new();
        let walked = walk(root.path(), &skips, |survey| {
            while let Some(stat) = survey.next() {
                seen.push(survey.path().to_owned());
                if directory::is_one(&stat) {
                    survey.enter()?;
                }
            }
            Ok(())
        });
        walked.unwrap();
        assert!(seen.is_sorted());
        let seen: Vec<&str> = seen.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(seen, ["", "a", "a/b", "a/b/c", "a/b.c", "a.b", "tmp", "z"]);
        let skipped = |path| is_skipped(&skips, Path::new(path));
        assert!(skipped("mnt") && skipped("mnt/x") && !skipped("tmp") && skipped("tmp/x/y") && !skipped("a"));
    }
}
