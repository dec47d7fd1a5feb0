//! What a daemon sees of the machine that it is on, and of us: what a path means to it, and what it speaks.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Docker, DockerError};
use crate::os::mounts::Mount;

/// A version of the interface between clients and daemons.
pub(crate) type Interface = (u32, u32);

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Speaks {
    /// Its version, for people.
    pub version: String,
    /// The newest interface that it has.
    pub newest: Option<Interface>,
    /// The oldest one that it takes from a client.
    pub oldest: Option<Interface>,
}

/// Reads `1.44`.
pub(crate) fn interface(text: &str) -> Option<Interface> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Docker {
    /// What it is, and what clients it takes.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn speaks(&self) -> Result<Speaks, DockerError> {
        let body = self.ask(Method::GET, "/version", &[]).await?;
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let number = |name: &str| said[name].as_str().and_then(interface);
        Ok(Speaks {
            version: said["Version"].as_str().unwrap_or("of unknown version").to_owned(),
            newest: number("ApiVersion"),
            oldest: number("MinAPIVersion"),
        })
    }

    /// Whether something is at this path where the daemon is, by whatever it sees there: nobody is started, and nothing is made.
    /// `None` when it does not say.
    ///
    /// It is asked to make a container of an image that nobody has. Before it finds that out, it refuses one whose mount has no
    /// source.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn sees(&self, path: &Path) -> Result<Option<bool>, DockerError> {
        let wish = json!({
            "Image": "oscr.invalid/there/is:none",
            "HostConfig": {"Mounts": [{"Type": "bind", "Source": path, "Target": "/seen", "ReadOnly": true}]},
        });
        match self.post("/containers/create", &wish).await {
            Err(DockerError::Refused { status: 404, .. }) => Ok(Some(true)),
            Err(DockerError::Refused { status: 400, what, .. }) if what.contains("does not exist") => Ok(Some(false)),
            Ok(_) | Err(DockerError::Refused { .. }) => Ok(None),
            Err(silent) => Err(silent),
        }
    }

    /// Where a file of this container is on the machine of the daemon, if that is the daemon which has this container, and the file
    /// is in one of its mounts.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn source_of(&self, file: &Path, mounts: &[Mount]) -> Result<Option<PathBuf>, DockerError> {
        let Some(id) = own_id(mounts) else { return Ok(None) };
        let container = match self.container(&id).await {
            Err(DockerError::Refused { .. }) => None,
            other => other?,
        };
        let container = container.unwrap_or_default();
        let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let sources = container["Mounts"].as_array().into_iter().flatten().filter_map(|mount| {
            let at = PathBuf::from(mount["Destination"].as_str()?);
            let at = std::fs::canonicalize(&at).unwrap_or(at);
            let rest = file.strip_prefix(&at).ok()?.to_owned();
            let source = Path::new(mount["Source"].as_str()?);
            Some((at.components().count(), if rest.as_os_str().is_empty() { source.into() } else { source.join(rest) }))
        });
        Ok(sources.max_by_key(|(depth, _)| *depth).map(|(_, source)| source))
    }
}

/// The id of this container: the daemon mounts some files of its own record of it.
fn own_id(mounts: &[Mount]) -> Option<String> {
    let files = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].map(Path::new);
    mounts.iter().filter(|mount| files.contains(&mount.point.as_path())).find_map(|mount| {
        let mut parts = mount.root.iter().rev().skip(1).filter_map(|part| part.to_str());
        let (id, place) = (parts.next()?, parts.next()?);
        (place == "containers" && id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;
    use crate::os::mounts::parse;

    const OWN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[tokio::test]
    async fn a_daemon_says_what_it_speaks() {
        let (_folder, _fake, docker) =
            Fake::with_client(|_| (200, r#"{"Version":"29.0.1","ApiVersion":"1.52","MinAPIVersion":"1.44"}"#));
        let speaks = docker.speaks().await.unwrap();
        assert_eq!((speaks.newest, speaks.oldest), (Some((1, 52)), Some((1, 44))));
        assert!(interface("1.9") < interface("1.41") && interface("'1.41'").is_none());
    }

    #[tokio::test]
    async fn what_a_daemon_sees_is_told_by_what_it_refuses() {
        for (status, body, sees) in [
            (404, r#"{"message":"No such image: oscr.invalid/there/is:none"}"#, Some(true)),
            (
                400,
                r#"{"message":"invalid mount config for type \"bind\": bind source path does not exist: /x"}"#,
                Some(false),
            ),
            (400, r#"{"message":"invalid mount path"}"#, None),
            (403, "", None),
            (201, "[]", None),
        ] {
            let (_folder, fake, docker) = Fake::with_client(move |_| (status, body));
            assert_eq!(docker.sees(Path::new("/x")).await.unwrap(), sees, "{status} {body}");
            assert!(fake.asked()[0].contains(r#""Source":"/x""#), "{:?}", fake.asked());
        }
    }

    #[tokio::test]
    async fn a_file_of_a_mount_has_a_source_on_the_machine() {
        let line = format!("1 2 254:0 /var/lib/docker/containers/{OWN}/hostname /etc/hostname rw - ext4 /dev/vda rw\n");
        let ours = parse(line.as_bytes());
        let (_folder, fake, docker) = Fake::with_client(|_| {
            (
                200,
                r#"{"Mounts":[{"Destination":"/nowhere","Source":"/srv"},{"Destination":"/nowhere/deep","Source":"/home/me"},{"Destination":"/nowhere/file","Source":"/one"}]}"#,
            )
        });
        for (file, source) in [
            ("/nowhere/deep/d.sock", Some("/home/me/d.sock")),
            ("/nowhere/x", Some("/srv/x")),
            ("/nowhere/file", Some("/one")),
            ("/nowheredeep/x", None),
        ] {
            let found = docker.source_of(Path::new(file), &ours).await.unwrap();
            assert_eq!(found.as_deref(), source.map(Path::new), "{file}");
        }
        assert_eq!(fake.asked()[0], format!("GET /containers/{OWN}/json"));
        assert_eq!(docker.source_of(Path::new("/nowhere/x"), &[]).await.unwrap(), None);
    }
}
