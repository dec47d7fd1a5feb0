//! The story of an incarnation, in order: clean slate, register, listen, job, unregister, clean slate, exit.
//!
//! Every phase can be cut short by a request to stop, and none of them loses what it holds: the state file knows of each
//! registration before the forge does.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::children::{Running, Starter};
use super::exit;
use super::state::StateFile;
use super::stop::{Stop, Urgency};
use crate::agent::output::Marker;
use crate::agent::root;
use crate::agent::worker::{self, Worker};
use crate::config::Common;
use crate::config::name::Naming;
use crate::control::server::Order;
use crate::control::{Board, Event, Job, Phase, Runner};
use crate::init::Ended;
use crate::init::leftovers::{descendants, signal_all};
use crate::provider::{Fault, Files, Grant, Provider, Reading, Registration, Released, Releasing, Step, Wanted};
use crate::workspace::{Slate, wipe};

/// How often we look for a worker that must be about to appear, and for how long after its job was announced.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_FOR: Duration = Duration::from_secs(60);
/// How long a job may still turn up after the forge let an idle registration go: the assignment may have crossed.
const CROSSING: Duration = Duration::from_secs(3);
/// How long after a refusal for being busy the release is tried again, if no worker has appeared.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long the listener may take to end by itself once its only job's worker is gone.
const FAREWELL: Duration = Duration::from_secs(60);
/// How long the agent's configure step may take.
const CONFIGURE: Duration = Duration::from_secs(5 * 60);
/// How often a secret's file is looked at while the forge refuses the secret. Not by notification: mounts of single files
/// and the links of Kubernetes' secrets do not give any.
const LOOK_AT_SECRET: Duration = Duration::from_secs(2);
/// A listener that listened for so long was well: earlier failures are history.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How long the kernel gets to end what was killed.
const TEARDOWN: Duration = Duration::from_secs(10);

/// One life of the container.
pub struct Incarnation {
    common: Common,
    provider: Box<dyn Provider>,
    starter: Starter,
    slate: Slate,
    state: StateFile,
    board: Board,
    stop: Stop,
    backoff: Backoff,
    born: Instant,
    /// Told whenever a hook reports a job, so that its worker is looked for.
    hooked: Rc<Notify>,
}

/// How the time with one listener ended.
#[derive(Debug)]
enum Ending {
    /// A job ran and is over.
    JobDone,
    /// A job ran, and the listener died under it.
    JobBroken(String),
    /// We were asked to stop.
    Stopped,
    /// No job ran, and the registration is worth nothing any more.
    Again(String),
    /// The forge wants another version of the agent.
    Outdated(String),
    /// The agent cannot work here.
    Fatal(String),
}

/// What became of an idle listener that should stop.
enum Retired {
    /// It was interrupted and will end.
    Interrupted,
    /// A job runs.
    Working(Worker),
    /// The forge says that a job was assigned; its worker is not there yet.
    Assigned,
}

impl Incarnation {
    #[expect(clippy::too_many_arguments, reason = "it owns all that a life needs, and is made in one place")]
    pub fn new(
        common: Common,
        provider: Box<dyn Provider>,
        starter: Starter,
        slate: Slate,
        mut state: StateFile,
        board: Board,
        stop: Stop,
        orders: UnboundedReceiver<Order>,
    ) -> Self {
        if !common.persistent {
            // Whatever is there was left by an incarnation that could not clean up.
            state.demote();
            state.forget_kept();
        }
        let backoff = Backoff { failures: state.state.failures };
        let hooked = Rc::new(Notify::new());
        tokio::task::spawn_local(obey(orders, board.clone(), stop.clone(), Rc::clone(&hooked)));
        Self { common, provider, starter, slate, state, board, stop, backoff, born: Instant::now(), hooked }
    }

