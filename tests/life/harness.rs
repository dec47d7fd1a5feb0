//! A container for one test: a root directory of its own, the real binary as PID 1 of a PID namespace of its own, and what it
//! said.
//!
//! What a container would take from its image lies below `OSCR_ROOT`: the binary, the agent, the temporary directories. The
//! directory is kept over a [`Container::restart`], as `restart: always` keeps a container's writable layer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use oscr_sim::agent::Kind;
use oscr_sim::patience::patient;
use serde_json::Value;

use crate::filter::Filter;
pub use crate::forge::{Forge, LIMIT};

/// Where the binary lies in the container.
const BINARY: &str = "usr/local/bin/oscr-entry";
/// Where the default credential lies.
pub const SECRET: &str = "run/secrets/github_pat";
/// The name of a listener that a script has replaced.
const REAL: &str = "Real.Listener";
/// The directories in which a job can leave files.
pub const WIPED: [&str; 5] = ["work", "tmp", "var/tmp", "dev/shm", "runner"];

/// A container that ends with the test.
pub struct Container<'f> {
    forge: &'f Forge,
    /// Whose agent it has.
    pub kind: Kind,
    /// `OSCR_ROOT`.
    pub root: PathBuf,
    /// The agent's user and group.
    pub uid: u32,
    env: BTreeMap<String, String>,
    /// What is mounted where, in a namespace of its own.
    mounts: Vec<[PathBuf; 2]>,
    /// A script to run in that namespace before PID 1 begins.
    before: String,
    /// What no process of it may call.
    filters: Vec<Filter>,
    log: Log,
    running: Option<Running>,
    _folder: tempfile::TempDir,
}

struct Running {
    /// `unshare`, which ends when PID 1 does, with its code.
    outer: Child,
    readers: Vec<JoinHandle<()>>,
    started: Instant,
}

