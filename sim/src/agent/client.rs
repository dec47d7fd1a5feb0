//! Requests to the forge.

use std::fmt;
use std::io::Read as _;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Proxy;

use super::kind::Kind;
use super::proxy;

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The forge answered otherwise than wanted.
    Status {
        /// The status.
        status: u16,
        /// The answer's `message`, or its text.
        message: String,
        /// The answer's text.
        body: String,
    },
    /// No answer at all, or not one to be read.
    Broken(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, message, .. } => write!(f, "Response status code {status}: {message}"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl Refusal {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Broken(_) => None,
        }
    }
}

/// A client for one forge with one credential.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: ureq::Agent,
    proxy: Option<Proxy>,
    base: String,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    /// `headers` go with each request, by the proxy that an agent of this kind takes.
    pub(super) fn new(kind: Kind, base: &str, headers: Vec<(&'static str, String)>) -> Self {
        let proxy = proxy::to(kind, base);
        let agent = agent(Duration::from_secs(100), proxy.clone());
        Self { agent, proxy, base: base.trim_end_matches('/').into(), headers }
    }

    /// The same, with another patience.
    pub(super) fn patient(&self, timeout: Duration) -> Self {
        Self { agent: agent(timeout, self.proxy.clone()), ..self.clone() }
    }

    /// Sends a request; `body` is a text, or nothing.
    fn send(&self, method: &str, path: &str, body: Option<(&str, String)>) -> Result<(u16, String), Refusal> {
        let between = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let address = format!("{}{between}{path}", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(address);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let broken = |error: &dyn fmt::Display| Refusal::Broken(error.to_string());
        let answer = match body {
            Some((kind, text)) => {
                let request = request.header("content-type", kind).body(text).map_err(|e| broken(&e))?;
                self.agent.run(request)
            }
            None => self.agent.run(request.body(()).map_err(|e| broken(&e))?),
        };
        let mut answer = answer.map_err(|e| broken(&e))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().map_err(|e| broken(&e))?;
        // With 203 comes a page for people to sign in, never what was asked for.
        if (200..300).contains(&status) && status != 203 {
            return Ok((status, text));
        }
        let message = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|v| [&v["message"], &v["errorMessage"]].into_iter().find_map(|m| m.as_str().map(str::to_owned)))
            .unwrap_or_else(|| text.clone());
        Err(Refusal::Status { status, message, body: text })
    }

    /// An empty answer gives none.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Refusal> {
        let (_, text) = self.send("GET", path, None)?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).map_err(|e| Refusal::Broken(e.to_string()))
    }

    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: Option<&impl Serialize>) -> Result<T, Refusal> {
        let text = self.post_raw(path, body)?;
        serde_json::from_str(&text).map_err(|e| Refusal::Broken(e.to_string()))
    }

    /// Sends JSON by any method.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Refusal> {
        let text = serde_json::to_string(body).map_err(|e| Refusal::Broken(e.to_string()))?;
        let (_, text) = self.send(method, path, Some(("application/json", text)))?;
        serde_json::from_str(&text).map_err(|e| Refusal::Broken(e.to_string()))
    }

    pub(super) fn post_raw(&self, path: &str, body: Option<&impl Serialize>) -> Result<String, Refusal> {
        let text = match body {
            Some(body) => serde_json::to_string(body).map_err(|e| Refusal::Broken(e.to_string()))?,
            None => String::new(),
        };
        self.send("POST", path, Some(("application/json", text))).map(|(_, text)| text)
    }

    pub(super) fn post_text(&self, path: &str, text: String) -> Result<(), Refusal> {
        self.send("POST", path, Some(("text/plain", text))).map(|_| ())
    }

    pub(super) fn put_text(&self, path: &str, text: String) -> Result<(), Refusal> {
        self.send("PUT", path, Some(("text/plain", text))).map(|_| ())
    }

    /// Sends a form, for an answer in JSON.
    pub(super) fn post_form<T: DeserializeOwned>(&self, path: &str, form: String) -> Result<T, Refusal> {
        let (_, text) = self.send("POST", path, Some(("application/x-www-form-urlencoded", form)))?;
        serde_json::from_str(&text).map_err(|e| Refusal::Broken(e.to_string()))
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), Refusal> {
        self.send("DELETE", path, None).map(|_| ())
    }
}

fn agent(timeout: Duration, proxy: Option<Proxy>) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).proxy(proxy);
    config.max_redirects(0).max_redirects_will_error(false).build().new_agent()
}

/// What lies at an address.
pub(super) fn download(kind: Kind, url: &str) -> Result<Vec<u8>, String> {
    let read = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut answer = agent(Duration::from_secs(100), proxy::to(kind, url)).get(url).call()?;
        if !answer.status().is_success() {
            return Err(format!("Response status code does not indicate success: {}.", answer.status()).into());
        }
        let mut bytes = Vec::new();
        answer.body_mut().as_reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| error.to_string())
}
