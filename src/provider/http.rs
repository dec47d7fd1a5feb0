//! The one HTTP client: proxies, trust, limits, and what the answers of any forge have in common.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, DATE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Client, Method, NoProxy, Proxy};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::pace::{Allowances, LONGEST, Pace};
use crate::config::{Network, Secret};
use crate::encode::{hex, seconds};
use crate::metrics::{self, RateLimit};
use crate::names::Names;
use crate::os::priority;

/// The largest answer that is read, in bytes. A page of a hundred runners is some 100 KB.
const LARGEST: usize = 8 * 1024 * 1024;
/// How long a connection, and a whole request, may take.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);
/// A package of an agent: some 200 MB, from wherever the forge says.
const LARGEST_DOWNLOAD: usize = 1024 * 1024 * 1024;
const DOWNLOAD: Duration = Duration::from_secs(30 * 60);
const REDIRECTS: u32 = 5;
/// How many pieces of it, of some 16 kB, may wait to be written.
const CHUNKS_AHEAD: usize = 64;
/// How many answers are kept to ask whether they still hold, and the longest that is kept, in bytes.
const KEPT_ANSWERS: usize = 4;
const LONGEST_KEPT: usize = 16 * 1024;
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
    /// By how many seconds the forge's clock is ahead of ours, as far as known.
    clock_offset: Cell<i64>,
    /// The last answers that can be asked for again by their tag.
    kept: RefCell<VecDeque<Kept>>,
    allowances: RefCell<Allowances>,
    /// Until when the forge wants silence, and its words.
    silence: RefCell<Option<(Instant, String)>>,
}

