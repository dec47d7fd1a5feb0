//! `Runner.Listener` and `Agent.Listener`: the program, and the loop that waits for jobs.
//!
//! One loop receives everything that can happen as an [`Event`]; threads only turn blocking calls into events, so that a
//! signal is acted on at once, whatever a request in flight is waiting for.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::arguments::Arguments;
use super::client::Refusal;
use super::kind::{Connection, Facts, Kind};
use super::trace::Trace;
use crate::protocol::{
    ConflictAnswer, ExitOrder, JobMessage, JobResult, Message, SessionAnswer, Trouble, WorkerMessage,
};

/// Exit code 1.
pub(super) const TERMINATED: i32 = 1;
const RETRYABLE: i32 = 2;
const UPDATING: i32 = 3;
const ONCE_UPDATING: i32 = 4;
const CONFLICT: i32 = 5;
const DEPRECATED: i32 = 7;

/// Upstream's limit of a shutdown that SIGTERM began.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole program; gives its exit code.
#[must_use]
pub fn main() -> i32 {
    let kind = Kind::of_this_program();
    let facts = kind.facts();
    let root = super::root();
    load_env_file(&root);
    let mut arguments = Arguments::parse(facts, std::env::args_os().skip(1));
    arguments.add_environment(facts.input_prefix);
    if arguments.flag("version") {
        println!("{}", super::version(kind, &root));
        return 0;
    }
    if arguments.flag("commit") {
        println!("0000000000000000000000000000000000000000");
        return 0;
    }
    if arguments.flag("help") {
        println!("Commands: {}. See the official agent's help for the flags.", facts.commands.join(", "));
        return 0;
    }
    let trace = Trace::open(&root, facts, facts.title);
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
        Some("configure") => until_signal(&trace, received, |trace| (facts.configure)(&root, trace, &arguments)),
        Some("remove") => until_signal(&trace, received, |trace| (facts.remove)(&root, trace, &arguments)),
        Some("warmup" | "reauth") => 0,
        None if arguments.flag("warmup") => 0,
        Some(_) | None => {
            let mut listener = match Listener::load(kind, root, trace, &arguments, events, received) {
                Ok(listener) => listener,
                Err(code) => return code,
            };
            let code = listener.run();
            let text = format!("{} execution has finished with return code {code}", facts.title);
            listener.trace.info("Listener", &text);
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
    kind: Kind,
    root: PathBuf,
    trace: Trace,
    forge: Arc<dyn Connection>,
    /// Where the worker reports to.
    server: String,
    name: String,
    work: PathBuf,
    once: bool,
    ephemeral: bool,
    events: Sender<Event>,
    received: Receiver<Event>,
}

impl Listener {
    fn load(
        kind: Kind,
        root: PathBuf,
        trace: Trace,
        arguments: &Arguments,
        events: Sender<Event>,
        received: Receiver<Event>,
    ) -> Result<Self, i32> {
        let facts = kind.facts();
        if let Err(why) = (facts.before_run)(&root, arguments) {
            trace.complain(&why);
            return Err(TERMINATED);
        }
        let loaded = super::read_json(&root.join(facts.settings))
            .and_then(|settings| Ok((settings, super::read_json(&root.join(".credentials_rsaparams"))?)));
        let Ok((settings, key)) = loaded else {
            trace.complain(&format!("Not configured. Run config.(sh/cmd) to configure the {}.", facts.noun));
            return Err(TERMINATED);
        };
        let ephemeral = field(&settings, "ephemeral")
            .is_some_and(|v| v == &Value::Bool(true) || v.as_str().is_some_and(|v| v.eq_ignore_ascii_case("true")));
        if arguments.flag("once") && kind == Kind::GitHub {
            trace.say("The --once flag is deprecated; configure the runner with --ephemeral instead.");
        }
        Ok(Self {
            kind,
            forge: (facts.connect)(&root, &settings, text(&key, "d")),
            server: text(&settings, "serverUrl").to_owned(),
            name: text(&settings, "agentName").to_owned(),
            work: root.join(text(&settings, "workFolder")),
            once: ephemeral || arguments.flag("once"),
            ephemeral,
            root,
            trace,
            events,
            received,
        })
    }

    fn facts(&self) -> &'static Facts {
        self.kind.facts()
    }

    fn run(&mut self) -> i32 {
        let session = match self.open_session() {
            Ok(Some(session)) => session,
            Ok(None) => return 0,
            Err(code) => return code,
        };
        for line in (self.facts().connected)(&super::version(self.kind, &self.root)) {
            self.trace.say(&line);
        }
        self.trace.say_timed("Listening for Jobs");
        let deaf = match session.trouble {
            Some(Trouble::Crash) => std::process::abort(),
            Some(Trouble::Hang) => loop {
                thread::park();
            },
            Some(Trouble::Deaf) => true,
            None => false,
        };
        let polling = self.poll(session.session, Duration::from_millis(session.backoff_ms));
        let end = self.listen(deaf);
        polling.store(false, Ordering::Relaxed);
        // Errors of the deletion are ignored upstream too.
        if let Err(refusal) = self.forge.close_session(session.session) {
            self.trace.error("MessageListener", &format!("DeleteSession: {refusal}"));
        }
        match end {
            End::JobDone if self.ephemeral => {
                super::delete_config_files(self.kind, &self.root, &self.trace);
                0
            }
            End::Gone if self.facts().gone.clean_up => {
                super::delete_config_files(self.kind, &self.root, &self.trace);
                0
            }
            End::JobDone | End::Gone | End::Stopped => 0,
            End::Ordered(code) => code,
        }
    }

    /// None when a signal ended it.
    fn open_session(&self) -> Result<Option<SessionAnswer>, i32> {
        let Facts { title, noun, .. } = self.facts();
        let started = Instant::now();
        let mut failing = false;
        loop {
            // The request runs beside this thread, so that a signal during it is obeyed at once.
            let (events, forge) = (self.events.clone(), Arc::clone(&self.forge));
            thread::spawn(move || {
                let answer = forge.open_session();
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
                Ok(answer) => match &answer.exit {
                    Some(order) => return Err(self.obey(order)),
                    None => return Ok(Some(answer)),
                },
                Err(Refusal::Status { status: 409, body, .. }) => {
                    let conflict: ConflictAnswer = serde_json::from_str(&body).unwrap_or(ConflictAnswer {
                        message: format!("A session for this {noun} already exists."),
                        retry_ms: 30_000,
                        limit_ms: 240_000,
                    });
                    self.trace.complain(&conflict.message);
                    if started.elapsed() >= Duration::from_millis(conflict.limit_ms) {
                        let text =
                            format!("A session for this {noun} already exists. Stopped retrying after the limit.");
                        self.trace.complain(&text);
                        return Err(self.facts().conflict_code);
                    }
                    Duration::from_millis(conflict.retry_ms)
                }
                Err(Refusal::Status { status: 404 | 401, .. }) => {
                    self.trace.complain(&format!(
                        "Failed to create a session. The {noun} registration has been deleted from the server, please \
                         re-configure."
                    ));
                    return Err(TERMINATED);
                }
                Err(refusal) => {
                    if !failing {
                        let text = format!("{title} connect error: {refusal}. Retrying until reconnected.");
                        self.trace.complain_timed(&text);
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
        let (go_on, events, forge) = (Arc::clone(&polling), self.events.clone(), Arc::clone(&self.forge));
        thread::spawn(move || {
            let mut failing = false;
            while go_on.load(Ordering::Relaxed) {
                let event = match forge.next_message(session) {
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
                    Err(refusal) if matches!(refusal.status(), Some(401 | 404)) => {
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

    /// Waits for all that can happen, until it is over. `deaf`: signals change nothing.
    fn listen(&mut self, deaf: bool) -> End {
        let title = self.facts().title;
        let mut running: Option<Running> = None;
        loop {
            let event = match running.as_ref().and_then(|r| r.kill_at) {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Signal(_)) if deaf => {}
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
                Ok(Event::Message(Message::Job { id, offered, .. })) => {
                    if running.is_some() {
                        self.trace.info("Runner", &format!("Skip message deletion for job request message '{id}'."));
                        continue;
                    }
                    self.trace.info("BrokerMessageListener", &format!("Acknowledging runner request '{id}'."));
                    running = self.start_job(id, offered.map(|job| *job));
                }
                Ok(Event::Message(Message::Refresh { version })) => {
                    if let Some(code) = self.refresh(&version) {
                        if let Some(running) = running.take() {
                            self.shut_down(running, SIGINT);
                        }
                        return End::Ordered(code);
                    }
                }
                Ok(Event::Message(Message::Cancel { id })) => {
                    if let Some(running) = running.as_mut().filter(|r| r.job.id == id) {
                        self.trace.info("JobDispatcher", &format!("Job cancellation request {id} received."));
                        self.tell(running, &WorkerMessage::Cancel);
                        let limit = Duration::from_millis(running.job.worker_kill_ms);
                        running.cancelled = true;
                        running.kill_at.get_or_insert(Instant::now() + limit);
                    }
                }
                Ok(Event::PollFailed(why)) => {
                    self.trace.complain_timed(&format!("{title} connect error: {why}. Retrying until reconnected."));
                }
                Ok(Event::PollRecovered) if self.facts().says_reconnected => {
                    self.trace.say_timed(&format!("{title} reconnected."));
                }
                Ok(Event::PollRecovered) => {}
                Ok(Event::Gone) => {
                    if running.is_some() {
                        self.trace.info("Runner", "The registration is gone while a job runs.");
                        continue;
                    }
                    match self.facts().gone.text {
                        Some(text) => self.trace.complain(text),
                        None => self.trace.info("Runner", "The credential has been revoked. Shutting down."),
                    }
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
                        self.trace.info(
                            "JobDispatcher",
                            &format!("Kill worker {} after the cancel timeout.", running.worker),
                        );
                        self.kill_worker(running);
                        running.kill_at = None;
                    }
                }
                Ok(Event::Session(_)) | Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            }
        }
    }

    /// Another version is wanted: the code to end with, unless that is switched off.
    fn refresh(&self, version: &str) -> Option<i32> {
        if std::env::var_os("agent.disableupdate").is_some_and(|value| !value.is_empty()) {
            self.trace.info("Runner", "Refresh message received, skipped because agent.disableupdate is set.");
            return None;
        }
        self.trace.say("Agent update in process, do not shutdown agent.");
        self.trace.say(&format!("Downloading {version} agent"));
        if let Err(refusal) = self.forge.look_for_package() {
            self.trace.error("SelfUpdater", &format!("The package was not found: {refusal}"));
        }
        self.trace.say("Agent will exit shortly for update, should back online within 10 seconds.");
        Some(if self.once { ONCE_UPDATING } else { UPDATING })
    }

    fn start_job(&self, id: u64, offered: Option<JobMessage>) -> Option<Running> {
        let job = match self.forge.acquire(id, offered) {
            Ok(job) => job,
            Err(Refusal::Status { status: 404 | 409 | 422, message, .. }) => {
                self.trace.info("Runner", &format!("Skipping message Job. {message}"));
                return None;
            }
            Err(refusal) => {
                self.trace.error("Runner", &format!("Job {id} was not acquired: {refusal}"));
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
            server: self.server.clone(),
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
        let visible = self.facts().log_on_stdout.is_some_and(super::flag);
        let mut worker = Command::new(self.root.join(self.facts().worker))
            .arg("spawnclient")
            .current_dir(&bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // What the worker prints, or a job in its place, becomes the listener's own, without a trace of having been written.
        for pipe in [worker.stdout.take().map(OwnedFd::from), worker.stderr.take().map(OwnedFd::from)] {
            let pipe = File::from(pipe.ok_or(std::io::ErrorKind::BrokenPipe)?);
            thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    if visible && !line.is_empty() {
                        // Standard output may be closed; the job goes on.
                        let _ = std::io::stdout().lock().write_all(&[&line[..], b"\n"].concat());
                    }
                }
            });
        }
        let orders = worker.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok((worker, orders))
    }

    /// Keeps the job's lease until told otherwise.
    fn renew(&self, job: &JobMessage) -> Arc<AtomicBool> {
        let renewing = Arc::new(AtomicBool::new(true));
        let (go_on, forge) = (Arc::clone(&renewing), Arc::clone(&self.forge));
        let (id, pause) = (job.id, Duration::from_millis(job.renew_ms));
        thread::spawn(move || {
            loop {
                thread::sleep(pause);
                if !go_on.load(Ordering::Relaxed) {
                    return;
                }
                // The next renewal follows soon; a job that the forge gave up runs on, as upstream.
                let _ = forge.renew(id);
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
            self.trace.error("JobDispatcher", &format!("The worker does not listen: {error}"));
        }
    }

    fn kill_worker(&self, running: &Running) {
        let pid = Pid::from_raw(running.worker.cast_signed());
        if let Err(error) = kill(pid, Signal::SIGKILL) {
            self.trace.error("JobDispatcher", &format!("kill {pid}: {error}"));
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
            self.trace.error("JobDispatcher", &text);
            self.report(&running.job, result);
        }
        self.trace.say_timed(&format!("Job {} completed with result: {}", running.job.name, result.word()));
    }

    /// Completes the job in place of a worker that could not.
    fn report(&self, job: &JobMessage, result: JobResult) {
        if let Err(refusal) = (self.facts().report)(&self.server, &job.token).complete(job.id, result) {
            self.trace.error("JobDispatcher", &format!("The job's end was not reported: {refusal}"));
        }
    }

    fn obey(&self, order: &ExitOrder) -> i32 {
        let Facts { title, noun, .. } = self.facts();
        let text = order.text.clone().unwrap_or_else(|| match order.code {
            TERMINATED => format!("An error occurred: {title} not found"),
            RETRYABLE => "An error occurred: Unhandled exception".into(),
            UPDATING | ONCE_UPDATING => format!("{title} update in process, please do not shutdown or sleep."),
            CONFLICT => format!("A session for this {noun} already exists."),
            DEPRECATED => {
                let version = super::version(self.kind, &self.root);
                format!("An error occurred: {title} version v{version} is deprecated and cannot receive messages.")
            }
            _ => "An error occurred".into(),
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
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// A member that is a text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).and_then(Value::as_str).unwrap_or_default()
}
