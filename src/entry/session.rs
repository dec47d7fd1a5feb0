//! One listener and what is known of it, and waiting for what happens next. Nothing is changed here.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::admission::Admission;
use super::backoff;
use super::children::Running;
use super::cleaning::Keeper;
use super::docker::JobsDocker;
use super::ended_by::EndedBy;
use super::gate::{Gate, Yielding};
use super::ghosts::Ghosts;
use super::hardware::HardwareError;
use super::hearing::Hearing;
use super::job::JobWatch;
use super::means::Means;
use super::patience::Patience;
use super::registrar::Registrar;
use super::retiring::Retirement;
use super::stop::Urgency;
use super::stopped::Stopped;
use super::update::{Turn, Update};
use super::watchdog::{Due, Watchdog};
use super::way_out::WayOut;
use crate::agent::words::Marker;
use crate::control::Board;
use crate::control::server::Hooked;
use crate::init::Ended;
use crate::provider::{Answer, Fault, Releasing, Standing};
use crate::resource::Held;
use crate::workspace::{SlateError, Wiped};

/// After how long registrations of earlier incarnations are tried again while idle, at first. GitHub believes for
/// some ten minutes that the job of a killed runner still runs.
pub(super) const LEFTOVERS_FIRST: Duration = Duration::from_secs(5);
/// How often the disk is looked at while idle. A health check looks more often; without one, this is how long a runner may
/// listen although there is no space for a job.
pub(super) const LOOK_AT_SPACE: Duration = Duration::from_secs(120);

/// The parts of a life that have work while a listener lives.
pub(super) struct Parts<'a> {
    pub(super) means: &'a Means,
    pub(super) registrar: &'a mut Registrar,
    pub(super) patience: &'a mut Patience,
    pub(super) keeper: &'a mut Keeper,
    pub(super) docker: &'a mut JobsDocker,
    pub(super) gate: &'a mut Gate,
    pub(super) update: &'a mut Update,
}

/// One listener, and what is going on under it.
pub(super) struct Session<'a> {
    pub(super) parts: Parts<'a>,
    pub(super) directory: &'a Path,
    pub(super) listener: Running,
    pub(super) hearing: Hearing,
    pub(super) job: JobWatch,
    pub(super) admission: Admission,
    /// Whether its job has reached its hook.
    pub(super) hooked: bool,
    pub(super) watchdog: Watchdog,
    /// The watchdog's question to the forge.
    pub(super) asking: Option<Answer<'static, Standing>>,
    pub(super) ghosts: Ghosts,
    pub(super) retirement: Retirement,
    /// Whether we interrupted the listener because it was idle, or a job had to be cancelled.
    pub(super) interrupted: bool,
    /// Whether we made it end, for whatever reason.
    pub(super) made_to_end: bool,
    /// Whether somebody stopped its job's processes.
    pub(super) stopped: Stopped,
    /// What ended its job before its steps were over.
    pub(super) ended_by: Option<EndedBy>,
    pub(super) connected: Option<Instant>,
    /// When it will have proved itself, if there is anything that it would make history.
    pub(super) well_at: Option<Instant>,
    /// Until when it may take to end after its job.
    pub(super) farewell: Option<Instant>,
    pub(super) leftovers_wait: Duration,
    pub(super) leftovers_at: Option<Instant>,
    pub(super) space_at: Option<Instant>,
    pub(super) way_out: WayOut,
    pub(super) yielding: Yielding,
    pub(super) releasing: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

