//! The client: one request at a time, and what it has learnt of the forge that it asks.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::SystemTime;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, DATE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
};
use reqwest::{Client, Method, Response};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::clock::Clock;
use super::connect;
use super::kept::Answers;
use super::limits::{Allowance, Limits, Silence, Told};
use super::origin::{Signature, stranger};
use super::packed::unpacked;
use super::proxy::{no_tunnel, unknown_to_it};
use super::reply::Reply;
use super::request::{Authorization, Body};
use super::trouble::{Obstacle, chain, not_the_forge, unreachable};
use crate::config::Network;
use crate::os::memory;
use crate::provider::fault::Fault;
use crate::provider::pace::Pace;

/// The largest answer that is read, in bytes. A page of a hundred runners is some 100 KB.
const LARGEST: usize = 8 * 1024 * 1024;

/// Hears of a request: its answer's status code, if there was one, and how much the forge may still be asked, if it says so.
pub type Observer = fn(Option<u16>, Option<Allowance>);

/// A client that is made when first needed and can be let go while nothing is asked for hours.
#[derive(Debug)]
pub struct Http {
    pub(super) network: Network,
    pub(super) encrypted: bool,
    headers: HeaderMap,
    marks: Signature,
    client: RefCell<Option<Client>>,
    clock: Clock,
    /// The last answers that can be asked for again by their tag.
    kept: Answers,
    limits: RefCell<Limits>,
    /// Since when everything was asked in vain.
    silent_since: Cell<Option<Instant>>,
    /// Whether the last request may have got to somebody.
    sent: Cell<bool>,
    /// The fingerprint of the credential that asks.
    asker: RefCell<Option<String>>,
    /// Does nothing until somebody wants to hear.
    observer: Cell<Observer>,
}

/// Somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// At this address.
    pub peer: Option<SocketAddr>,
    /// By how many seconds their clock is ahead of ours, if they say so.
    pub clock_offset: Option<i64>,
}