    /// Lives, and returns the exit code.
    pub async fn live(mut self) -> u8 {
        self.greet();
        let code = loop {
            if !self.clean_slate().await {
                break exit::DONE;
            }
            let Some(root) = self.register().await else {
                break exit::DONE;
            };
            let ending = self.listen(&root).await;
            self.end_processes().await;
            self.board.job(None);
            self.unregister(&root, &ending).await;
            match ending {
                Ending::JobDone if self.common.persistent && self.stop.urgency() == Urgency::None => {
                    self.forget_failures()
                }
                Ending::JobDone => {
                    self.forget_failures();
                    break exit::DONE;
                }
                Ending::JobBroken(why) => {
                    tracing::error!("the job was lost: {why}");
                    break exit::TEMPORARY;
                }
                Ending::Stopped => break exit::DONE,
                Ending::Again(why) => {
                    let wait = self.backoff.after_fault();
                    self.wait_out(Phase::BackingOff, &why, wait).await;
                }
                Ending::Outdated(why) => {
                    let why = format!("{why}; {}", self.version_to_pull().await);
                    let wait = self.backoff.after_denial();
                    self.wait_out(Phase::Outdated, &why, wait).await;
                }
                Ending::Fatal(why) => {
                    let wait = self.backoff.after_denial();
                    self.wait_out(Phase::Denied, &why, wait).await;
                }
            }
        };
        self.leave().await;
        code
    }

    fn greet(&self) {
        let common = &self.common;
        tracing::info!(
            "oscr-entry {} starts a {} for {}",
            env!("CARGO_PKG_VERSION"),
            self.provider.agent().title,
            self.provider.scope()
        );
        let needed = (common.stop_timeout + common.kill_timeout * 2).as_secs() + 10;
        tracing::info!(
            "when this container is stopped, a running job gets {} to finish: Docker must allow for it \
             (stop_grace_period: {needed}s, docker stop -t {needed})",
            humantime::format_duration(common.stop_timeout),
        );
    }

    /// Makes the slate clean, however often it takes. `false` when asked to stop before it was.
    async fn clean_slate(&mut self) -> bool {
        loop {
            self.board.enter(Phase::Cleaning);
            let slate = self.slate.clone();
            match on_a_thread(move || slate.clean()).await {
                Ok(wiped) => {
                    if wiped.entries > 0 {
                        tracing::info!(
                            entries = wiped.entries,
                            bytes = wiped.bytes,
                            ms = u64::try_from(wiped.took.as_millis()).unwrap_or(u64::MAX),
                            "wiped what was left"
                        );
                    }
                    for mount in &wiped.mounts {
                        tracing::info!("{} is a mount and was left alone", mount.display());
                    }
                    return self.stop.urgency() == Urgency::None;
                }
                Err(error) => {
                    let wait = self.backoff.after_denial();
                    self.wait_out(Phase::Dirty, &format!("no job is taken: {error}"), wait).await;
                    if self.stop.urgency() > Urgency::None {
                        return false;
                    }
                }
            }
        }
    }

    /// Registers, however long it takes. `None` when asked to stop before.
    async fn register(&mut self) -> Option<PathBuf> {
        while self.stop.urgency() == Urgency::None {
            self.board.enter(Phase::Registering);
            let attempt = self.try_to_register().await;
            self.provider.rest();
            let fault = match attempt {
                Ok(root) => {
                    self.board.well();
                    return Some(root);
                }
                Err(fault) => fault,
            };
            if self.stop.urgency() > Urgency::None {
                break;
            }
            let (phase, wait) = match &fault {
                Fault::Unreachable(_) | Fault::NameTaken(_) => (Phase::BackingOff, self.backoff.after_fault()),
                Fault::Limited { wait, .. } => (Phase::BackingOff, self.backoff.after_limit(*wait)),
                Fault::Denied { .. } => (Phase::Denied, self.backoff.after_denial()),
            };
            self.wait_out(phase, &fault.to_string(), wait).await;
        }
        None
    }

