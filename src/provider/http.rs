//! The one HTTP client: proxies, trust, limits, and what the answers of any forge have in common.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::fs;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, NoProxy, Proxy};
use serde::de::DeserializeOwned;

use super::Fault;
use crate::config::{Network, Secret};

/// The largest answer that is read, in bytes. A page of a hundred runners is some 100 KB.
const LARGEST: usize = 8 * 1024 * 1024;
/// How long a connection, and a whole request, may take.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);
/// What a forge that limits us without saying for how long is given.
const UNTOLD_LIMIT: Duration = Duration::from_secs(60);
/// A clock that differs by more than this makes tokens fail in ways that nobody understands.
const TOLERATED_SKEW: Duration = Duration::from_secs(120);

/// A client that is made when first needed and can be let go while nothing is asked for hours.
#[derive(Debug)]
pub struct Http {
    network: Network,
    encrypted: bool,
    headers: HeaderMap,
    client: RefCell<Option<Client>>,
    skew_reported: Cell<bool>,
}

/// An answer that is neither a transport fault, nor a rate limit, nor a fault of the server.
#[derive(Debug)]
pub struct Reply {
    /// The status code: below 500 and not 429.
    pub status: u16,
    body: Vec<u8>,
}

impl Http {
    /// A client for a forge that is reached by `base`, sending `headers` with each request.
    #[must_use]
    pub fn new(network: Network, base: &str, headers: HeaderMap) -> Self {
        let encrypted = base.starts_with("https://");
        Self { network, encrypted, headers, client: RefCell::default(), skew_reported: Cell::new(false) }
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// [`Fault::Unreachable`] for anything between us and a sensible answer, [`Fault::Limited`] when told to slow down.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        bearer: &Secret,
        body: Option<&serde_json::Value>,
    ) -> Result<Reply, Fault> {
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", bearer.expose())).map_err(|_| Fault::Denied {
                what: "the credential holds characters that no HTTP header can carry".to_owned(),
                cure: "check that the secret is the token alone, on one line".to_owned(),
            })?;
        authorization.set_sensitive(true);
        let mut request = self.client()?.request(method.clone(), url).header(AUTHORIZATION, authorization);
        if let Some(body) = body {
            request = request.json(body);
        }
        tracing::debug!(method = %method, url, "asking the forge");
        let mut response = request.send().await.map_err(|error| unreachable(url, &error))?;
        let status = response.status().as_u16();
        self.compare_clocks(response.headers());
        let limit = rate_limit(status, response.headers());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(Fault::Unreachable(format!("{url} answered with more than {LARGEST} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        tracing::debug!(method = %method, url, status, "the forge answered");
        let reply = Reply { status, body: bytes };
        if let Some(wait) = limit {
            return Err(Fault::Limited { wait, what: format!("{status} {}", reply.message()) });
        }
        if status >= 500 {
            return Err(Fault::Unreachable(format!("{url} answered {status} {}", reply.message())));
        }
        Ok(reply)
    }

    /// Lets connections, certificates and buffers go until the next request.
    pub fn rest(&self) {
        self.client.take();
    }

    fn client(&self) -> Result<Client, Fault> {
        if let Some(client) = self.client.borrow().as_ref() {
            return Ok(client.clone());
        }
        let client = self.build()?;
        self.client.replace(Some(client.clone()));
        Ok(client)
    }

    fn build(&self) -> Result<Client, Fault> {
        // Fails only when a provider is installed already, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("oscr-entry/", env!("CARGO_PKG_VERSION")))
            .default_headers(self.headers.clone())
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        let exceptions = self.network.no_proxy.as_deref().and_then(NoProxy::from_string);
        if let Some(url) = &self.network.http_proxy {
            builder = builder.proxy(Proxy::http(url).map_err(|error| no_client(&error))?.no_proxy(exceptions.clone()));
        }
        if let Some(url) = &self.network.https_proxy {
            builder = builder.proxy(Proxy::https(url).map_err(|error| no_client(&error))?.no_proxy(exceptions));
        }
        if !self.encrypted {
            // Certificates are read when the client is made, and an image for a forge without TLS may have none.
            builder = builder.tls_certs_only([]);
        } else if let Some(file) = &self.network.ca_file {
            let pem = fs::read(file).map_err(|error| Fault::Unreachable(format!("OSCR_CA_FILE: {error}")))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| no_client(&error))?;
            builder = builder.tls_certs_merge(certificates);
        }
        builder.build().map_err(|error| no_client(&error))
    }

    fn compare_clocks(&self, headers: &HeaderMap) {
        let Some(date) = headers.get(DATE).and_then(|date| date.to_str().ok()) else {
            return;
        };
        let Ok(theirs) = httpdate::parse_http_date(date) else {
            return;
        };
        let ours = SystemTime::now();
        let (skew, direction) = match ours.duration_since(theirs) {
            Ok(ahead) => (ahead, "ahead of"),
            Err(behind) => (behind.duration(), "behind"),
        };
        if skew > TOLERATED_SKEW && !self.skew_reported.replace(true) {
            let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
            tracing::warn!(
                "this machine's clock is {skew} {direction} the forge's: tokens fail with misleading errors until it is set right"
            );
        }
    }
}

