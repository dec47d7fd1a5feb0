//! A newer agent than the image's: when the forge is asked for one, and how it is fetched, proved and put in its place.
//!
//! GitHub gives no jobs to a runner that is not replaced soon after the next release, and tells it nothing. So PID 1 asks in time
//! ([`schedule`](super::schedule)), where that helps ([`rule`]). Only PID 1 writes where agents are kept, and only as root: what a
//! job could change would run under the next job's secrets. It takes three steps ([`step`]), each of which can be given up at any
//! moment and found again by a later incarnation: to ask, to have the archive there ([`archive`]), and to make an agent of it
//! ([`unpack`]). The first two go on beside a job; the last needs that none is there.

mod age;
mod archive;
mod halt;
mod rule;
mod step;
mod unpack;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep, sleep_until};

pub(super) use self::age::age;
use self::age::age_of;
pub(super) use self::rule::Rule;
use self::step::{Done, UpdateStep};
use self::unpack::Unmade;
use super::backoff;
use super::in_use::{BuildStamp, Fetched};
use super::means::Means;
use super::outside::Outside;
use super::schedule::{Next, When};
use super::state::StateFile;
use super::stop::Urgency;
use crate::control::Phase;
use crate::encode::seconds;
use crate::provider::Package;

/// How long a registration waits for a newer agent that comes before it. The fetch goes on beside the listener then.
const BEFORE_REGISTERING: Duration = Duration::from_secs(5 * 60);

/// What is going on about a newer agent.
pub(super) struct Update {
    means: Rc<Means>,
    rule: Rule,
    step: Option<UpdateStep>,
    /// When to look what comes next.
    at: Option<Instant>,
    /// Whether a step was given up for a job.
    cut: bool,
    /// Whether it was said that the forge offers a newer one.
    said: bool,
}

/// What there is to do about a newer agent.
pub(super) enum Turn {
    /// To look what comes next.
    Look,
    /// To go on after a step.
    Done(Done),
}

impl Update {
    pub(super) fn new(means: Rc<Means>) -> Self {
        let rule = Rule::of(&means.common, means.provider.as_ref());
        Self { means, rule, step: None, at: None, cut: false, said: false }
    }

    /// Waits until there is something to do. Without a job, and only then, new steps begin.
    pub(super) async fn turn(&mut self, idle: bool) -> Turn {
        if !idle && self.step.take_if(|step| !step.beside_jobs).is_some() {
            self.cut = true;
        }
        if let Some(step) = &mut self.step {
            let done = step.work.as_mut().await;
            self.step = None;
            return Turn::Done(done);
        }
        match self.at.filter(|_| idle) {
            Some(at) => {
                sleep_until(at).await;
                self.at = None;
                Turn::Look
            }
            None => std::future::pending().await,
        }
    }

    /// Whether newer agents are fetched at all.
    pub(super) fn fetches(&self) -> bool {
        self.rule.when.is_ok()
    }

    /// Nothing more is done: somebody wants us to stop.
    pub(super) fn halt(&mut self) {
        (self.step, self.at, self.cut) = (None, None, false);
    }

