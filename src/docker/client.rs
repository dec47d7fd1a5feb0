//! Asking a daemon whether it is there, and having it remove what carries a label.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::Value;

use super::endpoint::Endpoint;
use super::label::Label;
use crate::resolver::Resolver;

/// How long one request may take. Removing a container kills and unmounts it.
const REQUEST: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes: a list of what an agent of ours left.
const LARGEST: usize = 8 * 1024 * 1024;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Containers, with their anonymous volumes.
    pub containers: usize,
    pub networks: usize,
    /// Resolver of images.
    pub images: usize,
}

impl Swept {
    /// Whether there was nothing.
    #[must_use]
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerError {
    /// It does not answer.
    #[error("Docker at {endpoint} does not answer: {why}")]
    Silent {
        /// Where.
        endpoint: Endpoint,
        why: String,
    },
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
pub(crate) struct Docker {
    endpoint: Endpoint,
    base: String,
    client: Client,
}

impl Docker {
    /// Prepares to ask. `None` for a daemon with TLS.
    ///
    /// # Errors
    /// [`DockerError::Silent`] when no client can be made.
    pub(crate) fn at(endpoint: &Endpoint) -> Result<Option<Self>, DockerError> {
        // Fails only when a provider is installed already, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder =
            Client::builder().dns_resolver(Arc::new(Resolver)).timeout(REQUEST).no_proxy().tls_certs_only([]);
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
    pub(crate) async fn ping(&self) -> Result<(), DockerError> {
        self.ask(Method::GET, "/_ping", &[]).await.map(drop)
    }

    /// Removes everything with this label, and nothing else. What is gone already is as good as removed.
    ///
    /// # Errors
    /// At the first thing that cannot be removed.
    pub(crate) async fn sweep(&self, label: &Label) -> Result<Swept, DockerError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
