//! A forge and agents for one test.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::agent::Kind;
use oscr_sim::forge::{Forge, ForgeHandle, Options};
use oscr_sim::scale::Scale;
use serde_json::Value;

pub use oscr_sim::patience::LIMIT;
use oscr_sim::patience::patient;

pub fn forge() -> ForgeHandle {
    let forge = Forge::start(Options::default()).expect("a free port");
    let port = forge.address().port();
    forge.order(|o| {
        // Not everybody who runs these tests may have port 80.
        o.default_port = Some(port);
        o.time_scale = Scale(0.01);
        o.agent_backoff_ms = Some(20);
        o.sigint_ms = Some(100);
        o.sigterm_ms = Some(100);
        o.conflict_retry_ms = Some(20);
        o.hold_leases = true;
    });
    forge
}

/// A request to the REST API as a client that keeps the contract.
pub fn api(forge: &ForgeHandle, method: &str, path: &str, body: Option<Value>) -> (u16, ureq::http::HeaderMap, Value) {
    api_with(forge, method, path, body, &[])
}

pub fn api_with(
    forge: &ForgeHandle,
    method: &str,
    path: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> (u16, ureq::http::HeaderMap, Value) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", forge.url()))
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", "2022-11-28")
        .header("user-agent", "test");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {}", forge.pat()));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = match body {
        Some(body) => agent.run(request.body(body.to_string()).expect("a valid request")),
        None => agent.run(request.body(()).expect("a valid request")),
    };
    let mut answer = answer.expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a text");
    (answer.status().as_u16(), answer.headers().clone(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

pub fn token(forge: &ForgeHandle) -> String {
    let (status, _, body) = api(forge, "POST", "/repos/o/r/actions/runners/registration-token", None);
    assert_eq!(status, 201);
    body["token"].as_str().expect("a token").to_owned()
}

/// An agent of its own.
pub struct Agent {
    kind: Kind,
    pub root: PathBuf,
    _folder: tempfile::TempDir,
    pub env: Vec<(String, String)>,
}

impl Agent {
    pub fn new() -> Self {
        Self::of(Kind::GitHub)
    }

    pub fn of(kind: Kind) -> Self {
        Self::below(kind, Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// An agent for other users to run, wherever they may go.
    pub fn of_others(kind: Kind) -> Self {
        let usual = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mode = |folder: &Path| std::fs::metadata(folder).expect("it is there").permissions().mode();
        let open = usual.ancestors().all(|folder| mode(folder) & 0o5 == 0o5);
        let agent = Self::below(kind, if open { usual } else { Path::new("/tmp") });
        std::fs::set_permissions(agent._folder.path(), Permissions::from_mode(0o755)).expect("our own folder");
        agent
    }

    fn below(kind: Kind, folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).expect("a folder");
        let root = folder.path().join("agent");
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_runner-listener"));
        oscr_sim::agent::install(kind, programs.parent().expect("a folder"), &root).expect("an agent");
        Self { kind, root, _folder: folder, env: Vec::new() }
    }

    /// Puts the agent into another place.
    pub fn move_to(&mut self, root: &Path) {
        std::fs::rename(&self.root, root).expect("the same file system");
        self.root = root.to_owned();
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.env.push((key.into(), value.into()));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.root.join(self.kind.listener()));
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        command
    }

    pub fn configure(&self, forge: &ForgeHandle, name: &str, more: &[&str]) -> Output {
        let url = format!("{}/o/r", forge.url());
        let mut arguments = vec!["configure", "--unattended", "--url", &url, "--name", name, "--disableupdate"];
        arguments.extend(more);
        self.command(&arguments).env("ACTIONS_RUNNER_INPUT_TOKEN", token(forge)).output().expect("the listener starts")
    }

    pub fn run(&self, arguments: &[&str]) -> Running {
        let mut all = vec!["run"];
        all.extend(arguments);
        Running::start(self.command(&all))
    }

    /// A configured ephemeral agent that listens.
    pub fn listening(forge: &ForgeHandle, name: &str) -> (Self, Running) {
        Self::new().listen(forge, name, &["--ephemeral"])
    }

    pub fn listen(self, forge: &ForgeHandle, name: &str, more: &[&str]) -> (Self, Running) {
        let done = self.configure(forge, name, more);
        assert!(done.status.success(), "{done:?}");
        let running = self.run(&[]);
        forge.wait(&format!("{name} polls"), LIMIT, |s| {
            s.runners.iter().any(|r| r.name == name && r.status == "online")
                && s.requests.iter().any(|r| r.path.ends_with("/message") && r.status.is_none())
        });
        (self, running)
    }

    /// Waits for what no request tells.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patient(LIMIT);
        while !is(self) {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What `_diag` has.
    pub fn diag(&self) -> String {
        let entries = std::fs::read_dir(self.root.join("_diag")).expect("_diag");
        entries.flatten().map(|e| std::fs::read_to_string(e.path()).expect("a log")).collect()
    }
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    Out,
    Err,
}

/// A process whose lines are read as they come.
pub struct Running {
    child: Child,
    lines: Receiver<(Stream, String)>,
    pub seen: Vec<String>,
    /// The same by streams.
    streams: [Vec<String>; 2],
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the listener starts");
        let (sender, lines) = mpsc::channel();
        let streams: [(Stream, Box<dyn std::io::Read + Send>); 2] = [
            (Stream::Out, Box::new(child.stdout.take().expect("piped"))),
            (Stream::Err, Box::new(child.stderr.take().expect("piped"))),
        ];
        for (of, stream) in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send((of, line));
                }
            });
        }
        Self { child, lines, seen: Vec::new(), streams: Default::default() }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    /// Waits for the exit code and the end of its output.
    pub fn code(&mut self) -> Option<i32> {
        // Ends when both streams do; whoever hangs fails here.
        while let Ok(line) = self.lines.recv_timeout(patient(LIMIT)) {
            self.keep(line);
        }
        let status: ExitStatus = self.child.wait().expect("it was started");
        status.code()
    }

    #[track_caller]
    pub fn expect_line(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(patient(LIMIT)) {
                Ok(line) => {
                    let line = self.keep(line);
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {part:?}: {error}; seen: {:#?}", self.seen),
            }
        }
    }

    fn keep(&mut self, (of, line): (Stream, String)) -> String {
        self.seen.push(line.clone());
        self.streams[of as usize].push(line.clone());
        line
    }

    /// The lines of standard output, or of standard error.
    pub fn of(&self, stream: Stream) -> &[String] {
        &self.streams[stream as usize]
    }

    pub fn said(&self, part: &str) -> bool {
        self.seen.iter().any(|line| line.contains(part))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
