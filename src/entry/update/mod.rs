//! A newer agent than the image's: when the forge is asked for one, and how it is fetched, proved and put in its place.
//!
//! GitHub gives no jobs to a runner that is not replaced soon after the next release, and tells it nothing. So PID 1 asks in time
//! ([`schedule`]), where that helps ([`rule`]). Only PID 1 writes where agents are kept, and only as root: what a job could change
//! would run under the next job's secrets. It takes three steps, each of which can be given up at any moment and found again by
//! a later incarnation: to ask, to have the archive there ([`archive`]), and to make an agent of it ([`unpack`]). The first two go on
//! beside a job; the last needs that none is there.

mod archive;
mod halt;
mod rule;
pub mod schedule;
mod unpack;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::archive::Archives;
pub use self::rule::Rule;
use self::rule::When;
use self::schedule::Next;
use self::unpack::{Bench, Unmade};
use super::backoff;
use super::incarnation::Incarnation;
use super::state::{State, StateFile};
use super::stop::Urgency;
use crate::agent::release::Release;
use crate::config::{Common, Places};
use crate::control::AgentAge;
use crate::encode::{day, seconds};
use crate::provider::finding::is_newer;
use crate::provider::{Package, Provider};
use crate::workspace::Space;

/// How long a registration waits for a newer agent that comes before it. The fetch goes on beside the listener then.
const BEFORE_REGISTERING: Duration = Duration::from_secs(5 * 60);
/// How long each step may take: the archive has some 200 MB.
const STEP: Duration = Duration::from_secs(30 * 60);

/// What was fetched, as the state file remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Its version.
    pub version: String,
    /// When it was first seen offered, in seconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
    /// What the image's listener was like then.
    replaces: Stamp,
}

/// Tells one build of a file from another: inode, size, time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u64, i64);

impl Stamp {
    fn of(file: &Path) -> io::Result<Self> {
        let meta = fs::metadata(file)?;
        Ok(Self(meta.ino(), meta.size(), meta.mtime()))
    }
}

/// The agent that runs: the image's, or one that was fetched in its place.
pub struct InUse {
    /// Where it is.
    pub place: PathBuf,
    /// What is known of it.
    pub release: Release,
}

impl InUse {
    /// What a container with this state uses. A fetched agent is used as long as the image's own stays the same; a new image comes with
    /// a newer one.
    pub fn of(places: &Places, listener: &str, state: &State) -> Self {
        let image = Self { place: places.agent(), release: Release::of_image(&places.agent_release()) };
        let Some(fetched) = &state.agent else { return image };
        let place = places.fetched_agents().join(&fetched.version);
        let same = Stamp::of(&image.place.join(listener)).is_ok_and(|stamp| stamp == fetched.replaces);
        let older = image.release.version.as_ref().is_some_and(|image| !is_newer(&fetched.version, image));
        if !same || older || !place.join(listener).exists() {
            return image;
        }
        Self { place, release: Release { version: Some(fetched.version.clone()), released: fetched.since } }
    }

    /// For people, and for whoever counts.
    fn age(&self, rule: &Rule, memory: &schedule::Memory) -> AgentAge {
        AgentAge {
            version: self.release.version.clone().or_else(|| memory.ours.clone()),
            released: self.release.released.map(day),
            update: rule.to_string(),
            newer: memory.newer().map(str::to_owned),
            failures: memory.failures,
            trouble: memory.trouble.clone(),
        }
    }
}

/// What `doctor` says of the agent's age, by what the state file remembers.
pub fn age(common: &Common, provider: &dyn Provider) -> (InUse, AgentAge) {
    let state = StateFile::read(&common.places.state()).unwrap_or_default();
    let in_use = InUse::of(&common.places, provider.agent().listener, &state);
    let age = in_use.age(&Rule::of(common, provider), &state.update);
    (in_use, age)
}

/// What is going on about a newer agent.
pub(super) struct Update {
    rule: Rule,
    step: Option<Step>,
    /// When to look what comes next.
    at: Option<Instant>,
    /// Whether a step was given up for a job.
    cut: bool,
}

/// A step on the way.
struct Step {
    /// Whether it may go on beside a job.
    beside_jobs: bool,
    work: Pin<Box<dyn Future<Output = Done>>>,
}

/// The end of a step.
pub(super) enum Done {
    /// The forge was asked. Our own version comes with its answer.
    Asked(Result<(String, Package), String>),
    /// The archive is there.
    Archived(Result<(), String>),
    /// The agent is there.
    Made(Result<(), Unmade>),
}