/// An answer, and what its server calls this state of it.
#[derive(Debug)]
struct Kept {
    url: String,
    tag: HeaderValue,
    body: Vec<u8>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Authorization<'a> {
    /// A token.
    Bearer(&'a Secret),
    /// A password without a user's name.
    Password(&'a Secret),
    /// Nobody in particular.
    Nobody,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// JSON.
    Json(&'a serde_json::Value),
    /// Names and values, which may be secret.
    Form(&'a [(&'a str, &'a str)]),
}

/// Somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// At this address.
    pub peer: Option<SocketAddr>,
    /// By how many seconds their clock is ahead of ours, if they say so.
    pub clock_offset: Option<i64>,
}

/// What stands between us and an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The client cannot be made.
    Client(Fault),
    /// The name has no address.
    Name(String),
    /// No connection comes about.
    Connection(String),
    /// Whoever answers cannot be trusted, or speaks no TLS.
    Trust(String),
}

impl Obstacle {
    fn of(error: &reqwest::Error) -> Self {
        let why = chain(error);
        let lower = why.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        if says(&["dns error", "lookup", "no record found"]) {
            Self::Name(why)
        } else if says(&["certificate", "tls", "handshake", "corrupt message"]) {
            Self::Trust(why)
        } else {
            Self::Connection(why)
        }
    }
}

/// An answer that is neither a transport fault, nor a rate limit, nor a fault of the server.
#[derive(Debug)]
pub struct Reply {
    /// The status code: below 500 and not 429.
    pub status: u16,
    headers: HeaderMap,
    /// It may hold a token.
    body: Zeroizing<Vec<u8>>,
}

impl Http {
    /// A client for a forge that is reached by `base`, sending `headers` with each request.
    #[must_use]
    pub fn new(network: Network, base: &str, headers: HeaderMap) -> Self {
        let encrypted = base.starts_with("https://");
        Self {
            network,
            encrypted,
            headers,
            client: RefCell::default(),
            skew_reported: Cell::new(false),
            clock_offset: Cell::new(0),
            kept: RefCell::default(),
            allowances: RefCell::default(),
            silence: RefCell::default(),
        }
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// [`Fault::Unreachable`] for anything between us and a sensible answer, [`Fault::Limited`] when told to slow down.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        who: Authorization<'_>,
        body: Body<'_>,
    ) -> Result<Reply, Fault> {
        if let Some((wait, what)) = self.silence() {
            return Err(Fault::Limited { wait, what });
        }
        let mut request = self.client()?.request(method.clone(), url);
        if let Some(authorization) = who.header()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        // A forge that has nothing new to say does not count the request.
        let known = (method == Method::GET).then(|| self.kept(url)).flatten();
        if let Some((tag, _)) = &known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        request = match body {
            Body::Empty => request,
            Body::Json(value) => request.json(value),
            Body::Form(fields) => request.form(fields),
        };
        tracing::debug!(method = %method, url, "asking the forge");
        let mut response = request.send().await.map_err(|error| {
            metrics::api_request(None, None);
            unreachable(url, &error)
        })?;
        let mut status = response.status().as_u16();
        metrics::api_request(Some(status), allowance(response.headers()));
        self.compare_clocks(response.headers());
        self.allowances.borrow_mut().note(status, response.headers(), self.now());
        let limit = rate_limit(status, response.headers(), self.now());
        let tag = response.headers().get(ETAG).cloned();
        let headers = std::mem::take(response.headers_mut());
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(Fault::Unreachable(format!("{url} answered with more than {LARGEST} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        tracing::debug!(method = %method, url, status, "the forge answered");
        match (known, tag) {
            (Some((_, body)), _) if status == 304 => {
                status = 200;
                bytes = Zeroizing::new(body);
            }
            (_, Some(tag)) if status == 200 && method == Method::GET => self.keep(url, tag, &bytes),
            _ => {}
        }
        let reply = Reply { status, headers, body: bytes };
        if let Some(wait) = limit {
            let what = format!("{status} {}", reply.message());
            self.silence.replace(Some((Instant::now() + wait, what.clone())));
            return Err(Fault::Limited { wait, what });
        }
        if status == 407 {
            return Err(Fault::denied(
                format!("the proxy wants a password for {url} (407)"),
                "write user and password into HTTP_PROXY or HTTPS_PROXY: http://user:password@host:port",
            ));
        }
        if status >= 500 {
            return Err(Fault::Unreachable(format!("{url} answered {status} {}", reply.message())));
        }
        Ok(reply)
    }

    /// Sees whether anything answers at `url`, without saying who asks, and what stands in the way.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn reach(&self, url: &str) -> Result<Reached, Obstacle> {
        let client = self.client().map_err(Obstacle::Client)?;
        let response = client.get(url).send().await.map_err(|error| Obstacle::of(&error))?;
        self.clock_offset.set(0);
        let told = response.headers().contains_key(DATE);
        self.compare_clocks(response.headers());
        Ok(Reached { peer: response.remote_addr(), clock_offset: told.then(|| self.clock_offset()) })
    }

    /// Writes what is found at `url` to a file, and gives its SHA-256 in hexadecimal digits. Nothing is said about who asks: a
    /// forge's packages lie with others. Disk and digest are a thread's, the last to be given either, so that a slow disk keeps
    /// nobody waiting.
    ///
    /// # Errors
    /// [`Fault::Unreachable`] for everything that goes wrong, the file's disk included.
    pub async fn download(&self, url: &str, to: &mut File) -> Result<String, Fault> {
        let mut address = url.to_owned();
        for _ in 0..REDIRECTS {
            tracing::debug!(url = address, "fetching");
            let request = self.client()?.get(&address).timeout(DOWNLOAD);
            let mut response = request.send().await.map_err(|error| unreachable(&address, &error))?;
            let status = response.status();
            if status.is_redirection() {
                let next = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
                let next = next.and_then(|location| response.url().join(location).ok());
                let next = next.filter(|next| next.scheme() == "https" || !self.encrypted);
                address =
                    next.ok_or_else(|| Fault::Unreachable(format!("{address} leads nowhere ({status})")))?.to_string();
                continue;
            }
            if !status.is_success() {
                return Err(Fault::Unreachable(format!("{address} answered {}", status.as_u16())));
            }
            let on_disk = |error: io::Error| Fault::Unreachable(format!("it cannot be written: {error}"));
            let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
            let written = write_chunks(received, to.try_clone().map_err(on_disk)?);
            let mut length = 0;
            while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&address, &error))? {
                length += chunk.len();
                if length > LARGEST_DOWNLOAD {
                    return Err(Fault::Unreachable(format!("{address} has more than {LARGEST_DOWNLOAD} bytes")));
                }
                // Whoever writes has ended, and says why.
                if chunks.send(chunk.into()).await.is_err() {
                    break;
                }
            }
            drop(chunks);
            return match written.await {
                Ok(digest) => digest.map_err(on_disk),
                Err(_) => Err(Fault::Unreachable("whoever wrote it ended early".to_owned())),
            };
        }
        Err(Fault::Unreachable(format!("{url} leads on more than {REDIRECTS} times")))
    }

    /// By how many seconds the forge's clock is ahead of ours, by its last answer; 0 before the first.
    #[must_use]
    pub fn clock_offset(&self) -> i64 {
        self.clock_offset.get()
    }

    /// The time at the forge, as far as known.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        let offset = Duration::from_secs(self.clock_offset.get().unsigned_abs());
        let ours = SystemTime::now();
        if self.clock_offset.get() >= 0 { ours + offset } else { ours - offset }
    }

    /// What to wait for before anything new is begun, so that the forge need not refuse us.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        if let Some((wait, what)) = self.silence() {
            return Some(Pace::after(wait, format!("the forge has limited our requests ({what})")));
        }
        self.allowances.borrow().pace(self.now())
    }

    /// The silence that is still to be kept: whoever asks, no request is made.
    fn silence(&self) -> Option<(Duration, String)> {
        let silence = self.silence.borrow();
        let (until, what) = silence.as_ref()?;
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some((left, what.clone()))
    }

    /// The tag and the body of the last answer to this request.
    fn kept(&self, url: &str) -> Option<(HeaderValue, Vec<u8>)> {
        self.kept.borrow().iter().find(|kept| kept.url == url).map(|kept| (kept.tag.clone(), kept.body.clone()))
    }

    fn keep(&self, url: &str, tag: HeaderValue, body: &[u8]) {
        let mut all = self.kept.borrow_mut();
        all.retain(|kept| kept.url != url);
        // A damaged answer, once kept, would be the answer for as long as the forge has nothing new to say.
        let whole = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        if whole && body.len() <= LONGEST_KEPT {
            all.truncate(KEPT_ANSWERS - 1);
            all.push_front(Kept { url: url.to_owned(), tag, body: body.to_vec() });
        }
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
            .dns_resolver(Arc::new(Names::default()))
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
        let seconds = i64::try_from(skew.as_secs()).unwrap_or(i64::MAX);
        self.clock_offset.set(if direction == "behind" { seconds } else { -seconds });
        if skew > TOLERATED_SKEW && !self.skew_reported.replace(true) {
            let skew = humantime::format_duration(Duration::from_secs(skew.as_secs()));
            tracing::warn!(
                "this machine's clock is {skew} {direction} the forge's: tokens fail with misleading errors until it is set right"
            );
        }
    }
}

