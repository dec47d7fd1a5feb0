//! Listening: one listener from its start to its end, the job under it, and requests to stop meanwhile.
//!
//! [`Session::next`] waits for what happens and changes nothing; [`Session::handle`] does what it asks for.

use std::ops::ControlFlow;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff;
use super::children::Running;
use super::hardware::HardwareError;
use super::incarnation::Incarnation;
use super::job::JobWatch;
use super::removal::removed;
use super::report::{JobReport, Spans};
use super::retiring::{Retired, Retirement, Why};
use super::stop::Urgency;
use super::update::Turn;
use super::waiting::{Wish, Yielding, granted, tell_and_hold};
use super::watchdog::{Due, Watchdog};
use crate::agent::words::{Manner, Marker};
use crate::agent::worker::Worker;
use crate::control::server::Hooked;
use crate::control::{Board, HookAnswer, Job, Phase};
use crate::init::Ended;
use crate::init::process::descends;
use crate::metrics::JobResult;
use crate::provider::{Answer, Fault, Reading, Releasing, Sign, Standing};
use crate::resource::{Claim, Held};
use crate::workspace::{SlateError, Wiped};

/// How long the listener may take to end by itself once its only job's worker is gone.
const FAREWELL: Duration = Duration::from_secs(60);
/// A listener that has listened for so long, and has not lost its connection, is well: earlier failures are history.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// After how long registrations of earlier incarnations are tried again while idle: first, and at most. GitHub believes for
/// some ten minutes that the job of a killed runner still runs.
const LEFTOVERS_FIRST: Duration = Duration::from_secs(5);
const LEFTOVERS_LAST: Duration = Duration::from_secs(60);
/// How long that may keep a job that just comes waiting.
const LOOK_AT_LEFTOVERS: Duration = Duration::from_secs(5);
/// How often the disk is looked at while idle. A health check looks more often; without one, this is how long a runner may
/// listen although there is no space for a job.
const LOOK_AT_SPACE: Duration = Duration::from_secs(120);

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
    /// No job came for as long as a runner may be idle.
    Idle,
    /// No job ran, and the registration is worth nothing any more.
    Again(String),
    /// No job came, and there is too little disk space for one.
    Full,
    /// No job came, and what an earlier one left cannot be removed.
    Unclean,
    /// No job came, and there is a newer agent to run.
    Updated,
    /// The forge wants another version of the agent.
    Outdated(String),
    /// The agent cannot work here.
    Fatal(String),
}

/// One listener, and what is going on under it.
struct Session<'a> {
    life: &'a mut Incarnation,
    root: &'a Path,
    held: &'a mut Option<Held>,
    listener: Running,
    markers: UnboundedReceiver<Marker>,
    job: JobWatch,
    watchdog: Watchdog,
    /// The watchdog's question to the forge.
    asking: Option<Answer<'static, Standing>>,
    retirement: Retirement,
    /// Whether we interrupted the listener because it was idle, or a job had to be cancelled.
    interrupted: bool,
    connected: Option<Instant>,
    /// When it will have proved itself, if there is anything that it would make history.
    well_at: Option<Instant>,
    /// Until when it may take to end after its job.
    farewell: Option<Instant>,
    leftovers_wait: Duration,
    leftovers_at: Option<Instant>,
    space_at: Option<Instant>,
    yielding: Yielding,
    /// Whether the policy has let the job pass.
    judged: bool,
    wish: Option<Wish>,
    waited: Duration,
    letting_go: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// A hook that was told why its job may not go on. It is not let go before the listener has ended, or steps that run
    /// `always()` would run without the hardware.
    refused: Option<UnboundedSender<HookAnswer>>,
}

/// What can happen while a listener lives.
enum Event {
    /// It has ended.
    Ended(Ended),
    /// The running job must end now.
    Cancel,
    /// The job's worker is gone.
    WorkerGone,
    /// The hardware has been let go.
    LetGo,
    /// It said something.
    Said(Marker),
    /// A job's hook asks whether the job may begin.
    Asked(Box<Hooked>),
    /// A job's wait for hardware is over.
    Granted(Result<Held, HardwareError>),
    /// The watchdog wants something.
    Due(Due),
    /// The forge has answered the watchdog.
    Standing(Result<Standing, Fault>),
    /// Somebody waits for the hardware that we hold idly.
    Wanted,
    /// It is time to look for the worker.
    Look,
    /// We are asked to take no more jobs.
    Finish,
    /// It is time to stop the listener if it is idle.
    Retire,
    /// It is time to try to let earlier registrations go.
    Leftovers,
    /// It is time to look at the disk.
    Space,
    /// What had been moved aside is removed, or cannot be.
    Removed(Result<Wiped, SlateError>),
    /// It has listened for long enough to be called well.
    Well,
    /// There is something to do about a newer agent.
    Update(Turn),
    /// It should have ended by itself.
    Overstays,
}

