//! All files below a root, in one order, so that two lists of them can be compared while both are read.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

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

/// A walk. Parents come before their children, and names in the order of their bytes, which is the order of `Path`.
pub(super) struct Survey<'a> {
    root: &'a Path,
    skips: &'a Skips,
    /// What is still to come, the next last.
    stack: Vec<PathBuf>,
}

impl<'a> Survey<'a> {
    /// The root, whose path is empty, and everything below it.
    #[must_use]
    pub(super) fn of(root: &'a Path, skips: &'a Skips) -> Self {
        Self { root, skips, stack: vec![PathBuf::new()] }
    }

    /// The next, with what the file system says of it. A directory's content follows only after [`Survey::enter`].
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(super) fn next(&mut self) -> io::Result<Option<(PathBuf, Metadata)>> {
        while let Some(path) = self.stack.pop() {
            if self.skips.get(&path) == Some(&Skip::All) {
                continue;
            }
            match fs::symlink_metadata(self.root.join(&path)) {
                Ok(meta) => return Ok(Some((path, meta))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(within(&path, error)),
            }
        }
        Ok(None)
    }

    /// Has the content of a directory follow.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn enter(&mut self, directory: &Path) -> io::Result<()> {
        if self.skips.contains_key(directory) {
            return Ok(());
        }
        let mut names = Vec::new();
        for _ in 0..LISTINGS {
            names.clear();
            for entry in fs::read_dir(self.root.join(directory)).map_err(|error| within(directory, error))? {
                names.push(entry.map_err(|error| within(directory, error))?.file_name());
            }
            names.sort_unstable_by(|a, b| b.cmp(a));
            let listed = names.len();
            names.dedup();
            if names.len() == listed {
                break;
            }
        }
        self.stack.extend(names.into_iter().map(|name| directory.join(name)));
        Ok(())
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
        let mut survey = Survey::of(root.path(), &skips);
        let mut seen = Vec::new();
        while let Some((path, meta)) = survey.next().unwrap() {
            if meta.is_dir() {
                survey.enter(&path).unwrap();
            }
            seen.push(path);
        }
        assert!(seen.is_sorted());
        let seen: Vec<&str> = seen.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(seen, ["", "a", "a/b", "a/b/c", "a/b.c", "a.b", "tmp", "z"]);
        let skipped = |path| is_skipped(&skips, Path::new(path));
        assert!(skipped("mnt") && skipped("mnt/x") && !skipped("tmp") && skipped("tmp/x/y") && !skipped("a"));
    }
}