impl Authorization<'_> {
    fn header(self) -> Result<Option<HeaderValue>, Fault> {
        let text = match self {
            Self::Bearer(token) => Zeroizing::new(format!("Bearer {}", token.expose())),
            // Encoded it could be sent, and would be refused as if it were a wrong one.
            Self::Password(password) if password.expose().contains(char::is_control) => return Err(unsendable()),
            Self::Password(password) => {
                let pair = Zeroizing::new(format!(":{}", password.expose()));
                let encoded = Secret::new(STANDARD.encode(pair.as_bytes()));
                Zeroizing::new(format!("Basic {}", encoded.expose()))
            }
            Self::Nobody => return Ok(None),
        };
        let mut header = HeaderValue::try_from(text.as_str()).map_err(|_| unsendable())?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

#[cfg(test)]
impl Reply {
    /// An answer, for tests of what is made of it.
    pub fn of(status: u16, body: &[u8]) -> Self {
        Self { status, headers: HeaderMap::new(), body: Zeroizing::new(body.to_vec()) }
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

    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim)
    }

    /// Whether it is a page for people, as a proxy or a portal puts in the place of an answer.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    /// The forge's own words about an error, on one line and not too many.
    #[must_use]
    pub fn message(&self) -> String {
        let value: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let text =
            match value.as_ref().and_then(|value| value["message"].as_str().or(value["error_description"].as_str())) {
                Some(message) => message.to_owned(),
                None if self.is_page() => String::new(),
                None => String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned(),
            };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
    }
}