impl Incarnation {
    /// Listens, sees a job through, and obeys requests to stop, until the listener has ended.
    pub(super) async fn listen(&mut self, root: &Path, held: &mut Option<Held>) -> Ending {
        let mut starter = self.starter.clone();
        if let Some(held) = held {
            starter.env.push(("OSCR_RESOURCE".into(), held.names().into()));
        }
        let (listener, markers) = match starter.start(root, &self.provider.run(), Manner::Listener) {
            Ok(started) => started,
            Err(error) => return Ending::Fatal(error.to_string()),
        };
        self.next_step();
        let mut session = Session::new(self, root, held, listener, markers);
        let ended = loop {
            let event = session.next().await;
            if let ControlFlow::Break(ended) = session.handle(event).await {
                break ended;
            }
        };
        session.finish(ended).await
    }

    /// What was kept of a registration that is replaced is worth nothing either.
    fn forget_lost_registration(&mut self) {
        self.use_up();
        if self.common.persistent {
            self.state.forget_kept();
            self.demote();
        }
    }

    /// Asks the forge what it thinks of the registration. `None` with no more than a registration token, which cannot ask.
    pub(super) fn ask_about_registration(&self) -> Option<Answer<'static, Standing>> {
        if !matches!(self.provider.releasing(false), Releasing::Request) {
            return None;
        }
        let (provider, current) = (Rc::clone(&self.provider), self.state.state.current.clone()?);
        Some(Box::pin(async move { provider.standing(&current).await }))
    }
}

impl<'a> Session<'a> {
    fn new(
        life: &'a mut Incarnation,
        root: &'a Path,
        held: &'a mut Option<Held>,
        listener: Running,
        markers: UnboundedReceiver<Marker>,
    ) -> Self {
        let leftovers_at = life.has_leftovers().then(|| Instant::now() + LEFTOVERS_FIRST);
        let can_ask = matches!(life.provider.releasing(false), Releasing::Request);
        let watchdog = Watchdog::new(life.common.watch, !life.common.persistent, can_ask, backoff::random);
        let yielding = Yielding::of(life.guard.as_ref(), held.is_some());
        Self {
            life,
            root,
            held,
            listener,
            markers,
            job: JobWatch::default(),
            watchdog,
            asking: None,
            retirement: Retirement::default(),
            interrupted: false,
            connected: None,
            well_at: None,
            farewell: None,
            leftovers_wait: LEFTOVERS_FIRST,
            leftovers_at,
            space_at: Some(Instant::now() + LOOK_AT_SPACE),
            yielding,
            judged: false,
            wish: None,
            waited: Duration::ZERO,
            letting_go: None,
            refused: None,
        }
    }

    /// Waits for the next event. Where several are there, the first in this order.
    async fn next(&mut self) -> Event {
        let idle = !self.retirement.begun() && !self.job.seen;
        let watched = self.asking.is_none() && (!self.retirement.begun() || self.job.worker.is_some());
        let life = &mut *self.life;
        tokio::select! {
            biased;
            ended = self.listener.ended() => Event::Ended(ended),
            () = life.stop.reached(Urgency::Cancel) => Event::Cancel,
            () = self.job.worker_gone() => Event::WorkerGone,
            () = answered(&mut self.letting_go) => Event::LetGo,
            Some(marker) = self.markers.recv() => Event::Said(marker),
            Some(hooked) = life.jobs.recv() => Event::Asked(Box::new(hooked)),
            result = granted(&mut self.wish) => Event::Granted(result),
            due = self.watchdog.due(), if watched => Event::Due(due),
            standing = answered(&mut self.asking) => Event::Standing(standing),
            () = self.yielding.due(life.guard.as_ref(), self.held.as_ref()), if idle => Event::Wanted,
            () = self.job.time_to_look() => Event::Look,
            () = life.stop.reached(Urgency::Finish), if !self.retirement.begun() => Event::Finish,
            () = at(self.retirement.at) => Event::Retire,
            () = at(self.leftovers_at) => Event::Leftovers,
            () = space_due(&life.board, self.space_at), if idle => Event::Space,
            () = at(self.farewell) => Event::Overstays,
            () = at(self.well_at), if !self.watchdog.doubts() => Event::Well,
            result = removed(&mut life.removal) => Event::Removed(result),
            turn = life.update.turn(idle) => Event::Update(turn),
        }
    }

