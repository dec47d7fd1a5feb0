//! Who may open the files of a lock directory: its owner, and its group where that may write it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use nix::unistd::geteuid;

/// The group's right to write, in a mode.
const GROUP_WRITES: u32 = 0o020;
/// What the group needs of a file, and of a directory: there, what others make in it belongs to the group too.
const OF_FILE: u32 = 0o060;
const OF_DIRECTORY: u32 = 0o2070;

/// Opens what was made in a lock directory to those who share it: to the directory's group, if that may write there. Without it
/// the second person of the group could not use what the first one made. Best effort: one that is another's is theirs to open.
pub(super) fn with_group(directory: &Path, path: &Path, file: &File) {
    let Ok(meta) = fs::metadata(directory) else { return };
    if meta.mode() & GROUP_WRITES == 0 {
        return;
    }
    let (group, Ok(own), Ok(named)) = (meta.gid(), file.metadata(), fs::symlink_metadata(path)) else { return };
    let missing = if own.is_dir() { OF_DIRECTORY } else { OF_FILE };
    // What lies elsewhere under another name is not of this directory, whoever linked it here.
    let is_itself = (own.dev(), own.ino()) == (named.dev(), named.ino()) && (own.is_dir() || own.nlink() == 1);
    let is_ours = own.uid() == geteuid().as_raw() || geteuid().is_root();
    let is_open = own.gid() == group && own.mode() & missing == missing;
    if !is_itself || !is_ours || is_open || (own.gid() != group && fchown(file, None, Some(group)).is_err()) {
        return;
    }
    let _ = file.set_permissions(Permissions::from_mode(own.mode() & 0o7777 | missing));
}

/// Lets those read a file who may read the directory.
pub(super) fn with_readers(directory: &Path, file: &File) -> std::io::Result<()> {
    let (meta, own) = (fs::metadata(directory)?, file.metadata()?);
    let mut readers = meta.mode() & 0o044;
    if own.gid() != meta.gid() && fchown(file, None, Some(meta.gid())).is_err() {
        // Its group is another one.
        readers &= 0o004;
    }
    file.set_permissions(Permissions::from_mode(0o600 | readers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn files_follow_the_directorys_group_and_nothing_beyond_the_directory_does() {
        let folder = tempfile::tempdir().unwrap();
        let set = |bits| fs::set_permissions(folder.path(), Permissions::from_mode(bits)).unwrap();
        let make = |name: &str| {
            let path = folder.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_permissions(Permissions::from_mode(0o600)).unwrap();
            (path, file)
        };
        let (path, file) = make("closed");
        for closed in [0o755, 0o750, 0o700] {
            set(closed);
            with_group(folder.path(), &path, &file);
            assert_eq!(mode(&path), 0o600, "{closed:o}");
        }
        set(0o775);
        with_group(folder.path(), &path, &file);
        assert_eq!(mode(&path), 0o660);

        let elsewhere = tempfile::tempdir().unwrap();
        let victim = elsewhere.path().join("victim");
        let file = File::create(&victim).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        for (name, hard) in [("symbolic", false), ("hard", true)] {
            let link = folder.path().join(name);
            if hard {
                fs::hard_link(&victim, &link).unwrap();
            } else {
                std::os::unix::fs::symlink(&victim, &link).unwrap();
            }
            with_group(folder.path(), &link, &file);
            assert_eq!(mode(&victim), 0o600, "a {name} link");
        }
    }

    #[test]
    fn what_is_shown_is_read_by_those_who_read_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shown");
        let file = File::create(&path).unwrap();
        for (directory, shown) in [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600), (0o2770, 0o640)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(directory)).unwrap();
            with_readers(folder.path(), &file).unwrap();
            assert_eq!(mode(&path), shown, "{directory:o}");
        }
    }
}