/// How much the forge may still be asked, if it says so.
fn allowance(headers: &HeaderMap) -> Option<RateLimit> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    let remaining = number("x-ratelimit-remaining")?;
    Some(RateLimit { remaining, limit: number("x-ratelimit-limit"), reset: number("x-ratelimit-reset") })
}

/// How long to wait, if the answer says that we ask too often: 429, or 403 with the headers of a limit. `now` is the forge's
/// time.
fn rate_limit(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if status != 429 && status != 403 {
        return None;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wait = || {
        if let Some(after) = text(RETRY_AFTER.as_str()) {
            if let Ok(seconds) = after.parse() {
                return Some(Duration::from_secs(seconds));
            }
            if let Ok(date) = httpdate::parse_http_date(after) {
                return Some(date.duration_since(now).unwrap_or_default());
            }
        }
        if text("x-ratelimit-remaining") == Some("0") {
            let reset = text("x-ratelimit-reset").and_then(|reset| reset.parse::<u64>().ok());
            return Some(reset.map_or(UNTOLD_LIMIT, |reset| Duration::from_secs(reset.saturating_sub(seconds(now)))));
        }
        (status == 429).then_some(UNTOLD_LIMIT)
    };
    wait().map(|wait| wait.min(LONGEST))
}

/// Writes pieces as they come, on a thread of its own, and gives the SHA-256 of them all. It ends with whoever sends them.
fn write_chunks(mut chunks: mpsc::Receiver<Vec<u8>>, mut file: File) -> oneshot::Receiver<io::Result<String>> {
    let (result, written) = oneshot::channel();
    thread::spawn(move || {
        priority::step_back();
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut write = || {
            while let Some(chunk) = chunks.blocking_recv() {
                digest.update(&chunk);
                file.write_all(&chunk)?;
            }
            Ok(())
        };
        let written = write().map(|()| hex(digest.finish().as_ref()));
        let _ = result.send(written);
    });
    written
}

fn unreachable(url: &str, error: &reqwest::Error) -> Fault {
    let text = chain(error);
    let cure = CURES.iter().find(|(words, _)| text.contains(words)).map_or("", |(_, cure)| cure);
    Fault::Unreachable(format!("{url}: {text}{cure}"))
}

/// What helps against some errors, by words in them.
const CURES: [(&str, &str); 3] = [
    (
        "UnknownIssuer",
        " (nobody whom this image trusts has signed its certificate: name the one who has in OSCR_CA_FILE)",
    ),
    ("certificate expired", " (check this machine's clock, and who it is that answers there)"),
    ("InvalidContentType", " (what answers there speaks no TLS)"),
];

fn unsendable() -> Fault {
    Fault::denied(
        "the credential holds characters that no HTTP header can carry",
        "check that the secret is the token alone, on one line",
    )
}

fn no_client(error: &reqwest::Error) -> Fault {
    let text = chain(error);
    if text.contains("No CA certificates") {
        return Fault::denied(
            "this image has no CA certificates, so no forge can be trusted",
            "install the package ca-certificates in the image, or set OSCR_CA_FILE",
        );
    }
    Fault::denied(text, "check OSCR_CA_FILE and the proxy settings")
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
        let now = SystemTime::now();
        let limit = |status, headers: &HeaderMap| rate_limit(status, headers, now);
        assert_eq!(limit(403, &headers(&[])), None);
        assert_eq!(limit(401, &headers(&[("retry-after", "5")])), None);
        assert_eq!(limit(403, &headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        assert_eq!(limit(429, &headers(&[])), Some(UNTOLD_LIMIT));
        assert_eq!(limit(429, &headers(&[("retry-after", "soon")])), Some(UNTOLD_LIMIT));
        assert_eq!(limit(403, &headers(&[("x-ratelimit-remaining", "3")])), None);
        let reset =
            |reset: u64| headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset.to_string().as_str())]);
        let wait = limit(403, &reset(seconds(now) + 100)).unwrap().as_secs();
        assert!((98..=100).contains(&wait), "{wait}");
        assert_eq!(limit(403, &reset(u64::MAX)), Some(LONGEST), "whatever a forge says");
        assert_eq!(limit(429, &headers(&[("retry-after", "18446744073709551615")])), Some(LONGEST));
    }

    #[test]
    fn few_and_short_answers_are_kept() {
        let http = Http::new(Network::default(), "http://forge", HeaderMap::new());
        let tag = || HeaderValue::from_static("\"1\"");
        for number in 0..20 {
            http.keep(&format!("http://forge/{number}"), tag(), b"{}");
        }
        http.keep("http://forge/19", tag(), b"{\"new\":1}");
        assert_eq!(http.kept.borrow().len(), KEPT_ANSWERS);
        assert_eq!(http.kept("http://forge/19").unwrap().1, b"{\"new\":1}");
        assert!(http.kept("http://forge/0").is_none());
        http.keep("http://forge/19", tag(), format!("{{{}}}", " ".repeat(LONGEST_KEPT)).as_bytes());
        assert!(http.kept("http://forge/19").is_none(), "an old answer must not stand for a new one");
        http.keep("http://forge/19", tag(), b"{\"new\":");
        assert!(http.kept("http://forge/19").is_none(), "half an answer must not stand for a whole one");
    }

    #[test]
    fn a_message_is_one_short_line() {
        let reply =
            Reply { status: 404, headers: HeaderMap::new(), body: br#"{"message":"Not\nFound"}"#.to_vec().into() };
        assert_eq!(reply.message(), "Not Found");
        let reply = Reply { status: 404, headers: HeaderMap::new(), body: vec![b'x'; 10_000].into() };
        assert!(reply.message().len() <= 300);
    }

    #[test]
    fn fuzz_headers() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        crate::fuzz::run("headers", |bytes| {
            let mut map = HeaderMap::new();
            for line in bytes.split(|byte| *byte == b'\n') {
                let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
                let name = reqwest::header::HeaderName::from_bytes(line[..at].trim_ascii());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[at + 1..].trim_ascii())) {
                    map.append(name, value);
                }
            }
            let waits = [200, 403, 429, 500].map(|status| rate_limit(status, &map, now));
            for wait in waits.into_iter().flatten() {
                assert!(wait <= LONGEST);
                // It can be waited for.
                assert!(tokio::time::Instant::now().checked_add(wait).is_some());
            }
            let mut allowances = Allowances::default();
            for status in [200, 403] {
                allowances.note(status, &map, now);
            }
            let pace = allowances.pace(now).map(|pace| {
                crate::fuzz::assert_plain(&pace.why);
                pace.left().is_some()
            });
            (waits.map(|wait| wait.is_some()), pace, allowance(&map).is_some())
        });
    }
}
