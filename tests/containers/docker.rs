//! Docker, by its command.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use oscr_sim::patience::{LIMIT, patient};
use serde_json::Value;

/// Between two looks at what cannot be waited for.
pub const POLL: Duration = Duration::from_millis(100);

/// What a stop is granted, in seconds: more than it takes, so that Docker never kills.
pub const GRACE: u32 = 600;

/// A docker command that will not ask and whose settings do not come from whoever runs the tests.
pub fn command(arguments: &[&str]) -> Command {
    program("docker", arguments)
}

/// The same with a program that calls docker.
pub fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let kept = ["PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR"].contains(&text.as_ref());
        if !kept && !text.starts_with("DOCKER_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Waits for what Docker tells no event of.
#[track_caller]
pub fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + patient(LIMIT);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(POLL);
    }
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("docker cannot be run: {error}"))
}

/// Runs a command that must succeed; its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs docker; its standard output.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    run(&mut command(arguments))
}

/// What docker says about something.
#[track_caller]
pub fn inspect(kind: &str, what: &str) -> Value {
    let text = docker(&[kind, "inspect", what]);
    let all: Value = serde_json::from_str(&text).expect("docker inspect prints JSON");
    all[0].clone()
}

/// The lines that a command prints, as it prints them; the command ends with this.
struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    /// Both outputs of `command`, in one.
    fn of(mut command: Command) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn()?;
        // It holds the writing end, and the lines would never end.
        drop(command);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line that `wanted` accepts, or why there is none.
    fn find(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let until = Instant::now() + patient(within);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(format!("not within {within:?}")),
                Err(RecvTimeoutError::Disconnected) => return Err("the lines ended".to_owned()),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its full id.
    pub id: String,
}

impl Container {
    /// Its host name, unless it was given one: a part of each of its runners' names.
    pub fn host(&self) -> &str {
        &self.id[..12]
    }

    #[track_caller]
    pub fn inspect(&self) -> Value {
        inspect("container", &self.id)
    }

    /// Both of its outputs, of all incarnations.
    pub fn logs(&self) -> String {
        self.logs_since(0)
    }

    /// The same from a time on, in seconds since 1970.
    pub fn logs_since(&self, since: i64) -> String {
        let output = output(&mut command(&["logs", "--since", &since.to_string(), &self.id]));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub fn wait_log(&self, part: &str, within: Duration) -> String {
        Lines::of(command(&["logs", "--follow", &self.id]))
            .expect("docker logs can be run")
            .find(within, |line| line.contains(part))
            .unwrap_or_else(|why| panic!("«{part}» should be in the log: {why}"))
    }

    /// Waits for one of Docker's events about it, past ones included.
    #[track_caller]
    pub fn wait_event(&self, event: &str, within: Duration) {
        let filter = format!("container={}", self.id);
        Lines::of(command(&["events", "--since", "1h", "--filter", &filter, "--format", "{{.Status}}"]))
            .expect("docker events can be run")
            .find(within, |line| line.trim() == event)
            .unwrap_or_else(|why| panic!("there should be the event «{event}»: {why}"));
    }

    /// Waits until it has stopped; its exit code.
    #[track_caller]
    pub fn wait_exit(&self, within: Duration) -> i64 {
        let line = Lines::of(command(&["wait", &self.id]))
            .expect("docker wait can be run")
            .find(within, |_| true)
            .unwrap_or_else(|why| panic!("the container should have stopped: {why}"));
        line.trim().parse().unwrap_or_else(|_| panic!("docker wait says {line}"))
    }

    /// `docker stop` in the background, with `patience` seconds.
    pub fn stop(&self, patience: u32) -> thread::JoinHandle<()> {
        let id = self.id.clone();
        thread::spawn(move || {
            docker(&["stop", "--time", &patience.to_string(), &id]);
        })
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) {
        docker(&["kill", "--signal", signal, &self.id]);
    }

    #[track_caller]
    pub fn start(&self) {
        docker(&["start", &self.id]);
    }

    /// Runs a script in it as a user; status and both outputs.
    pub fn exec(&self, user: &str, script: &str) -> (bool, String) {
        let output = output(&mut command(&["exec", "--user", user, &self.id, "sh", "-c", script]));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    /// The output of a script that must succeed.
    #[track_caller]
    pub fn must_exec(&self, user: &str, script: &str) -> String {
        let (good, text) = self.exec(user, script);
        assert!(good, "{script}: {text}");
        text
    }

    /// `oscr-entry status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let text = docker(&["exec", &self.id, "/usr/local/bin/oscr-entry", "status", "--json"]);
        serde_json::from_str(&text).expect("the status is JSON")
    }
}
