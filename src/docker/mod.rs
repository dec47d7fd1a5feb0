//! Docker for jobs: where it is, whether it answers, and what dead jobs left there.
//!
//! The daemon is the host's, one in another container, or one of our own ([`engine`]). What an agent makes for a job there (job
//! and service containers, their network, images of container actions) carries a label or a name that only this agent has; a
//! [`Label`] finds it again. Nothing else is ever touched, and nothing is pruned.

pub mod engine;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encode::hex;
use crate::names::Names;

/// Where Docker's socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How long one request may take. Removing a container kills and unmounts it.
const REQUEST: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes: a list of what an agent of ours left.
const LARGEST: usize = 8 * 1024 * 1024;

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
    pub fn parse(value: &str, tls: bool) -> Result<Self, String> {
        if let Some(path) = value.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Socket(path.into()))
            } else {
                Err(format!("{value:?} names no absolute path"))
            };
        }
        let address = value.strip_prefix("tcp://").or_else(|| value.strip_prefix("http://"));
        match address.map(|address| address.trim_end_matches('/')) {
            Some(address) if !address.is_empty() && !address.contains('/') => {
                Ok(if tls { Self::Tls(address.to_owned()) } else { Self::Tcp(address.to_owned()) })
            }
            _ => Err(format!("{value:?} is neither unix:///path nor tcp://host:port")),
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

/// What an agent marks its objects with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(String);

impl Label {
    /// The first six hexadecimal digits of the SHA-256 of a text in lower case. GitHub's agent takes the text of its configuration
    /// file, Azure's the path of its root.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_lowercase();
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        Self(hex(&digest.as_ref()[..3]))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Containers, with their anonymous volumes.
    pub containers: usize,
    /// Networks.
    pub networks: usize,
    /// Names of images.
    pub images: usize,
}

impl Swept {
    /// Whether there was nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// It does not answer.
    #[error("Docker at {endpoint} does not answer: {why}")]
    Silent {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        why: String,
    },
    /// It refused.
    #[error("Docker at {endpoint} answered {status}: {what}")]
    Refused {
        /// Where.
        endpoint: Endpoint,
        /// The status code.
        status: u16,
        /// Its words.
        what: String,
    },
}

/// A daemon that can be asked.
#[derive(Debug)]
pub struct Docker {
    endpoint: Endpoint,
    base: String,
    client: Client,
}

impl Docker {
    /// Prepares to ask. `None` for a daemon with TLS.
    ///
    /// # Errors
    /// [`DockerError::Silent`] when no client can be made.
    pub fn at(endpoint: &Endpoint) -> Result<Option<Self>, DockerError> {
        // Fails only when a provider is installed already, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder =
            Client::builder().dns_resolver(Arc::new(Names::default())).timeout(REQUEST).no_proxy().tls_certs_only([]);
        let base = match endpoint {
            Endpoint::Socket(path) => {
                builder = builder.unix_socket(path.as_path());
                "http://docker".to_owned()
            }
            Endpoint::Tcp(address) => format!("http://{address}"),
            Endpoint::Tls(_) => return Ok(None),
        };
        let client = builder.build().map_err(|error| silent(endpoint, &error))?;
        Ok(Some(Self { endpoint: endpoint.clone(), base, client }))
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&self) -> Result<(), DockerError> {
        self.ask(Method::GET, "/_ping", &[]).await.map(drop)
    }

    /// Removes everything with this label, and nothing else. What is gone already is as good as removed.
    ///
    /// # Errors
    /// At the first thing that cannot be removed.
    pub async fn sweep(&self, label: &Label) -> Result<Swept, DockerError> {
        let labelled = serde_json::json!({"label": [label]}).to_string();
        let mut swept = Swept::default();
        let containers = self.list("/containers/json", &[("all", "1"), ("filters", &labelled)]).await?;
        for id in texts(&containers, "Id") {
            // v: its anonymous volumes too.
            self.remove(&format!("/containers/{id}"), &[("force", "1"), ("v", "1")]).await?;
            swept.containers += 1;
        }
        for id in texts(&self.list("/networks", &[("filters", &labelled)]).await?, "Id") {
            self.remove(&format!("/networks/{id}"), &[]).await?;
            swept.networks += 1;
        }
        // Agents build container actions into images whose name is the label.
        let named = serde_json::json!({"reference": [format!("{label}:*")]}).to_string();
        let images = self.list("/images/json", &[("filters", &named)]).await?;
        let names = images.iter().filter_map(|image| image["RepoTags"].as_array()).flatten().filter_map(Value::as_str);
        for name in names.filter(|name| name.split_once(':').is_some_and(|(repository, _)| repository == label.0)) {
            self.remove(&format!("/images/{name}"), &[("force", "1")]).await?;
            swept.images += 1;
        }
        Ok(swept)
    }

    async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, DockerError> {
        let body = self.ask(Method::GET, path, query).await?;
        serde_json::from_slice::<Option<Vec<Value>>>(&body)
            .map(Option::unwrap_or_default)
            .map_err(|error| silent(&self.endpoint, &error))
    }

    async fn remove(&self, path: &str, query: &[(&str, &str)]) -> Result<(), DockerError> {
        match self.ask(Method::DELETE, path, query).await {
            Err(DockerError::Refused { status: 404, .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn ask(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<Vec<u8>, DockerError> {
        let mut url = format!("{}{path}", self.base);
        for (at, (name, value)) in query.iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&encoded(value));
        }
        let failed = |error: reqwest::Error| silent(&self.endpoint, &error);
        let mut answer = self.client.request(method, &url).send().await.map_err(failed)?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(silent(&self.endpoint, &format_args!("more than {LARGEST} bytes")));
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        let message =
            serde_json::from_slice::<Value>(&body).ok().and_then(|body| Some(body["message"].as_str()?.to_owned()));
        Err(DockerError::Refused {
            endpoint: self.endpoint.clone(),
            status: status.as_u16(),
            what: message.unwrap_or_default(),
        })
    }
}

fn silent(endpoint: &Endpoint, error: &dyn fmt::Display) -> DockerError {
    DockerError::Silent { endpoint: endpoint.clone(), why: error.to_string() }
}

/// A value in a query: all but the safest characters as `%XX`.
fn encoded(value: &str) -> String {
    use fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

fn texts<'a>(list: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a str> {
    list.iter().filter_map(move |item| item[name].as_str())
}

/// Makes the daemon's socket found where tools look for it, by a link in `usual`. `false` when something is there already.
///
/// # Errors
/// When the link cannot be made.
pub fn link(usual: &Path, socket: &Path) -> std::io::Result<bool> {
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
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    fn a_label_is_what_the_agents_make_of_it() {
        // printf %s /runner/oscr-a-1 | sha256sum
        assert_eq!(Label::of("/Runner/OSCR-a-1"), Label::of("/runner/oscr-a-1"));
        assert_eq!(Label::of("\u{feff}{}").to_string(), "44136f");
        assert_eq!(Label::of("").to_string(), "e3b0c4");
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

    /// A daemon that gives these answers in turn, and what it was asked.
    async fn daemon(socket: &Path, answers: &[(u16, &str)]) -> Arc<Mutex<Vec<String>>> {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let mut answers: VecDeque<(u16, String)> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Some((status, body)) = answers.pop_front() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
                seen.lock().unwrap().push(line.trim_end_matches(" HTTP/1.1").to_owned());
                let head =
                    format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        asked
    }

    #[tokio::test]
    async fn a_sweep_removes_what_has_the_label_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let label = Label::of("");
        let images = r#"[{"RepoTags":["e3b0c4:one","keep/e3b0c4:two","node:20"]},{"RepoTags":null}]"#;
        let answers = [
            (200, r#"[{"Id":"c1"},{"Id":"c2"}]"#),
            (204, ""),
            (404, r#"{"message":"No such container"}"#),
            (200, r#"[{"Id":"n1"}]"#),
            (204, ""),
            (200, images),
            (200, "[]"),
        ];
        let asked = daemon(&socket, &answers).await;
        let docker = Docker::at(&Endpoint::Socket(socket)).unwrap().unwrap();
        let swept = docker.sweep(&label).await.unwrap();
        assert_eq!(swept, Swept { containers: 2, networks: 1, images: 1 });
        let asked = asked.lock().unwrap().clone();
        let filter = "filters=%7B%22label%22%3A%5B%22e3b0c4%22%5D%7D";
        assert_eq!(asked[0], format!("GET /containers/json?all=1&{filter}"));
        assert_eq!(asked[1..3], ["DELETE /containers/c1?force=1&v=1", "DELETE /containers/c2?force=1&v=1"]);
        assert_eq!(asked[3..5], [format!("GET /networks?{filter}"), "DELETE /networks/n1".to_owned()]);
        assert_eq!(asked[6..], ["DELETE /images/e3b0c4:one?force=1"]);
    }

    #[tokio::test]
    async fn a_refusal_and_a_silence_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let docker = Docker::at(&Endpoint::Socket(socket.clone())).unwrap().unwrap();
        assert!(matches!(docker.ping().await, Err(DockerError::Silent { .. })));
        daemon(&socket, &[(200, "OK"), (200, r#"[{"Id":"c1"}]"#), (409, r#"{"message":"in progress"}"#)]).await;
        docker.ping().await.unwrap();
        let refused = docker.sweep(&Label::of("")).await.unwrap_err();
        assert!(refused.to_string().contains("409: in progress"), "{refused}");
        assert!(Docker::at(&Endpoint::Tls("docker:2376".to_owned())).unwrap().is_none());
    }
}