/// What PID 1 wrote, with a way to wait for more.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// Where the running incarnation's lines begin.
    begin: usize,
    open: usize,
    /// Nobody reads more.
    unread: bool,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        log.change(|lines| lines.open += 1);
        std::thread::spawn(move || {
            let mut read = BufReader::new(stream).lines().map_while(Result::ok);
            let mut next = || {
                drop(log.0.1.wait_while(log.lock(), |lines| lines.unread));
                read.next()
            };
            while let Some(line) = next() {
                log.change(|lines| lines.all.push(line));
            }
            log.change(|lines| lines.open -= 1);
        })
    }

    /// Waits until `ready` gives something.
    fn wait<T>(&self, within: Duration, ready: impl Fn(&Lines) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patient(within);
        let mut lines = self.lock();
        loop {
            if let Some(found) = ready(&lines) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.0.1.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<'f> Container<'f> {
    /// A container with the documented way to give a token: a file that only root can read.
    pub fn new(forge: &'f Forge) -> Self {
        let mut container = Self::of(Kind::GitHub, forge);
        let secret = container.text(SECRET);
        container.set_all(&[
            ("CI_PROVIDER", "github"),
            ("GITHUB_HOST", &forge.url()),
            ("GITHUB_OWNER", "o"),
            ("GITHUB_REPO", "r"),
            ("GITHUB_PAT_FILE", &secret),
        ]);
        container
    }

    /// The same for an agent of the organisation `acme`'s default pool.
    pub fn azure(forge: &'f Forge) -> Self {
        let mut container = Self::of(Kind::Azure, forge);
        let secret = container.text(SECRET);
        container.set_all(&[
            ("CI_PROVIDER", "azure-devops"),
            ("ADO_ORG_URL", &format!("{}/acme", forge.url())),
            ("ADO_PAT_FILE", &secret),
        ]);
        container
    }

    fn of(kind: Kind, forge: &'f Forge) -> Self {
        assert!(Uid::effective().is_root(), "these tests make namespaces and change users: run them as root");
        // Not below the target directory, which another user may be unable to enter.
        let folder = tempfile::Builder::new().prefix("oscr-life-").tempdir_in("/tmp").expect("a directory in /tmp");
        let root = folder.path().to_owned();
        allow(&root, 0o755);
        for directory in ["tmp", "var/tmp", "dev/shm"] {
            fs::create_dir_all(root.join(directory)).expect("a directory");
            allow(&root.join(directory), 0o1777);
        }
        let stage = root.join("opt/built");
        let programs = oscr_sim::agent::programs_dir().expect("the stand-in agent");
        for program in ["runner-listener", "runner-worker"] {
            place(&programs.join(program), &stage.join(program));
        }
        oscr_sim::agent::install(kind, &stage, &root.join("opt/oscr/agent")).expect("an agent");
        place(Path::new(env!("CARGO_BIN_EXE_oscr-entry")), &root.join(BINARY));
        let secret = root.join(SECRET);
        write(&secret, &forge.pat(), 0o400);

        static COUNT: AtomicU32 = AtomicU32::new(0);
        let uid = 100_000 + std::process::id() % 10_000 * 100 + COUNT.fetch_add(1, Ordering::Relaxed) % 100;
        let mut container = Self {
            forge,
            kind,
            uid,
            env: BTreeMap::new(),
            mounts: Vec::new(),
            before: String::new(),
            filters: Vec::new(),
            log: Log::default(),
            running: None,
            root,
            _folder: folder,
        };
        let path = std::env::var("PATH").expect("PATH");
        let (root, work) = (container.text(""), container.text("work"));
        container.set_all(&[
            ("PATH", &path),
            ("OSCR_ROOT", &root),
            ("RUNNER_WORKDIR", &work),
            ("OSCR_AGENT_USER", &uid.to_string()),
            ("OSCR_MIN_UPTIME", "0"),
            // The programs are the same files in all containers of the tests: see `with_programs_of_its_own`.
            ("OSCR_TAINT", "off"),
            ("OSCR_START_JITTER", "0"),
            ("OSCR_KILL_TIMEOUT", "10"),
            ("OSCR_LOG_LEVEL", "debug"),
        ]);
        container
    }

    /// A container that listens.
    #[track_caller]
    pub fn listening(forge: &'f Forge, settings: &[(&str, &str)]) -> Self {
        let mut container = Self::new(forge);
        container.set_all(settings);
        container.start();
        forge.listening();
        container
    }

    /// Sets a variable; an empty value counts as unset.
    pub fn set(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Sets several.
    pub fn set_all(&mut self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            self.set(name, value);
        }
    }

    /// A variable's value.
    pub fn setting(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// Takes a variable away.
    pub fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Gives the agent's user a name (`runner`) and a home (`/home/runner` below the root), as an image does.
    pub fn with_accounts(&mut self) {
        let (uid, home) = (self.uid, self.text("home/runner"));
        let user = format!("root:x:0:0::/root:/bin/sh\nrunner:x:{uid}:{uid}::{home}:/bin/bash\n");
        write(&self.path("etc/passwd"), &user, 0o644);
        write(&self.path("etc/group"), &format!("runner:x:{uid}:\n"), 0o644);
        self.set("OSCR_AGENT_USER", "runner");
        for file in ["passwd", "group"] {
            self.mount(&self.path("etc").join(file), &Path::new("/etc").join(file));
        }
    }

    /// Copies the programs that all containers of the tests share, so that nothing but this one changes what the kernel says
    /// of them, and has an image's last build step done: what is changed from now on is no longer as it should be.
    pub fn with_programs_of_its_own(&mut self) {
        for place in [BINARY, "opt/built/runner-listener", "opt/built/runner-worker"] {
            let (shared, own) = (self.path(place), self.path("own"));
            fs::copy(&shared, &own).expect("a copy");
            fs::rename(own, shared).expect("the same directory");
        }
        self.set("OSCR_TAINT", "refuse");
        let (code, _, error) = self.ask(&["baseline"]);
        assert_eq!(code, 0, "{error}");
    }

    /// Mounts `from` at `place`, as a bind mount of the same file system.
    pub fn mount(&mut self, from: &Path, place: &Path) {
        self.mounts.push([from.to_owned(), place.to_owned()]);
    }

    /// Takes back what was to be mounted.
    #[allow(dead_code, reason = "the table of faults needs no such thing")]
    pub fn mount_nothing(&mut self) {
        self.mounts.clear();
    }

    /// Runs a script in the next incarnations' namespace before PID 1 begins, to mount what a host may mount.
    #[allow(dead_code, reason = "the table of faults needs it")]
    pub fn in_namespace(&mut self, script: &str) {
        script.clone_into(&mut self.before);
    }

    /// Lets a system call fail in the next incarnations.
    #[allow(dead_code, reason = "the table of faults needs no such thing")]
    pub fn deny(&mut self, call: libc::c_long, error: libc::c_int) {
        let call = call.try_into().expect("a system call's number");
        self.filters.push(Filter::new(call, None, error.unsigned_abs()));
    }

    /// A place below the root.
    pub fn path(&self, place: &str) -> PathBuf {
        self.root.join(place)
    }

    /// The same as text.
    pub fn text(&self, place: &str) -> String {
        self.path(place).display().to_string()
    }

    /// The names in a directory below the root; none when it is missing.
    pub fn names(&self, place: &str) -> Vec<OsString> {
        let entries = fs::read_dir(self.path(place)).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name()).collect()
    }

    /// Starts the first incarnation.
    pub fn start(&mut self) {
        assert!(!self.runs(), "it runs already");
        self.log.change(|lines| lines.begin = lines.all.len());
        let mut command = Command::new("setpriv");
        // Should the test die, `unshare` dies with it, and with `unshare` the whole namespace.
        command
            .args(["--pdeathsig", "KILL", "unshare", "--fork", "--pid"])
            .args(["--mount-proc", "--kill-child=SIGKILL"]);
        let script = format!(
            "entry=$1; shift; while [ $# -gt 0 ]; do mount --bind \"$1\" \"$2\"; shift 2; done\n{}\nexec \"$entry\"",
            self.before
        );
        if self.mounts.is_empty() && self.before.is_empty() {
            command.arg(self.path(BINARY));
        } else {
            command.args(["sh", "-ec", &script, "sh"]).arg(self.path(BINARY)).args(self.mounts.iter().flatten());
        }
        let filters = self.filters.clone();
        // SAFETY: the closure runs in the forked child and makes system calls only; it allocates nothing.
        unsafe {
            command.pre_exec(move || filters.iter().try_for_each(Filter::install));
        }
        // Before it can have begun, so that it was up for no longer than we say.
        let started = Instant::now();
        let mut outer = command
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv and unshare of util-linux");
        let readers = vec![
            self.log.follow(outer.stdout.take().expect("piped")),
            self.log.follow(outer.stderr.take().expect("piped")),
        ];
        self.running = Some(Running { outer, readers, started });
    }

    /// Starts the first incarnation, and waits until a job of it is at a gate and noted in the state: the job's id, and the gate.
    #[track_caller]
    pub fn start_with_job(&mut self) -> (u64, Gate) {
        let gate = self.gate();
        self.start();
        let job = self.forge.job(&gate.wait());
        self.forge.wait_log(job, "at the gate");
        until("PID 1 has noted the job", || self.state()["job"] != Value::Null);
        (job, gate)
    }

    /// Starts it with a listener that, before it listens, says more than fits anywhere once nobody reads the log any more.
    pub fn start_unread(&mut self) {
        let unread = self.path("unread");
        let wait = format!("until [ -e '{}' ]; do sleep 0.01; done", unread.display());
        self.replace_listener(&format!(
            "[ \"$1\" = run ] && {{ {wait}; yes \"$(printf %0200d 7)\" | head -n 10000; }}"
        ));
        self.start();
        self.wait_line("oscr-entry");
        self.read(false);
        write(&unread, "", 0o644);
    }

    /// What `restart: always` does once the last incarnation has ended: the same layer, another life.
    #[track_caller]
    pub fn restart(&mut self) {
        if self.runs() {
            self.exit_code();
        }
        self.start();
    }

    /// Whether an incarnation was started whose end was not asked for yet.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    #[track_caller]
    fn running(&self) -> &Running {
        self.running.as_ref().expect("it was started")
    }

    /// PID 1 as this machine's own namespace knows it.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        self.pid_if_it_lives().expect("it has one child")
    }

    /// The same; `None` once it has ended.
    fn pid_if_it_lives(&self) -> Option<Pid> {
        // Whoever has written a line is there.
        self.wait_line("");
        let outer = self.running().outer.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
        children.trim().parse().ok().map(Pid::from_raw)
    }

    /// Every process of the container.
    #[track_caller]
    pub fn processes(&self) -> Vec<Pid> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let ours = namespace(&self.pid().to_string());
        assert!(ours.is_some(), "PID 1 runs");
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| namespace(name) == ours)
            .filter_map(|name| name.parse().ok().map(Pid::from_raw))
            .collect()
    }

    /// The listener of GitHub's runner.
    #[track_caller]
    pub fn listener(&self) -> Pid {
        let name = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let found = self.processes().into_iter().find(|pid| name(pid).trim() == "Runner.Listener");
        found.expect("a listener")
    }

    /// Sends PID 1 a signal, as `docker stop` and `docker kill` do.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("PID 1 runs");
    }

    /// Nobody reads what it writes from now on, as with a log driver that hangs; or somebody does again.
    pub fn read(&self, read: bool) {
        self.log.change(|lines| lines.unread = !read);
    }

    /// Waits for its end, which its own log need not have told by then.
    #[track_caller]
    pub fn ends_within(&self, promised: Duration) {
        let outer = rustix::process::Pid::from_child(&self.running().outer);
        let outer = rustix::process::pidfd_open(outer, rustix::process::PidfdFlags::empty()).expect("Linux 5.3");
        let mut ended = [PollFd::new(outer.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patient(promised)).expect("less than weeks");
        assert_eq!(poll(&mut ended, patience), Ok(1), "it still runs");
    }

    /// Stops it, as a person does who does not know whether it is about to end by itself, and waits for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(pid) = self.pid_if_it_lives() {
            // Whoever has ended meanwhile needs no signal.
            let _ = kill(pid, Signal::SIGTERM);
        }
        self.exit_code();
    }

    /// Waits for the end, and gives the code; 128 + n for a signal.
    #[track_caller]
    pub fn exit_code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let ended = self.log.wait(LIMIT, |lines| (lines.open == 0).then_some(()));
        assert!(ended.is_some(), "it still runs");
        let mut running = self.running.take().expect("it was started");
        let status = running.outer.wait().expect("unshare ends with its child");
        status.code().or(status.signal().map(|number| 128 + number)).expect("a code or a signal")
    }

    /// The same after a stop, which by PID 1's own clock took no longer than this.
    #[track_caller]
    pub fn exit_code_within(&mut self, promised: Duration) -> i32 {
        let code = self.exit_code();
        let asked = self.said_at("asked to stop");
        let left = self.lines().iter().rev().find_map(|line| moment(line)).expect("it said something");
        self.assert_prompt("it left", asked, left, promised);
        code
    }

    /// Waits until the forge has no registration, which by its clock and PID 1's was no later than this after the stop.
    #[track_caller]
    pub fn unregistered_within(&self, promised: Duration) {
        self.forge.wait_nobody();
        let asked = self.said_at("asked to stop");
        let events = self.forge.events();
        let gone = events.iter().rfind(|event| event.kind == "runner_unregistered").expect("it was registered");
        self.assert_prompt("the registration went", asked, gone.at.into(), promised);
    }

    /// How long it means to wait, by the status that it has since it last said that it tries again.
    #[track_caller]
    pub fn pause(&self, status: &Value) -> Duration {
        let retry = humantime::parse_rfc3339(status["next_retry"].as_str().expect("a time")).expect("RFC 3339");
        let said = self.lines_with("trying again in").last().and_then(|line| moment(line)).expect("it said so");
        retry.duration_since(said).unwrap_or_default()
    }

    #[track_caller]
    fn assert_prompt(&self, what: &str, asked: SystemTime, done: SystemTime, promised: Duration) {
        // What came first took no time.
        let took = done.duration_since(asked).unwrap_or_default();
        assert!(took <= patient(promised), "{what} {took:?} after the stop");
    }

    /// When PID 1 first said it in this incarnation, by its own clock.
    #[track_caller]
    fn said_at(&self, part: &str) -> SystemTime {
        moment(&self.wait_line(part)).expect("a line of the log begins with its time")
    }

    /// For how long it has been up.
    pub fn uptime(&self) -> Duration {
        self.running().started.elapsed()
    }

    /// Waits for a line of this incarnation that contains `part`.
    #[track_caller]
    pub fn wait_line(&self, part: &str) -> String {
        let has = |lines: &Lines| {
            let mut own = lines.all[lines.begin..].iter();
            let found = own.find(|line| line.contains(part)).cloned();
            // Nothing will come any more: do not wait for the whole time.
            found.map(Some).or_else(|| (lines.open == 0).then_some(None))
        };
        match self.log.wait(LIMIT, has) {
            Some(Some(line)) => line,
            _ => panic!("no line with {part:?}"),
        }
    }

    /// The lines of this incarnation, or of the last.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.log.lock();
        lines.all[lines.begin..].to_vec()
    }

    /// The lines that contain `part`.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        let has = |line: &String| line.contains(part);
        self.lines().into_iter().filter(has).collect()
    }

    /// The binary with other arguments, in the container's environment and on this side of its namespace.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path(BINARY));
        command.args(arguments).env_clear().envs(&self.env).stdin(Stdio::null());
        command
    }

    /// The same in namespaces of its own, after a script that mounts something there.
    #[allow(dead_code, reason = "the table of faults needs no such thing")]
    pub fn command_after(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child=SIGKILL", "sh", "-ec"]);
        command.arg(format!("{script}\nexec \"$@\"")).arg("sh").arg(self.path(BINARY)).args(arguments);
        command.env_clear().envs(&self.env).stdin(Stdio::null());
        command
    }

    /// `oscr-entry …`: code, standard output, standard error.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        outcome(self.command(arguments))
    }

    /// `oscr-entry status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let (code, out, error) = self.ask(&["status", "--json"]);
        assert_eq!(code, 0, "{error}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Asks for the status until it is in this phase.
    #[track_caller]
    pub fn wait_phase(&self, phase: &str) -> Value {
        let deadline = Instant::now() + patient(LIMIT);
        loop {
            let status = self.status();
            if status["phase"] == phase {
                return status;
            }
            assert!(Instant::now() < deadline, "not {phase}: {status}");
        }
    }

    /// The state file.
    #[track_caller]
    pub fn state(&self) -> Value {
        let bytes = fs::read(self.path("var/lib/oscr/state.json")).expect("a state file");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Asserts that the state file holds no registration.
    #[track_caller]
    pub fn assert_state_empty(&self) {
        let state = self.state();
        assert_eq!(state["current"], Value::Null, "{state}");
        assert_eq!(state["leftovers"], serde_json::json!([]), "{state}");
    }

    /// The official program that listens, as the image has it.
    pub fn listener_program(&self) -> PathBuf {
        self.path("opt/oscr/agent").join(self.kind.listener())
    }

    /// Puts a script in the listener's place. It finds the real one in `$real`, for what it does not do itself.
    pub fn replace_listener(&self, script: &str) {
        fs::rename(self.listener_program(), self.real_listener()).expect("a listener");
        let script = format!("#!/bin/bash\nreal=$(dirname \"$0\")/{REAL}\n{script}\nexec \"$real\" \"$@\"\n");
        write_program(&self.listener_program(), &script);
    }

    /// Where the listener is that a script has replaced.
    pub fn real_listener(&self) -> PathBuf {
        self.listener_program().with_file_name(REAL)
    }

    /// A gate that a job can wait at.
    pub fn gate(&self) -> Gate {
        let path = self.path("gate");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a fifo");
        allow(&path, 0o666);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .expect("the fifo");
        Gate { path, file }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // The death of `unshare` ends PID 1, and that the whole namespace.
            let _ = running.outer.kill();
            let _ = running.outer.wait();
            self.read(true);
            for reader in running.readers {
                let _ = reader.join();
            }
        }
        let lines = self.log.lock();
        if std::thread::panicking() {
            for line in &lines.all {
                eprintln!("oscr: {line}");
            }
            return;
        }
        let secrets = self.forge.secrets();
        for line in &lines.all {
            assert!(!secrets.iter().any(|secret| line.contains(secret)), "a secret is in the log: {line}");
        }
    }
}