impl Reply {
    /// The answer as JSON.
    ///
    /// # Errors
    /// [`Fault::Unreachable`]: what answered is most likely not the forge.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Fault::Unreachable(format!("the answer ({} bytes) is not the expected JSON: {error}", self.body.len()))
        })
    }

    /// The forge's own words about an error, on one line and not too many.
    #[must_use]
    pub fn message(&self) -> String {
        let value: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let text = match value.as_ref().and_then(|value| value["message"].as_str()) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned(),
        };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
    }
}

/// How long to wait, if the answer says that we ask too often: 429, or 403 with the headers of a limit.
fn rate_limit(status: u16, headers: &HeaderMap) -> Option<Duration> {
    if status != 429 && status != 403 {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(after) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()) {
        if let Ok(seconds) = after.trim().parse() {
            return Some(Duration::from_secs(seconds));
        }
        if let Ok(date) = httpdate::parse_http_date(after) {
            return Some(date.duration_since(SystemTime::now()).unwrap_or_default());
        }
    }
    if text("x-ratelimit-remaining") == Some("0") {
        let reset = text("x-ratelimit-reset").and_then(|reset| reset.parse().ok()).map(Duration::from_secs);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        return Some(reset.map_or(UNTOLD_LIMIT, |reset| reset.saturating_sub(now)));
    }
    (status == 429).then_some(UNTOLD_LIMIT)
}

fn unreachable(url: &str, error: &reqwest::Error) -> Fault {
    Fault::Unreachable(format!("{url}: {}", chain(error)))
}

fn no_client(error: &reqwest::Error) -> Fault {
    let text = chain(error);
    if text.contains("No CA certificates") {
        return Fault::Denied {
            what: "this image has no CA certificates, so no forge can be trusted".to_owned(),
            cure: "install the package ca-certificates in the image, or set OSCR_CA_FILE".to_owned(),
        };
    }
    Fault::Denied { what: text, cure: "check OSCR_CA_FILE and the proxy settings".to_owned() }
}

/// The reasons behind an error, outermost first, without its URL (which our own text names) and without repetitions.
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut source = error.source();
    if error.is_timeout() {
        parts.push("timed out".to_owned());
    }
    while let Some(cause) = source {
        let text = cause.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    if parts.is_empty() {
        parts.push("the request could not be sent".to_owned());
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_limit_is_told_from_a_denial() {
        assert_eq!(rate_limit(403, &headers(&[])), None);
        assert_eq!(rate_limit(401, &headers(&[("retry-after", "5")])), None);
        assert_eq!(rate_limit(403, &headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        assert_eq!(rate_limit(429, &headers(&[])), Some(UNTOLD_LIMIT));
        assert_eq!(rate_limit(403, &headers(&[("x-ratelimit-remaining", "3")])), None);
        let reset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 100;
        let limited = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset.to_string())]);
        let wait = rate_limit(403, &limited).unwrap().as_secs();
        assert!((98..=100).contains(&wait), "{wait}");
    }

    #[test]
    fn a_message_is_one_short_line() {
        let reply = Reply { status: 404, body: br#"{"message":"Not\nFound"}"#.to_vec() };
        assert_eq!(reply.message(), "Not Found");
        let reply = Reply { status: 404, body: vec![b'x'; 10_000] };
        assert!(reply.message().len() <= 300);
    }
}
