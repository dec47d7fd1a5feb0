//! The agent's directory: a fresh directory for each incarnation around the image's read-only binaries.
//!
//! The agents take the directory above their own executable for their root, and they find that executable by its real path.
//! So `bin` is a real directory of hard links (or copies, where links are not possible), and everything else of the pristine
//! agent is a symbolic link. The directory belongs to PID 1 and has the sticky bit: the agent can add its files, but neither
//! it nor a job can replace what we put there.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::os::Identity;

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentDirectoryError {
    /// The image holds no agent.
    #[error("there is no agent in {}: {} is missing from this image", pristine.display(), listener)]
    NoAgent {
        /// Where it should be.
        pristine: PathBuf,
        /// What was looked for.
        listener: &'static str,
    },
    /// Something cannot be made.
    #[error("{} cannot be made: {source}", path.display())]
    Make {
        /// What.
        path: PathBuf,
        source: io::Error,
    },
}

/// Checks that the image has an agent at all.
///
/// # Errors
/// [`AgentDirectoryError::NoAgent`].
pub(crate) fn check(pristine: &Path, listener: &'static str) -> Result<(), AgentDirectoryError> {
    if pristine.join(listener).exists() {
        return Ok(());
    }
    Err(AgentDirectoryError::NoAgent { pristine: pristine.to_owned(), listener })
}

/// Makes the directory `roots/name` for an agent that runs as `agent`. An old one of that name is an error: the slate was clean.
///
/// # Errors
/// What could not be made, and why.
pub(crate) fn make(
    pristine: &Path,
    roots: &Path,
    name: &str,
    agent: &Identity,
) -> Result<PathBuf, AgentDirectoryError> {
    let directory = roots.join(name);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AgentDirectoryError::Make { path, source }
    };
    fs::create_dir(&directory).map_err(failed(&directory))?;
    for entry in fs::read_dir(pristine).map_err(failed(&directory))? {
        let entry = entry.map_err(failed(&directory))?;
        let target = directory.join(entry.file_name());
        if entry.file_name() == "bin" {
            mirror(&entry.path(), &target).map_err(failed(&target))?;
        } else {
            symlink(entry.path(), &target).map_err(failed(&target))?;
        }
    }
    if Uid::effective().is_root() {
        lchown(&directory, None, Some(agent.gid.as_raw())).map_err(failed(&directory))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1775)).map_err(failed(&directory))?;
    }
    Ok(directory)
}

fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            mirror(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Writes one file of the agent's configuration, readable for the agent alone.
///
/// # Errors
/// When it cannot be written or given to the agent.
pub(crate) fn write(directory: &Path, name: &str, content: &[u8], agent: &Identity) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join(name);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(content)?;
    if Uid::effective().is_root() {
        lchown(&path, Some(agent.uid.as_raw()), Some(agent.gid.as_raw()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn pristine() -> tempfile::TempDir {
        let pristine = tempfile::tempdir().unwrap();
        fs::create_dir_all(pristine.path().join("bin/sub")).unwrap();
        fs::create_dir(pristine.path().join("externals")).unwrap();
        fs::write(pristine.path().join("bin/Listener"), "#!").unwrap();
        fs::write(pristine.path().join("bin/sub/x"), "x").unwrap();
        fs::write(pristine.path().join("run.sh"), "").unwrap();
        pristine
    }

    fn ourselves() -> Identity {
        Identity { uid: nix::unistd::getuid(), gid: nix::unistd::getgid(), groups: vec![] }
    }

    #[test]
    fn the_listener_finds_itself_below_the_fresh_root() {
        let pristine = pristine();
        let roots = tempfile::tempdir().unwrap();
        let directory = make(pristine.path(), roots.path(), "name", &ourselves()).unwrap();
        let listener = fs::canonicalize(directory.join("bin/Listener")).unwrap();
        assert_eq!(listener.parent().unwrap().parent().unwrap(), fs::canonicalize(&directory).unwrap());
        assert!(fs::metadata(directory.join("run.sh")).is_ok() && directory.join("externals").is_dir());
        let links = fs::metadata(directory.join("bin/sub/x")).unwrap().nlink();
        assert!(links == 2 || links == 1, "a hard link where the file system allows it");
    }

    #[test]
    fn an_image_without_agent_is_named() {
        let empty = tempfile::tempdir().unwrap();
        assert!(check(empty.path(), "bin/Listener").unwrap_err().to_string().contains("no agent in"));
    }
}
