//! Docker for jobs: waited for before a runner registers, and swept of what its jobs left, by the agent's label alone.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::Signal;
use oscr::docker::Label;

use crate::harness::{Container, Forge};

/// A daemon with containers of several labels. It lives as long as the test's process.
#[derive(Clone, Default)]
struct Daemon(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Daemon {
    fn at(socket: &Path) -> Self {
        fs::create_dir_all(socket.parent().expect("a directory")).expect("the directory");
        let listener = UnixListener::bind(socket).expect("a socket");
        let daemon = Self::default();
        let serving = daemon.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serving.answer(stream);
            }
        });
        daemon
    }

    fn add(&self, id: &str, label: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((id.to_owned(), label.to_owned()));
    }

    fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, _)| id.clone()).collect()
    }

    fn answer(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let mut containers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut words = line.split(' ');
        let body = match (words.next(), words.next()) {
            (Some("GET"), Some(path)) if path.starts_with("/containers/json") => {
                let has = |label: &String| path.contains(&format!("%22{label}%22"));
                let ids =
                    containers.iter().filter(|(_, label)| has(label)).map(|(id, _)| serde_json::json!({"Id": id}));
                serde_json::Value::Array(ids.collect()).to_string()
            }
            (Some("DELETE"), Some(path)) => {
                containers.retain(|(id, _)| !path.starts_with(&format!("/containers/{id}?")));
                String::new()
            }
            (_, Some("/_ping")) => "OK".to_owned(),
            _ => "[]".to_owned(),
        };
        let mut stream = reader.into_inner();
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}

/// The label of the agent that runs now, from its configuration.
fn label(container: &Container) -> String {
    let roots = container.names("runner");
    let [root] = roots.as_slice() else { panic!("one root: {roots:?}") };
    let text = fs::read_to_string(container.path("runner").join(root).join(".runner")).expect("a configuration");
    Label::of(&text).to_string()
}

#[test]
fn what_a_killed_incarnation_left_in_docker_is_removed_by_the_next() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let daemon = Daemon::at(&container.path("var/run/docker.sock"));
    let (_, _gate) = container.start_with_job();
    let label = label(&container);
    assert_eq!(container.state()["docker_labels"], serde_json::json!([label]), "known before the job's first step");
    daemon.add("of-the-job", &label);
    daemon.add("of-another", "ffffff");
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("removed what a job left in Docker");
    container.wait_line("registered with");
    assert_eq!(daemon.ids(), ["of-another"]);
}

#[test]
fn no_runner_registers_before_docker_answers_and_tools_find_it_in_the_usual_place() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let socket = container.path("elsewhere/docker.sock");
    container.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    container.set("OSCR_DOCKER_WAIT", "1");
    container.start();
    container.wait_line("no job is taken without Docker");
    assert_eq!(forge.requests().len(), 0);
    assert_eq!(fs::read_link(container.path("var/run/docker.sock")).expect("a link"), socket);
    Daemon::at(&socket);
    container.wait_line("registered with");
}
