//! Extended attributes, of which some give privileges.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr};
use rustix::io::Errno;

/// A list of access rights, as `setfacl` makes it.
pub const ACCESS: &CStr = c"system.posix_acl_access";
/// The list that is inherited by what is made in a directory.
pub const DEFAULT: &CStr = c"system.posix_acl_default";

/// The value of an attribute of what is at `path`, which is not followed if it is a link. `None` where there is none, or the
/// file system knows of none.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn get(path: &Path, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    read(|value| lgetxattr(path, name, value))
}

/// The same of an open file.
///
/// # Errors
/// When it cannot be read.
pub fn of(file: &impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    read(|value| fgetxattr(file, name, value))
}

/// The names of an open file's attributes.
///
/// # Errors
/// When they cannot be read.
pub fn names(file: &impl AsFd) -> io::Result<Vec<CString>> {
    let list = read(|list| flistxattr(file, list))?.unwrap_or_default();
    Ok(list
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
        .collect())
}

/// Gives an open file an attribute, or another value of it.
///
/// # Errors
/// When the file system knows of none, or this process may not.
pub fn set(file: &impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Removes an attribute of an open file, if it has it.
///
/// # Errors
/// When this process may not.
pub fn remove(file: &impl AsFd, name: &CStr) -> io::Result<()> {
    match fremovexattr(file, name) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Has the kernel fill a buffer, however much it has to say. `None` where it has nothing.
fn read(fill: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    // Capabilities have 24 bytes; lists of access rights some more.
    let mut value = vec![0_u8; 256];
    loop {
        match fill(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => return Ok(None),
            // The kernel's own limit is 64 kB.
            Err(Errno::RANGE) if value.len() < 1 << 16 => value.resize(value.len() * 4, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}
