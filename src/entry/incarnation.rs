//! The story of an incarnation, in order: clean slate, register, listen, job, unregister, clean slate, exit.
//!
//! Every phase can be cut short by a request to stop, and none of them loses what it holds: the state file knows of each
//! registration before the forge does.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backoff::Backoff;
use super::children::Starter;
use super::docker::{self, Engine};
use super::hardware::{Guard, HardwareError};
use super::hostname;
use super::listening::Ending;
use super::numbers::Numbers;
use super::removal::Removal;
use super::report::JobReport;
use super::state::StateFile;
use super::stop::{Stop, Urgency};
use super::update::{Rule, Update};
use crate::config::secret::{SecretSource, Stamp};
use crate::config::{Common, LockScope, Taint};
use crate::control::server::{Hooked, Order};
use crate::control::{Board, Event, HookAnswer, Phase};
use crate::docker::Docker;
use crate::exit;
use crate::metrics;
use crate::provider::Provider;
use crate::resource::{Claim, Held};
use crate::workspace::space::shown;
use crate::workspace::taint::Custody;
use crate::workspace::{Slate, evict};

/// How often a secret's file is looked at while the forge refuses the secret. Not by notification: mounts of single files
/// and the links of Kubernetes' secrets do not give any.
const LOOK_AT_SECRET: Duration = Duration::from_secs(2);

/// How often the disk is looked at while there is too little space for a job.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(5);

/// One life of the container.
pub struct Incarnation {
    pub(super) common: Common,
    pub(super) provider: Rc<dyn Provider>,
    pub(super) starter: Starter,
    pub(super) slate: Slate,
    pub(super) state: StateFile,
    pub(super) board: Board,
    pub(super) stop: Stop,
    pub(super) backoff: Backoff,
    pub(super) born: Instant,
    /// The shared hardware that jobs need, if any.
    pub(super) guard: Option<Rc<Guard>>,
    /// Hooks before a job, which wait for an answer.
    pub(super) jobs: UnboundedReceiver<Hooked>,
    /// Where metrics go.
    pub(super) numbers: Numbers,
    /// A job that is over, and of which only the wiping is left to be told.
    pub(super) report: Option<JobReport>,
    /// The Docker that jobs use, if there is one that can be asked.
    pub(super) docker: Option<Docker>,
    /// An engine of our own.
    pub(super) engine: Option<Engine>,
    /// What the secrets' files looked like before they were last used.
    pub(super) stamps: Vec<Stamp>,
    /// What the file system outside of the slate should be like; `None` where no job can change it, or we cannot tell.
    pub(super) custody: Option<Custody>,
    /// What was changed there, if anything was.
    pub(super) tainted: Option<String>,
    /// The fingerprint of the grant in use, if it is good for one job only.
    pub(super) once: Option<String>,
    /// What was moved aside, while it is being removed.
    pub(super) removal: Option<Removal>,
    /// Whether one of them failed while the runner went on.
    pub(super) removal_failed: bool,
    /// What is going on about a newer agent.
    pub(super) update: Update,
}

impl Incarnation {
    #[expect(clippy::too_many_arguments, reason = "it owns all that a life needs, and is made in one place")]
    pub fn new(
        common: Common,
        provider: Rc<dyn Provider>,
        starter: Starter,
        slate: Slate,
        mut state: StateFile,
        board: Board,
        stop: Stop,
        guard: Option<Rc<Guard>>,
        orders: UnboundedReceiver<Order>,
        numbers: Numbers,
        custody: Option<Custody>,
    ) -> Self {
        if !common.persistent {
            // Whatever is there was left by an incarnation that could not clean up.
            state.demote();
            state.forget_kept();
        }
        let backoff = Backoff::after(state.state.failures);
        let (sender, jobs) = unbounded_channel();
        tokio::task::spawn_local(obey(orders, board.clone(), stop.clone(), sender));
        let docker = docker::prepare(&common);
        let refuses = common.taint == Taint::Refuse;
        let tainted = custody.as_ref().filter(|_| refuses).and_then(Custody::condemned);
        let update = Update::new(Rule::of(&common, provider.as_ref()));
        let mut life = Self {
            common,
            provider,
            starter,
            slate,
            state,
            board,
            stop,
            backoff,
            born: Instant::now(),
            guard,
            jobs,
            numbers,
            report: None,
            docker,
            engine: None,
            stamps: Vec::new(),
            custody,
            tainted,
            once: None,
            removal: None,
            removal_failed: false,
            update,
        };
        life.take_up_agent();
        life
    }

