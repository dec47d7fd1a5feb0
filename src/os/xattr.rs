//! Extended attributes, of which some give privileges.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
    let path = CString::new(path.as_os_str().as_bytes())?;
    read(|value| {
        // SAFETY: both names live through the call, and the kernel writes no more than the length that it is told.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) }
    })
}

/// The same of an open file.
///
/// # Errors
/// When it cannot be read.
pub fn of(file: &impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let fd = file.as_fd().as_raw_fd();
    read(|value| {
        // SAFETY: the name lives through the call, and the kernel writes no more than the length that it is told.
        unsafe { libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len()) }
    })
}

/// The names of an open file's attributes.
///
/// # Errors
/// When they cannot be read.
pub fn names(file: &impl AsFd) -> io::Result<Vec<CString>> {
    let fd = file.as_fd().as_raw_fd();
    let list = read(|list| {
        // SAFETY: the kernel writes no more than the length that it is told.
        unsafe { libc::flistxattr(fd, list.as_mut_ptr().cast(), list.len()) }
    })?;
    let list = list.unwrap_or_default();
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
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the name and the value live through the call, and the kernel reads no more than the value's length.
    let done = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Removes an attribute of an open file, if it has it.
///
/// # Errors
/// When this process may not.
pub fn remove(file: &impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: the name lives through the call.
    if unsafe { libc::fremovexattr(file.as_fd().as_raw_fd(), name.as_ptr()) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) { Ok(()) } else { Err(error) }
}

/// Has the kernel fill a buffer, however much it has to say. `None` where it has nothing.
fn read(mut fill: impl FnMut(&mut [u8]) -> libc::ssize_t) -> io::Result<Option<Vec<u8>>> {
    // Capabilities have 24 bytes; lists of access rights some more.
    let mut value = vec![0_u8; 256];
    loop {
        if let Ok(length) = usize::try_from(fill(&mut value)) {
            value.truncate(length);
            return Ok(Some(value));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOTSUP | libc::ENOSYS) => return Ok(None),
            // The kernel's own limit is 64 kB.
            Some(libc::ERANGE) if value.len() < 1 << 16 => value.resize(value.len() * 4, 0),
            _ => return Err(error),
        }
    }
}
