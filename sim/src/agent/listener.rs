//! `Runner.Listener`: the command line, and the loop that waits for jobs.
//!
//! One loop receives everything that can happen as an [`Event`]; threads only turn blocking calls into events, so that a
//! signal is acted on at once, whatever a request in flight is waiting for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::client::{Client, Refusal};
use super::configure;
use super::trace::Trace;
use crate::protocol::{
    CompleteRequest, ConflictAnswer, ExitOrder, JobMessage, JobResult, Message, SessionAnswer, WorkerMessage,
};

/// Exit code 1.
pub(super) const TERMINATED: i32 = 1;
const RETRYABLE: i32 = 2;
const CONFLICT: i32 = 5;
const DEPRECATED: i32 = 7;

/// Upstream's limit of a shutdown that SIGTERM began.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(30);

const COMMANDS: [&str; 4] = ["configure", "remove", "run", "warmup"];
const FLAGS: [&str; 13] = [
    "check",
    "commit",
    "ephemeral",
    "generateserviceconfig",
    "help",
    "local",
    "no-default-labels",
    "once",
    "replace",
    "disableupdate",
    "unattended",
    "version",
    "warmup",
];
const VALUES: [&str; 13] = [
    "url",
    "token",
    "pat",
    "name",
    "runnergroup",
    "labels",
    "work",
    "jitconfig",
    "monitorsocketaddress",
    "startuptype",
    "username",
    "windowslogonaccount",
    "windowslogonpassword",
];

/// The command line and the input variables.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    command: Option<String>,
    given: BTreeMap<String, String>,
    unknown: Vec<String>,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Self {
        let mut parsed = Self::default();
        let mut wants: Option<String> = None;
        for argument in arguments {
            let argument = argument.to_string_lossy().into_owned();
            if let Some(name) = argument.strip_prefix("--").map(str::to_lowercase) {
                wants = None;
                if VALUES.contains(&name.as_str()) {
                    parsed.given.insert(name.clone(), String::new());
                    wants = Some(name);
                } else if FLAGS.contains(&name.as_str()) {
                    parsed.given.insert(name, "true".into());
                } else {
                    parsed.unknown.push(argument);
                }
            } else if let Some(name) = wants.take() {
                parsed.given.insert(name, argument);
            } else if parsed.command.is_none() && COMMANDS.contains(&argument.to_lowercase().as_str()) {
                parsed.command = Some(argument.to_lowercase());
            } else {
                parsed.unknown.push(argument);
            }
        }
        parsed
    }

    /// Adds `ACTIONS_RUNNER_INPUT_*`, and takes those variables out of the environment: the worker must not have them.
    fn add_environment(&mut self) {
        const PREFIX: &str = "ACTIONS_RUNNER_INPUT_";
        let inputs: Vec<(OsString, String, OsString)> = std::env::vars_os()
            .filter_map(|(key, value)| {
                let name = key.to_str()?.to_uppercase().strip_prefix(PREFIX)?.to_lowercase();
                Some((key, name, value))
            })
            .collect();
        for (key, name, value) in inputs {
            // SAFETY: the listener has no other thread yet.
            unsafe { std::env::remove_var(&key) };
            let value = value.to_string_lossy().into_owned();
            if !value.is_empty() {
                self.given.entry(name.replace('_', "-")).or_insert(value);
            }
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.given.get(name).filter(|v| !v.is_empty()).cloned()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|v| matches!(v.to_lowercase().as_str(), "true" | "1" | "t" | "yes" | "y"))
    }
}

/// The whole program; gives its exit code.
#[must_use]
pub fn main() -> i32 {
    let root = super::root();
    load_env_file(&root);
    let mut arguments = Arguments::parse(std::env::args_os().skip(1));
    arguments.add_environment();
    if arguments.flag("version") {
        println!("{}", crate::AGENT_VERSION);
        return 0;
    }
    if arguments.flag("commit") {
        println!("0000000000000000000000000000000000000000");
        return 0;
    }
    if arguments.flag("help") {
        println!("Commands: configure, remove, run, warmup. See the official runner's help for the flags.");
        return 0;
    }
    let trace = Trace::open(&root, "Runner");
    if !arguments.unknown.is_empty() {
        trace.complain(&format!(
            "Unrecognized command-line input arguments: '{}'. For usage refer to: .\\config.cmd --help or ./config.sh --help",
            arguments.unknown.join(", ")
        ));
        return TERMINATED;
    }
    let (events, received) = mpsc::channel();
    if let Err(error) = forward_signals(events.clone()) {
        trace.complain(&format!("An error occurred: {error}"));
        return TERMINATED;
    }
    match arguments.command.as_deref() {
        Some("configure") => {
            until_signal(&trace, received, move |trace| configure::configure(&root, trace, &arguments))
        }
        Some("remove") => until_signal(&trace, received, move |trace| configure::remove(&root, trace, &arguments)),
        Some("warmup") => 0,
        None if arguments.flag("warmup") => 0,
        Some(_) | None => {
            let mut listener = match Listener::load(root, trace, &arguments, events, received) {
                Ok(listener) => listener,
                Err(code) => return code,
            };
            let code = listener.run();
            listener.trace.info(&format!("Runner execution has finished with return code {code}"));
            code
        }
    }
}

