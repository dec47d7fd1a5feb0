//! Making a slate clean: emptied, restored, and marked as it was.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::Uid;

use super::error::{SlateError, nothing_left};
use super::pristine;
use super::slate::Slate;
use super::wipe::{Spare, Terms, Wiped, wipe_so};
use crate::os::{Identity, mounts};

impl Slate {
    /// Empties all places, makes those that are missing, restores the home, and gives each back what it was marked with. Directories are moved into the trash where they can
    /// be; it is somebody else's to empty.
    ///
    /// # Errors
    /// At the first place that cannot be made clean.
    pub(crate) fn clean(&mut self) -> Result<Wiped, SlateError> {
        let started = Instant::now();
        let mounts = mounts::list().unwrap_or_default();
        let lasting = self.lasting(&mounts);
        self.learn_marks(&lasting, &mounts)?;
        let mut total = Wiped::default();
        let heap = self.trash.as_ref().and_then(|trash| {
            let heap = trash.heap();
            heap.inspect_err(|error| tracing::debug!("everything is removed where it is: no trash can be had: {error}"))
                .ok()
        });
        // The outer ones first: what a job put in the place of an inner one, or above it, goes with them before it is followed.
        let mut places: Vec<PathBuf> = self.places().collect();
        places.sort_by_key(|place| place.components().count());
        for place in places {
            // The agents' programs are links to the image's: removing one changes the time of the other's last change, which must not
            // happen once all has been found well.
            let aside = heap.as_ref().filter(|_| place != self.agent_directories).map(AsFd::as_fd);
            let _held = (place == self.agent_directories).then(|| self.roots.hold());
            // What is mounted further in comes later in the list.
            let mounted = self.mounts_to_empty(&place);
            for place in mounted.iter().rev().chain([&place]) {
                let spare = Spare { only_of: self.only_of(place), kept: self.kept.clone() };
                match wipe_so(place, &spare, Terms { aside, reins: None }) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    wiped => total += nothing_left(place, wiped)?,
                }
            }
            total.mounts.retain(|mount| !mounted.contains(mount));
        }
        // A mount on one of the places lies in another one, which left it alone, and was emptied in its turn.
        let emptied: Vec<PathBuf> = self.places().map(|place| place.canonicalize().unwrap_or(place)).collect();
        total.mounts.retain(|mount| !emptied.iter().any(|place| place.starts_with(mount)));
        for top in &lasting {
            self.unmark(top, &mounts)?;
        }
        if let Some(home) = self.own_home().filter(|home| !home.is_dir()) {
            prepare(home, true, &self.agent).map_err(|source| SlateError::Place { place: home.clone(), source })?;
        }
        if self.home != Path::new("/") {
            pristine::restore(&self.pristine_home, &self.home, &self.agent)
                .map_err(|source| SlateError::Place { place: self.home.clone(), source })?;
        }
        for place in [&self.work, &self.agent_directories] {
            prepare(place, place == &self.work, &self.agent)
                .map_err(|source| SlateError::Place { place: place.clone(), source })?;
        }
        self.prepare_caches()?;
        self.give_lists_back(&lasting, &mounts)?;
        total.took = started.elapsed();
        Ok(total)
    }
}

