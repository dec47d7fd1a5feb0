//! Where Docker is.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::shown::quoted;

/// Where Docker's socket is when nobody says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket in the file system.
    Socket(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// `host:port`, with TLS: for the jobs' tools. We do not speak it with Docker.
    Tls(String),
}

impl Endpoint {
    /// Reads a value of `DOCKER_HOST`. `tls` as `DOCKER_TLS_VERIFY` says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(value: &str, tls: bool) -> Result<Self, String> {
        if let Some(path) = value.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Socket(path.into()))
            } else {
                Err(format!("{} names no absolute path", quoted(value)))
            };
        }
        let address = value.strip_prefix("tcp://").or_else(|| value.strip_prefix("http://"));
        match address.map(|address| address.trim_end_matches('/')) {
            Some(address) if !address.is_empty() && !address.contains('/') => {
                Ok(if tls { Self::Tls(address.to_owned()) } else { Self::Tcp(address.to_owned()) })
            }
            _ => Err(format!("{} is neither unix:///path nor tcp://host:port", quoted(value))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Makes the daemon's socket found where tools look for it, by a link in `usual`. `false` when something is there already.
///
/// # Errors
/// When the link cannot be made.
pub(crate) fn link(usual: &Path, socket: &Path) -> std::io::Result<bool> {
    match std::fs::symlink_metadata(usual) {
        // From an earlier incarnation, perhaps with another target.
        Ok(meta) if meta.is_symlink() => std::fs::remove_file(usual)?,
        Ok(_) => return Ok(false),
        Err(_) => {}
    }
    if let Some(directory) = usual.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::os::unix::fs::symlink(socket, usual)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_and_addresses() {
        assert_eq!(Endpoint::parse("unix:///run/d.sock", true), Ok(Endpoint::Socket("/run/d.sock".into())));
        assert_eq!(Endpoint::parse("tcp://docker:2375/", false), Ok(Endpoint::Tcp("docker:2375".to_owned())));
        assert_eq!(Endpoint::parse("tcp://docker:2376", true), Ok(Endpoint::Tls("docker:2376".to_owned())));
        for wrong in ["", "unix://d.sock", "ssh://me@host", "tcp://", "tcp://a/b", "/run/d.sock"] {
            assert!(Endpoint::parse(wrong, false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_link_replaces_a_link_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let usual = directory.path().join("var/run/docker.sock");
        assert!(link(&usual, Path::new("/one")).unwrap());
        assert!(link(&usual, Path::new("/two")).unwrap());
        assert_eq!(std::fs::read_link(&usual).unwrap(), Path::new("/two"));
        std::fs::remove_file(&usual).unwrap();
        std::fs::write(&usual, "").unwrap();
        assert!(!link(&usual, Path::new("/three")).unwrap());
    }
}
