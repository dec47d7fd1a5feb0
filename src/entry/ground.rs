//! Where the places of a configuration really lie: behind which links, on which mounts, and whether the image has them.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use super::state::StateFile;
use crate::config::{Common, Environment, SecretSource};
use crate::init::account::Account;
use crate::os::mounts::{self, Mount, under};
use crate::provider::{Provider, SharedDirectory};
use crate::workspace::Slate;
use crate::workspace::taint::{Shipped, shipped};

/// All that is needed to tell what must live.
pub(super) struct Ground<'a> {
    pub(super) common: &'a Common,
    pub(super) provider: &'a dyn Provider,
    pub(super) account: &'a Account,
    pub(super) slate: &'a Slate,
    pub(super) secrets: &'a [SecretSource],
    pub(super) environment: &'a Environment,
    pub(super) mounts: Vec<Mount>,
    pub(super) root: PathBuf,
}

/// A path without links and `..`, as far as it is there.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut missing = PathBuf::new();
    for above in path.ancestors() {
        if let Ok(there) = fs::canonicalize(above) {
            let mut real = there;
            for part in path.strip_prefix(above).unwrap_or(Path::new("")).components() {
                match part {
                    Component::ParentDir => drop(real.pop()),
                    part => real.push(part),
                }
            }
            return real;
        }
        missing = above.to_owned();
    }
    missing
}

impl<'a> Ground<'a> {
    pub(super) fn new(
        common: &'a Common,
        provider: &'a dyn Provider,
        account: &'a Account,
        slate: &'a Slate,
        secrets: &'a [SecretSource],
        environment: &'a Environment,
    ) -> Self {
        let (mounts, root) = (mounts::list().unwrap_or_default(), real(common.places.root()));
        Self { common, provider, account, slate, secrets, environment, mounts, root }
    }

    /// Where a place really is.
    pub(super) fn real(&self, place: &Path) -> PathBuf {
        let plain = place.components().all(|part| part != Component::ParentDir);
        let emptied = self.slate.places().filter(|emptied| plain && place != emptied && place.starts_with(emptied));
        match emptied.min_by_key(|emptied| emptied.components().count()) {
            Some(emptied) => real(&emptied).join(place.strip_prefix(&emptied).unwrap_or(place)),
            None => real(place),
        }
    }

    /// Whether a place lies in one of the directories for temporary files.
    pub(super) fn in_temporary(&self, at: &Path) -> bool {
        self.slate.temporary.iter().any(|place| {
            let place = real(place);
            at.starts_with(&place) && at != place
        })
    }

    pub(super) fn in_local(&self, at: &Path) -> bool {
        let local = real(&self.common.places.root().join("usr/local"));
        at.starts_with(&local) && at != local
    }

    /// A directory for root alone that lies beside what PID 1 fetches.
    pub(super) fn is_own(&self, at: &Path) -> bool {
        let places = &self.common.places;
        let taken = [places.fetched_agents(), places.agent_archives()].map(|place| real(&place));
        let cache = real(&places.cache());
        at.starts_with(&cache)
            && at != cache
            && !taken.iter().any(|taken| at.starts_with(taken) || taken.starts_with(at))
    }

    pub(super) fn is_mounted(&self, at: &Path) -> bool {
        at != self.root && self.mounts.iter().any(|mount| mount.point == at)
    }

    /// Whether a place lies in the container's own file system and is the image's: the directory, or files in it. Without a baseline,
    /// what is there before the first life is.
    pub(super) fn came_with_image(&self, at: &Path, files: bool) -> bool {
        let own = under(&self.mounts, at).is_none_or(|mount| self.root.starts_with(&mount.point));
        let Some(path) = at.strip_prefix(&self.root).ok().filter(|_| own) else { return false };
        // What a setting names in there is told by that setting.
        let named = self.living().into_iter().map(|(_, place)| place);
        let secrets = self.secrets.iter().filter_map(|source| source.path().map(Path::to_owned));
        let caches = self.common.caches.iter().map(|cache| cache.place.clone());
        let kept: Vec<PathBuf> = caches.chain(named).chain(secrets).map(|place| real(&place)).collect();
        let relative: Vec<&Path> = kept.iter().filter_map(|kept| kept.strip_prefix(&self.root).ok()).collect();
        match shipped(&self.root, path, &relative) {
            Some(Shipped::Files) => true,
            Some(Shipped::Directory) => !files,
            Some(Shipped::Nothing) => false,
            None if StateFile::is_there(&self.common.places.state()) => false,
            None => {
                if files {
                    self.has_files(at, &kept)
                } else {
                    at.exists()
                }
            }
        }
    }

    /// Whether there is a file in a directory, on its own mount and outside of what is kept.
    fn has_files(&self, top: &Path, kept: &[PathBuf]) -> bool {
        let mut open = vec![top.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if kept.contains(&path) || self.is_mounted(&path) {
                    continue;
                }
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(path),
                    Ok(kind) if kind.is_socket() || kind.is_fifo() => {}
                    _ => return true,
                }
            }
        }
        false
    }

    /// The mount that a place lies in, if it is neither the container's own file system nor named by somebody.
    pub(super) fn unnamed_mount(&self, at: &Path) -> Option<&Mount> {
        let mount = under(&self.mounts, at)?;
        let inside = mount.point.starts_with(&self.root) && mount.point != self.root;
        let named = mount.point == at
            || self.slate.places().any(|place| real(&place) == mount.point)
            || self.common.caches.iter().any(|cache| mount.point.starts_with(real(&cache.place)));
        (inside && mount.writable && !mount.in_memory() && !named).then_some(mount)
    }
}

/// The directories that containers share and that are for root alone.
pub(super) fn shared<'a>(common: &'a Common, provider: &'a dyn Provider) -> Vec<SharedDirectory<'a>> {
    let agents = |place| SharedDirectory { setting: "OSCR_AGENT_CACHE", place, threat: "write there" };
    let mut shared = provider.shared_directories();
    shared.extend(common.agent_cache.as_deref().map(agents));
    shared
}
