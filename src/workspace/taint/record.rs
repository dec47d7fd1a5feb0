//! What is remembered of one file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use nix::sys::stat::{FileStat, SFlag};
use ring::digest::{Context, SHA256};

use crate::os::xattr;

/// Attributes that give rights: to a program, or to people.
const RIGHTS: [&std::ffi::CStr; 3] = [c"security.capability", xattr::ACCESS, xattr::DEFAULT];

/// What a look at the metadata tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `f`ile, `d`irectory, `l`ink, `p`ipe, `s`ocket, `c`haracter or `b`lock device.
    pub kind: char,
    /// Permissions with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file; the number of a device; 0 for all else.
    pub size: u64,
    /// When the content of a file or link was changed last, in whole seconds, which is all that images keep; 0 for all else.
    pub modified: i64,
}

/// One line of a baseline: `f 755 0 0 1234 1700000000 <digest> usr/bin/tool`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub seen: Attributes,
    /// SHA-256 of a file's content or a link's target, and of attributes that give rights. `None` when nobody looked, and for
    /// what has neither content nor such attributes.
    pub digest: Option<[u8; 32]>,
    /// Where, from the root on, without a leading slash.
    pub path: PathBuf,
}

impl Attributes {
    #[must_use]
    pub(super) fn of(stat: &FileStat) -> Self {
        let (kind, size) = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => ('f', u64::try_from(stat.st_size).unwrap_or(0)),
            SFlag::S_IFDIR => ('d', 0),
            SFlag::S_IFLNK => ('l', 0),
            SFlag::S_IFIFO => ('p', 0),
            SFlag::S_IFSOCK => ('s', 0),
            SFlag::S_IFCHR => ('c', stat.st_rdev),
            _ => ('b', stat.st_rdev),
        };
        let modified = if matches!(kind, 'f' | 'l') { stat.st_mtime } else { 0 };
        Self { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, size, modified }
    }
}

impl Record {
    /// What a look at the metadata tells, without the digest.
    #[must_use]
    pub(super) fn of(path: &Path, stat: &FileStat) -> Self {
        Self { seen: Attributes::of(stat), digest: None, path: path.to_owned() }
    }

    /// Whether a look at the metadata finds what is on record.
    #[must_use]
    pub(super) fn holds_for(&self, other: &Self) -> bool {
        (self.seen, &self.path) == (other.seen, &other.path)
    }

    /// Reads a line.
    #[must_use]
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.splitn(8, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok();
        let kind = word()?.chars().next()?;
        let mode = u32::from_str_radix(word()?, 8).ok()?;
        let (uid, gid) = (word()?.parse().ok()?, word()?.parse().ok()?);
        let (size, modified) = (word()?.parse().ok()?, word()?.parse().ok()?);
        let digest = match word()? {
            "-" => None,
            text => {
                // As much as the decoder wants, which rounds up.
                let mut room = [0; 36];
                let length = BASE64.decode_slice(text, &mut room).ok()?;
                Some(room[..length].try_into().ok()?)
            }
        };
        let path = PathBuf::from(OsString::from_vec(unescape(words.next()?)?));
        Some(Self { seen: Attributes { kind, mode, uid, gid, size, modified }, digest, path })
    }

    /// The first and the last word of a line, for whoever needs no more of many.
    #[must_use]
    pub(super) fn kind_and_path(line: &[u8]) -> Option<(u8, PathBuf)> {
        // A space in a path is written as a number.
        let path = line.rsplit(|byte| *byte == b' ').next()?;
        Some((*line.first()?, PathBuf::from(OsString::from_vec(unescape(path)?))))
    }

    /// Writes the line, with its end.
    ///
    /// # Errors
    /// Those of `out`.
    pub(super) fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let Self { seen: Attributes { kind, mode, uid, gid, size, modified }, digest, path } = self;
        let digest = digest.map_or_else(|| "-".to_owned(), |digest| BASE64.encode(digest));
        write!(out, "{kind} {mode:o} {uid} {gid} {size} {modified} {digest} ")?;
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'\\' | 0..=b' ' | 0x7f..=0xff => write!(out, "\\{byte:03o}")?,
                plain => out.write_all(&[*plain])?,
            }
        }
        out.write_all(b"\n")
    }
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        plain.push(match byte {
            b'\\' => {
                let mut digit = || Some(u32::from(*rest.next()?).wrapping_sub(u32::from(b'0'))).filter(|d| *d < 8);
                u8::try_from(digit()? * 64 + digit()? * 8 + digit()?).ok()?
            }
            plain => *plain,
        });
    }
    Some(plain)
}

/// The digest of what is at `path`: see [`Record::digest`].
///
/// # Errors
/// When it cannot be read.
pub(super) fn digest(path: &Path, kind: char) -> io::Result<Option<[u8; 32]>> {
    let mut context = Context::new(&SHA256);
    let mut anything = matches!(kind, 'f' | 'l');
    match kind {
        'f' => {
            let mut file = File::open(path)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    length => context.update(&buffer[..length]),
                }
            }
        }
        'l' => context.update(fs::read_link(path)?.as_os_str().as_bytes()),
        _ => {}
    }
    // Links have no rights of their own.
    for name in RIGHTS.iter().filter(|_| kind != 'l') {
        if let Some(value) = xattr::get(path, name)? {
            anything = true;
            context.update(name.to_bytes_with_nul());
            context.update(&value.len().to_le_bytes());
            context.update(&value);
        }
    }
    let digest = context.finish();
    Ok(anything.then(|| digest.as_ref().try_into().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let path = PathBuf::from(OsString::from_vec(b"usr/a b\n\\\xff/x".to_vec()));
        for digest in [None, Some([7; 32])] {
            let seen = Attributes { kind: 'f', mode: 0o4755, uid: 1, gid: 2, size: 3, modified: -4 };
            let record = Record { seen, digest, path: path.clone() };
            let mut line = Vec::new();
            record.write(&mut line).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(Record::parse(line.strip_suffix(b"\n").unwrap()), Some(record));
        }
        for bad in [&b""[..], b"f", b"f 755 0 0 1 1 - a\\9", b"f 999 0 0 1 1 - a", b"f 755 0 0 1 1 !! a"] {
            assert_eq!(Record::parse(bad), None);
        }
    }

    #[test]
    fn the_digest_is_that_of_content_and_target() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "abc").unwrap();
        let known = BASE64.decode("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0").unwrap();
        assert_eq!(digest(&folder.path().join("f"), 'f').unwrap().unwrap().to_vec(), known);
        std::os::unix::fs::symlink("abc", folder.path().join("l")).unwrap();
        assert_eq!(digest(&folder.path().join("l"), 'l').unwrap().unwrap().to_vec(), known);
        assert_eq!(digest(folder.path(), 'd').unwrap(), None);
    }
}
