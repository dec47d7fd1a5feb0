//! All files below a root, in one order, so that two lists of them can be compared while both are read.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

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

/// A file and what the file system says of it.
type Entry = (PathBuf, Metadata);

/// A walk. Parents come before their children, and names in the order of their bytes, which is the order of `Path`.
pub(super) struct Survey<'a> {
    root: &'a Path,
    skips: &'a Skips,
    listings: &'a Listings,
    /// What is still to come, the next last.
    stack: Vec<Entry>,
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
    let listings = Listings::default();
    let stack = match fs::symlink_metadata(root) {
        Ok(top) => vec![(PathBuf::new(), top)],
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(within(Path::new(""), error)),
    };
    thread::scope(|scope| {
        // Ends the helpers when it is dropped.
        let mut survey = Survey { root, skips, listings: &listings, stack };
        for _ in 0..HELPERS {
            let helper = thread::Builder::new().spawn_scoped(scope, || listings.help(root, skips));
            if helper.is_err() {
                break;
            }
        }
        visit(&mut survey)
    })
}

impl Survey<'_> {
    /// The next, with what the file system says of it. A directory's content follows only after [`Survey::enter`].
    pub(super) fn next(&mut self) -> Option<Entry> {
        self.stack.pop()
    }

    /// Has the content of a directory follow.
    ///
    /// # Errors
    /// When it cannot be read, or something in it not be looked at.
    pub(super) fn enter(&mut self, directory: &Path) -> io::Result<()> {
        if self.skips.contains_key(directory) {
            return Ok(());
        }
        let entries = self.listings.take(directory, || list(self.root, directory, self.skips))?;
        let inner = entries.iter().filter(|(path, meta)| meta.is_dir() && !self.skips.contains_key(path));
        self.listings.want(inner.map(|(path, _)| path.clone()));
        self.stack.extend(entries);
        Ok(())
    }
}

impl Drop for Survey<'_> {
    fn drop(&mut self) {
        self.listings.lock().over = true;
        self.listings.changed.notify_all();
    }
}

/// Directories that are listed ahead of the walk.
#[derive(Default)]
struct Listings {
    ahead: Mutex<Ahead>,
    changed: Condvar,
}

#[derive(Default)]
struct Ahead {
    /// What will be entered, the next last.
    wanted: Vec<PathBuf>,
    /// What a helper is at; `None` until it is done.
    begun: HashMap<PathBuf, Option<io::Result<Vec<Entry>>>>,
    /// How many entries wait to be taken.
    entries: usize,
    /// Nothing will be entered any more.
    over: bool,
}

impl Listings {
    fn lock(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, ahead: MutexGuard<'a, Ahead>) -> MutexGuard<'a, Ahead> {
        self.changed.wait(ahead).unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, directories: impl Iterator<Item = PathBuf>) {
        self.lock().wanted.extend(directories);
        self.changed.notify_all();
    }

    /// What is in a directory, from a helper if one has begun with it.
    fn take(&self, directory: &Path, list: impl FnOnce() -> io::Result<Vec<Entry>>) -> io::Result<Vec<Entry>> {
        let mut ahead = self.lock();
        while matches!(ahead.begun.get(directory), Some(None)) {
            ahead = self.wait(ahead);
        }
        if let Some(listing) = ahead.begun.remove(directory).flatten() {
            ahead.entries -= listing.as_ref().map_or(0, Vec::len);
            self.changed.notify_all();
            return listing;
        }
        if let Some(place) = ahead.wanted.iter().rposition(|wanted| wanted == directory) {
            ahead.wanted.remove(place);
        }
        drop(ahead);
        list()
    }

    /// Lists what is wanted until the walk is over.
    fn help(&self, root: &Path, skips: &Skips) {
        let mut ahead = self.lock();
        while !ahead.over {
            let next = if ahead.entries < AHEAD { ahead.wanted.pop() } else { None };
            let Some(directory) = next else {
                ahead = self.wait(ahead);
                continue;
            };
            ahead.begun.insert(directory.clone(), None);
            drop(ahead);
            let listing = list(root, &directory, skips);
            ahead = self.lock();
            ahead.entries += listing.as_ref().map_or(0, Vec::len);
            ahead.begun.insert(directory, Some(listing));
            self.changed.notify_all();
        }
    }
}

/// What is in a directory, the first last, but for what is skipped and what goes meanwhile.
fn list(root: &Path, directory: &Path, skips: &Skips) -> io::Result<Vec<Entry>> {
    let failed = |error| within(directory, error);
    let mut listed = Vec::new();
    for _ in 0..LISTINGS {
        listed = fs::read_dir(root.join(directory)).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let mut names: Vec<_> = listed.iter().map(fs::DirEntry::file_name).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() == listed.len() {
            break;
        }
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(listed.len());
    for entry in listed {
        let path = directory.join(entry.file_name());
        if skips.get(&path) == Some(&Skip::All) {
            continue;
        }
        match entry.metadata() {
            Ok(meta) => entries.push((path, meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(within(&path, error)),
        }
    }
    entries.sort_unstable_by(|(a, _), (b, _)| b.as_os_str().cmp(a.as_os_str()));
    entries.dedup_by(|(a, _), (b, _)| a == b);
    Ok(entries)
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
            while let Some((path, meta)) = survey.next() {
                if meta.is_dir() {
                    survey.enter(&path)?;
                }
                seen.push(path);
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
