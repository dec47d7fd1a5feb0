//! Listening: one listener from its start to its end, the job under it, and requests to stop meanwhile.

use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::children::Running;
use super::hardware::{Guard, HardwareError, descends};
use super::incarnation::Incarnation;
use super::stop::Urgency;
use crate::agent::output::Marker;
use crate::agent::worker::{self, Worker};
use crate::control::server::Hooked;
use crate::control::{HookAnswer, Job, Phase};
use crate::init::Ended;
use crate::init::leftovers::{Stat, descendants, signal_all};
use crate::provider::{Fault, Reading, Released};
use crate::resource::{Claim, Held};

/// How often we look for a worker that must be about to appear, and for how long after its job was announced.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_FOR: Duration = Duration::from_secs(60);
/// How long a job may still turn up after the forge let an idle registration go: the assignment may have crossed.
const CROSSING: Duration = Duration::from_secs(3);
/// How long after a refusal for being busy the release is tried again, if no worker has appeared.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// How long the listener may take to end by itself once its only job's worker is gone.
const FAREWELL: Duration = Duration::from_secs(60);
/// A listener that listened for so long was well: earlier failures are history.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// After how long registrations of earlier incarnations are tried again while idle: first, and at most. GitHub believes for
/// some ten minutes that the job of a killed runner still runs.
const LEFTOVERS_FIRST: Duration = Duration::from_secs(5);
const LEFTOVERS_LAST: Duration = Duration::from_secs(60);
/// How long that may keep a job that just comes waiting.
const LOOK_AT_LEFTOVERS: Duration = Duration::from_secs(5);
/// How long a hook may take to tell its job's log that the job has failed.
const TELL: Duration = Duration::from_secs(2);
/// How long the kernel gets to end what was killed.
const TEARDOWN: Duration = Duration::from_secs(10);

