//! Whether a directory is one that other containers can have too, as far as its mount tells.

use std::ffi::OsStr;
use std::path::{Component, Path};

use crate::os::mounts::{Mount, under};

/// Whose a directory is that no other container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Private {
    /// A volume without a name, which each container gets anew.
    AnonymousVolume,
    /// It lies in the container's own file system.
    Own,
}

/// What the mount tells that a path without links leads to. An engine gives what belongs to one container a name of 64
/// hexadecimal digits: a volume that nobody named, a layer, the directory of the container itself.
pub(super) fn private(mounts: &[Mount], path: &Path) -> Option<Private> {
    let mount = under(mounts, path)?;
    let words: Vec<&OsStr> = mount.root.components().filter_map(normal).collect();
    if words.windows(3).any(|words| words[0] == "volumes" && is_hash(words[1]) && words[2] == "_data") {
        return Some(Private::AnonymousVolume);
    }
    // The place of its shared memory, however the engine makes it.
    let of_container = words.windows(2).any(|words| words[0] == "containers" && is_hash(words[1]));
    let shared_memory = mount.in_memory() && mount.source == "shm";
    // Engines that give containers a file system without overlay: a directory, a subvolume, a device.
    let source = Path::new(&mount.source).components().filter_map(normal);
    let of_engine = |word: &OsStr| {
        let word = word.to_string_lossy();
        let last = word.rsplit('-').next().unwrap_or_default();
        is_hash(OsStr::new(last)) || word.starts_with("io.containerd.snapshotter")
    };
    let own_root = mount.point == Path::new("/") && words.into_iter().chain(source).any(of_engine);
    (of_container || shared_memory || own_root).then_some(Private::Own)
}

fn normal(part: Component<'_>) -> Option<&OsStr> {
    match part {
        Component::Normal(word) => Some(word),
        _ => None,
    }
}

fn is_hash(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    bytes.len() == 64 && bytes.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::mounts::parse;

    const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn judged(line: &str) -> Option<Private> {
        let root = "1 0 8:1 / / rw - overlay overlay rw";
        let list = format!("{root}\n{}\n", line.replace("HASH", HASH));
        private(&parse(list.as_bytes()), Path::new("/var/lock/oscr/board-1"))
    }

    #[test]
    fn a_volume_without_a_name_and_a_containers_own_file_system_are_told() {
        for volume in [
            "2 1 8:1 /var/lib/docker/volumes/HASH/_data /var/lock/oscr rw - ext4 /dev/sda1 rw",
            "2 1 8:2 /volumes/HASH/_data /var/lock/oscr rw - xfs /dev/sdb1 rw",
            "2 1 8:2 /volumes/HASH/_data/below /var/lock/oscr/board-1 rw - xfs /dev/sdb1 rw",
            "2 1 8:1 /home/u/.local/share/containers/storage/volumes/HASH/_data /var/lock rw - ext4 /dev/sda1 rw",
        ] {
            assert_eq!(judged(volume), Some(Private::AnonymousVolume), "{volume}");
        }
        for own in [
            "2 1 8:1 /var/lib/docker/vfs/dir/HASH / rw - ext4 /dev/sda1 rw",
            "2 1 0:40 /@/var/lib/docker/btrfs/subvolumes/HASH / rw - btrfs /dev/sda1 rw",
            "2 1 253:3 / / rw - ext4 /dev/mapper/docker-8:1-77-HASH rw",
            "2 1 0:50 / / rw - zfs pool/docker/HASH rw",
            "2 1 8:1 /var/lib/containerd/io.containerd.snapshotter.v1.native/snapshots/12 / rw - ext4 /dev/sda1 rw",
            "2 1 0:60 / /var/lock rw - tmpfs shm rw",
            "2 1 8:1 /var/lib/docker/containers/HASH/mounts/x /var/lock rw - ext4 /dev/sda1 rw",
        ] {
            assert_eq!(judged(own), Some(Private::Own), "{own}");
        }
    }

    #[test]
    fn what_others_may_have_too_passes() {
        for shared in [
            "2 1 8:1 /srv/oscr/locks /var/lock/oscr rw - ext4 /dev/sda1 rw",
            "2 1 0:25 /lock/oscr /var/lock/oscr rw - tmpfs tmpfs rw",
            "2 1 0:25 / /var/lock rw - tmpfs tmpfs rw",
            "2 1 8:1 /var/lib/docker/volumes/locks/_data /var/lock/oscr rw - ext4 /dev/sda1 rw",
            "2 1 8:1 / / rw - ext4 /dev/sda1 rw",
        ] {
            assert_eq!(judged(shared), None, "{shared}");
        }
    }
}