    async fn try_to_register(&mut self) -> Result<PathBuf, Fault> {
        self.release_leftovers().await?;
        if let Some(root) = self.take_up_kept().await? {
            return Ok(root);
        }
        // A name that was tried and may or may not be known to the forge is tried again: then one clean-up covers both.
        let name = match &self.state.state.current {
            Some(pending) => pending.name.clone(),
            None => self.common.naming.next(Naming::entropy()),
        };
        self.state.state.current = Some(self.provider.registration(&name));
        self.save()?;
        self.board.runner(Some(Runner { name: name.clone(), id: None }));
        let work_directory = self.common.work_directory.clone();
        let wanted = Wanted { name: &name, work_directory: &work_directory };
        let grant = match self.provider.grant(wanted).await {
            Ok(grant) => grant,
            Err(fault) => {
                if matches!(fault, Fault::NameTaken(_)) {
                    self.demote();
                }
                return Err(fault);
            }
        };
        let made = match grant {
            Grant::Files { registration, files } => {
                // Known to the forge already, so known to the next incarnation before anything else.
                self.state.state.current = Some(registration.clone());
                self.save()?;
                self.make_root(&name, &files).map(|root| (root, registration))
            }
            Grant::Token(token) => match self.make_root(&name, &Files::new()) {
                Ok(root) => {
                    let step = self.provider.configure(&token, wanted);
                    match self.configure(&root, &step).await {
                        Ok(()) => self.provider.identify(&name, &root).await.map(|registration| (root, registration)),
                        Err(fault) => Err(fault),
                    }
                }
                Err(fault) => Err(fault),
            },
        };
        let (root, registration) = match made {
            Ok(made) => made,
            Err(fault) => {
                self.demote();
                return Err(fault);
            }
        };
        self.state.state.current = Some(registration.clone());
        self.save()?;
        if self.common.persistent {
            self.state.keep(&root, self.provider.agent().configuration).map_err(|error| on_disk(&error))?;
        }
        self.board.runner(Some(Runner { name, id: registration.id }));
        tracing::info!(id = registration.id, "registered with {}", self.provider.scope());
        Ok(root)
    }

    /// For a persistent runner: the registration of an earlier incarnation or job, if the forge still has it.
    async fn take_up_kept(&mut self) -> Result<Option<PathBuf>, Fault> {
        if !self.common.persistent {
            return Ok(None);
        }
        let files = self.state.kept(self.provider.agent().configuration);
        let current =
            self.state.state.current.clone().filter(|current| {
                !files.is_empty() && current.scope == self.provider.registration(&current.name).scope
            });
        let Some(current) = current else {
            self.state.forget_kept();
            self.demote_known();
            return Ok(None);
        };
        let known = match self.provider.releasing() {
            Releasing::Request => self.provider.exists(&current).await?,
            // Without a credential that could ask, the listener itself will find out.
            Releasing::Command(_) => true,
        };
        if !known {
            tracing::warn!("the forge does not know {} any more: registering anew", current.name);
            self.state.forget_kept();
            self.state.state.current = None;
            return Ok(None);
        }
        let root = self.make_root(&current.name, &files)?;
        self.board.runner(Some(Runner { name: current.name.clone(), id: current.id }));
        tracing::debug!("taking up the registration {}", current.name);
        Ok(Some(root))
    }

    fn make_root(&self, name: &str, files: &Files) -> Result<PathBuf, Fault> {
        let roots = self.common.places.agent_roots();
        let fault =
            |what: String| Fault::Denied { what, cure: "check the disk and the permissions of that place".to_owned() };
        // An earlier attempt may have left one.
        wipe(&roots, None).map_err(|error| fault(format!("{} cannot be emptied: {error}", roots.display())))?;
        let agent = &self.slate.agent;
        let made =
            root::make(&self.common.places.agent(), &roots, name, agent).map_err(|error| fault(error.to_string()))?;
        for (file, content) in files {
            root::write(&made, file, content, agent)
                .map_err(|error| fault(format!("{} cannot be written: {error}", made.join(file).display())))?;
        }
        Ok(made)
    }