/// When a line of the log was written.
fn moment(line: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(line.split(' ').next()?).ok()
}

/// A named pipe that holds a job back.
pub struct Gate {
    path: PathBuf,
    file: File,
}

impl Gate {
    /// The command of a job that waits here, after it has said `at the gate`. The job's log holds the command as well, so it is
    /// written otherwise there.
    pub fn wait(&self) -> String {
        format!("echo at 'the' gate; read -r _ <'{}'", self.path.display())
    }

    /// Lets one job pass.
    pub fn open(&mut self) {
        self.file.write_all(b"\n").expect("room in the pipe");
    }
}

/// Looks until `ready`, where nothing can wake us. What looks starts a process, so this is no busy loop.
#[track_caller]
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + patient(LIMIT);
    while !ready() {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        std::thread::yield_now();
    }
}

/// Runs a command to its end: code, standard output, standard error.
#[track_caller]
pub fn outcome(mut command: Command) -> (i32, String, String) {
    let output = command.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

/// Does `work` with each case at the same time, and fails when one does.
pub fn each<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = cases.iter().map(|case| scope.spawn(move || work(case))).collect();
        let failed = threads.into_iter().map(std::thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        assert_eq!(failed, 0, "of {} cases", cases.len());
    });
}

pub fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
}

/// Writes a file with this mode, and the directories above it.
pub fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
    fs::write(path, text).expect("the file");
    allow(path, mode);
}

/// Writes a program. Another process does it: while we had it open, another test's fork could inherit the descriptor, and
/// executing it would fail with "text file busy".
pub fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
    let mut install = Command::new("install")
        .args(["-m", "0755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install of coreutils");
    let mut input = install.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    assert!(install.wait().expect("it ends").success());
}

/// Makes a built program available at `to`: by a link, or where that cannot be by a copy, which another process makes for the
/// reason above.
fn place(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a directory")).expect("the directory");
    if fs::hard_link(from, to).is_ok() {
        return;
    }
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.expect("cp of coreutils").success());
}
