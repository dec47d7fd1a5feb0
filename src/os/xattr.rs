//! Extended attributes, of which some give privileges.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The value of an attribute of what is at `path`, which is not followed if it is a link. `None` where there is none, or the
/// file system knows of none.
///
/// # Errors
/// When it cannot be read.
pub fn get(path: &Path, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // Capabilities have 24 bytes; lists of access rights some more.
    let mut value = vec![0_u8; 256];
    loop {
        // SAFETY: both names live through the call, and the kernel writes no more than the length that it is told.
        let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        if let Ok(length) = usize::try_from(length) {
            value.truncate(length);
            return Ok(Some(value));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA | libc::ENOTSUP) => return Ok(None),
            // The kernel's own limit is 64 kB.
            Some(libc::ERANGE) if value.len() < 1 << 16 => value.resize(value.len() * 4, 0),
            _ => return Err(error),
        }
    }
}
