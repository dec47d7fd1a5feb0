//! What lies outside of the slate, which no job can change without root's powers: what it was like, and whether it still is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::means::Means;
use super::work::Work;
use crate::config::{Common, Taint};
use crate::control::Phase;
use crate::docker::engine;
use crate::os::Identity;
use crate::provider::Provider;
use crate::workspace::taint::{Custody, Findings, Skip, Skips};
use crate::workspace::{Slate, SlateError};

/// What is known of it.
pub(super) struct Outside {
    /// What it should be like; `None` where no job can change it, or we cannot tell.
    custody: Option<Custody>,
    /// What a container that is new is like, while it is written down. Nothing is compared meanwhile: no job has run.
    reference: Option<Work<io::Result<Custody>>>,
    /// A comparison that was [begun ahead](Self::look_ahead).
    ahead: Option<Work<(Custody, Looked)>>,
    /// What was changed there, if anything was and this is a reason to take no job.
    tainted: Option<String>,
}

/// What a look finds; nothing where it is the first.
pub(super) type Looked = io::Result<Option<Findings>>;

impl Outside {
    /// All but what is wiped, kept, or written by ourselves. Without another user for jobs, whose `identity` it is, nothing can be
    /// told.
    pub(super) fn of(common: &Common, provider: &dyn Provider, slate: &Slate, identity: Option<&Identity>) -> Self {
        let custody =
            identity.and_then(|agent| Custody::of(common.places.root(), agent, skips(common, provider, slate)));
        let refuses = common.taint == Taint::Refuse;
        let tainted = custody.as_ref().filter(|_| refuses).and_then(Custody::condemned);
        Self { custody, reference: None, ahead: None, tainted }
    }

    /// Whether it was changed, so that no further job is taken.
    pub(super) fn is_tainted(&self) -> bool {
        self.tainted.is_some()
    }

    /// Begins to write down what a new container is like, beside all that comes before the first job. Whoever wants that job waits
    /// until it [is known](Self::is_known).
    pub(super) fn begin(&mut self) {
        if let Some(mut new) = self.custody.clone().filter(Custody::is_new) {
            self.reference = Some(Work::begin(move || {
                let since = Instant::now();
                new.establish()?;
                let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(ms, "wrote down what this container is like");
                Ok(new)
            }));
        }
    }

    /// Waits until it is known what this container should be like, if that is being written down. Safe to drop and call again.
    ///
    /// # Errors
    /// When it cannot be read, or not be written down. The next [look](Custody::look) tries again.
    pub(super) async fn is_known(&mut self) -> Result<(), SlateError> {
        let Some(reference) = &mut self.reference else { return Ok(()) };
        let written = reference.done().await;
        self.reference = None;
        let written = written.map_err(SlateError::Unreadable)?;
        if let Some(custody) = &mut self.custody {
            custody.learn(&written);
        }
        Ok(())
    }

    /// Begins to compare, beside what comes before the slate is cleaned. No process of a job may be left by now.
    pub(super) fn look_ahead(&mut self) {
        self.ahead = self.take().map(|mut custody| {
            Work::begin(move || {
                let looked = custody.look();
                (custody, looked)
            })
        });
    }

    /// What does the comparing, and what it found if that was [begun ahead](Self::look_ahead).
    pub(super) async fn take_looked(&mut self) -> (Option<Custody>, Option<Looked>) {
        match self.ahead.take() {
            Some(mut ahead) => {
                let (custody, looked) = ahead.done().await;
                (Some(custody), Some(looked))
            }
            None => (self.take(), None),
        }
    }

    /// What does the comparing, for as long as a thread needs it. Nothing more is compared once it is known to be changed.
    pub(super) fn take(&mut self) -> Option<Custody> {
        if self.reference.is_some() {
            return None;
        }
        self.custody.take().filter(|_| self.tainted.is_none())
    }

    /// Gets back what was [taken](Self::take).
    pub(super) fn give_back(&mut self, custody: Option<Custody>) {
        if custody.is_some() {
            self.custody = custody;
        }
    }

    /// What new agents are recorded beside.
    pub(super) fn custody(&self) -> Option<&Custody> {
        self.custody.as_ref()
    }