    /// Does what an event asks for. Breaks with the listener's end.
    async fn handle(&mut self, event: Event) -> ControlFlow<Ended> {
        match event {
            Event::Ended(ended) => return ControlFlow::Break(ended),
            Event::Cancel => {
                if self.job.worker.is_some() {
                    tracing::warn!("cancelling the running job");
                }
                self.interrupted = true;
                return self.interrupt().await;
            }
            Event::WorkerGone => self.worker_gone().await,
            Event::LetGo => {
                self.letting_go = None;
                self.life.board.set_resource(None);
            }
            Event::Said(marker) => self.heard(marker),
            Event::Asked(hooked) => return self.asked(*hooked).await,
            Event::Granted(result) => return self.granted(result).await,
            Event::Due(due) => return self.obey_watchdog(due).await,
            Event::Standing(standing) => {
                self.asking = None;
                self.life.provider.rest();
                let doubted = self.watchdog.doubts();
                self.watchdog.told(&standing);
                if doubted && !self.watchdog.doubts() {
                    tracing::info!("the forge sees the agent again");
                    self.life.board.connected();
                }
            }
            Event::Wanted => self.retirement.begin(Why::Yield),
            Event::Look => self.look(),
            Event::Finish => {
                self.life.update.halt();
                self.retirement.begin(Why::Asked);
            }
            Event::Retire => return self.retire().await,
            Event::Leftovers => self.look_at_leftovers().await,
            Event::Space => {
                self.space_at = Some(Instant::now() + LOOK_AT_SPACE);
                if let Some(why) = self.life.board.shortage() {
                    tracing::warn!("no job is taken any more: {why}");
                    self.retirement.begin(Why::Full);
                }
            }
            Event::Removed(result) => {
                if let Err(error) = self.life.tell_of_removal(result) {
                    tracing::error!("no job is taken any more: {error}");
                    self.retirement.begin(Why::Unclean);
                }
            }
            Event::Well => self.proves_well(),
            Event::Update(turn) => {
                if self.life.take_turn(turn) {
                    self.retirement.begin(Why::Update);
                }
            }
            Event::Overstays => {
                tracing::warn!("the listener does not end although its job is over: interrupting it");
                return self.interrupt().await;
            }
        }
        ControlFlow::Continue(())
    }

    async fn interrupt(&mut self) -> ControlFlow<Ended> {
        ControlFlow::Break(self.life.interrupt(&mut self.listener).await)
    }

    /// A job is there, or must be about to come.
    fn enter_job(&self) {
        self.life.board.enter(if self.retirement.begun() { Phase::Draining } else { Phase::Running });
    }

    /// It works: what went wrong before is over.
    fn proves_well(&mut self) {
        self.well_at = None;
        self.life.forget_failures();
    }

    /// A worker was found.
    fn found(&mut self, worker: Worker) {
        self.job.found(worker);
        // From now on a job may write to its output.
        self.listener.works(true);
        self.watchdog.running();
        self.life.board.connected();
        self.proves_well();
    }

    fn look(&mut self) {
        if let Some(worker) = self.job.look(&self.listener, self.life.provider.agent().worker) {
            self.found(worker);
        }
    }

    fn heard(&mut self, marker: Marker) {
        // What is said later may be a job's words.
        let no_job_yet = !self.job.found_once;
        match marker {
            Marker::Sign(sign) if no_job_yet => self.heard_sign(sign),
            Marker::Listening if no_job_yet => {
                self.watchdog.listening();
                if self.connected.is_none() {
                    self.connected = Some(Instant::now());
                    // Nothing wakes an idle runner without need.
                    self.well_at = self.life.has_failures().then(|| Instant::now() + WELL_AFTER);
                    self.life.board.connected();
                }
                if !self.job.seen && !self.retirement.begun() {
                    self.life.board.enter(Phase::Listening);
                    self.yielding.begin();
                }
            }
            Marker::Version(version) if self.connected.is_none() => self.life.board.set_agent(version),
            // Its first is its own, whenever it is read: it stands before all that its job can write.
            Marker::Running(name) if !self.job.named => self.begins(name),
            // The last one counts, which is written once the worker is gone.
            Marker::Completed(job, result) => self.job.completed(job, result),
            late => tracing::debug!("is not believed, because a job may have written it: {late:?}"),
        }
    }

