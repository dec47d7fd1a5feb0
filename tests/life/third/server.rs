//! The third forge itself: registrations in memory behind a little HTTP, and a mailbox between it and its agents.
//!
//! A task is a file in the mailbox, which the agent takes; the agent says there that it is done. What is asked of the forge is
//! written down in its order.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

/// What a runner must say to be given anything.
pub const TOKEN: &str = "third-forges-token";

/// A forge that answers for as long as the test runs.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    mailbox: PathBuf,
    /// What the mailbox is gone with. Not the business of the threads that answer, which nobody ends.
    _folder: Option<Arc<TempDir>>,
    records: Arc<Mutex<Records>>,
}

#[derive(Default)]
struct Records {
    made: u64,
    /// The keys of the registrations that there are, by name.
    runners: BTreeMap<String, String>,
    /// Whether a task was given out and is not done.
    busy: bool,
    asked: Vec<String>,
}

impl Server {
    /// A forge with a mailbox of its own, outside of the containers, which look at what they have and tidy up.
    pub fn start() -> Self {
        let mailbox = tempfile::Builder::new().prefix("oscr-third-").tempdir_in("/tmp").expect("a directory in /tmp");
        fs::set_permissions(mailbox.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (path, folder) = (mailbox.path().to_owned(), Some(Arc::new(mailbox)));
        let server = Self { url, mailbox: path, _folder: folder, records: Arc::default() };
        let own = Self { _folder: None, ..server.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                std::thread::spawn(move || own.serve(stream));
            }
        });
        server
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where agents look.
    pub fn mailbox(&self) -> &Path {
        &self.mailbox
    }

    /// Gives out a task of this name, which the agent takes when it comes by.
    pub fn give(&self, name: &str) {
        self.assign();
        self.deliver(name);
    }

    /// Decides that the runner has a task, of which it does not know yet.
    pub fn assign(&self) {
        self.records().busy = true;
    }

    /// Lets the agent know.
    pub fn deliver(&self, name: &str) {
        fs::write(self.mailbox.join(".task"), name).expect("the mailbox");
        fs::rename(self.mailbox.join(".task"), self.mailbox.join("task")).expect("the mailbox");
    }

    /// Lets the task that runs come to its end.
    pub fn finish(&self) {
        fs::write(self.mailbox.join("finish"), "").expect("the mailbox");
    }

    /// Keeps agents from ending with their task, until [`Self::let_leave`].
    pub fn have_linger(&self) {
        fs::write(self.mailbox.join("linger"), "").expect("the mailbox");
    }

    /// Lets agents that are done end.
    pub fn let_leave(&self) {
        fs::write(self.mailbox.join("leave"), "").expect("the mailbox");
    }

    /// What was asked of it, as `METHOD /path`.
    pub fn asked(&self) -> Vec<String> {
        self.records().asked.clone()
    }

    /// The names of the registrations that there are.
    pub fn runners(&self) -> Vec<String> {
        self.records().runners.keys().cloned().collect()
    }

    /// The key of a registration.
    pub fn key(&self, name: &str) -> String {
        self.records().runners[name].clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = next_request(&mut reader) {
            let (status, answer) = self.answer(&request);
            let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            if reader.get_mut().write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> (u16, String) {
        let mut records = self.records();
        records.asked.push(format!("{} {}", request.method, request.path));
        if fs::remove_file(self.mailbox.join("done")).is_ok() {
            records.busy = false;
        }
        if request.path == "/version" {
            return (200, "{}".to_owned());
        }
        if !request.allowed {
            return (401, String::new());
        }
        let place = request.path.strip_prefix("/runners/").unwrap_or_default();
        let (name, action) = place.split_once('/').unwrap_or((place, ""));
        let known = records.runners.contains_key(name);
        match (request.method.as_str(), action) {
            ("PUT", "") => {
                records.made += 1;
                let (id, key) = (records.made, format!("key-number-{}-of-an-agent", records.made));
                records.runners.insert(name.to_owned(), key.clone());
                (201, format!(r#"{{"id":{id},"key":"{key}"}}"#))
            }
            _ if !known => (404, String::new()),
            ("POST", "disable") => (204, String::new()),
            ("DELETE", "") if records.busy => (409, String::new()),
            ("DELETE", "") => {
                records.runners.remove(name);
                (204, String::new())
            }
            ("GET", "") => (200, format!(r#"{{"busy":{}}}"#, records.busy)),
            _ => (400, String::new()),
        }
    }
}

struct Request {
    method: String,
    path: String,
    allowed: bool,
}

/// Reads one request, and its body away; `None` when nobody asks any more.
fn next_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let mut request = Request { method: words.next()?.to_owned(), path: words.next()?.to_owned(), allowed: false };
    let mut length = 0;
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        let (name, value) = header.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => request.allowed = value == format!("Bearer {TOKEN}"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(request)
}
