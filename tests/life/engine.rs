//! A stand-in for Docker's daemon: containers with labels and volumes, networks, and who is told of what is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// It lives as long as the test's process.
#[derive(Clone, Default)]
pub struct Engine(Arc<Mutex<Objects>>);

#[derive(Default)]
struct Objects {
    containers: BTreeMap<String, Made>,
    /// By name: the label and the members.
    networks: BTreeMap<String, (String, BTreeSet<String>)>,
    volumes: BTreeSet<String>,
    /// What it does not see of the machine.
    hidden: Vec<PathBuf>,
    /// Whether it answers nobody, and whom.
    silent: bool,
    unanswered: Vec<UnixStream>,
    /// How requests begin that are refused, and with what.
    refused: Vec<(String, u16)>,
    asked: Vec<String>,
    /// Those who are told of what is made, and what they asked.
    told: Vec<(String, UnixStream)>,
}

struct Made {
    label: String,
    volumes: Vec<String>,
    /// Those of its volumes that somebody named.
    named: Vec<String>,
}

impl Engine {
    /// One that listens at this socket.
    pub fn at(socket: &Path) -> Self {
        fs::create_dir_all(socket.parent().expect("a directory")).expect("the directory");
        let listener = UnixListener::bind(socket).expect("a socket");
        let engine = Self::default();
        let serving = engine.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serving.answer(stream);
            }
        });
        engine
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a container with a label, and with volumes that nobody named unless their name is too short.
    pub fn make(&self, id: &str, label: &str, volumes: &[&str]) {
        let named: Vec<&str> = volumes.iter().copied().filter(|volume| volume.len() < 64).collect();
        self.make_with(id, label, volumes, &named);
    }

    /// The same where these were `named`.
    pub fn make_with(&self, id: &str, label: &str, volumes: &[&str], named: &[&str]) {
        let mut objects = self.objects();
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        objects.volumes.extend(texts(volumes));
        let made = Made { label: label.to_owned(), volumes: texts(volumes), named: texts(named) };
        objects.containers.insert(id.to_owned(), made);
        let event = json!({"Type": "container", "Action": "create", "Actor": {"ID": id, "Attributes": {label: ""}}});
        for (asked, stream) in &mut objects.told {
            if asked.contains(&format!("%22{label}%22")) {
                let _ = writeln!(stream, "{event}");
            }
        }
    }

    /// Removes a container as agents do: without its volumes.
    pub fn remove(&self, id: &str) {
        self.objects().containers.remove(id);
    }

    /// Makes a network with these members.
    pub fn network(&self, name: &str, label: &str, members: &[&str]) {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.objects().networks.insert(name.to_owned(), (label.to_owned(), members));
    }

    /// From now on it does not see what is in this directory.
    pub fn hide(&self, directory: &Path) {
        self.objects().hidden.push(directory.to_owned());
    }

    /// Takes requests from now on and answers none.
    pub fn fall_silent(&self) {
        self.objects().silent = true;
    }

    /// Refuses requests that begin so.
    pub fn refuse(&self, beginning: &str, status: u16) {
        self.objects().refused.push((beginning.to_owned(), status));
    }

    /// Refuses none any more.
    pub fn allow(&self) {
        self.objects().refused.clear();
    }

    /// Ends the connections of those who are told.
    pub fn hang_up(&self) {
        for (_, stream) in self.objects().told.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether somebody is told of containers with this label.
    pub fn is_watched(&self, label: &str) -> bool {
        self.objects().told.iter().any(|(asked, _)| asked.contains(&format!("%22{label}%22")))
    }

    pub fn containers(&self) -> Vec<String> {
        self.objects().containers.keys().cloned().collect()
    }

    pub fn networks(&self) -> Vec<String> {
        self.objects().networks.keys().cloned().collect()
    }

    pub fn volumes(&self) -> Vec<String> {
        self.objects().volumes.iter().cloned().collect()
    }

    /// The requests so far: method and path.
    pub fn asked(&self) -> Vec<String> {
        self.objects().asked.clone()
    }

    fn answer(&self, stream: UnixStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (mut header, mut length) = (String::new(), 0);
        while reader.read_line(&mut header)? > 2 {
            if let Some((_, value)) =
                header.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse().unwrap_or(0);
            }
            header.clear();
        }
        let mut sent = vec![0; length];
        reader.read_exact(&mut sent)?;
        let mut stream = reader.into_inner();
        let asked = line.rsplit_once(' ').map_or(line.as_str(), |(asked, _)| asked).to_owned();
        let mut objects = self.objects();
        objects.asked.push(asked.clone());
        if objects.silent {
            objects.unanswered.push(stream);
            return Ok(());
        }
        let refused = objects.refused.iter().find(|(beginning, _)| asked.starts_with(beginning));
        let refused = refused.map(|(_, status)| (*status, json!({"message": "as the test wants it"})));
        if refused.is_none() && asked.starts_with("GET /events") {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            objects.told.push((asked, stream));
            return Ok(());
        }
        let (status, body) = refused.unwrap_or_else(|| objects.obey(&asked, &sent));
        let body = if body.is_null() { "OK".to_owned() } else { body.to_string() };
        write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}

