//! What an agent must be able to see of the places that it works in.

use std::io;
use std::path::Path;

/// Each folder from here up to `/` is listed, as upstream does to find out whether it may run here.
///
/// # Errors
///
/// The words of the runtime, of the first that cannot be.
pub(super) fn listed(folder: &Path) -> Result<(), String> {
    for folder in folder.ancestors() {
        std::fs::read_dir(folder).map_err(|error| words(folder, &error))?;
    }
    Ok(())
}

/// A folder that is made, and then listed with all above it.
pub(super) fn usable(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| words(folder, &error))?;
    listed(folder)
}

/// An error of a file as .NET words it.
pub(super) fn words(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("Access to the path '{}' is denied.", path.display()),
        io::ErrorKind::NotFound => format!("Could not find a part of the path '{}'.", path.display()),
        _ => format!("{} : '{}'", error, path.display()),
    }
}