    async fn configure(&self, root: &Path, step: &Step) -> Result<(), Fault> {
        let (mut agent, _) = self.starter.start(root, step).map_err(|error| cannot_start(&error))?;
        let ended = tokio::select! {
            ended = agent.ended() => ended,
            () = self.stop.reached(Urgency::Finish) => self.interrupt(&mut agent).await,
            () = sleep(CONFIGURE) => {
                tracing::warn!("the agent's configure step hangs: interrupting it");
                self.interrupt(&mut agent).await
            }
        };
        match ended {
            Ended::Code(0) => Ok(()),
            Ended::Code(code @ (126 | 127)) => Err(Fault::Denied {
                what: format!("the agent cannot run in this image (code {code})"),
                cure: "check that the image holds the libraries that the agent needs".to_owned(),
            }),
            ended => {
                let words = agent.tail.lines();
                let words = words.iter().rev().find(|line| !line.is_empty()).cloned().unwrap_or_default();
                Err(self.provider.configure_failed(&format!("the agent's configure step failed ({ended}): {words}")))
            }
        }
    }

    /// Interrupts a process that must end, and kills it if it does not.
    async fn interrupt(&self, process: &mut Running) -> Ended {
        process.signal(Signal::SIGINT);
        match timeout(self.common.kill_timeout, process.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::warn!(
                    "the agent did not end within {} of being interrupted: killing it",
                    humantime::format_duration(self.common.kill_timeout)
                );
                process.signal(Signal::SIGKILL);
                process.ended().await
            }
        }
    }

    /// Listens, sees a job through, and obeys requests to stop, until the listener has ended.
    async fn listen(&mut self, root: &Path) -> Ending {
        let (mut listener, mut markers) = match self.starter.start(root, &self.provider.run()) {
            Ok(started) => started,
            Err(error) => return Ending::Fatal(error.to_string()),
        };
        let stop = self.stop.clone();
        let hooked = Rc::clone(&self.hooked);
        let mut watch = JobWatch::default();
        let mut connected: Option<Instant> = None;
        let mut retire_at: Option<Instant> = None;
        let mut retiring = false;
        let mut interrupted = false;
        let mut farewell: Option<Instant> = None;
        let ended = loop {
            tokio::select! {
                biased;
                ended = listener.ended() => break ended,
                () = stop.reached(Urgency::Cancel) => {
                    if watch.worker.is_some() {
                        tracing::warn!("cancelling the running job");
                    }
                    interrupted = true;
                    break self.interrupt(&mut listener).await;
                }
                () = watch.worker_gone() => {
                    watch.worker = None;
                    watch.look_until = None;
                    tracing::info!("the job's worker is gone");
                    // A persistent runner's listener ends after its one job too.
                    farewell = Some(Instant::now() + FAREWELL);
                }
                Some(marker) = markers.recv() => match marker {
                    Marker::Listening => {
                        connected.get_or_insert_with(Instant::now);
                        if !watch.seen && !retiring {
                            self.board.enter(Phase::Listening);
                            self.board.well();
                        }
                    }
                    Marker::Running(name) => {
                        watch.expect();
                        self.board.enter(if retiring { Phase::Draining } else { Phase::Running });
                        self.board.describe_job(Job { name: Some(name), ..Job::default() });
                    }
                },
                () = hooked.notified() => {
                    watch.expect();
                    self.board.enter(if retiring { Phase::Draining } else { Phase::Running });
                }
                () = watch.time_to_look() => watch.look(&listener, self.provider.agent().worker),
                () = stop.reached(Urgency::Finish), if !retiring => {
                    retiring = true;
                    retire_at = Some(Instant::now());
                }
                () = at(retire_at) => {
                    retire_at = None;
                    if watch.over() {
                        // The job is done, and the listener about to end.
                        continue;
                    }
                    // A second signal must get through while the forge is being asked.
                    let retired = tokio::select! {
                        retired = self.retire(root, &listener, &mut watch) => retired,
                        () = stop.reached(Urgency::Cancel) => continue,
                    };
                    match retired {
                        Retired::Working(worker) => {
                            tracing::info!("a job is running: waiting for it to finish");
                            watch.found(worker);
                            self.board.enter(Phase::Draining);
                        }
                        Retired::Assigned => {
                            tracing::info!("a job has been assigned: waiting for it");
                            watch.expect();
                            self.board.enter(Phase::Draining);
                            retire_at = Some(Instant::now() + ASK_AGAIN);
                        }
                        Retired::Interrupted => {
                            interrupted = true;
                            break self.interrupt(&mut listener).await;
                        }
                    }
                }
                () = at(farewell) => {
                    tracing::warn!("the listener does not end although its job is over: interrupting it");
                    break self.interrupt(&mut listener).await;
                }
            }
        };
        tracing::debug!("the listener ended ({ended})");
        if watch.seen || connected.is_some_and(|since| since.elapsed() >= WELL_AFTER) {
            self.forget_failures();
        }
        self.read_ending(ended, watch.seen, interrupted, root)
    }

    fn read_ending(&mut self, ended: Ended, job_seen: bool, interrupted: bool, root: &Path) -> Ending {
        let cancelled = interrupted && self.stop.urgency() > Urgency::None;
        let reading = self.provider.read_exit(ended, job_seen);
        match reading {
            _ if cancelled => Ending::Stopped,
            Reading::Done => Ending::JobDone,
            Reading::Retry(why) | Reading::Lost(why) | Reading::Outdated(why) | Reading::Fatal(why) if job_seen => {
                Ending::JobBroken(why)
            }
            Reading::Lost(why) => {
                // What was kept of it is worth nothing either.
                if self.common.persistent {
                    self.state.forget_kept();
                    self.demote();
                }
                tracing::debug!("the root was {}", root.display());
                Ending::Again(why)
            }
            Reading::Retry(why) => Ending::Again(why),
            Reading::Outdated(why) => Ending::Outdated(why),
            Reading::Fatal(why) => Ending::Fatal(why),
        }
    }

    /// Stops an idle listener without losing a job: the forge is asked to let the registration go first, because only it
    /// knows whether it has just given out a job.
    async fn retire(&mut self, root: &Path, listener: &Running, watch: &mut JobWatch) -> Retired {
        let worker_name = self.provider.agent().worker;
        let look = || worker::find(listener.pid, worker_name).ok().flatten();
        if let Some(worker) = watch.worker.take().or_else(look) {
            return Retired::Working(worker);
        }
        if self.common.persistent {
            // Its registration stays, so there is nothing to ask. A job that is assigned in this very moment waits at the
            // forge for the next incarnation, unless the listener has taken it already.
            return Retired::Interrupted;
        }
        self.board.enter(Phase::Unregistering);
        let given_up = Instant::now() + self.common.kill_timeout;
        loop {
            match self.release_current(root).await {
                Ok(Released::Gone) => break,
                Ok(Released::Busy) => return look().map_or(Retired::Assigned, Retired::Working),
                Err(fault) => {
                    tracing::warn!("the registration cannot be removed yet: {fault}");
                    if let Some(worker) = look() {
                        return Retired::Working(worker);
                    }
                    if matches!(fault, Fault::Denied { .. }) || Instant::now() >= given_up {
                        return Retired::Interrupted;
                    }
                    let wait = self.backoff.after_fault().min(Duration::from_secs(5));
                    sleep(wait).await;
                }
            }
        }
        // Let go, but a job may have been assigned a moment before.
        let crossed = Instant::now() + CROSSING;
        while Instant::now() < crossed && listener_lives(listener) {
            if let Some(worker) = look() {
                return Retired::Working(worker);
            }
            sleep(LOOK_EVERY).await;
        }
        Retired::Interrupted
    }

    /// Ends everything that descends from us: what a job started does not outlive it.
    async fn end_processes(&self) {
        let until = Instant::now() + TEARDOWN;
        let left = descendants(&[]).len();
        if left > 0 {
            tracing::info!(processes = left, "ending what the job left running");
        }
        while !descendants(&[]).is_empty() {
            if Instant::now() >= until {
                tracing::error!("{} processes cannot be killed", descendants(&[]).len());
                return;
            }
            // Again each time: a process may have been forked between the look and the signal.
            signal_all(Signal::SIGKILL as i32, &[]);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Makes sure that the forge does not have the registration any more, or that the next incarnation will.
    async fn unregister(&mut self, root: &Path, ending: &Ending) {
        if self.common.persistent && !matches!(ending, Ending::Again(_) | Ending::Outdated(_) | Ending::Fatal(_)) {
            return;
        }
        if self.state.state.current.is_none() {
            return;
        }
        self.board.enter(Phase::Unregistering);
        let given_up = Instant::now() + self.common.kill_timeout;
        let mut pause = Duration::from_millis(250);
        loop {
            let trouble = match self.release_current(root).await {
                Ok(Released::Gone) => {
                    tracing::info!("the registration is gone");
                    break;
                }
                Ok(Released::Busy) => "the forge still believes that a job runs".to_owned(),
                Err(fault @ Fault::Denied { .. }) => {
                    tracing::warn!("the registration cannot be removed: {fault}; the next incarnation will try");
                    self.demote();
                    break;
                }
                Err(fault) => fault.to_string(),
            };
            if Instant::now() + pause >= given_up {
                tracing::warn!("the registration could not be removed: {trouble}; the next incarnation will");
                self.demote();
                break;
            }
            tracing::debug!("the registration is not gone yet: {trouble}");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.provider.rest();
        self.board.runner(None);
    }

    /// One attempt to let the current registration go.
    async fn release_current(&mut self, root: &Path) -> Result<Released, Fault> {
        let Some(current) = self.state.state.current.clone() else {
            return Ok(Released::Gone);
        };
        let released = match self.provider.releasing() {
            Releasing::Request => self.provider.release(&current).await?,
            Releasing::Command(step) => self.release_by_command(root, &step).await?,
        };
        if released == Released::Gone {
            self.state.state.current = None;
            self.state.save_or_warn();
        }
        Ok(released)
    }

    async fn release_by_command(&self, root: &Path, step: &Step) -> Result<Released, Fault> {
        let (mut agent, _) = self.starter.start(root, step).map_err(|error| cannot_start(&error))?;
        let ended = match timeout(self.common.kill_timeout, agent.ended()).await {
            Ok(ended) => ended,
            Err(_) => self.interrupt(&mut agent).await,
        };
        if ended == Ended::Code(0) {
            return Ok(Released::Gone);
        }
        let words = agent.tail.lines().join(" ");
        if words.contains("running a job") || words.contains("currently running") {
            return Ok(Released::Busy);
        }
        Err(Fault::Unreachable(format!("the agent's remove command failed ({ended}): {words}")))
    }

    /// Lets go of what earlier incarnations could not. What is busy stays for later; what another scope refuses is given up.
    async fn release_leftovers(&mut self) -> Result<(), Fault> {
        if self.state.state.leftovers.is_empty() {
            return Ok(());
        }
        if matches!(self.provider.releasing(), Releasing::Command(_)) {
            let names: Vec<&str> = self.state.state.leftovers.iter().map(|left| left.name.as_str()).collect();
            tracing::warn!(
                "{} may still be registered and cannot be removed without a token for the API; the forge removes an ephemeral \
                 runner after a day",
                names.join(", ")
            );
            self.state.state.leftovers.clear();
            return Ok(());
        }
        let mut kept = Vec::new();
        let mut result = Ok(());
        for registration in std::mem::take(&mut self.state.state.leftovers) {
            if result.is_err() {
                kept.push(registration);
                continue;
            }
            let foreign = registration.scope != self.provider.registration(&registration.name).scope;
            match self.provider.release(&registration).await {
                Ok(Released::Gone) => {
                    tracing::info!("{} of an earlier incarnation is not registered any more", registration.name)
                }
                Ok(Released::Busy) => {
                    tracing::info!(
                        "the forge believes that {} still runs a job; it is removed later",
                        registration.name
                    );
                    kept.push(registration);
                }
                Err(fault @ Fault::Denied { .. }) if foreign => tracing::warn!(
                    "{} may still be registered at {}, which refuses us: {fault}",
                    registration.name,
                    registration.scope
                ),
                Err(fault) => {
                    kept.push(registration);
                    result = Err(fault);
                }
            }
        }
        self.state.state.leftovers = kept;
        self.state.save_or_warn();
        result
    }

    /// The end: nothing registered that could be let go, a clean slate, and the shortest life waited out.
    async fn leave(&mut self) {
        if !self.common.persistent {
            self.demote();
        }
        if !self.state.state.leftovers.is_empty() {
            self.board.enter(Phase::Unregistering);
            if let Ok(Err(fault)) = timeout(self.common.kill_timeout, self.release_leftovers()).await {
                tracing::warn!("a registration could not be removed: {fault}; the next incarnation will");
            }
        }
        self.provider.rest();
        self.board.runner(None);
        self.board.enter(Phase::Cleaning);
        let slate = self.slate.clone();
        if let Err(error) = on_a_thread(move || slate.clean()).await {
            // The next incarnation cleans before it takes a job, and takes none while it cannot.
            tracing::warn!("{error}");
        }
        if self.stop.parks() {
            self.board.enter(Phase::Drained);
            tracing::info!("drained: no job is taken until this container is stopped");
            self.stop.signal_came().await;
        }
        self.board.enter(Phase::Resting);
        if !self.stop.signalled() {
            tokio::select! {
                () = sleep_until(self.born + self.common.min_uptime) => {}
                () = self.stop.signal_came() => {}
            }
        }
        tracing::info!("leaving");
    }

    async fn version_to_pull(&self) -> String {
        let title = self.provider.agent().title;
        match self.provider.current_version().await {
            Ok(version) => format!("pull an image with version {version} of the {title}, or newer"),
            Err(_) => format!("pull an image with a newer {title}"),
        }
    }

    /// Says what went wrong and waits, unless asked to stop or a secret's file changes.
    async fn wait_out(&mut self, phase: Phase, trouble: &str, wait: Duration) {
        self.board.fault(trouble, wait);
        self.board.enter(phase);
        self.state.state.failures = self.backoff.failures;
        self.state.save_or_warn();
        let next = humantime::format_duration(Duration::from_secs(wait.as_secs().max(1)));
        match phase {
            Phase::BackingOff => tracing::warn!("{trouble}; trying again in {next}"),
            _ => tracing::error!("{trouble}; trying again in {next}"),
        }
        let stamps = || self.provider.secrets().into_iter().map(|source| source.stamp()).collect::<Vec<_>>();
        let before = stamps();
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let step = (Instant::now() + LOOK_AT_SECRET).min(until);
            tokio::select! {
                () = sleep_until(step) => {}
                () = self.stop.reached(Urgency::Finish) => return,
            }
            if phase == Phase::Denied && stamps() != before {
                tracing::info!("the secret's file has changed: trying again now");
                self.backoff.reset();
                return;
            }
        }
    }

    fn save(&mut self) -> Result<(), Fault> {
        self.state.save().map_err(|error| on_disk(&error))
    }

    fn demote(&mut self) {
        self.state.demote();
        self.state.save_or_warn();
    }

    /// Demotes a registration that the forge is known to have had; a name that was only tried stays to be tried again.
    fn demote_known(&mut self) {
        if self.state.state.current.as_ref().is_some_and(|current: &Registration| current.id.is_some()) {
            self.demote();
        }
    }

    fn forget_failures(&mut self) {
        self.board.well();
        self.backoff.reset();
        if self.state.state.failures != 0 {
            self.state.state.failures = 0;
            self.state.save_or_warn();
        }
    }
}

/// What is known about a job under the listener.
#[derive(Debug, Default)]
struct JobWatch {
    /// The worker, while it lives.
    worker: Option<Worker>,
    /// Whether a job was ever announced. Only the listener or a job can announce one, so there was one.
    seen: bool,
    /// Until when a worker is looked for.
    look_until: Option<Instant>,
    found_once: bool,
}

impl JobWatch {
    fn expect(&mut self) {
        self.seen = true;
        if self.worker.is_none() && !self.found_once {
            self.look_until = Some(Instant::now() + LOOK_FOR);
        }
    }

    fn found(&mut self, worker: Worker) {
        self.seen = true;
        self.found_once = true;
        self.look_until = None;
        self.worker = Some(worker);
    }

    /// Whether the one job is behind us.
    fn over(&self) -> bool {
        self.found_once && self.worker.is_none()
    }

    fn look(&mut self, listener: &Running, name: &str) {
        match worker::find(listener.pid, name) {
            Ok(Some(worker)) => {
                tracing::debug!("the worker is process {}", worker.pid);
                self.found(worker);
            }
            Ok(None) => {
                if self.look_until.is_some_and(|until| Instant::now() >= until) {
                    self.look_until = None;
                }
            }
            Err(error) => {
                tracing::warn!("the worker cannot be watched: {error}");
                self.look_until = None;
            }
        }
    }

    async fn time_to_look(&self) {
        match self.look_until {
            Some(_) => sleep(LOOK_EVERY).await,
            None => std::future::pending().await,
        }
    }

    async fn worker_gone(&self) {
        match &self.worker {
            Some(worker) => worker.gone().await,
            None => std::future::pending().await,
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn listener_lives(listener: &Running) -> bool {
    crate::init::leftovers::Stat::read(listener.pid).is_some_and(|stat| stat.state != 'Z')
}

fn cannot_start(error: &crate::init::SpawnError) -> Fault {
    Fault::Denied {
        what: format!("the agent cannot be started: {error}"),
        cure: "check the image and the capabilities that the container is given".to_owned(),
    }
}

fn on_disk(error: &super::state::StateError) -> Fault {
    Fault::Denied { what: error.to_string(), cure: "free some space, or make that place writable".to_owned() }
}

/// Turns what clients of the control socket ask into requests to stop and facts about the job.
async fn obey(mut orders: UnboundedReceiver<Order>, board: Board, stop: Stop, hooked: Rc<Notify>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Drain { exit } => {
                tracing::info!("asked to drain");
                stop.drain(exit);
            }
            Order::Hook { event: Event::JobStarted, job } => {
                let (repository, run_url) = (job.repository.as_deref(), job.run_url.as_deref());
                tracing::info!(job = job.name.as_deref(), repository, run_url, "a job begins");
                board.describe_job(job);
                hooked.notify_one();
            }
            Order::Hook { event: Event::JobCompleted, job } => {
                tracing::info!(job = job.name.as_deref(), "the job's steps are over");
            }
        }
    }
}

/// Runs something that blocks on a thread of its own, so that signals and the control socket are served meanwhile. The
/// thread is gone when this returns: a process that forks should have no other.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(work());
    });
    let result = receiver.await;
    let joined = thread.join();
    match (result, joined) {
        (Ok(result), _) => result,
        (Err(_), Err(panic)) => std::panic::resume_unwind(panic),
        // The sender is dropped unsent only by a panic.
        (Err(_), Ok(())) => unreachable!("the thread ended without a result"),
    }
}