impl Objects {
    fn obey(&mut self, asked: &str, sent: &[u8]) -> (u16, Value) {
        let (method, path) = asked.split_once(' ').unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let wanted = |text: &str| query.contains(&format!("%22{text}%22"));
        match (method, parts.as_slice()) {
            ("GET", ["containers", "json"]) => {
                let listed = self
                    .containers
                    .iter()
                    .filter(|(_, made)| wanted(&made.label) || made.volumes.iter().any(|volume| wanted(volume)));
                (200, listed.map(|(id, made)| json!({"Id": id, "Labels": {&made.label: ""}})).collect())
            }
            ("GET", ["containers", id, "json"]) => match self.containers.get(*id) {
                None => (404, json!({"message": "no such container"})),
                Some(made) => {
                    let mount = |name: &String| json!({"Type": "volume", "Driver": "local", "Name": name});
                    let binds: Vec<String> = made.named.iter().map(|name| format!("{name}:/{name}")).collect();
                    let mounts: Vec<Value> = made.volumes.iter().map(mount).collect();
                    (200, json!({"HostConfig": {"Binds": binds}, "Mounts": mounts}))
                }
            },
            ("DELETE", ["containers", id]) => {
                if let Some(made) = self.containers.remove(*id).filter(|_| query.contains("v=1")) {
                    let used = |name: &&String| !self.containers.values().any(|other| other.volumes.contains(name));
                    let gone: Vec<String> =
                        made.volumes.iter().filter(|name| !made.named.contains(name)).filter(used).cloned().collect();
                    self.volumes.retain(|name| !gone.contains(name));
                }
                (204, Value::Null)
            }
            ("GET", ["networks"]) => {
                let listed = self.networks.iter().filter(|(_, (label, _))| wanted(label));
                (200, listed.map(|(name, _)| json!({"Id": name})).collect())
            }
            ("GET", ["networks", name]) => {
                let members = self.networks.get(*name).into_iter().flat_map(|(_, members)| members);
                (
                    200,
                    json!({"Containers": members.map(|member| (member.clone(), json!({}))).collect::<BTreeMap<_, _>>()}),
                )
            }
            ("POST", ["networks", name, "disconnect"]) => {
                let sent: Value = serde_json::from_slice(sent).unwrap_or_default();
                let member = sent["Container"].as_str().unwrap_or_default();
                let was = self.networks.get_mut(*name).is_some_and(|(_, members)| members.remove(member));
                (if was { 200 } else { 404 }, Value::Null)
            }
            ("DELETE", ["networks", name])
                if self.networks.get(*name).is_some_and(|(_, members)| !members.is_empty()) =>
            {
                (403, json!({"message": "network has active endpoints"}))
            }
            ("DELETE", ["networks", name]) => {
                self.networks.remove(*name);
                (204, Value::Null)
            }
            ("DELETE", ["volumes", name])
                if self.containers.values().any(|made| made.volumes.iter().any(|volume| volume == name)) =>
            {
                (409, json!({"message": "volume is in use"}))
            }
            ("DELETE", ["volumes", name]) => (if self.volumes.remove(*name) { 204 } else { 404 }, Value::Null),
            // It has no image at all, and finds that out last.
            ("POST", ["containers", "create"]) => {
                let sent: Value = serde_json::from_slice(sent).unwrap_or_default();
                let source = Path::new(sent["HostConfig"]["Mounts"][0]["Source"].as_str().unwrap_or_default());
                let exists = source.exists() || source == Path::new("/var/run/docker.sock");
                match exists && !self.hidden.iter().any(|hidden| source.starts_with(hidden)) {
                    true => (404, json!({"message": "No such image"})),
                    false => (400, json!({"message": "bind source path does not exist"})),
                }
            }
            ("GET", ["version"]) => (200, json!({"Version": "29.0.1", "ApiVersion": "1.52", "MinAPIVersion": "1.44"})),
            ("GET", ["_ping"]) => (200, Value::Null),
            _ => (200, json!([])),
        }
    }
}