/// The work directory belongs to the agent; the directory of agents' directories to us, and the agent may pass through.
fn prepare(place: &Path, agents: bool, agent: &Identity) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(place)?;
    if Uid::effective().is_root() {
        let (uid, gid) = if agents { (agent.uid.as_raw(), agent.gid.as_raw()) } else { (0, 0) };
        std::os::unix::fs::lchown(place, Some(uid), Some(gid))?;
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::slate::tests::slate_in;
    use super::super::wipe::Reins;
    use super::*;
    use std::fs;

    #[test]
    fn only_what_is_named_survives() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        let cache = root.path().join("work/a/cache");
        slate.kept = vec![cache.clone(), root.path().join("home/runner/.cache/tool"), root.path().join("opt/new")];
        for directory in ["work/a/cache/deep", "work/a/other", "work/b", "home/runner/.cache/tool"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
            fs::write(root.path().join(directory).join("file"), "x").unwrap();
        }
        slate.clean().unwrap();
        assert!(cache.join("deep/file").exists() && root.path().join("home/runner/.cache/tool/file").exists());
        assert_eq!(fs::read_dir(root.path().join("work/a")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 1);
        assert!(root.path().join("opt/new").is_dir(), "a cache that is missing is made");
    }

    #[test]
    fn a_link_in_place_of_a_cache_goes_and_a_directory_comes() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        fs::create_dir_all(root.path().join("work/a")).unwrap();
        fs::create_dir(root.path().join("precious")).unwrap();
        fs::write(root.path().join("precious/file"), "x").unwrap();
        std::os::unix::fs::symlink(root.path().join("precious"), root.path().join("work/a/cache")).unwrap();
        slate.kept = vec![root.path().join("work/a/cache")];
        slate.clean().unwrap();
        assert!(fs::symlink_metadata(root.path().join("work/a/cache")).unwrap().is_dir());
        assert!(root.path().join("precious/file").exists());
    }

    /// What is in the trash, below the one heap in it.
    fn moved_aside(root: &Path) -> Vec<PathBuf> {
        let entries = |place: PathBuf| fs::read_dir(place).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries(root.join("trash")).flat_map(entries).collect();
        found.sort();
        found.into_iter().map(|path| path.strip_prefix(root.join("trash")).unwrap().iter().skip(1).collect()).collect()
    }

    #[test]
    fn whole_directories_are_moved_aside_and_nothing_that_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        slate.kept = vec![root.path().join("work/a/cache")];
        for directory in ["work/a/cache/deep", "work/a/other/deep", "work/b/deep", "tmp/b/deep", "runner/c/bin"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("work/file"), "x").unwrap();
        slate.clean().unwrap();
        assert!(root.path().join("work/a/cache/deep").exists());
        assert_eq!(fs::read_dir(root.path().join("work")).unwrap().count(), 1);
        let names: Vec<PathBuf> = moved_aside(root.path());
        let named = |name: &str| names.iter().filter(|path| path.as_os_str() == name).count();
        // The second b has another name; the agent's directory has gone where it was.
        assert_eq!((names.len(), named("other"), named("b")), (3, 1, 1), "{names:?}");
        let trash = slate.trash.unwrap();
        assert_eq!(trash.empty(&Reins::default()).unwrap().entries, 3 * 2 + 1);
        assert!(trash.is_empty().unwrap());
    }

    #[test]
    fn links_go_where_they_are_and_what_they_lead_to_stays() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        for directory in ["work/a", "precious/deep"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::os::unix::fs::symlink(root.path().join("precious"), root.path().join("work/link")).unwrap();
        std::os::unix::fs::symlink(root.path().join("precious"), root.path().join("work/a/link")).unwrap();
        slate.clean().unwrap();
        assert_eq!(moved_aside(root.path()), [Path::new("a")]);
        slate.trash.unwrap().empty(&Reins::default()).unwrap();
        assert!(root.path().join("precious/deep").exists());
    }

    #[test]
    fn on_another_file_system_all_is_removed_where_it_is() {
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut slate = Slate { work: elsewhere.path().join("work"), ..slate_in(root.path()) };
        fs::create_dir_all(slate.work.join("a/b")).unwrap();
        assert_eq!(slate.clean().unwrap().entries, 2);
        assert!(slate.trash.unwrap().is_empty().unwrap());
    }

    #[test]
    fn without_a_trash_all_is_removed_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        fs::create_dir_all(root.path().join("work/a/b")).unwrap();
        fs::write(root.path().join("trash"), "no directory").unwrap();
        assert_eq!(slate.clean().unwrap().entries, 2, "something else is in its place");
        fs::create_dir_all(root.path().join("work/a/b")).unwrap();
        slate.trash = None;
        assert_eq!(slate.clean().unwrap().entries, 3, "an ordinary user has none; the home's configuration goes too");
    }
}
