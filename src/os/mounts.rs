//! The kernel's list of mounts, as a process sees it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One line of `/proc/<pid>/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The number of its file system's device, as `major:minor`.
    pub device: String,
    /// What of its file system is mounted: a path in there.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of its file system.
    pub kind: String,
    /// What is mounted: a device, or whatever the file system calls itself.
    pub source: String,
    /// Whether it can be written, by this mount and by the file system under it.
    pub writable: bool,
    /// Whether programs on it can be executed.
    pub executable: bool,
}

/// File systems that live in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

impl Mount {
    /// Whether what is on it is gone when nobody uses it any more, and so nobody's data.
    #[must_use]
    pub(crate) fn in_memory(&self) -> bool {
        IN_MEMORY.contains(&self.kind.as_str())
    }
}

/// All mounts of this process, later ones over earlier ones.
///
/// # Errors
/// When `/proc` is not there.
pub(crate) fn list() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// What is mounted below a directory, but not on it. An unreadable list is an empty one: it is there to keep what leads to a mount,
/// and for kernels that cannot be asked to stay on one.
pub(crate) fn below(top: &Path) -> impl Iterator<Item = Mount> {
    let all = list().unwrap_or_default().into_iter();
    all.filter(move |mount| mount.point.starts_with(top) && mount.point != top)
}

/// The mount of a list that a path without links leads to.
#[must_use]
pub(crate) fn under<'a>(list: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // The last one of several at the same place covers the others.
    list.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// Reads a list. A line that is not understood is left out.
#[must_use]
pub(crate) fn parse(list: &[u8]) -> Vec<Mount> {
    list.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime optional… - type source rw,errors=…` (proc_pid_mountinfo(5)).
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let (device, root, point, options) = (words.nth(2)?, words.next()?, words.next()?, words.next()?);
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let (kind, source, of_file_system) = (words.next()?, words.next()?, words.next()?);
    let has = |options: &[u8], wanted: &[u8]| options.split(|byte| *byte == b',').any(|option| option == wanted);
    let text = |word: &[u8]| String::from_utf8_lossy(&unescape(word)).into_owned();
    let path = |word: &[u8]| PathBuf::from(OsStr::from_bytes(&unescape(word)));
    Some(Mount {
        device: text(device),
        root: path(root),
        point: path(point),
        kind: text(kind),
        source: text(source),
        writable: has(options, b"rw") && has(of_file_system, b"rw"),
        executable: !has(options, b"noexec") && !has(of_file_system, b"noexec"),
    })
}

/// White space and backslashes are written as three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_optional_fields_and_escaped_names() {
        let list = b"1 0 8:1 / / ro,relatime master:1 shared:2 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                     2 1 8:1 /x /a\\040b\\134c rw,nosuid,noexec - xfs my\\040disk rw\nnonsense\n";
        let mounts = parse(list);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            (mounts[0].kind.as_str(), mounts[0].writable),
            ("ext4", false),
            "a read-only mount of a writable disk"
        );
        assert_eq!((mounts[1].point.to_str(), mounts[1].source.as_str()), (Some("/a b\\c"), "my disk"));
        assert!(mounts[1].writable && mounts[0].executable && !mounts[1].executable);
        assert_eq!((mounts[1].device.as_str(), mounts[1].root.to_str()), ("8:1", Some("/x")));
    }

    #[test]
    fn a_path_is_on_the_mount_next_above_it_and_on_the_last_of_several() {
        let list = b"1 0 8:1 / / rw - ext4 root rw\n2 1 8:2 / /a rw - ext4 first rw\n\
                     3 2 8:3 / /a rw - ext4 second rw\n4 3 8:4 / /a/b rw - ext4 third rw\n";
        let mounts = parse(list);
        let source = |path: &str| under(&mounts, Path::new(path)).map(|mount| mount.source.as_str());
        assert_eq!(source("/ab"), Some("root"));
        assert_eq!((source("/a"), source("/a/c"), source("/a/b/c")), (Some("second"), Some("second"), Some("third")));
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(list().unwrap().iter().any(|mount| mount.point.as_os_str() == "/"));
    }

    #[test]
    fn fuzz_mounts() {
        crate::fuzz::run("mounts", |bytes| {
            let mounts = parse(bytes);
            assert!(mounts.len() <= bytes.split(|byte| *byte == b'\n').count());
            mounts.iter().map(|mount| (mount.writable, mount.kind.len().min(6))).collect::<Vec<_>>()
        });
    }
}