    /// Looks at a fetched agent like at the image's from now on. `false` if it has no record, or none that holds.
    pub(super) fn watch_agent(&mut self, place: &Path) -> bool {
        let Some(custody) = &mut self.custody else { return false };
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        custody.watch(custody.of_tree(place, &name))
    }

    /// What changes from now on is somebody else's doing.
    pub(super) fn all_is_well(&mut self) -> Result<(), SlateError> {
        if self.tainted.is_some() || self.reference.is_some() {
            return Ok(());
        }
        self.custody.as_mut().map_or(Ok(()), Custody::mark).map_err(SlateError::Unreadable)
    }

    /// Holds it against what it was.
    pub(super) fn judge(&mut self, findings: &Findings, taint: Taint) {
        tracing::debug!(
            files = findings.files,
            read = findings.read,
            ms = u64::try_from(findings.took.as_millis()).unwrap_or(u64::MAX),
            "compared the file system with what it was"
        );
        if findings.removed.entries > 0 {
            let entries = findings.removed.entries;
            tracing::info!(entries, "removed what was left in other places that jobs can write");
        }
        if findings.changed == 0 || taint == Taint::Off {
            return;
        }
        let what = findings.summary();
        if taint == Taint::Warn {
            tracing::warn!("changed since this container was made, which jobs should not be able to: {what}");
            // Said once; what comes next is news.
            let taken = self.custody.as_mut().map_or(Ok(()), Custody::establish);
            if let Err(error) = taken {
                tracing::warn!("the next comparison will say it again: {error}");
            }
            return;
        }
        if let Some(custody) = &self.custody
            && let Err(error) = custody.condemn(&what)
        {
            // This life takes no job all the same, and the next one finds what this one found.
            tracing::warn!("that this container is tainted cannot be written down: {error}");
        }
        self.tainted = Some(what);
    }

    /// A tainted container takes no further job. It stays, because what would be started next may be what was changed.
    pub(super) async fn stay_tainted(&self, means: &Means) {
        let Some(what) = &self.tainted else { return };
        let why = format!(
            "this container is tainted and takes no further job. Changed outside of what is wiped: {what}. Make it \
             anew: docker compose up -d --force-recreate"
        );
        means.board.fault(&why, Duration::ZERO);
        means.board.enter(Phase::Tainted);
        tracing::error!("{why}");
        if !means.stop.signalled() {
            means.stop.signal_came().await;
        }
    }
}

/// What is not compared: what is wiped, kept, or written by ourselves.
fn skips(common: &Common, provider: &dyn Provider, slate: &Slate) -> Skips {
    let places = &common.places;
    let whole = |path: PathBuf| (path, Skip::All);
    let mut skips: Skips = slate.temporary.iter().map(|place| (place.clone(), Skip::Content)).collect();
    skips.extend(
        [&slate.work, &slate.agent_directories, &slate.home].into_iter().chain(&slate.kept).cloned().map(whole),
    );
    // Root's, and written by this program: state, sockets, agents that were fetched. The one in use is looked at by itself.
    skips.extend([places.state(), places.run(), places.cache()].map(whole));
    // A link that this program makes for tools that know no other path, or an engine's.
    skips.extend(places.docker_sockets().map(whole));
    // A secret may be renewed, and so may what is shared with others.
    skips.extend(provider.secrets().into_iter().filter_map(|secret| secret.path()).map(Path::to_owned).map(whole));
    skips.extend(provider.shared_directories().into_iter().map(|shared| whole(shared.place.to_owned())));
    skips.extend(common.agent_cache.clone().map(whole));
    // A file is replaced by another, which has a name of its own for a moment.
    let directory = common.metrics_file.as_deref().and_then(Path::parent).map(Path::to_owned);
    skips.extend(directory.map(|directory| (directory, Skip::Content)));
    // At each start, the runtime that gives a container GPUs has ldconfig look for their libraries. What programs go by then is
    // /etc/ld.so.cache, which is compared.
    skips.extend(places.of_gpus().into_iter().map(|place| (place, Skip::Content)));
    if common.docker.engine.is_some() {
        // What an engine writes besides its data. A job with an engine of its own is root in this container anyway.
        skips.extend(
            ["run", "etc/docker", "var/lib/containerd", "opt/containerd"].map(|path| whole(places.of_engine(path))),
        );
        skips.insert(engine::DATA.into(), Skip::All);
    }
    skips
}