    /// Takes up what an earlier incarnation fetched, if it is as it was: from now on it is looked at like the image's.
    pub(super) fn take_up(&self, state: &mut StateFile, outside: &mut Outside) {
        tracing::debug!("OSCR_AGENT_UPDATE is {}", self.rule);
        if self.rule.disappoints() {
            tracing::warn!("OSCR_AGENT_UPDATE is {}", self.rule);
        }
        if self.fetches() {
            // Before it is taken down what this container is like, or a directory above could count as new one day.
            let cache = self.means.common.places.cache();
            if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o755).create(&cache) {
                tracing::warn!("{} cannot be made: {error}", cache.display());
            }
        }
        let in_use = self.means.in_use(state);
        let fetched = in_use.place != self.means.common.places.agent();
        let usable = fetched && outside.watch_agent(&in_use.place);
        if !usable && state.content.agent.take().is_some() {
            tracing::info!(
                "the agent that was fetched is not used any more: the image is another one, or it is not complete"
            );
        }
        self.say_age(state);
    }

    /// Tells the status and the metrics.
    fn say_age(&self, state: &mut StateFile) {
        let in_use = self.means.in_use(state);
        state.content.update.is_about(in_use.release.version.as_deref());
        self.means.board.set_agent_age(age_of(&in_use, &self.rule, &state.content.update));
    }

    /// A listener has ended, and what was going on beside it is given up.
    pub(super) fn cut_short(&mut self, state: &mut StateFile) {
        let going_on = self.step.take().is_some();
        self.at = None;
        if going_on | std::mem::take(&mut self.cut) {
            state.content.update.cut();
            state.save_or_warn();
        }
    }

    /// Does what a turn asks for. Whether there is a newer agent to run now.
    pub(super) fn take_turn(&mut self, turn: Turn, state: &mut StateFile, outside: &mut Outside) -> bool {
        let made = match turn {
            Turn::Look => false,
            Turn::Done(Done::Asked(answer)) => {
                self.hear_offer(answer, state);
                false
            }
            Turn::Done(Done::Archived(Ok(()))) => {
                self.step = Some(UpdateStep::make(&self.means, state, outside));
                return false;
            }
            Turn::Done(Done::Archived(Err(why)) | Done::Made(Err(Unmade::Fault(why)))) => {
                self.failed(&why, None, state);
                false
            }
            Turn::Done(Done::Made(Err(Unmade::Unfit(why)))) => {
                let version = state.content.update.newer().map(str::to_owned);
                self.failed(&why, version.as_deref(), state);
                false
            }
            Turn::Done(Done::Made(Ok(()))) => self.use_made(state, outside),
        };
        if !made {
            self.next_step(state, outside);
        }
        made
    }

    /// Our agent says that the forge told it to become a newer version. It cannot, but here it may be.
    pub(super) fn urged(&mut self, state: &mut StateFile, outside: &Outside) {
        if !std::mem::replace(&mut self.said, true) {
            let title = self.means.provider.agent().title;
            tracing::warn!("the forge offers a newer version of the {title} than ours: {}", self.rule.answer(title));
        }
        state.content.update.urge(now());
        state.save_or_warn();
        self.say_age(state);
        if self.at.take().is_some() {
            self.next_step(state, outside);
        }
    }

    fn hear_offer(&self, answer: Result<(String, Package), String>, state: &mut StateFile) {
        let memory = &mut state.content.update;
        match answer {
            Ok((ours, package)) => {
                memory.is_about(Some(&ours));
                memory.asks(now());
                let version = package.version.clone();
                if memory.told(package, now()) {
                    tracing::info!("version {version} of the agent is offered; ours is {ours}");
                } else {
                    tracing::debug!("version {version} of the agent is offered, which is not newer than {ours}");
                    memory.well();
                }
            }
            Err(why) => return self.failed(&why, None, state),
        }
        state.save_or_warn();
        self.say_age(state);
    }

    /// It costs no start, no job and no health; but somebody should know.
    fn failed(&self, why: &str, unfit: Option<&str>, state: &mut StateFile) {
        let memory = &mut state.content.update;
        match unfit {
            Some(version) => memory.unfit(version, why.to_owned(), now()),
            None => memory.failed(why.to_owned(), now()),
        }
        let age = age_of(&self.means.in_use(state), &self.rule, &state.content.update).shown();
        tracing::warn!("no newer agent could be fetched, so jobs may stay away some day (ours is {age}): {why}");
        state.save_or_warn();
        self.say_age(state);
    }

    /// Looks what comes next, and begins it: it goes on whenever somebody waits for a turn.
    pub(super) fn next_step(&mut self, state: &mut StateFile, outside: &Outside) {
        if self.step.is_some() {
            return;
        }
        let Ok(when) = self.rule.when else { return };
        // What is nearly used up is kept for registrations and removals.
        if let Some(left) = self.means.provider.pace().and_then(|pace| pace.left()) {
            self.at = Some(Instant::now() + left);
            return;
        }
        let released = self.means.in_use(state).release.released;
        let before = state.content.update.ask_at;
        let next = state.content.update.next(when, released, now(), backoff::random);
        if state.content.update.ask_at != before {
            state.save_or_warn();
        }
        match next {
            Next::Wait(wait) => self.at = Some(Instant::now() + wait),
            Next::Ask => {
                state.content.update.asks(now());
                state.save_or_warn();
                self.step = Some(UpdateStep::ask(&self.means, state, outside));
            }
            Next::Fetch => self.step = Some(UpdateStep::fetch(&self.means, state)),
        }
    }

    /// The agent that was made is the one to run from the next registration on.
    fn use_made(&self, state: &mut StateFile, outside: &mut Outside) -> bool {
        let Some(offer) = state.content.update.offer.clone() else { return false };
        let version = offer.package.version;
        let place = self.means.common.places.fetched_agents().join(&version);
        let replaces = BuildStamp::of(&self.means.common.places.agent().join(self.means.provider.agent().listener));
        let taken = match replaces {
            Ok(replaces) if outside.watch_agent(&place) => {
                state.content.agent = Some(Fetched { version: version.clone(), since: Some(offer.since), replaces });
                state.save().map_err(|error| error.to_string())
            }
            Ok(_) => Err(format!("what {} was like cannot be found", place.display())),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = taken {
            state.content.agent = None;
            self.failed(&why, None, state);
            return false;
        }
        tracing::info!("version {version} of the agent was fetched and proved; it runs from the next registration on");
        self.say_age(state);
        true
    }

    /// Before a registration, and with no job there: removes agents that are not used any more, and has a newer one there if that
    /// comes first.
    pub(super) async fn before_registering(&mut self, state: &mut StateFile, outside: &mut Outside) {
        self.forget_agents(state, outside);
        let first = match self.rule.when {
            Err(_) => false,
            Ok(When::AtOnce) => true,
            Ok(When::InTime) => state.content.update.comes_first(),
        };
        if !first {
            return;
        }
        self.next_step(state, outside);
        let stop = self.means.stop.clone();
        let in_time = tokio::select! {
            () = self.finish_steps(state, outside) => true,
            () = stop.reached(Urgency::Finish) => true,
            () = sleep(BEFORE_REGISTERING) => false,
        };
        if !in_time {
            tracing::warn!("a newer agent is still being fetched: going on with ours meanwhile");
            // What needs that nobody else is there is done anew.
            self.step.take_if(|step| !step.beside_jobs);
        } else if self.means.stop.urgency() > Urgency::None {
            self.halt();
        }
    }

    /// Takes one turn after the other, as long as there is a step to finish.
    async fn finish_steps(&mut self, state: &mut StateFile, outside: &mut Outside) {
        while self.step.is_some() {
            let turn = self.turn(true).await;
            if self.take_turn(turn, state, outside) {
                return;
            }
        }
    }

    /// Fetches the version that the forge offers, now that it refuses ours. The error says why there is none, for people.
    async fn fetch_agent(&mut self, state: &mut StateFile, outside: &mut Outside) -> Result<String, String> {
        self.step = None;
        state.content.update.asks(now());
        self.step = Some(UpdateStep::ask(&self.means, state, outside));
        let failures = state.content.update.failures;
        loop {
            let Turn::Done(done) = self.turn(true).await else { continue };
            let asked = matches!(done, Done::Asked(Ok(_)));
            if self.take_turn(Turn::Done(done), state, outside) {
                return Ok(self.means.in_use(state).release.version.unwrap_or_default());
            }
            let memory = &state.content.update;
            if memory.failures > failures {
                return Err(memory.trouble.clone().unwrap_or_default());
            }
            if self.step.is_none() {
                if asked && memory.wanted().is_some() {
                    // Ours is refused, however young it is.
                    self.step = Some(UpdateStep::fetch(&self.means, state));
                    continue;
                }
                return Err(match (memory.newer(), &memory.trouble) {
                    (Some(_), Some(trouble)) => trouble.clone(),
                    _ => format!("it offers nothing newer than {}", memory.ours.as_deref().unwrap_or("ours")),
                });
            }
        }
    }

    /// Removes fetched agents that are not in use, and halves of them.
    fn forget_agents(&self, state: &StateFile, outside: &Outside) {
        let place = self.means.in_use(state).place;
        let agents = self.means.common.places.fetched_agents();
        for entry in fs::read_dir(&agents).into_iter().flatten().flatten() {
            if entry.path() != place
                && let Err(error) = fs::remove_dir_all(entry.path())
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be removed: {error}", entry.path().display());
            }
        }
        if let Some(custody) = outside.custody() {
            custody.forget_trees(place.file_name().unwrap_or_default());
        }
    }

    /// The version that takes the place of a refused one, or what a person must do about it.
    pub(super) async fn another_version(
        &mut self,
        state: &mut StateFile,
        outside: &mut Outside,
    ) -> Result<String, String> {
        let title = self.means.provider.agent().title;
        if self.fetches() {
            self.means.board.enter(Phase::Outdated);
            let stop = self.means.stop.clone();
            let fetched = tokio::select! {
                fetched = self.fetch_agent(state, outside) => fetched,
                () = stop.reached(Urgency::Finish) => Err("asked to stop before it was fetched".to_owned()),
            };
            if fetched.is_err() {
                self.halt();
            }
            return fetched.map_err(|why| format!("no other version could be fetched: {why}"));
        }
        let Some(package) = self.means.provider.package() else {
            return Err(format!("pull an image with a newer {title}"));
        };
        Err(match package.await {
            Ok(package) => {
                let version = package.version;
                format!("pull an image with version {version} of the {title}, or set OSCR_AGENT_UPDATE=true")
            }
            Err(_) => format!("pull an image with a newer {title}, or set OSCR_AGENT_UPDATE=true"),
        })
    }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}
