//! The three steps to a newer agent: to ask for it, to have its archive there, and to make an agent of that.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::archive::Archives;
use super::rule::NOT_OFFERED;
use super::unpack::{Bench, Unmade};
use crate::entry::means::Means;
use crate::entry::outside::Outside;
use crate::entry::state::StateFile;
use crate::provider::Package;
use crate::workspace::Space;

/// How long each step may take: the archive has some 200 MB.
const STEP: Duration = Duration::from_secs(30 * 60);

/// A step that goes on. Given up by being dropped.
pub(in crate::entry) struct UpdateStep {
    /// Whether it may go on beside a job.
    pub(super) beside_jobs: bool,
    pub(super) work: Pin<Box<dyn Future<Output = Done>>>,
}

/// The end of a step.
pub(in crate::entry) enum Done {
    /// The forge was asked. Our own version comes with its answer.
    Asked(Result<(String, Package), String>),
    /// The archive is there.
    Archived(Result<(), String>),
    /// The agent is there.
    Made(Result<(), Unmade>),
}

impl UpdateStep {
    fn begin(beside_jobs: bool, work: impl Future<Output = Done> + 'static) -> Self {
        Self { beside_jobs, work: Box::pin(work) }
    }

    /// Asks the forge for the newest one.
    pub(super) fn ask(means: &Means, state: &StateFile, outside: &Outside) -> Self {
        let (provider, in_use, bench) = (Rc::clone(&means.provider), means.in_use(state), bench(means, outside));
        let known = in_use.release.version.or_else(|| state.content.update.ours.clone());
        Self::begin(true, async move {
            let asked = async {
                let ours = match known {
                    Some(version) => version,
                    None => bench.version_of(&in_use.place).await.map_err(|why| format!("our own agent: {why}"))?,
                };
                let package = match provider.package() {
                    Some(package) => package.await.map_err(|fault| fault.to_string()),
                    None => Err(NOT_OFFERED.to_owned()),
                };
                provider.rest();
                Ok((ours, package?))
            };
            Done::Asked(asked.await)
        })
    }

    /// Has the archive of what is offered there.
    pub(super) fn fetch(means: &Means, state: &StateFile) -> Self {
        let (provider, archives, wanted) = (Rc::clone(&means.provider), archives(means), wanted(state));
        Self::begin(true, async move {
            let fetched = async {
                let (package, sha256) = wanted?;
                let obtained = timeout(STEP, archives.obtain(&provider, &package, &sha256)).await;
                obtained.unwrap_or_else(|_| Err(format!("it took longer than {} minutes", STEP.as_secs() / 60)))
            };
            Done::Archived(fetched.await)
        })
    }

    /// Makes an agent of it.
    pub(super) fn make(means: &Means, state: &StateFile, outside: &Outside) -> Self {
        let (archives, bench, wanted) = (archives(means), bench(means, outside), wanted(state));
        Self::begin(false, async move {
            let made = async {
                let (package, sha256) = wanted.map_err(Unmade::Fault)?;
                let made = timeout(STEP, bench.make(&archives, &package, &sha256)).await;
                made.unwrap_or_else(|_| Err(Unmade::Fault("unpacking it took too long".to_owned())))
            };
            Done::Made(made.await)
        })
    }
}

fn archives(means: &Means) -> Archives {
    let common = &means.common;
    let (directory, shared) = match &common.agent_cache {
        Some(shared) => (shared.clone(), true),
        None => (common.places.agent_archives(), false),
    };
    Archives::of(means.provider.name(), directory, shared, common.min_free)
}

fn bench(means: &Means, outside: &Outside) -> Bench {
    let places = &means.common.places;
    let agents = places.fetched_agents();
    Bench {
        space: Space::new(means.common.min_free, &agents, []),
        agents,
        roots: places.agent_directories(),
        agent: means.agent.clone(),
        starter: means.starter.clone(),
        custody: outside.custody().cloned(),
    }
}

/// What is wanted, with its checksum.
fn wanted(state: &StateFile) -> Result<(Package, String), String> {
    let package = state.content.update.wanted().ok_or_else(|| "it offers nothing".to_owned())?.clone();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if package.version.starts_with('.') || !package.version.chars().all(plain) {
        return Err(format!("{:?} is no version", package.version));
    }
    match package.sha256.as_deref().map(str::trim) {
        Some(sha256) if !sha256.is_empty() => Ok((package.clone(), sha256.to_owned())),
        _ => Err(format!("it names no checksum for version {}", package.version)),
    }
}