    fn heard_sign(&mut self, sign: Sign) {
        match sign {
            Sign::Disconnected if !self.job.seen => self.life.board.disconnected(),
            Sign::Reconnected => self.life.board.connected(),
            Sign::Refused => self.farewell = Some(Instant::now() + FAREWELL),
            _ => {}
        }
        self.watchdog.heard(sign);
    }

    /// The listener says that it begins a job.
    fn begins(&mut self, name: String) {
        tracing::info!("agent: Running job: {name}");
        self.job.named = true;
        self.job.expect();
        self.life.use_up();
        self.watchdog.acquiring();
        self.enter_job();
        self.life.board.describe_job(Job { name: Some(name), ..Job::default() });
    }

    async fn worker_gone(&mut self) {
        // A job that waits is gone: its place in the queue goes with it.
        self.wish = None;
        self.job.ended();
        self.listener.works(false);
        self.watchdog.done();
        tracing::info!("the job's worker is gone");
        // A persistent runner's listener ends after its one job too.
        self.farewell = Some(Instant::now() + FAREWELL);
        if let Some(guard) = self.life.guard.clone()
            && let Some(held) = self.held.take()
        {
            // What the job left could still use the hardware, containers in an engine of our own too.
            self.life.stop_engine().await;
            self.life.end_processes(&[self.listener.pid]).await;
            self.letting_go = Some(Box::pin(async move { guard.let_go(held).await }));
        }
    }

    /// A job's hook asks whether the job may begin: the policy judges it, then it gets its hardware.
    async fn asked(&mut self, hooked: Hooked) -> ControlFlow<Ended> {
        self.look();
        let refuse = |hooked: &Hooked, why: &str| {
            let _ = hooked.answers.send(HookAnswer::Refused { why: why.to_owned() });
            ControlFlow::Continue(())
        };
        let ends = self.job.worker.as_ref().zip(hooked.peer);
        let of_our_job = ends.is_some_and(|(worker, peer)| worker.lives() && descends(peer, worker.pid));
        let policy = &self.life.common.policy;
        if !self.judged && !policy.allows_everything() {
            if !of_our_job {
                return refuse(&hooked, "this is not the hook of a job of this runner");
            }
            if let Err(denial) = policy.judge(&hooked.evidence) {
                self.life.use_up();
                tracing::warn!("the job is not run: {denial}");
                return self.fail_job(hooked.answers, &hooked.told, format!("this job is not run: {denial}")).await;
            }
        }
        // A step of the job may call the hook again, with whatever it likes.
        self.judged = true;
        self.job.expect();
        self.life.use_up();
        self.enter_job();
        let Some(guard) = self.life.guard.clone() else {
            let _ = hooked.answers.send(HookAnswer::Go { resource: None });
            return ControlFlow::Continue(());
        };
        if let Some(held) = self.held.as_ref() {
            let _ = hooked.answers.send(HookAnswer::Go { resource: Some(held.names()) });
        } else if self.wish.is_some() {
            return refuse(&hooked, "this job waits for its hardware already");
        } else if !of_our_job {
            return refuse(&hooked, "this is not the hook of a job of this runner");
        } else {
            if !self.retirement.begun() {
                self.life.board.enter(Phase::Waiting);
            }
            let who = self.life.state.state.current.as_ref().map_or_else(String::new, |own| own.name.clone());
            let claim = Claim::now(who, Some(self.life.provider.scope()), hooked.job.run_url.clone());
            self.wish = Some(Wish::new(guard, claim, hooked));
        }
        ControlFlow::Continue(())
    }

