//! What survives a wipe: the directories that the user names, and what makes other mounts a fault.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::error::SlateError;
use super::slate::Slate;
use crate::os::access::{WRITE, may};
use crate::os::mounts::{self, Mount};

/// The mode of what is given to the agent.
const GIVEN: u32 = 0o755;

impl Slate {
    /// Mounts in the emptied places that the user did not name: what a job writes there would await the next one, and what the
    /// user keeps there is not ours to delete. `apart` is guarded otherwise.
    #[must_use]
    pub(crate) fn unnamed_mounts(&self, apart: &[PathBuf]) -> Vec<PathBuf> {
        let apart: Vec<PathBuf> = apart.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
        // The kernel's list knows of no links that lead to a place.
        let places: Vec<PathBuf> = self.places().map(|place| fs::canonicalize(&place).unwrap_or(place)).collect();
        let mut found: Vec<PathBuf> = places
            .iter()
            .flat_map(|place| mounts::below(place))
            .filter(|mount| mount.writable && !mount.in_memory())
            .map(|mount| mount.point)
            .filter(|point| !places.contains(point) && !apart.contains(point) && !self.keeps(point))
            // A single file that belongs to root is no place to leave something in.
            .filter(|point| point.is_dir() || may(&self.agent, point, WRITE))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Named directories that are an emptied place or hold one: with them nothing would be emptied.
    #[must_use]
    pub(crate) fn kept_too_much(&self) -> Vec<&PathBuf> {
        self.kept.iter().filter(|kept| self.places().any(|place| place.starts_with(kept))).collect()
    }

    fn keeps(&self, path: &Path) -> bool {
        self.kept.iter().any(|kept| path.starts_with(kept))
    }

    /// File systems in memory that are mounted in an emptied place.
    pub(super) fn mounts_to_empty(&self, place: &Path) -> Vec<PathBuf> {
        mounts::below(place).filter(|mount| self.empties(mount)).map(|mount| mount.point).collect()
    }

    /// Whether a mount in an emptied place is emptied with it.
    pub(super) fn empties(&self, mount: &Mount) -> bool {
        mount.writable && mount.in_memory() && !self.keeps(&mount.point)
    }

    /// Makes the named directories that are missing, gives those that are root's and empty to the agent, and makes what is
    /// above them in the emptied places what it was before a job could change it.
    pub(super) fn prepare_caches(&mut self) -> Result<(), SlateError> {
        for kept in &self.kept.clone() {
            let failed = |source| SlateError::Place { place: kept.clone(), source };
            let place =
                self.places().filter(|place| kept.starts_with(place)).max_by_key(|place| place.as_os_str().len());
            let above = kept.ancestors().skip(1).take_while(|above| place.as_ref().is_some_and(|place| above != place));
            let above: Vec<&Path> = above.collect();
            fs::create_dir_all(kept).map_err(failed)?;
            for directory in above {
                self.give(directory).map_err(failed)?;
            }
            let meta = fs::symlink_metadata(kept).map_err(failed)?;
            if meta.uid() == 0 && meta.is_dir() && fs::read_dir(kept).map_err(failed)?.next().is_none() {
                match self.give(kept) {
                    // It is as the user wants it.
                    Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
                    given => {
                        given.map_err(failed)?;
                        self.origin.has_mode(kept, GIVEN);
                    }
                }
            }
        }
        Ok(())
    }

    fn give(&self, directory: &Path) -> io::Result<()> {
        if Uid::effective().is_root() {
            lchown(directory, Some(self.agent.uid.as_raw()), Some(self.agent.gid.as_raw()))?;
            fs::set_permissions(directory, fs::Permissions::from_mode(GIVEN))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::slate::tests::slate_in;

    #[test]
    fn what_holds_an_emptied_place_cannot_be_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut slate = slate_in(root.path());
        slate.kept = ["work", "work/cache", "", "opt/tools", "home"].map(|name| root.path().join(name)).to_vec();
        let too_much: Vec<_> = slate.kept_too_much().into_iter().cloned().collect();
        assert_eq!(too_much, ["work", "", "home"].map(|name| root.path().join(name)));
    }

    #[test]
    fn this_machines_mounts_elsewhere_are_no_fault() {
        let root = tempfile::tempdir().unwrap();
        assert!(slate_in(root.path()).unnamed_mounts(&[]).is_empty());
    }
}
