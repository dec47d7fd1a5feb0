//! The client: one request at a time, and what it has learnt of the forge that it asks.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::SystemTime;

use reqwest::header::{AUTHORIZATION, DATE, ETAG, HeaderMap, IF_NONE_MATCH};
use reqwest::{Client, Method, Response};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::clock::Clock;
use super::connect;
use super::kept::Answers;
use super::limits::{Allowance, Limits, Told};
use super::origin::{Marks, stranger};
use super::reply::Reply;
use super::request::{Authorization, Body};
use super::trouble::{Obstacle, not_the_forge, unreachable};
use crate::config::Network;
use crate::provider::fault::Fault;
use crate::provider::pace::Pace;

/// The largest answer that is read, in bytes. A page of a hundred runners is some 100 KB.
const LARGEST: usize = 8 * 1024 * 1024;

/// Hears of a request: its answer's status code, if there was one, and how much the forge may still be asked, if it says so.
pub type Observer = fn(Option<u16>, Option<Allowance>);

/// A client that is made when first needed and can be let go while nothing is asked for hours.
#[derive(Debug)]
pub struct Http {
    network: Network,
    pub(super) encrypted: bool,
    headers: HeaderMap,
    marks: Marks,
    client: RefCell<Option<Client>>,
    clock: Clock,
    /// The last answers that can be asked for again by their tag.
    kept: Answers,
    limits: RefCell<Limits>,
    /// Since when everything was asked in vain.
    silent_since: Cell<Option<Instant>>,
    /// Whether the last request may have got to somebody.
    sent: Cell<bool>,
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
    pub fn new(network: Network, base: &str, headers: HeaderMap) -> Self {
        let encrypted = base.starts_with("https://");
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
            observer: Cell::new(|_, _| {}),
        }
    }

    /// Tells the forge's answers from others' by these.
    #[must_use]
    pub fn marked(self, marks: Marks) -> Self {
        Self { marks, ..self }
    }

    /// Has somebody hear of each request from now on.
    pub fn observe(&self, observer: Observer) {
        self.observer.set(observer);
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
            Body::Empty => request,
            Body::Json(value) => request.json(value),
            Body::Form(fields) => request.form(fields),
        };
        tracing::debug!(method = %method, url, "asking the forge");
        // From now on nobody knows, should we be told to ask no more.
        self.sent.set(true);
        self.silent_since.set(self.silent_since.get().or_else(|| Some(Instant::now())));
        let mut response = request.send().await.map_err(|error| {
            self.sent.set(!error.is_connect());
            self.observer.get()(None, None);
            unreachable(url, &error)
        })?;
        self.silent_since.set(None);
        let mut status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = whole(url, response).await.inspect_err(|_| self.observer.get()(Some(status), None))?;
        let mut reply = Reply { status, headers, left: None, body };
        tracing::debug!(method = %method, url, status, "the answer is there");
        if status != 407
            && let Some(what) = stranger(&reply, self.marks, url)
        {
            self.observer.get()(Some(status), None);
            return Err(not_the_forge(url, status, &what));
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
        if let Some(wait) = told.refusal(status, self.now()) {
            let what = format!("{status} {}", reply.message());
            self.limits.borrow_mut().refused(wait, what.clone());
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
        self.clock.forget();
        let told = response.headers().contains_key(DATE);
        self.clock.compare(response.headers());
        Ok(Reached { peer: response.remote_addr(), clock_offset: told.then(|| self.clock_offset()) })
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
        self.limits.borrow().pace(self.now())
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

    /// Lets connections, certificates and buffers go until the next request.
    pub fn rest(&self) {
        self.client.take();
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

/// The body of an answer.
async fn whole(url: &str, mut response: Response) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut bytes = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(url, &error))? {
        if bytes.len() + chunk.len() > LARGEST {
            return Err(Fault::Unreachable(format!("{url} answered with more than {LARGEST} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    thread_local! {
        static HEARD: RefCell<Vec<(Option<u16>, Option<Allowance>)>> = const { RefCell::new(Vec::new()) };
    }

    /// The address of somebody who answers one request.
    fn forge(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        address
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