    async fn granted(&mut self, result: Result<Held, HardwareError>) -> ControlFlow<Ended> {
        let Some(wish) = self.wish.take() else { return ControlFlow::Continue(()) };
        self.waited += wish.since.elapsed();
        match result {
            Ok(new) => {
                self.life.board.set_resource(Some(new.names()));
                self.enter_job();
                let _ = wish.answers.send(HookAnswer::Go { resource: Some(new.names()) });
                *self.held = Some(new);
                ControlFlow::Continue(())
            }
            Err(HardwareError::Abandoned) => {
                tracing::error!("the job is failed: its hook was killed while it waited for the hardware");
                if self.job.worker.is_none() {
                    return self.interrupt().await;
                }
                // It begins steps that run `always()` some 30 ms after the hook's end; an interrupted listener takes up to a
                // second to tell it not to, and such a step has ten more. The listener reports a killed worker's job as failed.
                self.life.end_processes(&[self.listener.pid]).await;
                ControlFlow::Continue(())
            }
            Err(error) => {
                tracing::error!("the job is failed: {error}");
                self.fail_job(wish.answers, &wish.told, format!("this job is failed: {error}")).await
            }
        }
    }

    /// Tells the job's log why the job may not go on, and interrupts the listener.
    async fn fail_job(
        &mut self,
        answers: UnboundedSender<HookAnswer>,
        told: &Notify,
        why: String,
    ) -> ControlFlow<Ended> {
        self.refused = Some(tell_and_hold(answers, told, why).await);
        self.interrupt().await
    }

    async fn obey_watchdog(&mut self, due: Due) -> ControlFlow<Ended> {
        match due {
            Due::Ask if self.life.nearly_used_up() => {
                tracing::debug!("the forge is not asked about the registration: its limit is nearly used up");
                self.watchdog.not_asked();
            }
            Due::Ask => self.asking = self.life.ask_about_registration(),
            Due::Lapse => {
                tracing::info!(
                    "it is not known whether the agent has its connection again: nothing here may ask the forge"
                );
                self.watchdog.forget_doubt();
                self.life.board.connection_unknown();
            }
            Due::Idle => {
                tracing::info!("no job came for as long as OSCR_MAX_IDLE allows");
                self.retirement.begin(Why::Idle);
            }
            Due::Replace(why) => {
                tracing::warn!("replacing the listener: {why}");
                self.retirement.begin(Why::Replace(why));
            }
            Due::Overdue => {
                tracing::warn!("cancelling the running job: it has run for longer than OSCR_JOB_MAX allows");
                return self.interrupt().await;
            }
        }
        ControlFlow::Continue(())
    }

    /// Stops the listener if it has no job.
    async fn retire(&mut self) -> ControlFlow<Ended> {
        self.retirement.at = None;
        if self.job.over() {
            // The listener is about to end.
            return ControlFlow::Continue(());
        }
        let stop = self.life.stop.clone();
        // A second signal must get through while the forge is being asked.
        let retired = tokio::select! {
            retired = self.life.retire(self.root, &self.listener, &mut self.job) => retired,
            () = stop.reached(Urgency::Cancel) => return ControlFlow::Continue(()),
        };
        match retired {
            Retired::Working(worker) => {
                tracing::info!("a job is running: waiting for it to finish");
                if let Some(finish) = self.life.provider.agent().stop.finish {
                    self.listener.signal(finish);
                }
                self.found(worker);
                self.life.board.enter(Phase::Draining);
            }
            Retired::Assigned if self.retirement.wait_for_worker(self.life.common.watch.worker) => {
                tracing::info!("a job has been assigned: waiting for it");
                self.job.expect();
                self.life.board.enter(Phase::Draining);
            }
            Retired::Assigned => {
                tracing::warn!("the forge says that a job was assigned, but no worker runs it: giving it up");
                self.interrupted = true;
                return self.interrupt().await;
            }
            Retired::Interrupted => {
                self.interrupted = true;
                return self.interrupt().await;
            }
        }
        ControlFlow::Continue(())
    }

    /// Only while idle: the client's memory is let go afterwards, and a job's start is not delayed.
    async fn look_at_leftovers(&mut self) {
        self.leftovers_at = None;
        if self.job.seen || self.retirement.begun() {
            return;
        }
        if let Ok(Err(fault)) = timeout(LOOK_AT_LEFTOVERS, self.life.release_leftovers()).await {
            tracing::debug!("an earlier registration cannot be removed yet: {fault}");
        }
        self.life.provider.rest();
        self.leftovers_wait = (self.leftovers_wait * 2).min(LEFTOVERS_LAST);
        self.leftovers_at = self.life.has_leftovers().then(|| Instant::now() + self.leftovers_wait);
    }

