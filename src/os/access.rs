//! What a user could reach, as the permission bits say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::identity::Identity;

/// Read permission, in one digit of a mode.
pub(crate) const READ: u32 = 4;
/// Write permission.
pub(crate) const WRITE: u32 = 2;
/// Permission to pass through a directory.
const PASS: u32 = 1;

/// Whether `user` could open `path` with any of the permissions in `bits`: those of the file itself, and of all directories
/// above it. What does not exist cannot be opened.
#[must_use]
pub(crate) fn may(user: &Identity, path: &Path, bits: u32) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    if user.uid.is_root() {
        return true;
    }
    granted(user, &path) & bits != 0 && path.ancestors().skip(1).all(|directory| granted(user, directory) & PASS != 0)
}

fn granted(user: &Identity, path: &Path) -> u32 {
    let Ok(meta) = fs::metadata(path) else { return 0 };
    let mode = meta.mode();
    let digit = if meta.uid() == user.uid.as_raw() {
        mode >> 6
    } else if user.groups.iter().chain([&user.gid]).any(|gid| gid.as_raw() == meta.gid()) {
        mode >> 3
    } else {
        mode
    };
    digit & 7
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_readable_only_through_directories_that_let_pass() {
        let somebody =
            Identity { uid: Uid::from_raw(54321), gid: Gid::from_raw(54321), groups: vec![Gid::from_raw(54322)] };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        fs::write(&file, "x").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&file, 0o444);
        mode(directory.path(), 0o755);
        assert!(may(&somebody, &file, READ) && !may(&somebody, &file, WRITE));
        mode(directory.path(), 0o700);
        assert!(!may(&somebody, &file, READ));
        mode(directory.path(), 0o755);
        mode(&file, 0o440);
        assert!(!may(&somebody, &file, READ));
        assert!(!may(&somebody, &directory.path().join("absent"), READ));
    }
}
