//! Files that are replaced in one step: whoever reads finds the old one or the new one, whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file, without forcing it onto the disk.
///
/// # Errors
/// When it cannot be written; the old one is intact then.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write(path, content, mode, |_| Ok(()))
}

/// Replaces a file that a power cut must not take back.
///
/// # Errors
/// When it cannot be written; the old one is intact then, unless only its directory could not be forced onto the disk.
pub(crate) fn replace_on_disk(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write(path, content, mode, File::sync_all)?;
    // The name must be on disk too before what it describes is made.
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write(path: &Path, content: &[u8], mode: u32, settle: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".new");
    let new = path.with_file_name(name);
    // An earlier incarnation may have been killed over it.
    let _ = fs::remove_file(&new);
    let write = || {
        // Made anew, so that nothing that lies there is followed or written into.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        settle(&file)?;
        drop(file);
        fs::rename(&new, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}