    /// What is left to do once the listener has ended, and what its end means.
    async fn finish(mut self, ended: Ended) -> Ending {
        // The listener's last lines may still be unread; a job that they announce did run, and a short one may be all in them.
        let _ = self.listener.tail.last_words().await;
        while let Ok(marker) = self.markers.try_recv() {
            match marker {
                Marker::Running(name) if !self.job.named => self.begins(name),
                Marker::Completed(job, result) => self.job.completed(job, result),
                _ => {}
            }
        }
        self.job.tell();
        self.life.cut_update();
        drop(self.refused.take());
        drop(self.wish.take());
        if let Some(work) = self.letting_go.take() {
            work.await;
            self.life.board.set_resource(None);
        }
        tracing::debug!("the listener ended ({ended})");
        self.life.board.listener_gone();
        let ended_by_us = self.retirement.begun() || self.life.stop.urgency() > Urgency::None;
        let ending = self.read_ending(ended);
        let soon = !self.job.found_once && self.connected.is_none_or(|since| since.elapsed() < WELL_AFTER);
        // One that leaves because its job was taken back is no sign of trouble here.
        if matches!(ending, Ending::Again(_) | Ending::Fatal(_)) && soon && !ended_by_us && self.farewell.is_none() {
            self.life.board.ended_early();
        }
        self.report(&ending);
        ending
    }

    fn read_ending(&mut self, ended: Ended) -> Ending {
        let asked_to_stop = self.life.stop.urgency() > Urgency::None;
        match &self.retirement.why {
            _ if self.interrupted && asked_to_stop => return Ending::Stopped,
            Some(Why::Yield) if self.interrupted && !self.job.seen => return Ending::Yielded,
            Some(Why::Full) if self.interrupted && !self.job.seen => return Ending::Full,
            Some(Why::Unclean) if self.interrupted && !self.job.seen => return Ending::Unclean,
            Some(Why::Update) if self.interrupted && !self.job.seen => return Ending::Updated,
            // Nobody asked for it, and no job ran after all.
            Some(Why::Idle) if !self.job.found_once && !asked_to_stop => return Ending::Idle,
            Some(Why::Replace(why)) if !self.job.found_once && !asked_to_stop => {
                let ending = Ending::Again(why.clone());
                self.life.forget_lost_registration();
                return ending;
            }
            _ => {}
        }
        match self.life.provider.read_exit(ended, self.job.seen) {
            Reading::Done => Ending::JobDone,
            Reading::Retry(why) | Reading::Lost(why) | Reading::Outdated(why) | Reading::Fatal(why)
                if self.job.seen =>
            {
                Ending::JobBroken(why)
            }
            Reading::Lost(why) => {
                self.life.forget_lost_registration();
                Ending::Again(why)
            }
            Reading::Retry(why) => Ending::Again(why),
            Reading::Outdated(why) => Ending::Outdated(why),
            Reading::Fatal(why) => Ending::Fatal(why),
        }
    }

    /// Leaves the job's summary to be completed once the slate is clean.
    fn report(&mut self, ending: &Ending) {
        let Some(began) = self.job.began else { return };
        let result = match ending {
            Ending::JobBroken(_) => JobResult::Lost,
            _ => self.job.completed.as_ref().map_or(JobResult::Unknown, |(_, result)| JobResult::read(result)),
        };
        let spans = Spans {
            idle: self.connected.map(|since| began.saturating_duration_since(since)).unwrap_or_default(),
            waited: self.waited,
            lasted: self.job.ended.unwrap_or_else(Instant::now).saturating_duration_since(began),
        };
        let status = self.life.board.status();
        let runner = status.runner.map(|runner| runner.name).unwrap_or_default();
        self.life.report = Some(JobReport::new(status.job.unwrap_or_default(), runner, result, spans));
        self.life.numbers.keep();
    }
}

/// What a question brings; never, if none is open.
async fn answered<T>(question: &mut Option<Pin<Box<dyn Future<Output = T>>>>) -> T {
    match question {
        Some(question) => question.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Resolves when the disk should be looked at: at this moment, or once somebody who asked for the status found it full.
async fn space_due(board: &Board, moment: Option<Instant>) {
    tokio::select! {
        () = at(moment) => {}
        () = board.found_full() => {}
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
