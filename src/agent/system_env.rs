//! `/etc/environment`: the variables that an image sets for everybody who logs in. Nobody logs in here, so they are read as
//! `pam_env` reads them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Why the file has no effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unused {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// A job could have written it.
    #[error("it is not root's alone to write (owner {owner}, mode {mode:04o})")]
    Writable {
        /// The user id of its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// It is something else.
    #[error("it is not a text file of at most {LARGEST} bytes")]
    NotText,
}

/// The variables in `path`; none if there is no such file.
///
/// # Errors
/// Why the file is not used.
pub(crate) fn read(path: &Path) -> Result<Vec<(String, String)>, Unused> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > LARGEST {
        return Err(Unused::NotText);
    }
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Err(Unused::Writable { owner: meta.uid(), mode: meta.mode() & 0o7777 });
    }
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map(|text| parse(&text)).map_err(|_| Unused::NotText)
}

/// Lines of `NAME=value`: `#` begins a comment wherever it stands, `export` before the name and quotes around the value are
/// dropped, and what is no assignment is passed over. Nothing is expanded.
fn parse(text: &str) -> Vec<(String, String)> {
    let assignment = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) = line.split_once('=')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) || value.contains('\0') {
            return None;
        }
        let value = match value.chars().next() {
            Some('"' | '\'') => value.replace(['"', '\''], ""),
            _ => value.to_owned(),
        };
        Some((name.to_owned(), value))
    };
    text.lines().filter_map(assignment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn it_is_read_as_pam_env_reads_it() {
        let text = "# a comment\nPLAIN=one two\n  export SHOWN=x \nDOUBLE=\"a b\"\nSINGLE='c d' # why\nEMPTY=\n\
                    HALF=\"open\nwith space=no\n=no\nno\nSUM=a=b\nDOLLAR=$PLAIN\nCUT=a#b\n";
        let wanted = [
            ("PLAIN", "one two"),
            ("SHOWN", "x"),
            ("DOUBLE", "a b"),
            ("SINGLE", "c d"),
            ("EMPTY", ""),
            ("HALF", "open"),
            ("SUM", "a=b"),
            ("DOLLAR", "$PLAIN"),
            ("CUT", "a"),
        ];
        assert_eq!(parse(text), wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn only_a_file_that_is_roots_alone_to_write_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("environment");
        assert_eq!(read(&file).unwrap(), []);
        assert!(matches!(read(directory.path()), Err(Unused::NotText)));
        fs::write(&file, "A=1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(matches!(read(&file), Err(Unused::Writable { mode: 0o664, .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        if nix::unistd::Uid::effective().is_root() {
            assert_eq!(read(&file).unwrap(), [("A".to_owned(), "1".to_owned())]);
            chown(&file, Some(1001), None).unwrap();
        }
        assert!(matches!(read(&file), Err(Unused::Writable { mode: 0o644, .. })));
    }
}