/// How the time with one listener ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// A job ran and is over.
    JobDone,
    /// A job ran, and the listener died under it.
    JobBroken(String),
    /// We were asked to stop.
    Stopped,
    /// No job came, and somebody else waits for the hardware that we held.
    Yielded,
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
    /// Listens, sees a job through, and obeys requests to stop, until the listener has ended.
    pub(super) async fn listen(&mut self, root: &Path, held: &mut Option<Held>) -> Ending {
        let mut starter = self.starter.clone();
        if let Some(held) = held {
            starter.env.push(("OSCR_RESOURCE".into(), held.names().into()));
        }
        let (mut listener, mut markers) = match starter.start(root, &self.provider.run()) {
            Ok(started) => started,
            Err(error) => return Ending::Fatal(error.to_string()),
        };
        let stop = self.stop.clone();
        let mut watch = JobWatch::default();
        let mut connected: Option<Instant> = None;
        let mut retire_at: Option<Instant> = None;
        let mut retiring = false;
        let mut interrupted = false;
        let mut farewell: Option<Instant> = None;
        let mut leftovers_wait = LEFTOVERS_FIRST;
        let mut leftovers_at = self.has_leftovers().then(|| Instant::now() + leftovers_wait);
        let mut wish: Option<Wish> = None;
        let mut letting_go: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
        let mut yielding = Yielding::of(self.guard.as_ref(), held.is_some());
        // A hook that was told why its job may not go on. It is not let go before the listener has ended, or steps that run
        // `always()` would run without the hardware.
        let mut refused = None;
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
                    // A job that waits is gone: its place in the queue goes with it.
                    wish = None;
                    watch.worker = None;
                    watch.look_until = None;
                    tracing::info!("the job's worker is gone");
                    // A persistent runner's listener ends after its one job too.
                    farewell = Some(Instant::now() + FAREWELL);
                    if let Some(guard) = &self.guard
                        && let Some(held) = held.take()
                    {
                        // What the job left could still use the hardware.
                        self.end_processes(&[listener.pid]).await;
                        let guard = Rc::clone(guard);
                        letting_go = Some(Box::pin(async move { guard.let_go(held).await }));
                    }
                }
                () = finished(&mut letting_go) => {
                    letting_go = None;
                    self.board.resource(None);
                }
                Some(marker) = markers.recv() => match marker {
                    Marker::Listening => {
                        connected.get_or_insert_with(Instant::now);
                        if !watch.seen && !retiring {
                            self.board.enter(Phase::Listening);
                            self.board.well();
                            yielding.begin();
                        }
                    }
                    Marker::Running(name) => {
                        watch.expect();
                        self.board.enter(if retiring { Phase::Draining } else { Phase::Running });
                        self.board.describe_job(Job { name: Some(name), ..Job::default() });
                    }
                },
                Some(hooked) = self.jobs.recv() => {
                    watch.expect();
                    watch.look(&listener, self.provider.agent().worker);
                    self.board.enter(if retiring { Phase::Draining } else { Phase::Running });
                    let refusal = |why: &str| HookAnswer::Refused { why: why.to_owned() };
                    let answer = match (&self.guard, held.as_ref(), &watch.worker) {
                        (None, ..) => HookAnswer::Go { resource: None },
                        (Some(_), Some(held), _) => HookAnswer::Go { resource: Some(held.names()) },
                        (Some(_), None, _) if wish.is_some() => refusal("this job waits for its hardware already"),
                        (Some(guard), None, Some(worker))
                            if hooked.peer.is_some_and(|peer| descends(peer, worker.pid)) =>
                        {
                            if !retiring {
                                self.board.enter(Phase::Waiting);
                            }
                            let who = self.state.state.current.as_ref().map_or_else(String::new, |own| own.name.clone());
                            let claim = Claim::now(who, Some(self.provider.scope()), hooked.job.run_url.clone());
                            wish = Some(Wish::new(Rc::clone(guard), claim, hooked));
                            continue;
                        }
                        (Some(_), None, _) => refusal("this is not the hook of a job of this runner"),
                    };
                    let _ = hooked.answers.send(answer);
                }
                result = granted(&mut wish) => {
                    let asked = wish.take().map(|wish| (wish.answers, wish.told));
                    match (result, asked) {
                        (Ok(new), Some((answers, _))) => {
                            self.board.resource(Some(new.names()));
                            self.board.enter(if retiring { Phase::Draining } else { Phase::Running });
                            let _ = answers.send(HookAnswer::Go { resource: Some(new.names()) });
                            *held = Some(new);
                        }
                        (Err(HardwareError::Abandoned), _) | (_, None) => {
                            // Its worker lives, or its end would have come first: steps that run `always()` would follow.
                            tracing::error!("the job is failed: its hook was killed while it waited for the hardware");
                            break self.interrupt(&mut listener).await;
                        }
                        (Err(error), Some((answers, told))) => {
                            tracing::error!("the job is failed: {error}");
                            let _ = answers.send(HookAnswer::Failed { why: format!("this job is failed: {error}") });
                            // Its log first: the interruption ends the hook that writes it.
                            let _ = timeout(TELL, told.notified()).await;
                            refused = Some(answers);
                            break self.interrupt(&mut listener).await;
                        }
                    }
                }
                () = yielding.due(self.guard.as_ref(), held.as_ref()), if !retiring && !watch.seen => {
                    yielding.now = true;
                    retiring = true;
                    retire_at = Some(Instant::now());
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
                () = at(leftovers_at) => {
                    // Only while idle: the client's memory is let go afterwards, and a job's start is not delayed.
                    leftovers_at = None;
                    if !watch.seen && !retiring {
                        if let Ok(Err(fault)) = timeout(LOOK_AT_LEFTOVERS, self.release_leftovers()).await {
                            tracing::debug!("an earlier registration cannot be removed yet: {fault}");
                        }
                        self.provider.rest();
                        leftovers_wait = (leftovers_wait * 2).min(LEFTOVERS_LAST);
                        leftovers_at = self.has_leftovers().then(|| Instant::now() + leftovers_wait);
                    }
                }
                () = at(farewell) => {
                    tracing::warn!("the listener does not end although its job is over: interrupting it");
                    break self.interrupt(&mut listener).await;
                }
            }
        };
        // The listener's last lines may still be unread; a job that they announce did run.
        while let Ok(marker) = markers.try_recv() {
            watch.seen |= matches!(marker, Marker::Running(_));
        }
        drop(refused);
        drop(wish);
        if let Some(work) = letting_go {
            work.await;
            self.board.resource(None);
        }
        tracing::debug!("the listener ended ({ended})");
        if watch.seen || connected.is_some_and(|since| since.elapsed() >= WELL_AFTER) {
            self.forget_failures();
        }
        self.read_ending(ended, watch.seen, interrupted, yielding.now)
    }

    fn read_ending(&mut self, ended: Ended, job_seen: bool, interrupted: bool, yielded: bool) -> Ending {
        let cancelled = interrupted && self.stop.urgency() > Urgency::None;
        let reading = self.provider.read_exit(ended, job_seen);
        match reading {
            _ if cancelled => Ending::Stopped,
            _ if interrupted && yielded && !job_seen => Ending::Yielded,
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

    /// Interrupts a process that must end, and kills it if it does not.
    pub(super) async fn interrupt(&self, process: &mut Running) -> Ended {
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

    /// Ends everything that descends from us but for `spared`: what a job started does not outlive it.
    pub(super) async fn end_processes(&self, spared: &[Pid]) {
        let until = Instant::now() + TEARDOWN;
        let left = descendants(spared).len();
        if left > 0 {
            tracing::info!(processes = left, "ending what the job left running");
        }
        while !descendants(spared).is_empty() {
            if Instant::now() >= until {
                tracing::error!("{} processes cannot be killed", descendants(spared).len());
                return;
            }
            // Again each time: a process may have been forked between the look and the signal.
            signal_all(Signal::SIGKILL as i32, spared);
            sleep(Duration::from_millis(10)).await;
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

/// A job's wish for hardware: the wait, and where its hook hears of it.
struct Wish {
    wait: Pin<Box<dyn Future<Output = Result<Held, HardwareError>>>>,
    answers: UnboundedSender<HookAnswer>,
    told: Rc<Notify>,
}

impl Wish {
    fn new(guard: Rc<Guard>, claim: Claim, hooked: Hooked) -> Self {
        let answers = hooked.answers.clone();
        let (to_say, gone) = (answers.clone(), answers.clone());
        let patience = guard.patience();
        let say = move |why| {
            tracing::info!("the job is {why}");
            let _ = to_say.send(HookAnswer::Wait { why });
        };
        Self {
            wait: Box::pin(guard.acquire(claim, patience, say, async move { gone.closed().await })),
            answers,
            told: hooked.told,
        }
    }
}

async fn granted(wish: &mut Option<Wish>) -> Result<Held, HardwareError> {
    match wish {
        Some(wish) => wish.wait.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn finished(work: &mut Option<Pin<Box<dyn Future<Output = ()>>>>) {
    match work {
        Some(work) => work.as_mut().await,
        None => std::future::pending().await,
    }
}

/// When an idle holder of hardware must make room, in the scope of `listener`.
struct Yielding {
    idle: Option<Duration>,
    idle_until: Option<Instant>,
    now: bool,
}

impl Yielding {
    fn of(guard: Option<&Rc<Guard>>, holds: bool) -> Self {
        Self { idle: guard.filter(|_| holds).map(|guard| guard.idle()), idle_until: None, now: false }
    }

    /// The listener listens from now on.
    fn begin(&mut self) {
        self.idle_until = self.idle_until.or_else(|| self.idle.map(|idle| Instant::now() + idle));
    }

    /// Resolves once the time is over and somebody waits.
    async fn due(&self, guard: Option<&Rc<Guard>>, held: Option<&Held>) {
        match (self.idle_until, guard, held) {
            (Some(until), Some(guard), Some(held)) => {
                sleep_until(until).await;
                guard.somebody_waits(held).await;
            }
            _ => std::future::pending().await,
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
    Stat::read(listener.pid).is_some_and(|stat| stat.state != 'Z')
}
