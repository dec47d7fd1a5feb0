//! The loop that waits for jobs.
//!
//! One thread speaks with the forge, one try after the other as upstream does; what comes of it, like all else that can happen, reaches
//! this loop as an [`Event`], so that a signal is acted on at once, whatever a request in flight is waiting for.

use std::path::PathBuf;
use std::process::abort;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGINT;

use super::arguments::Arguments;
use super::assignment::{Job, WorkerMessage};
use super::client::download;
use super::dispatch::{Dispatcher, Running};
use super::github::chatter::Phase;
use super::kind::{Configured, Connection, Facts, Kind, Next, Opened, Refresh};
use super::listener::{
    CONFLICT, DEPRECATED, ONCE_UPDATING, RETRYABLE, TERMINATED, UPDATING, field, number, text, truth,
};
use super::narrator::Narrator;
use super::permissions::usable;
use super::trace::Trace;
use super::update::{self, Outcome, Update};
use super::{pause, side};
use crate::protocol::{ExitOrder, Manners, Trouble};

/// Everything that can happen while the listener runs.
#[derive(Debug)]
pub(super) enum Event {
    Signal(i32),
    /// There is a session.
    Open,
    Job(Box<Job>),
    Cancel(String, Duration),
    Update(Refresh),
    /// Another version lies beside this one. What it sends is dropped when no job runs.
    Waiting(Sender<()>),
    /// The script that takes it into use waits for the listener's end.
    Updated,
    /// The registration is gone.
    Gone,
    /// The job went elsewhere, and the registration with it.
    Consumed,
    /// The forge's answer ends the listener.
    Ended(i32),
    /// The side channel does.
    Ordered(ExitOrder),
    /// A lease could not be kept.
    LeaseLost,
    WorkerExited(Option<i32>),
}

/// Why listening ended.
#[derive(Debug)]
enum End {
    JobDone,
    Gone,
    Consumed,
    Stopped,
    Coded(i32),
}

pub(super) struct Listener {
    kind: Kind,
    root: PathBuf,
    trace: Arc<Trace>,
    narrator: Arc<Narrator>,
    forge: Arc<dyn Connection>,
    manners: Manners,
    server: String,
    id: u64,
    work: PathBuf,
    name: String,
    once: bool,
    ephemeral: bool,
    events: Sender<Event>,
    received: Receiver<Event>,
}

impl Listener {
    pub(super) fn load(
        kind: Kind,
        root: PathBuf,
        trace: Arc<Trace>,
        arguments: &Arguments,
        events: Sender<Event>,
        received: Receiver<Event>,
    ) -> Result<Self, i32> {
        let facts = kind.facts();
        if let Err(why) = (facts.before_run)(&root, arguments) {
            trace.complain(&why);
            return Err(TERMINATED);
        }
        let read = |name: &str| super::read_json(&root.join(name));
        let loaded = read(facts.settings)
            .and_then(|settings| Ok((settings, read(".credentials")?, read(".credentials_rsaparams")?)));
        let Ok((settings, credentials, _key)) = loaded else {
            trace.complain(&format!("Not configured. Run config.(sh/cmd) to configure the {}.", facts.noun));
            return Err(TERMINATED);
        };
        let ephemeral = truth(field(&settings, "ephemeral"));
        if arguments.flag("once") && kind == Kind::GitHub {
            trace.say("The --once flag is deprecated; configure the runner with --ephemeral instead.");
        }
        let work = root.join(text(&settings, "workFolder"));
        if let Err(why) = usable(&work) {
            trace.complain(&format!("An error occurred: {why}"));
            return Err(TERMINATED);
        }
        let server = text(&settings, "serverUrl").to_owned();
        let (id, name) = (number(&settings, "agentId"), text(&settings, "agentName").to_owned());
        let manners = side::manners(kind, &server, id, "session");
        trace.set_traps(manners.mixed_traces);
        let narrator = Arc::new(Narrator::of_listener(kind, &trace, &root, &work, &settings));
        let forge = (facts.connect)(Configured {
            root: root.clone(),
            settings,
            credentials,
            trace: Arc::clone(&trace),
            narrator: Arc::clone(&narrator),
            manners: manners.clone(),
        });
        let once = ephemeral || arguments.flag("once");
        Ok(Self {
            kind,
            root,
            trace,
            narrator,
            forge,
            manners,
            server,
            id,
            work,
            name,
            once,
            ephemeral,
            events,
            received,
        })
    }