/// What can happen while a listener lives.
pub(super) enum Event {
    /// It has ended.
    Ended(Ended),
    /// The running job must end now.
    Cancel,
    /// The job's worker is gone.
    WorkerGone,
    /// The hardware has been let go.
    Released,
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
    /// It is time to see whether somebody stopped the job's processes.
    LookAtStopped,
    /// We are asked to take no more jobs.
    Finish,
    /// It is time to stop the listener if it is idle.
    Retire,
    /// It is time to try to let earlier registrations go.
    Leftovers,
    /// It is time to look at the disk.
    Space,
    /// It is time to see whether the network has a way out.
    WayOut,
    /// What had been moved aside is removed, or cannot be.
    Emptied(Result<Wiped, SlateError>),
    /// A container of the job has an anonymous volume.
    Volume(String),
    /// It has listened for long enough to be called well.
    Well,
    /// There is something to do about a newer agent.
    Update(Turn),
    /// It should have ended by itself.
    Overstays,
}

impl<'a> Session<'a> {
    pub(super) fn new(parts: Parts<'a>, directory: &'a Path, listener: Running, hearing: Hearing) -> Self {
        let Means { common, provider, .. } = parts.means;
        let leftovers_at = parts.registrar.has_leftovers().then(|| Instant::now() + LEFTOVERS_FIRST);
        let can_ask = matches!(provider.releasing(false), Releasing::Request);
        let watchdog = Watchdog::new(common.watch, !common.persistent, can_ask, backoff::random);
        let job = JobWatch::new(listener.pid, provider.agent().job);
        let yielding = Yielding::of(parts.gate);
        parts.gate.record(parts.registrar.name());
        Self {
            parts,
            directory,
            listener,
            hearing,
            job,
            admission: Admission::default(),
            hooked: false,
            watchdog,
            asking: None,
            ghosts: Ghosts::default(),
            retirement: Retirement::default(),
            interrupted: false,
            made_to_end: false,
            stopped: Stopped::default(),
            ended_by: None,
            connected: None,
            well_at: None,
            farewell: None,
            leftovers_wait: LEFTOVERS_FIRST,
            leftovers_at,
            space_at: Some(Instant::now() + LOOK_AT_SPACE),
            way_out: WayOut::default(),
            yielding,
            releasing: None,
        }
    }

    /// Waits for the next event. Where several are there, the first in this order.
    pub(super) async fn next(&mut self) -> Event {
        let idle = !self.retirement.begun() && !self.job.seen();
        let watched = self.asking.is_none() && (!self.retirement.begun() || self.job.runs());
        // One that has got hold of a job and shows none proves nothing.
        let well = !self.watchdog.doubts() && self.watchdog.acquires_until().is_none();
        let Parts { means: Means { board, stop, .. }, keeper, docker, gate, update, .. } = &mut self.parts;
        tokio::select! {
            biased;
            ended = self.listener.ended() => Event::Ended(ended),
            () = stop.reached(Urgency::Cancel) => Event::Cancel,
            () = self.job.worker_gone() => Event::WorkerGone,
            () = answered(&mut self.releasing) => Event::Released,
            Some(marker) = self.hearing.next() => Event::Said(marker),
            Some(hooked) = gate.hooks.recv() => Event::Asked(Box::new(hooked)),
            result = self.admission.granted() => Event::Granted(result),
            due = self.watchdog.due(), if watched => Event::Due(due),
            standing = answered(&mut self.asking) => Event::Standing(standing),
            () = self.yielding.due(gate.guard.as_ref(), gate.held.as_ref()), if idle => Event::Wanted,
            () = self.job.time_to_look() => Event::Look,
            () = self.stopped.time_to_look() => Event::LookAtStopped,
            () = stop.reached(Urgency::Finish), if !self.retirement.begun() => Event::Finish,
            () = at(self.retirement.at) => Event::Retire,
            () = at(self.leftovers_at) => Event::Leftovers,
            () = space_due(board, self.space_at), if idle => Event::Space,
            () = self.way_out.time_to_look(), if idle => Event::WayOut,
            () = at(self.farewell) => Event::Overstays,
            () = at(self.well_at), if well => Event::Well,
            volume = docker.next_volume() => Event::Volume(volume),
            result = keeper.emptier.ended() => Event::Emptied(result),
            turn = update.turn(idle) => Event::Update(turn),
        }
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
