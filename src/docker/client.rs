//! Asking a daemon.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use crate::resolver::Resolver;

/// How long one request may take. Removing a container kills and unmounts it.
const REQUEST: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes: a list of what an agent of ours left.
pub(super) const LARGEST: usize = 8 * 1024 * 1024;

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
#[derive(Debug, Clone)]
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
        let mut builder = Client::builder().dns_resolver(Arc::new(Resolver)).no_proxy().tls_certs_only([]);
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

    /// Where it is.
    #[must_use]
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) async fn ping(&self) -> Result<(), DockerError> {
        self.ask(Method::GET, "/_ping", &[]).await.map(drop)
    }

    pub(super) async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, DockerError> {
        let body = self.ask(Method::GET, path, query).await?;
        serde_json::from_slice::<Option<Vec<Value>>>(&body)
            .map(Option::unwrap_or_default)
            .map_err(|error| silent(&self.endpoint, &error))
    }

    /// What the answer to a question says.
    pub(super) async fn ask(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<Vec<u8>, DockerError> {
        self.read(self.send(method, path, query, None, REQUEST).await?).await
    }

    /// What the answer to a wish says.
    pub(super) async fn post(&self, path: &str, wish: &Value) -> Result<Vec<u8>, DockerError> {
        self.read(self.send(Method::POST, path, &[], Some(wish), REQUEST).await?).await
    }

    /// An answer that need not end within this time.
    pub(super) async fn open(
        &self,
        path: &str,
        query: &[(&str, &str)],
        lasts: Duration,
    ) -> Result<Response, DockerError> {
        let answer = timeout(REQUEST, self.send(Method::GET, path, query, None, lasts)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.silent(&"it takes too long")))?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(self.read(answer).await.err().unwrap_or_else(|| self.silent(&"it says nothing"))),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        wish: Option<&Value>,
        lasts: Duration,
    ) -> Result<Response, DockerError> {
        let mut url = format!("{}{path}", self.base);
        for (at, (name, value)) in query.iter().enumerate() {
            url.push(if at == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&encoded(value));
        }
        let mut request = self.client.request(method, &url).timeout(lasts);
        if let Some(wish) = wish {
            request = request.json(wish);
        }
        request.send().await.map_err(|error| self.silent(&error))
    }

    async fn read(&self, mut answer: Response) -> Result<Vec<u8>, DockerError> {
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.silent(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err(self.silent(&format_args!("more than {LARGEST} bytes")));
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        let message =
            serde_json::from_slice::<Value>(&body).ok().and_then(|body| Some(body["message"].as_str()?.to_owned()));
        Err(self.refused(status.as_u16(), message.unwrap_or_default()))
    }

    pub(super) fn refused(&self, status: u16, what: String) -> DockerError {
        DockerError::Refused { endpoint: self.endpoint.clone(), status, what }
    }

    pub(super) fn silent(&self, error: &dyn fmt::Display) -> DockerError {
        silent(&self.endpoint, error)
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

/// These texts of a list's things.
pub(super) fn texts<'a>(list: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a str> {
    list.iter().filter_map(move |item| item[name].as_str())
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    #[tokio::test]
    async fn a_refusal_and_a_silence_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let docker = Docker::at(&Endpoint::Socket(socket.clone())).unwrap().unwrap();
        assert!(matches!(docker.ping().await, Err(DockerError::Silent { .. })));
        let _fake = Fake::at(&socket, |asked| match asked {
            "GET /_ping" => (200, "OK"),
            _ => (409, r#"{"message":"in progress"}"#),
        });
        docker.ping().await.unwrap();
        let refused = docker.list("/networks", &[]).await.unwrap_err();
        assert!(refused.to_string().contains("409: in progress"), "{refused}");
        assert!(matches!(docker.open("/events", &[], REQUEST).await, Err(DockerError::Refused { status: 409, .. })));
        assert!(Docker::at(&Endpoint::Tls("docker:2376".to_owned())).unwrap().is_none());
    }
}