    /// Lives, and returns the exit code.
    pub async fn live(mut self) -> u8 {
        self.greet();
        self.spread_start().await;
        let code = loop {
            if !self.clean_slate().await || !self.enough_space().await {
                break exit::DONE;
            }
            if !self.docker_before_listening().await {
                break exit::DONE;
            }
            self.update_before_registering().await;
            let Some(mut held) = self.hardware_before_listening().await else { break exit::DONE };
            let Some(root) = self.register().await else {
                self.let_go(held).await;
                break exit::DONE;
            };
            self.remember_label(&root);
            if let Err(error) = self.all_is_well() {
                // More will be read than needed, and no less.
                tracing::debug!("{error}");
            }
            let ending = self.listen(&root, &mut held).await;
            self.stop_engine().await;
            self.end_processes(&[]).await;
            self.let_go(held).await;
            self.sweep_docker().await;
            self.board.set_job(None);
            self.unregister(&root, &ending).await;
            match ending {
                Ending::JobDone if self.common.persistent && self.stop.urgency() == Urgency::None => {
                    self.forget_failures()
                }
                Ending::JobDone => {
                    self.forget_failures();
                    self.state.state.alone = self.stop.urgency() == Urgency::None;
                    break exit::DONE;
                }
                Ending::JobBroken(why) => {
                    tracing::error!("the job was lost: {why}");
                    break exit::TEMPORARY;
                }
                Ending::Yielded => tracing::info!("gave the hardware to somebody who waits; joining the queue again"),
                // Waited out before anything else is asked for.
                Ending::Full | Ending::Unclean => {}
                Ending::Updated => tracing::info!("registering again, with the newer agent"),
                Ending::Idle => {
                    self.forget_failures();
                    break exit::DONE;
                }
                Ending::Stopped => break exit::DONE,
                Ending::Again(why) => {
                    let wait = self.backoff.after_fault();
                    self.wait_out(Phase::BackingOff, &why, wait).await;
                }
                Ending::Outdated(why) => {
                    let cure = match self.another_version().await {
                        Ok(version) => {
                            tracing::warn!("{why}: going on with version {version}, which was fetched");
                            continue;
                        }
                        Err(cure) => cure,
                    };
                    let wait = self.backoff.after_denial();
                    self.wait_out(Phase::Outdated, &format!("{why}; {cure}"), wait).await;
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
        // The drain, the cancelled job, its registration, an earlier one's; killing and wiping.
        let needed = (common.stop_timeout + common.kill_timeout * 3).as_secs() + 20;
        tracing::info!(
            "when this container is stopped, a running job gets {} to finish: Docker must allow for it \
             (stop_grace_period: {needed}s, docker stop -t {needed})",
            humantime::format_duration(common.stop_timeout),
        );
    }

    /// Containers that were started together would ask the forge together. One that comes back after its job is alone.
    async fn spread_start(&mut self) {
        if std::mem::take(&mut self.state.state.alone) {
            self.state.save_or_warn();
            return;
        }
        let wait = Backoff::jitter(self.common.start_jitter);
        tracing::debug!("waiting {} ms, in case others start with us (OSCR_START_JITTER)", wait.as_millis());
        tokio::select! {
            () = sleep(wait) => {}
            () = self.stop.reached(Urgency::Finish) => {}
        }
    }

    /// Makes the slate clean, however often it takes. `false` when asked to stop before it was.
    async fn clean_slate(&mut self) -> bool {
        loop {
            if self.tainted.is_some() {
                return false;
            }
            self.board.enter(Phase::Cleaning);
            match self.wipe().await {
                Ok(wiped) => {
                    self.tell_of_wiping(Some(wiped.took));
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
                    self.shrink_caches().await;
                    return self.stop.urgency() == Urgency::None && self.tainted.is_none();
                }
                Err(error) => {
                    self.tell_of_wiping(None);
                    let wait = self.backoff.after_denial();
                    self.wait_out(Phase::Dirty, &format!("no job is taken: {error}"), wait).await;
                    if self.stop.urgency() > Urgency::None {
                        return false;
                    }
                }
            }
        }
    }

    /// Holds the caches to their cap. What goes wrong there keeps no job away: a cache that is too large is no dirt.
    async fn shrink_caches(&self) {
        let Some(most) = self.common.cache_cap else { return };
        for cache in self.common.caches.clone() {
            let place = cache.clone();
            match on_a_thread(move || evict::shrink(&place, most)).await {
                Ok(shrunk) => {
                    metrics::evicted(shrunk.freed);
                    if shrunk.entries > 0 {
                        let (entries, freed, left) = (shrunk.entries, shown(shrunk.freed), shown(shrunk.left));
                        tracing::info!("removed {entries} entries ({freed}) of {}; {left} are left", cache.display());
                    }
                    if shrunk.left > most {
                        let why = shrunk.failures.first().map_or("it cannot be made smaller", String::as_str);
                        let cap = shown(most);
                        tracing::warn!("{} stays larger than {cap} (OSCR_CACHE_MAX): {why}", cache.display());
                    }
                }
                Err(error) => tracing::warn!("{} cannot be held to OSCR_CACHE_MAX: {error}", cache.display()),
            }
        }
    }

    /// The slate is clean after so long, or not at all: nothing is left to be told of the last job.
    fn tell_of_wiping(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            metrics::wiped(took);
        }
        if let Some(report) = self.report.take() {
            report.say(took);
        }
        self.numbers.keep();
    }

    /// Waits until there is disk space for a job. `false` when asked to stop before.
    async fn enough_space(&mut self) -> bool {
        let mut full = false;
        while let Some(why) = self.board.shortage() {
            let why = format!("no job is taken: {why}");
            self.board.waits(&why, LOOK_FOR_SPACE);
            if !std::mem::replace(&mut full, true) {
                self.board.enter(Phase::Full);
                tracing::error!("{why}");
            }
            tokio::select! {
                () = sleep(LOOK_FOR_SPACE) => {}
                () = self.stop.reached(Urgency::Finish) => return false,
            }
        }
        if full {
            tracing::info!("there is enough disk space again");
        }
        true
    }

    /// The end: nothing registered that could be let go, a clean slate, and the shortest life waited out.
    async fn leave(&mut self) {
        self.stop_engine().await;
        if !self.common.persistent {
            self.demote();
        }
        if self.has_leftovers() {
            self.board.enter(Phase::Unregistering);
            let released = timeout(self.common.kill_timeout, self.release_leftovers()).await;
            let trouble = match released {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault.to_string()),
                Err(_) => Some("the forge does not answer".to_owned()),
            };
            if let Some(trouble) = trouble {
                tracing::warn!("a registration could not be removed: {trouble}; the next incarnation will");
            }
        }
        // A life that was stopped before it asked for anything knows no more than the last one did.
        self.state.state.pace = self.provider.pace().or(self.state.state.pace.take());
        self.state.save_or_warn();
        self.provider.rest();
        self.board.set_runner(None);
        self.board.enter(Phase::Cleaning);
        match self.wipe().await {
            Ok(wiped) => self.tell_of_wiping(Some(wiped.took)),
            Err(error) => {
                self.tell_of_wiping(None);
                // The next incarnation cleans before it takes a job, and takes none while it cannot.
                tracing::warn!("{error}");
            }
        }
        self.stay_tainted().await;
        if self.stop.parks() && self.tainted.is_none() {
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
        self.finish_removal().await;
        self.numbers.end(&self.board, self.stop.signalled());
        tracing::info!("leaving");
    }

    /// For a scope of `listener`: the hardware, however long it takes. `None` when asked to stop before it was there; `Some(None)`
    /// when none is needed yet.
    async fn hardware_before_listening(&mut self) -> Option<Option<Held>> {
        let Some(guard) = self.guard.clone().filter(|guard| guard.scope() == LockScope::Listener) else {
            return Some(None);
        };
        loop {
            self.board.enter(Phase::Waiting);
            let claim = Claim::now(format!("a runner in {}", hostname()), Some(self.provider.scope()), None);
            let stop = self.stop.clone();
            let say = |text| tracing::info!("{text}");
            let acquired =
                Rc::clone(&guard).acquire(claim, None, say, async move { stop.reached(Urgency::Finish).await });
            match acquired.await {
                Ok(held) => {
                    self.board.set_resource(Some(held.names()));
                    return Some(Some(held));
                }
                Err(HardwareError::Abandoned) => return None,
                Err(error) => {
                    let wait = self.backoff.after_fault();
                    self.wait_out(Phase::BackingOff, &error.to_string(), wait).await;
                    if self.stop.urgency() > Urgency::None {
                        return None;
                    }
                }
            }
        }
    }

    /// Lets the hardware go, if any is held. What could use it must be dead by now.
    pub(super) async fn let_go(&self, held: Option<Held>) {
        if let (Some(guard), Some(held)) = (&self.guard, held) {
            guard.let_go(held).await;
            self.board.set_resource(None);
        }
    }

    /// The version that takes the place of a refused one, or what a person must do about it.
    async fn another_version(&mut self) -> Result<String, String> {
        let title = self.provider.agent().title;
        if self.update.fetches() {
            self.board.enter(Phase::Outdated);
            let stop = self.stop.clone();
            let fetched = tokio::select! {
                fetched = self.fetch_agent() => fetched,
                () = stop.reached(Urgency::Finish) => Err("asked to stop before it was fetched".to_owned()),
            };
            if fetched.is_err() {
                self.update.halt();
            }
            return fetched.map_err(|why| format!("no other version could be fetched: {why}"));
        }
        Err(match self.provider.package().await {
            Ok(package) => {
                let version = package.version;
                format!("pull an image with version {version} of the {title}, or set OSCR_AGENT_UPDATE=true")
            }
            Err(_) => format!("pull an image with a newer {title}, or set OSCR_AGENT_UPDATE=true"),
        })
    }

    /// Says what went wrong and waits, unless asked to stop or a secret's file changes.
    pub(super) async fn wait_out(&mut self, phase: Phase, trouble: &str, wait: Duration) {
        self.board.fault(trouble, wait);
        self.board.enter(phase);
        self.state.state.failures = self.backoff.failures;
        self.state.save_or_warn();
        self.numbers.keep();
        let next = humantime::format_duration(Duration::from_secs(wait.as_secs().max(1)));
        match phase {
            Phase::BackingOff => tracing::warn!("{trouble}; trying again in {next}"),
            _ => tracing::error!("{trouble}; trying again in {next}"),
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let step = (Instant::now() + LOOK_AT_SECRET).min(until);
            tokio::select! {
                () = sleep_until(step) => {}
                () = self.stop.reached(Urgency::Finish) => return,
            }
            if phase == Phase::Denied && self.look_at_secrets() != self.stamps {
                tracing::info!("the secret's file has changed: trying again now");
                self.backoff.reset();
                return;
            }
        }
    }

    pub(super) fn look_at_secrets(&self) -> Vec<Stamp> {
        self.provider.secrets().into_iter().map(SecretSource::stamp).collect()
    }

    /// Whether there is anything that [`Self::forget_failures`] would make history.
    pub(super) fn has_failures(&self) -> bool {
        self.board.has_faults() || self.backoff != Backoff::default() || self.state.state.failures != 0
    }

    pub(super) fn forget_failures(&mut self) {
        self.board.well();
        self.backoff.reset();
        if self.state.state.failures != 0 {
            self.state.state.failures = 0;
            self.state.save_or_warn();
        }
    }
}

/// Turns what clients of the control socket ask into requests to stop and jobs that begin.
async fn obey(mut orders: UnboundedReceiver<Order>, board: Board, stop: Stop, jobs: UnboundedSender<Hooked>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Drain { exit } => {
                tracing::info!("asked to drain");
                stop.drain(exit);
            }
            Order::Hook(hooked) => {
                let job = hooked.job.clone();
                match hooked.event {
                    Event::JobStarted => {
                        let (repository, run_url) = (job.repository.as_deref(), job.run_url.as_deref());
                        tracing::info!(job = job.name.as_deref(), repository, run_url, "a job begins");
                        board.describe_job(job);
                        let _ = jobs.send(*hooked);
                    }
                    Event::JobCompleted => {
                        tracing::info!(job = job.name.as_deref(), "the job's steps are over");
                        let _ = hooked.answers.send(HookAnswer::Go { resource: None });
                    }
                }
            }
        }
    }
}

/// Something that blocks, on a thread of its own, so that signals and the control socket are served meanwhile.
pub(super) struct Work<T> {
    result: tokio::sync::oneshot::Receiver<T>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<T: Send + 'static> Work<T> {
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, result) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = sender.send(work());
        });
        Self { result, thread: Some(thread) }
    }

    /// Waits for its end, at which the thread is gone. Safe to drop and call again, but not once it has resolved.
    pub(super) async fn done(&mut self) -> T {
        let result = (&mut self.result).await;
        let joined = self.thread.take().map_or(Ok(()), std::thread::JoinHandle::join);
        match (result, joined) {
            (Ok(result), _) => result,
            (Err(_), Err(panic)) => std::panic::resume_unwind(panic),
            // The sender is dropped unsent only by a panic.
            (Err(_), Ok(())) => unreachable!("the thread ended without a result"),
        }
    }
}

/// Does such work, and waits for it.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    Work::begin(work).done().await
}