/// `.env` in Root is loaded at start, and its values win over the environment.
fn load_env_file(root: &Path) {
    let Ok(text) = fs::read_to_string(root.join(".env")) else {
        return;
    };
    for line in text.trim_start_matches('\u{feff}').lines() {
        if let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.is_empty()) {
            // SAFETY: the listener has no other thread yet.
            unsafe { std::env::set_var(key, value) };
        }
    }
}

/// Configuring is cut short by a signal, with code 1.
fn until_signal(trace: &Trace, received: Receiver<Event>, work: impl FnOnce(&Trace) -> i32 + Send) -> i32 {
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Ok(Event::Signal(_)) = received.recv() {
                trace.say("Exiting...");
                std::process::exit(TERMINATED);
            }
        });
        let code = work(trace);
        // The thread above waits for ever otherwise.
        std::process::exit(code)
    })
}

/// Everything that can happen while the listener runs.
#[derive(Debug)]
enum Event {
    Signal(i32),
    Session(Result<SessionAnswer, Refusal>),
    Message(Message),
    /// A poll failed and will be tried again.
    PollFailed(String),
    PollRecovered,
    /// The registration is gone.
    Gone,
    WorkerExited(Option<i32>),
}

fn forward_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// The job that runs now.
#[derive(Debug)]
struct Running {
    job: JobMessage,
    worker: u32,
    orders: std::process::ChildStdin,
    cancelled: bool,
    /// When a cancelled worker is killed.
    kill_at: Option<Instant>,
    renewing: Arc<AtomicBool>,
}

struct Listener {
    root: PathBuf,
    trace: Trace,
    client: Client,
    name: String,
    work: PathBuf,
    once: bool,
    ephemeral: bool,
    events: Sender<Event>,
    received: Receiver<Event>,
}