impl Http {
    /// A client for a forge that is reached by `base`, sending `headers` with each request.
    #[must_use]
    pub fn new(network: Network, base: &str, mut headers: HeaderMap) -> Self {
        let encrypted = base.starts_with("https://");
        // Left to choose, something on the way may pack what the forge says.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Self {
            network,
            encrypted,
            headers,
            marks: &[],
            client: RefCell::default(),
            clock: Clock::default(),
            kept: Answers::default(),
            limits: RefCell::default(),
            silent_since: Cell::default(),
            sent: Cell::default(),
            asker: RefCell::default(),
            observer: Cell::new(|_, _| {}),
        }
    }

    /// Tells the forge's answers from others' by these.
    #[must_use]
    pub fn marked(self, marks: Signature) -> Self {
        Self { marks, ..self }
    }

    /// Has somebody hear of each request from now on.
    pub fn observe(&self, observer: Observer) {
        self.observer.set(observer);
    }

    /// From now on this credential asks, by its fingerprint. What the forge said of another's limits does not hold for it.
    pub fn ask_as(&self, credential: Option<String>) {
        // One that cannot be read now is no other one.
        if credential.is_some() && *self.asker.borrow() != credential {
            self.limits.take();
            self.asker.replace(credential);
        }
    }

    /// The forge limits us, and said `what` to somebody else who asked for us. For how long it is left alone.
    pub fn limited(&self, what: String) -> Fault {
        let wait = self.limits.borrow_mut().refused(Silence::Untold, what.clone());
        Fault::Limited { wait, what }
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
        self.sent.set(false);
        if let Some((wait, what)) = self.limits.borrow().silence() {
            return Err(Fault::Limited { wait, what });
        }
        let mut request = self.client()?.request(method.clone(), url);
        if let Some(authorization) = who.header()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        // A forge that has nothing new to say does not count the request.
        let known = (method == Method::GET).then(|| self.kept.find(url)).flatten();
        if let Some((tag, _)) = &known {
            request = request.header(IF_NONE_MATCH, tag);
        }
        request = match body {
            // Without a word about it, some proxies take what follows for its length, or want to know it (411).
            Body::Empty if method != Method::GET && method != Method::DELETE => request.header(CONTENT_LENGTH, 0),
            Body::Empty => request,
            Body::Json(value) => request.json(value),
            Body::Form(fields) => request.form(fields),
        };
        tracing::debug!(method = %method, url, "asking the forge");
        // From now on nobody knows, should we be told to ask no more.
        self.sent.set(true);
        self.silent_since.set(self.silent_since.get().or_else(|| Some(Instant::now())));
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                self.sent.set(!error.is_connect());
                self.observer.get()(None, None);
                return Err(self.no_way(url, &error).await);
            }
        };
        self.silent_since.set(None);
        let mut status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = self.whole(url, &headers, response).await;
        let body = body.inspect_err(|_| self.observer.get()(Some(status), None))?;
        let mut reply = Reply { status, headers, left: None, body };
        tracing::debug!(method = %method, url, status, "the answer is there");
        if let Some(fault) = self.said_between(url, &reply) {
            self.observer.get()(Some(status), None);
            return Err(fault);
        }
        // Another's clock and limits would not be the forge's.
        self.clock.compare(&reply.headers);
        let told = Told::read(&reply.headers, self.now());
        self.observer.get()(Some(status), told.allowance());
        self.limits.borrow_mut().note(status, &told, self.now());
        reply.left = told.allowance().map(|allowance| allowance.remaining);
        match (known, reply.headers.get(ETAG).cloned()) {
            (Some((_, body)), _) if status == 304 => {
                status = 200;
                (reply.status, reply.body) = (status, Zeroizing::new(body));
            }
            (_, Some(tag)) if status == 200 && method == Method::GET => self.kept.keep(url, tag, &reply.body),
            _ => {}
        }
        if let Some(wanted) = told.refusal(status, &reply.message(), self.now()) {
            let what = format!("{status} {}", reply.message()).trim().to_owned();
            let wait = self.limits.borrow_mut().refused(wanted, what.clone());
            // A server that is not well may have begun; one that is only asked too often has not.
            self.sent.set(status >= 500);
            return Err(Fault::Limited { wait, what });
        }
        if status < 500 {
            self.limits.borrow_mut().answered();
        }
        if status >= 500 {
            return Err(Fault::Unreachable(format!("{url} answered {status} {}", reply.message())));
        }
        Ok(reply)
    }

    /// What an answer means that the forge did not give.
    fn said_between(&self, url: &str, reply: &Reply) -> Option<Fault> {
        if reply.status == 407 {
            return Some(unknown_to_it(&self.network, url));
        }
        stranger(reply, self.marks, url).map(|what| not_the_forge(url, reply.status, &what))
    }

    /// Why nobody answered.
    pub(super) async fn no_way(&self, url: &str, error: &reqwest::Error) -> Fault {
        match no_tunnel(&self.network, url, &chain(error)).await {
            Some(fault) => fault,
            None => unreachable(&self.network, url, error),
        }
    }

    /// The body of an answer.
    async fn whole(&self, url: &str, headers: &HeaderMap, mut response: Response) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&self.network, url, &error))? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(Fault::Unreachable(format!("{url} answered with more than {LARGEST} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        unpacked(headers, bytes, LARGEST).map_err(|why| Fault::Unreachable(format!("the answer of {url} {why}")))
    }

    /// Sees whether anything answers at `url`, without saying who asks, and what stands in the way.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn reach(&self, url: &str) -> Result<Reached, Obstacle> {
        let client = self.client().map_err(Obstacle::Client)?;
        let mut response = match client.get(url).send().await {
            Ok(response) => response,
            Err(error) => {
                let tunnel = no_tunnel(&self.network, url, &chain(&error)).await;
                return Err(tunnel.map_or_else(|| Obstacle::of(&error), Obstacle::Proxy));
            }
        };
        let (status, peer) = (response.status().as_u16(), response.remote_addr());
        if status == 407 {
            return Err(Obstacle::Proxy(unknown_to_it(&self.network, url)));
        }
        let headers = std::mem::take(response.headers_mut());
        let body =
            self.whole(url, &headers, response).await.map_err(|fault| Obstacle::Connection(fault.to_string()))?;
        let reply = Reply { status, headers, left: None, body };
        if let Some(what) = stranger(&reply, self.marks, url) {
            return Err(Obstacle::Stranger(status, what));
        }
        self.clock.forget();
        let told = reply.headers.contains_key(DATE);
        self.clock.compare(&reply.headers);
        Ok(Reached { peer, clock_offset: told.then(|| self.clock_offset()) })
    }

    /// By how many seconds the forge's clock is ahead of ours, by its last answer; 0 before the first.
    #[must_use]
    pub fn clock_offset(&self) -> i64 {
        self.clock.offset()
    }

    /// The time at the forge, as far as known.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// What to wait for before anything new is begun, so that the forge need not refuse us.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let pace = self.limits.borrow().pace(self.now())?;
        Some(Pace { credential: self.asker.borrow().clone(), ..pace })
    }

    /// Since when everything was asked in vain, if the last request was: nobody has answered anything.
    #[must_use]
    pub fn silent_since(&self) -> Option<Instant> {
        self.silent_since.get()
    }

    /// Whether the last request may have got to somebody, answered or not. One that never had a connection has not.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.sent.get()
    }

    /// Lets connections, certificates, buffers and the stack that they needed go until the next request.
    pub fn rest(&self) {
        self.client.take();
        memory::give_back();
    }

    pub(super) fn client(&self) -> Result<Client, Fault> {
        if let Some(client) = self.client.borrow().as_ref() {
            return Ok(client.clone());
        }
        let client = connect::client(&self.network, self.encrypted, &self.headers)?;
        self.client.replace(Some(client.clone()));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    thread_local! {
        static HEARD: RefCell<Vec<(Option<u16>, Option<Allowance>)>> = const { RefCell::new(Vec::new()) };
    }

    /// The address of somebody who answers one request.
    fn forge(answer: &'static str) -> String {
        asked(answer.as_bytes().to_vec()).0
    }

    /// The same, and the lines that he was asked with.
    fn asked(answer: Vec<u8>) -> (String, mpsc::Receiver<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut lines = vec![String::new()];
            while reader.read_line(lines.last_mut().unwrap()).unwrap() > 2 {
                lines.push(String::new());
            }
            let _ = tell.send(lines.iter().map(|line| line.trim_end().to_ascii_lowercase()).collect());
            reader.get_mut().write_all(&answer).unwrap();
        });
        (address, told)
    }

    #[tokio::test]
    async fn a_request_says_how_long_it_is_and_that_nothing_is_to_be_packed() {
        let http = Http::new(Network::default(), "http://forge", HeaderMap::new());
        for (method, length) in [(Method::POST, true), (Method::GET, false), (Method::DELETE, false)] {
            let (address, told) = asked(b"HTTP/1.1 204 No\r\n\r\n".to_vec());
            assert!(http.send(method.clone(), &address, Authorization::Nobody, Body::Empty).await.is_ok());
            let lines = told.recv().unwrap();
            let has = |line: &str| lines.iter().any(|said| said == line);
            assert!(has("accept-encoding: identity"), "{lines:?}");
            assert_eq!(has("content-length: 0"), length, "{method}: {lines:?}");
        }
    }

    #[tokio::test]
    async fn a_packed_answer_is_understood() {
        let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        body.write_all(br#"{"token":"x"}"#).unwrap();
        let body = body.finish().unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
        let (address, _told) = asked([head.as_bytes(), &body].concat());
        let http = Http::new(Network::default(), "http://forge", HeaderMap::new()).marked(&["x-mark"]);
        let reply = http.send(Method::GET, &address, Authorization::Nobody, Body::Empty).await.unwrap();
        assert_eq!(reply.json::<serde_json::Value>().unwrap()["token"], "x");
    }

    #[tokio::test]
    async fn what_something_between_says_is_no_word_of_the_forge() {
        let http = Http::new(Network::default(), "http://forge", HeaderMap::new()).marked(&["x-mark"]);
        for status in ["200 OK", "401 No", "403 No", "404 No", "409 No", "422 No", "429 No", "503 No"] {
            let answer = format!(
                "HTTP/1.1 {status}\r\ndate: Thu, 01 Jan 2015 00:00:00 GMT\r\nretry-after: 60\r\ncontent-length: 32\r\n\r\n\
                 <html><title>Blocked</title>....."
            );
            let (address, _told) = asked(answer.into_bytes());
            let fault = http.send(Method::DELETE, &address, Authorization::Nobody, Body::Empty).await.unwrap_err();
            let Fault::Unreachable(said) = &fault else { panic!("{status}: {fault:?}") };
            assert!(said.contains(&status[..3]) && said.contains("\"Blocked\""), "{said}");
        }
        assert_eq!((http.clock_offset(), http.pace()), (0, None), "its clock and its limits are not the forge's");
    }

    #[tokio::test]
    async fn each_request_is_heard_of_by_whoever_wants_to() {
        let ask = async |http: &Http, url: &str| {
            http.send(Method::GET, url, Authorization::Nobody, Body::Empty).await.map(|reply| reply.status)
        };
        let http = Http::new(Network::default(), "http://forge", HeaderMap::new());
        assert_eq!(ask(&http, &forge("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await, Ok(200));
        assert!(HEARD.take().is_empty(), "nobody wanted to hear");
        http.observe(|code, left| HEARD.with_borrow_mut(|heard| heard.push((code, left))));
        let counted =
            "HTTP/1.1 404 No\r\nx-ratelimit-remaining: 7\r\nx-ratelimit-limit: 60\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(ask(&http, &forge(counted)).await, Ok(404));
        assert!(http.was_sent() && http.silent_since().is_none());
        assert!(ask(&http, "http://127.0.0.1:1").await.is_err());
        assert!(!http.was_sent() && http.silent_since().is_some(), "there was no connection");
        let left = Allowance { remaining: 7, limit: Some(60), reset: None };
        assert_eq!(HEARD.take(), [(Some(404), Some(left)), (None, None)]);
    }
}