    fn facts(&self) -> &'static Facts {
        self.kind.facts()
    }

    /// Listens, and gives the exit code.
    pub(super) fn run(&mut self) -> i32 {
        self.narrator.tell(Phase::Start);
        if let Some(order) = self.manners.exit.take() {
            return self.obey(&order);
        }
        self.connect();
        match self.received.recv() {
            Ok(Event::Open) => {}
            Ok(Event::Ended(code)) => return code,
            Ok(_) | Err(_) => {
                self.trace.say("Exiting...");
                self.take_session_back();
                return 0;
            }
        }
        self.narrator.tell(Phase::Session);
        for line in (self.facts().connected)(&super::version(self.kind, &self.root)) {
            self.trace.say(&line);
        }
        self.trace.say_timed("Listening for Jobs");
        self.narrator.tell(Phase::Listening);
        match self.manners.trouble {
            Some(Trouble::Crash) => abort(),
            Some(Trouble::Hang) => loop {
                thread::park();
            },
            Some(Trouble::Deaf) | None => {}
        }
        let (busy, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        self.poll(&busy, &go_on);
        let end = self.listen(&busy);
        go_on.store(false, Ordering::Relaxed);
        self.leave(&end);
        match end {
            End::Coded(code) => code,
            End::JobDone | End::Gone | End::Consumed | End::Stopped => 0,
        }
    }

    /// Closes a session that is granted in the moment of a signal: the next listener would find it taken. A forge that does not answer
    /// is not waited for.
    fn take_session_back(&self) {
        let until = Instant::now() + Duration::from_secs(1);
        while let Ok(event) = self.received.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if matches!(event, Event::Open) {
                // Errors of the deletion are ignored upstream too.
                let _ = self.forge.close_session();
            }
            if matches!(event, Event::Open | Event::Ended(_)) {
                return;
            }
        }
    }

    /// Deletes the session, unless the forge said that nobody knows the runner, and the configuration that is no good any more.
    fn leave(&self, end: &End) {
        let gone = &self.facts().gone;
        if matches!(end, End::JobDone | End::Stopped) {
            self.narrator.tell(Phase::PollCancelled);
        }
        if !(matches!(end, End::Gone) && gone.clean_up) {
            let title = self.facts().title;
            self.narrator.tell_or(Phase::ListenerEnd, title, &format!("Deleting {title} Session..."));
            // Errors of the deletion are ignored upstream too.
            if let Err(refusal) = self.forge.close_session() {
                self.trace.error("MessageListener", &format!("DeleteSession: {refusal}"));
            }
        }
        let clean = match end {
            End::JobDone | End::Consumed => self.ephemeral,
            End::Gone => gone.clean_up,
            End::Stopped | End::Coded(_) => false,
        };
        if clean {
            self.narrator.tell(Phase::CleanUp);
            (self.facts().forget)(&self.root, &self.trace);
        }
    }

    /// Opens a session, on a thread of its own.
    fn connect(&self) {
        let (events, forge) = (self.events.clone(), Arc::clone(&self.forge));
        thread::spawn(move || {
            let event = loop {
                match forge.open_session() {
                    Opened::Yes => break Event::Open,
                    Opened::Wait(time) => thread::sleep(time),
                    Opened::End(code) => break Event::Ended(code),
                }
            };
            // An event that nobody receives any more is the listener's end, and the process ends with it.
            drop(events.send(event));
        });
    }

    /// Polls on a thread of its own, until told otherwise.
    fn poll(&self, busy: &Arc<AtomicBool>, go_on: &Arc<AtomicBool>) {
        let (events, forge) = (self.events.clone(), Arc::clone(&self.forge));
        let (busy, go_on) = (Arc::clone(busy), Arc::clone(go_on));
        let (kind, server, id) = (self.kind, self.server.clone(), self.id);
        // An event that nobody receives any more is the listener's end, and the process ends with it.
        thread::spawn(move || {
            while go_on.load(Ordering::Relaxed) {
                let event = match forge.next(busy.load(Ordering::Relaxed)) {
                    Next::Nothing => match side::manners(kind, &server, id, "poll").exit {
                        Some(order) => Event::Ordered(order),
                        None => continue,
                    },
                    Next::Wait(time) => {
                        thread::sleep(time);
                        continue;
                    }
                    Next::Job(job) => {
                        busy.store(true, Ordering::Relaxed);
                        Event::Job(job)
                    }
                    Next::Cancel { id, limit } => Event::Cancel(id, limit),
                    Next::Update(refresh) => Event::Update(refresh),
                    Next::Gone => return drop(events.send(Event::Gone)),
                    Next::Consumed => return drop(events.send(Event::Consumed)),
                    Next::End(code) => return drop(events.send(Event::Ended(code))),
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        });
    }

    /// Waits for all that can happen, until it is over.
    fn listen(&mut self, busy: &AtomicBool) -> End {
        let deaf = self.manners.trouble == Some(Trouble::Deaf);
        let mut running: Option<Running> = None;
        let mut waiting = None;
        loop {
            let event = match running.as_ref().and_then(|r| r.kill_at) {
                None => self.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.received.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match event {
                Ok(Event::Signal(_)) if deaf => {}
                Ok(Event::Signal(signal)) => {
                    self.trace.say("Exiting...");
                    self.shut_down(running, signal);
                    return End::Stopped;
                }
                Ok(Event::Ordered(order)) => {
                    self.shut_down(running, SIGINT);
                    return End::Coded(self.obey(&order));
                }
                Ok(Event::Ended(code)) => {
                    self.shut_down(running, SIGINT);
                    return End::Coded(code);
                }
                Ok(Event::Job(job)) => {
                    running = self.dispatcher().start(*job);
                    busy.store(running.is_some(), Ordering::Relaxed);
                    if running.is_none() && self.once {
                        return End::JobDone;
                    }
                }
                Ok(Event::Update(refresh)) => self.update(refresh),
                Ok(Event::Waiting(until)) => waiting = running.is_some().then_some(until),
                Ok(Event::Updated) => return End::Coded(if self.once { ONCE_UPDATING } else { UPDATING }),
                Ok(Event::Cancel(id, limit)) => {
                    if let Some(running) = running.as_mut().filter(|r| r.job.id == id) {
                        let minutes = (limit + Duration::from_secs(15)).as_secs() / 60;
                        self.trace.info(
                            "JobDispatcher",
                            &format!("Job cancellation request {id} received, cancellation timeout {minutes} minutes."),
                        );
                        self.dispatcher().cancel(running, limit);
                    }
                }
                Ok(Event::LeaseLost) => {
                    if let Some(running) = running.as_mut() {
                        running.lease_lost = true;
                        self.dispatcher().cancel(running, self.unasked());
                    }
                }
                Ok(Event::Gone) => {
                    if let Some(words) = self.facts().gone.text {
                        self.trace.say(words);
                    }
                    if let Some(mut running) = running {
                        self.dispatcher().cancel(&mut running, self.unasked());
                        self.dispatcher().await_end(running, &self.received, None);
                    }
                    return End::Gone;
                }
                Ok(Event::Consumed) => return End::Consumed,
                Ok(Event::WorkerExited(code)) => {
                    if let Some(running) = running.take() {
                        self.dispatcher().finish(&running, code);
                        // One that ends takes no other.
                        busy.store(self.once, Ordering::Relaxed);
                        if waiting.take().is_none() && self.once {
                            return End::JobDone;
                        }
                    }
                }
                Ok(Event::Open) => {}
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(running) = running.as_mut() {
                        self.dispatcher().kill(running);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            }
        }
    }

    /// How long a worker has for a cancel that no forge sent. A machine that is busy must not make it less than a scale can.
    fn unasked(&self) -> Duration {
        self.manners.scale.ms(45_000).max(Duration::from_secs(5))
    }

    fn dispatcher(&self) -> Dispatcher<'_> {
        Dispatcher {
            kind: self.kind,
            root: &self.root,
            work: &self.work,
            server: &self.server,
            runner: &self.name,
            trace: &self.trace,
            narrator: &self.narrator,
            forge: &self.forge,
            manners: &self.manners,
            events: &self.events,
        }
    }

    /// Tells the worker of a running job, which takes its time, and waits for it: for ever after SIGINT, 30 s after SIGTERM.
    fn shut_down(&self, running: Option<Running>, signal: i32) {
        let Some(mut running) = running else { return };
        thread::sleep(self.manners.scale.ms(pause::between(50, 800)));
        running.shut_down = true;
        let limit = (signal != SIGINT).then(|| self.manners.scale.ms(30_000));
        self.dispatcher().tell(&mut running, &WorkerMessage::Shutdown);
        self.dispatcher().await_end(running, &self.received, limit);
    }

    /// Makes this root another version, beside a job that runs; [`Event::Updated`] comes when it is done.
    fn update(&self, refresh: Refresh) {
        let noun = self.facts().noun;
        if super::flag("agent.disableupdate") {
            let text = format!("Refresh message received, skip {noun} update since it is disabled.");
            return self.trace.info("Agent", &text);
        }
        let (trace, forge, events) = (Arc::clone(&self.trace), Arc::clone(&self.forge), self.events.clone());
        let (kind, root, work) = (self.kind, self.root.clone(), self.work.clone());
        let words = if kind == Kind::GitHub { &update::GITHUB } else { &update::AZURE };
        thread::spawn(move || {
            let refresh = match forge.package(refresh) {
                Ok(refresh) => refresh,
                Err(why) => return trace.error("SelfUpdater", &format!("The package was not found: {why}")),
            };
            let update = Update {
                words,
                trace: &trace,
                root: &root,
                work: &work,
                version: &refresh.version,
                url: &refresh.url,
                sha256: &refresh.sha256,
                listener: std::process::id(),
            };
            let idle = || {
                let (until, idle) = channel();
                // It comes back when the other end is dropped, which the loop does.
                let _ = events.send(Event::Waiting(until)).is_ok() && idle.recv().is_ok();
            };
            match update.run(|| download(kind, &refresh.url), idle) {
                // The script goes on by itself. The listener may be about to end.
                Outcome::Ends(_script) => drop(events.send(Event::Updated)),
                Outcome::Failed => {}
            }
        });
    }

    fn obey(&self, order: &ExitOrder) -> i32 {
        let Facts { title, noun, .. } = self.facts();
        let text = order.text.clone().unwrap_or_else(|| match order.code {
            TERMINATED => format!("An error occurred: {title} not found"),
            RETRYABLE => "An error occurred: Unhandled exception".into(),
            UPDATING | ONCE_UPDATING => format!("{title} update in progress, do not shutdown {noun}."),
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