impl Listener {
    fn load(
        root: PathBuf,
        trace: Trace,
        arguments: &Arguments,
        events: Sender<Event>,
        received: Receiver<Event>,
    ) -> Result<Self, i32> {
        if let Some(jit) = arguments.value("jitconfig")
            && let Err(why) = write_jit(&root, &jit)
        {
            trace.complain(&why);
            return Err(TERMINATED);
        }
        let loaded = super::read_json(&root.join(".runner"))
            .and_then(|settings| Ok((settings, super::read_json(&root.join(".credentials_rsaparams"))?)));
        let Ok((settings, key)) = loaded else {
            trace.complain("Not configured. Run config.(sh/cmd) to configure the runner.");
            return Err(TERMINATED);
        };
        let text = |name: &str| field(&settings, name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ephemeral = field(&settings, "ephemeral")
            .is_some_and(|v| v == &Value::Bool(true) || v.as_str().is_some_and(|v| v.eq_ignore_ascii_case("true")));
        let secret = field(&key, "d").and_then(Value::as_str).unwrap_or_default();
        if arguments.flag("once") {
            trace.say("The --once flag is deprecated; configure the runner with --ephemeral instead.");
        }
        Ok(Self {
            client: Client::new(&text("serverUrl"), secret),
            name: text("agentName"),
            work: root.join(text("workFolder")),
            once: ephemeral || arguments.flag("once"),
            ephemeral,
            root,
            trace,
            events,
            received,
        })
    }

    fn run(&mut self) -> i32 {
        let (session, backoff) = match self.open_session() {
            Ok(Some(session)) => session,
            Ok(None) => return 0,
            Err(code) => return code,
        };
        self.trace.say(&format!("Current runner version: '{}'", crate::AGENT_VERSION));
        self.trace.say_timed("Listening for Jobs");
        let polling = self.poll(session, backoff);
        let end = self.listen();
        polling.store(false, Ordering::Relaxed);
        // Errors of the deletion are ignored upstream too; the wait is short so that a dead forge holds nobody.
        let short = Client::with_timeout(self.client.base(), "", Duration::from_secs(5));
        if let Err(refusal) = short.delete(&format!("/_agent/sessions/{session}")) {
            self.trace.error(&format!("DeleteSession: {refusal}"));
        }
        match end {
            End::JobDone | End::Gone => {
                if self.ephemeral || matches!(end, End::Gone) {
                    configure::delete_files(&self.root, &self.trace);
                }
                0
            }
            End::Stopped => 0,
            End::Ordered(code) => code,
        }
    }

    /// None when a signal ended it.
    fn open_session(&self) -> Result<Option<(u64, Duration)>, i32> {
        let started = Instant::now();
        let mut failing = false;
        loop {
            // The request runs beside this thread, so that a signal during it is obeyed at once.
            let (events, client) = (self.events.clone(), self.client.clone());
            thread::spawn(move || {
                let answer = client.post("/_agent/sessions", None::<&()>);
                // The listener may have been stopped meanwhile.
                let _ = events.send(Event::Session(answer));
            });
            let answer = match self.received.recv() {
                Ok(Event::Session(answer)) => answer,
                Ok(_) | Err(_) => {
                    self.trace.say("Exiting...");
                    return Ok(None);
                }
            };
            let pause = match answer {
                Ok(answer) => {
                    if let Some(order) = answer.exit {
                        return Err(self.obey(&order));
                    }
                    self.trace.say("\n√ Connected to GitHub\n");
                    return Ok(Some((answer.session, Duration::from_millis(answer.backoff_ms))));
                }
                Err(Refusal::Status { status: 409, body, .. }) => {
                    let conflict: ConflictAnswer = serde_json::from_str(&body).unwrap_or(ConflictAnswer {
                        message: "A session for this runner already exists.".into(),
                        retry_ms: 30_000,
                        limit_ms: 240_000,
                    });
                    self.trace.complain(&conflict.message);
                    if started.elapsed() >= Duration::from_millis(conflict.limit_ms) {
                        self.trace.complain(
                            "A session for this runner already exists. Stopped retrying after the retry limit.",
                        );
                        return Err(CONFLICT);
                    }
                    Duration::from_millis(conflict.retry_ms)
                }
                Err(Refusal::Status { status: 404 | 401, .. }) => {
                    self.trace.complain(
                        "Failed to create a session. The runner registration has been deleted from the server, please \
                         re-configure. Runner registrations are automatically deleted for runners that have not \
                         connected to the service recently.",
                    );
                    return Err(TERMINATED);
                }
                Err(refusal) => {
                    if !failing {
                        let text = format!("Runner connect error: {refusal}. Retrying until reconnected.");
                        self.trace.say_timed(&text);
                    }
                    failing = true;
                    Duration::from_secs(1)
                }
            };
            if self.stopped_within(pause) {
                return Ok(None);
            }
        }
    }

    /// Waits; true when a signal came.
    fn stopped_within(&self, time: Duration) -> bool {
        let stopped = matches!(self.received.recv_timeout(time), Ok(Event::Signal(_)));
        if stopped {
            self.trace.say("Exiting...");
        }
        stopped
    }

    /// Polls on a thread of its own until told otherwise.
    fn poll(&self, session: u64, backoff: Duration) -> Arc<AtomicBool> {
        let polling = Arc::new(AtomicBool::new(true));
        let (go_on, events, client) = (Arc::clone(&polling), self.events.clone(), self.client.clone());
        thread::spawn(move || {
            let mut failing = false;
            while go_on.load(Ordering::Relaxed) {
                let answer = client.get::<Message>(&format!("/_agent/sessions/{session}/message"));
                let event = match answer {
                    Ok(message) => {
                        if failing && events.send(Event::PollRecovered).is_err() {
                            return;
                        }
                        failing = false;
                        match message {
                            Some(message) => Event::Message(message),
                            None => continue,
                        }
                    }
                    Err(refusal) if refusal.status() == Some(404) => {
                        // The loop is over then; so is this thread.
                        let _ = events.send(Event::Gone);
                        return;
                    }
                    Err(refusal) => {
                        if !failing && events.send(Event::PollFailed(refusal.to_string())).is_err() {
                            return;
                        }
                        failing = true;
                        thread::sleep(backoff);
                        continue;
                    }
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        });
        polling
    }

    fn listen(&mut self) -> End {
        let mut running: Option<Running> = None;
        loop {
            let event = match running.as_ref().and_then(|r| r.kill_at) {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Signal(signal)) => {
                    self.trace.say("Exiting...");
                    if let Some(running) = running.take() {
                        self.shut_down(running, signal);
                    }
                    return End::Stopped;
                }
                Ok(Event::Message(Message::Exit(order))) => {
                    if let Some(running) = running.take() {
                        self.shut_down(running, SIGINT);
                    }
                    return End::Ordered(self.obey(&order));
                }
                Ok(Event::Message(Message::Job { id, name })) => {
                    if running.is_some() {
                        self.trace.error(&format!("Job {id} came while another runs; left alone."));
                        continue;
                    }
                    self.trace.info(&format!("Acknowledging runner request for job '{id}' ({name})."));
                    running = self.start_job(id);
                }
                Ok(Event::Message(Message::Cancel { id })) => {
                    if let Some(running) = running.as_mut().filter(|r| r.job.id == id) {
                        self.trace.info(&format!("Cancellation of job {id} received."));
                        self.tell(running, &WorkerMessage::Cancel);
                        let limit = Duration::from_millis(running.job.worker_kill_ms);
                        running.cancelled = true;
                        running.kill_at.get_or_insert(Instant::now() + limit);
                    }
                }
                Ok(Event::PollFailed(why)) => {
                    self.trace.say_timed(&format!("Runner connect error: {why}. Retrying until reconnected."));
                }
                Ok(Event::PollRecovered) => self.trace.say_timed("Runner reconnected."),
                Ok(Event::Gone) => {
                    if running.is_some() {
                        self.trace.info("The registration is gone while a job runs.");
                        continue;
                    }
                    self.trace.complain("The runner no longer exists on the server. Cleaning up local configuration.");
                    return End::Gone;
                }
                Ok(Event::WorkerExited(code)) => {
                    if let Some(done) = running.take() {
                        self.finish_job(&done, code);
                        if self.once {
                            return End::JobDone;
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(running) = running.as_mut() {
                        self.trace.info(&format!("Kill worker {} after the cancel timeout.", running.worker));
                        self.kill_worker(running);
                        running.kill_at = None;
                    }
                }
                Ok(Event::Session(_)) | Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            }
        }
    }

    fn start_job(&self, id: u64) -> Option<Running> {
        let job: JobMessage = match self.client.post(&format!("/_agent/jobs/{id}/acquire"), None::<&()>) {
            Ok(job) => job,
            Err(Refusal::Status { status: 404 | 409 | 422, message, .. }) => {
                self.trace.info(&format!("Skipping message Job. {message}"));
                return None;
            }
            Err(refusal) => {
                self.trace.error(&format!("Job {id} was not acquired: {refusal}"));
                return None;
            }
        };
        self.trace.say_timed(&format!("Running job: {}", job.name));
        let started = self.spawn_worker().map_err(|error| {
            self.trace.complain(&format!("The worker did not start: {error}"));
            self.report(&job, JobResult::Failed);
        });
        let (mut worker, mut orders) = started.ok()?;
        let message = WorkerMessage::Job {
            server: self.client.base().into(),
            runner: self.name.clone(),
            work: self.work.to_string_lossy().into_owned(),
            job: Box::new(job.clone()),
        };
        self.write_order(&mut orders, &message);
        let pid = worker.id();
        let events = self.events.clone();
        thread::spawn(move || {
            let code = worker.wait().ok().and_then(|status| status.code());
            // The loop may be over; nobody needs the event then.
            let _ = events.send(Event::WorkerExited(code));
        });
        let renewing = self.renew(&job);
        Some(Running { job, worker: pid, orders, cancelled: false, kill_at: None, renewing })
    }

    fn spawn_worker(&self) -> std::io::Result<(Child, std::process::ChildStdin)> {
        let bin = self.root.join("bin");
        let output = || {
            if super::flag("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT") { Stdio::inherit() } else { Stdio::null() }
        };
        let mut worker = Command::new(bin.join("Runner.Worker"))
            .arg("spawnclient")
            .current_dir(&bin)
            .stdin(Stdio::piped())
            .stdout(output())
            .stderr(output())
            .spawn()?;
        let orders = worker.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok((worker, orders))
    }

    /// Keeps the job's lease until told otherwise.
    fn renew(&self, job: &JobMessage) -> Arc<AtomicBool> {
        let renewing = Arc::new(AtomicBool::new(true));
        let (go_on, client) = (Arc::clone(&renewing), self.client.clone());
        let (path, pause) = (format!("/_agent/jobs/{}/renew", job.id), Duration::from_millis(job.renew_ms));
        thread::spawn(move || {
            loop {
                thread::sleep(pause);
                if !go_on.load(Ordering::Relaxed) {
                    return;
                }
                // The next renewal follows soon; a job that the forge gave up runs on, as upstream.
                let _ = client.post_raw(&path, None::<&()>);
            }
        });
        renewing
    }

    fn tell(&self, running: &mut Running, message: &WorkerMessage) {
        self.write_order(&mut running.orders, message);
    }

    fn write_order(&self, orders: &mut impl std::io::Write, message: &WorkerMessage) {
        let line = serde_json::to_string(message).expect("messages have only string keys");
        if let Err(error) = writeln!(orders, "{line}").and_then(|()| orders.flush()) {
            self.trace.error(&format!("The worker does not listen: {error}"));
        }
    }

    fn kill_worker(&self, running: &Running) {
        let pid = Pid::from_raw(running.worker.cast_signed());
        if let Err(error) = kill(pid, Signal::SIGKILL) {
            self.trace.error(&format!("kill {pid}: {error}"));
        }
    }

    /// Tells the worker, and waits: for ever after SIGINT, 30 s after SIGTERM.
    fn shut_down(&self, mut running: Running, signal: i32) {
        self.tell(&mut running, &WorkerMessage::Shutdown);
        let deadline = (signal == SIGTERM).then(|| Instant::now() + UNLOAD_TIMEOUT);
        loop {
            let event = match deadline {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::WorkerExited(code)) => return self.finish_job(&running, code),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn finish_job(&self, running: &Running, code: Option<i32>) {
        running.renewing.store(false, Ordering::Relaxed);
        let known = code.and_then(JobResult::from_worker_code);
        let result = known.unwrap_or(if running.cancelled { JobResult::Canceled } else { JobResult::Failed });
        if known.is_none() {
            let text = format!("Worker finished for job {}. Code: {code:?}", running.job.id);
            self.trace.error(&text);
            self.report(&running.job, result);
        }
        self.trace.say_timed(&format!("Job {} completed with result: {}", running.job.name, result.word()));
    }

    /// Completes the job in place of a worker that could not.
    fn report(&self, job: &JobMessage, result: JobResult) {
        let client = Client::new(self.client.base(), &job.token);
        let request = CompleteRequest { result };
        if let Err(refusal) = client.post_raw(&format!("/_agent/jobs/{}/complete", job.id), Some(&request)) {
            self.trace.error(&format!("The job's end was not reported: {refusal}"));
        }
    }

    fn obey(&self, order: &ExitOrder) -> i32 {
        let text = order.text.clone().unwrap_or_else(|| {
            match order.code {
                TERMINATED => "An error occurred: Runner not found",
                RETRYABLE => "An error occurred: Unhandled exception",
                3 | 4 => "Runner update in process, please do not shutdown or sleep.",
                CONFLICT => "A session for this runner already exists.",
                DEPRECATED => "An error occurred: Runner version v2.336.0 is deprecated and cannot receive messages.",
                _ => "An error occurred",
            }
            .into()
        });
        self.trace.complain(&text);
        if order.code == DEPRECATED && !super::flag("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE") {
            return TERMINATED;
        }
        order.code
    }
}

/// Why listening ended.
#[derive(Debug)]
enum End {
    JobDone,
    Gone,
    Stopped,
    Ordered(i32),
}

/// A member by name, whatever its case: JIT settings are written in another case than those of `configure`.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// Writes the files of a JIT configuration.
fn write_jit(root: &Path, encoded: &str) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let bad = |error: &dyn std::fmt::Display| format!("Invalid JIT configuration: {error}");
    let decoded = BASE64.decode(encoded.trim()).map_err(|e| bad(&e))?;
    let files: BTreeMap<String, String> = serde_json::from_slice(&decoded).map_err(|e| bad(&e))?;
    for (name, content) in files {
        let content = BASE64.decode(content).map_err(|e| bad(&e))?;
        let path = root.join(&name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        if name == ".credentials_rsaparams" {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|e| bad(&e))?;
        }
    }
    Ok(())
}
