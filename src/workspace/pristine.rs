//! The agent's home as the image was built, copied back after it has been emptied.
//!
//! The copy belongs to root, or a job could write into it what the next one's shell reads. What comes back belongs to the
//! agent.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::Uid;

use crate::os::Identity;

/// Where programs keep what they know of their user. GitHub's runner keeps there where its services are, and without the directory
/// spends a second of each start on a place that it may not write.
const CONFIGURATION: &str = ".config";

/// Copies the content, modes and times of `from` into `to`, which exists and is empty but for mount points, and gives all of it to
/// `agent`. A missing `from` means that the image keeps no copy, and the home stays empty. It has a [configuration](CONFIGURATION) in
/// any case.
pub(super) fn restore(from: &Path, to: &Path, agent: &Identity) -> io::Result<()> {
    match fs::symlink_metadata(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_configuration(to, agent);
            Ok(())
        }
        Err(error) => Err(error),
        Ok(meta) => {
            copy_directory(from, to, agent)?;
            make_configuration(to, agent);
            own(to, &meta, agent)
        }
    }
}

/// What the image put in its place stays. Without one the agent is only slower.
fn make_configuration(home: &Path, agent: &Identity) {
    let place = home.join(CONFIGURATION);
    let made = DirBuilder::new().mode(0o700).create(&place).and_then(|()| {
        if Uid::effective().is_root() {
            lchown(&place, Some(agent.uid.as_raw()), Some(agent.gid.as_raw()))
        } else {
            Ok(())
        }
    });
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            tracing::debug!("{} cannot be made for the agent: {error}", place.display());
        }
        _ => {}
    }
}

fn copy_directory(from: &Path, to: &Path, agent: &Identity) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            match fs::create_dir(&target) {
                // A mount point that was left alone.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            copy_directory(&source, &target, agent)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            if target.exists() {
                continue;
            }
            fs::copy(&source, &target)?;
        } else {
            debug_assert!(kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device());
            continue;
        }
        own(&target, &meta, agent)?;
    }
    Ok(())
}

/// Makes a copy what its original is, but for the owner.
fn own(target: &Path, meta: &fs::Metadata, agent: &Identity) -> io::Result<()> {
    if Uid::effective().is_root() {
        lchown(target, Some(agent.uid.as_raw()), Some(agent.gid.as_raw()))?;
    }
    if !meta.file_type().is_symlink() {
        // After the owner, whose change clears set-id bits.
        fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    }
    // Last, and for a directory once all is in it. By these times tools such as make tell what is out of date.
    let time = |seconds, nanoseconds| TimeSpec::new(seconds, nanoseconds);
    let (accessed, modified) = (time(meta.atime(), meta.atime_nsec()), time(meta.mtime(), meta.mtime_nsec()));
    utimensat(AT_FDCWD, target, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Identity {
        Identity { uid: nix::unistd::getuid(), gid: nix::unistd::getgid(), groups: vec![] }
    }

    #[test]
    fn a_home_has_a_configuration_that_is_the_images_own_where_it_has_one() {
        let to = tempfile::tempdir().unwrap();
        let made = to.path().join(CONFIGURATION);
        restore(&to.path().join("missing"), to.path(), &ourselves()).unwrap();
        let meta = fs::metadata(&made).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o700, ourselves().uid.as_raw()));

        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let images = from.path().join(CONFIGURATION);
        fs::create_dir(&images).unwrap();
        fs::write(images.join("tool"), "text").unwrap();
        fs::set_permissions(&images, fs::Permissions::from_mode(0o750)).unwrap();
        restore(from.path(), to.path(), &ourselves()).unwrap();
        let restored = to.path().join(CONFIGURATION);
        assert_eq!(fs::metadata(&restored).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(fs::read_to_string(restored.join("tool")).unwrap(), "text");
    }

    #[test]
    fn content_modes_times_and_links_come_back_and_belong_to_the_agent() {
        let agent = ourselves();
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/f"), "text").unwrap();
        fs::set_permissions(from.path().join("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("d/f", from.path().join("l")).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5_000);
        for path in ["d/f", "d"] {
            fs::File::open(from.path().join(path)).unwrap().set_modified(old).unwrap();
        }
        restore(from.path(), to.path(), &agent).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("l")).unwrap(), "text");
        assert_eq!(fs::metadata(to.path().join("d/f")).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(to.path().join("l")).unwrap(), Path::new("d/f"));
        for path in ["", "d", "d/f", "l"] {
            let modified = |root: &Path| fs::symlink_metadata(root.join(path)).unwrap().modified().unwrap();
            assert_eq!(modified(to.path()), modified(from.path()), "{path}");
        }
    }
}