/// What there is to do about a newer agent.
pub(super) enum Turn {
    /// To look what comes next.
    Look,
    /// To go on after a step.
    Done(Done),
}

impl Update {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, step: None, at: None, cut: false }
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
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

impl Incarnation {
    fn in_use(&self) -> InUse {
        InUse::of(&self.common.places, self.provider.agent().listener, &self.state.state)
    }

    /// The agent to run.
    pub(super) fn pristine_agent(&self) -> PathBuf {
        self.in_use().place
    }

    /// Takes up what an earlier incarnation fetched, if it is as it was: from now on it is looked at like the image's.
    pub(super) fn take_up_agent(&mut self) {
        tracing::debug!("OSCR_AGENT_UPDATE is {}", self.update.rule);
        if self.update.rule.disappoints() {
            tracing::warn!("OSCR_AGENT_UPDATE is {}", self.update.rule);
        }
        if self.update.fetches() {
            // Before it is taken down what this container is like, or a directory above could count as new one day.
            let cache = self.common.places.cache();
            if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o755).create(&cache) {
                tracing::warn!("{} cannot be made: {error}", cache.display());
            }
        }
        let in_use = self.in_use();
        let fetched = in_use.place != self.common.places.agent();
        let usable = fetched && self.watch_agent(&in_use.place);
        if !usable && self.state.state.agent.take().is_some() {
            tracing::info!(
                "the agent that was fetched is not used any more: the image is another one, or it is not complete"
            );
        }
        self.say_age();
    }

    fn watch_agent(&mut self, place: &Path) -> bool {
        let Some(custody) = &mut self.custody else { return false };
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        custody.watch(custody.of_tree(place, &name))
    }

    /// Tells the status and the metrics.
    fn say_age(&mut self) {
        let in_use = self.in_use();
        self.state.state.update.is_about(in_use.release.version.as_deref());
        self.board.set_agent_age(in_use.age(&self.update.rule, &self.state.state.update));
    }

    /// A listener has ended, and what was going on beside it is given up.
    pub(super) fn cut_update(&mut self) {
        let going_on = self.update.step.take().is_some();
        self.update.at = None;
        if going_on | std::mem::take(&mut self.update.cut) {
            self.state.state.update.cut();
            self.state.save_or_warn();
        }
    }

    /// Does what a turn asks for. Whether there is a newer agent to run now.
    pub(super) fn take_turn(&mut self, turn: Turn) -> bool {
        let made = match turn {
            Turn::Look => false,
            Turn::Done(Done::Asked(answer)) => {
                self.hear_offer(answer);
                false
            }
            Turn::Done(Done::Archived(Ok(()))) => {
                self.make_agent();
                return false;
            }
            Turn::Done(Done::Archived(Err(why)) | Done::Made(Err(Unmade::Fault(why)))) => {
                self.update_failed(&why, None);
                false
            }
            Turn::Done(Done::Made(Err(Unmade::Unfit(why)))) => {
                let version = self.state.state.update.newer().map(str::to_owned);
                self.update_failed(&why, version.as_deref());
                false
            }
            Turn::Done(Done::Made(Ok(()))) => self.use_made(),
        };
        if !made {
            self.next_step();
        }
        made
    }

    fn hear_offer(&mut self, answer: Result<(String, Package), String>) {
        let memory = &mut self.state.state.update;
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
            Err(why) => return self.update_failed(&why, None),
        }
        self.state.save_or_warn();
        self.say_age();
    }

    /// It costs no start, no job and no health; but somebody should know.
    fn update_failed(&mut self, why: &str, unfit: Option<&str>) {
        let memory = &mut self.state.state.update;
        match unfit {
            Some(version) => memory.unfit(version, why.to_owned(), now()),
            None => memory.failed(why.to_owned(), now()),
        }
        let age = self.in_use().age(&self.update.rule, &self.state.state.update).shown();
        tracing::warn!("no newer agent could be fetched, so jobs may stay away some day (ours is {age}): {why}");
        self.state.save_or_warn();
        self.say_age();
    }

    /// Looks what comes next, and begins it: it goes on whenever somebody waits for a turn.
    pub(super) fn next_step(&mut self) {
        if self.update.step.is_some() {
            return;
        }
        let Ok(when) = self.update.rule.when else { return };
        // What is nearly used up is kept for registrations and removals.
        if let Some(left) = self.provider.pace().and_then(|pace| pace.left()) {
            self.update.at = Some(Instant::now() + left);
            return;
        }
        let released = self.in_use().release.released;
        let before = self.state.state.update.ask_at;
        let next = self.state.state.update.next(when, released, now(), backoff::random);
        if self.state.state.update.ask_at != before {
            self.state.save_or_warn();
        }
        match next {
            Next::Wait(wait) => self.update.at = Some(Instant::now() + wait),
            Next::Ask => {
                self.state.state.update.asks(now());
                self.state.save_or_warn();
                self.ask_for_newer();
            }
            Next::Fetch => self.fetch_archive(),
        }
    }

    fn begin_step(&mut self, beside_jobs: bool, work: impl Future<Output = Done> + 'static) {
        self.update.step = Some(Step { beside_jobs, work: Box::pin(work) });
    }

    fn ask_for_newer(&mut self) {
        let (provider, in_use, bench) = (Rc::clone(&self.provider), self.in_use(), self.bench());
        let known = in_use.release.version.or_else(|| self.state.state.update.ours.clone());
        self.begin_step(true, async move {
            let asked = async {
                let ours = match known {
                    Some(version) => version,
                    None => bench.version_of(&in_use.place).await.map_err(|why| format!("our own agent: {why}"))?,
                };
                let package = provider.package().await.map_err(|fault| fault.to_string());
                provider.rest();
                Ok((ours, package?))
            };
            Done::Asked(asked.await)
        });
    }

    fn archives(&self) -> Archives {
        let (directory, shared) = match &self.common.agent_cache {
            Some(shared) => (shared.clone(), true),
            None => (self.common.places.agent_archives(), false),
        };
        Archives::of(self.provider.name(), directory, shared, self.common.min_free)
    }

    fn bench(&self) -> Bench {
        let agents = self.common.places.fetched_agents();
        Bench {
            space: Space::new(self.common.min_free, &agents, []),
            agents,
            roots: self.common.places.agent_roots(),
            agent: self.slate.agent.clone(),
            starter: self.starter.clone(),
            custody: self.custody.clone(),
        }
    }

    /// What is wanted, with its checksum.
    fn wanted(&self) -> Result<(Package, String), String> {
        let package = self.state.state.update.wanted().ok_or_else(|| "it offers nothing".to_owned())?.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if package.version.starts_with('.') || !package.version.chars().all(plain) {
            return Err(format!("{:?} is no version", package.version));
        }
        match package.sha256.as_deref().map(str::trim) {
            Some(sha256) if !sha256.is_empty() => Ok((package.clone(), sha256.to_owned())),
            _ => Err(format!("it names no checksum for version {}", package.version)),
        }
    }

    fn fetch_archive(&mut self) {
        let (provider, archives, wanted) = (Rc::clone(&self.provider), self.archives(), self.wanted());
        self.begin_step(true, async move {
            let fetched = async {
                let (package, sha256) = wanted?;
                let obtained = timeout(STEP, archives.obtain(&provider, &package, &sha256)).await;
                obtained.unwrap_or_else(|_| Err(format!("it took longer than {} minutes", STEP.as_secs() / 60)))
            };
            Done::Archived(fetched.await)
        });
    }

    fn make_agent(&mut self) {
        let (archives, bench, wanted) = (self.archives(), self.bench(), self.wanted());
        self.begin_step(false, async move {
            let made = async {
                let (package, sha256) = wanted.map_err(Unmade::Fault)?;
                let made = timeout(STEP, bench.make(&archives, &package, &sha256)).await;
                made.unwrap_or_else(|_| Err(Unmade::Fault("unpacking it took too long".to_owned())))
            };
            Done::Made(made.await)
        });
    }

    /// The agent that was made is the one to run from the next registration on.
    fn use_made(&mut self) -> bool {
        let Some(offer) = self.state.state.update.offer.clone() else { return false };
        let version = offer.package.version;
        let place = self.common.places.fetched_agents().join(&version);
        let replaces = Stamp::of(&self.common.places.agent().join(self.provider.agent().listener));
        let taken = match replaces {
            Ok(replaces) if self.watch_agent(&place) => {
                self.state.state.agent = Some(Fetched { version: version.clone(), since: Some(offer.since), replaces });
                self.state.save().map_err(|error| error.to_string())
            }
            Ok(_) => Err(format!("what {} was like cannot be found", place.display())),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = taken {
            self.state.state.agent = None;
            self.update_failed(&why, None);
            return false;
        }
        tracing::info!("version {version} of the agent was fetched and proved; it runs from the next registration on");
        self.say_age();
        true
    }

    /// Before a registration, and with no job there: removes agents that are not used any more, and has a newer one there if that
    /// comes first.
    pub(super) async fn update_before_registering(&mut self) {
        self.forget_agents();
        let first = match self.update.rule.when {
            Err(_) => false,
            Ok(When::AtOnce) => true,
            Ok(When::InTime) => self.state.state.update.comes_first(),
        };
        if !first {
            return;
        }
        self.next_step();
        let stop = self.stop.clone();
        let in_time = tokio::select! {
            () = self.finish_steps() => true,
            () = stop.reached(Urgency::Finish) => true,
            () = sleep(BEFORE_REGISTERING) => false,
        };
        if !in_time {
            tracing::warn!("a newer agent is still being fetched: going on with ours meanwhile");
            // What needs that nobody else is there is done anew.
            self.update.step.take_if(|step| !step.beside_jobs);
        } else if self.stop.urgency() > Urgency::None {
            self.update.halt();
        }
    }

    /// Takes one turn after the other, as long as there is a step to finish.
    async fn finish_steps(&mut self) {
        while self.update.step.is_some() {
            let turn = self.update.turn(true).await;
            if self.take_turn(turn) {
                return;
            }
        }
    }

    /// Fetches the version that the forge offers, now that it refuses ours. The error says why there is none, for people.
    pub(super) async fn fetch_agent(&mut self) -> Result<String, String> {
        self.update.step = None;
        self.state.state.update.asks(now());
        self.ask_for_newer();
        let failures = self.state.state.update.failures;
        loop {
            let Turn::Done(done) = self.update.turn(true).await else { continue };
            let asked = matches!(done, Done::Asked(Ok(_)));
            if self.take_turn(Turn::Done(done)) {
                return Ok(self.in_use().release.version.unwrap_or_default());
            }
            let memory = &self.state.state.update;
            if memory.failures > failures {
                return Err(memory.trouble.clone().unwrap_or_default());
            }
            if self.update.step.is_none() {
                if asked && memory.wanted().is_some() {
                    // Ours is refused, however young it is.
                    self.fetch_archive();
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
    fn forget_agents(&self) {
        let place = self.in_use().place;
        let agents = self.common.places.fetched_agents();
        for entry in fs::read_dir(&agents).into_iter().flatten().flatten() {
            if entry.path() != place
                && let Err(error) = fs::remove_dir_all(entry.path())
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("{} cannot be removed: {error}", entry.path().display());
            }
        }
        if let Some(custody) = &self.custody {
            custody.forget_trees(place.file_name().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path().to_owned());
        for agent in [places.agent(), places.fetched_agents().join("2.339.0")] {
            fs::create_dir_all(agent.join("bin")).unwrap();
            fs::write(agent.join("bin/Listener"), "").unwrap();
        }
        fs::write(places.agent_release(), r#"{"version":"2.338.0","released":"2026-10-06"}"#).unwrap();
        (root, places)
    }

    fn version(places: &Places, state: &State) -> String {
        InUse::of(places, "bin/Listener", state).release.version.unwrap_or_default()
    }

    #[test]
    fn a_fetched_agent_is_used_until_the_image_changes() {
        let (_root, places) = container();
        let listener = places.agent().join("bin/Listener");
        assert_eq!(version(&places, &State::default()), "2.338.0");
        let fetched = |version: &str| {
            let replaces = Stamp::of(&listener).unwrap();
            State { agent: Some(Fetched { version: version.to_owned(), since: Some(7), replaces }), ..State::default() }
        };
        let state = fetched("2.339.0");
        let in_use = InUse::of(&places, "bin/Listener", &state);
        assert_eq!((in_use.release.version.as_deref(), in_use.release.released), (Some("2.339.0"), Some(7)));
        assert_eq!(version(&places, &fetched("2.340.0")), "2.338.0", "it is not there");
        fs::write(places.agent_release(), r#"{"version":"2.340.0"}"#).unwrap();
        assert_eq!(version(&places, &state), "2.340.0", "the image's is newer");
        fs::remove_file(places.agent_release()).unwrap();
        assert_eq!(version(&places, &state), "2.339.0", "the image does not say what it is");
        fs::write(&listener, "another").unwrap();
        assert_eq!(version(&places, &state), "", "the image's is another one");
    }
}
