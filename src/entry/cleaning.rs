//! Between two jobs: what the last one left goes, and what it cannot have changed without root's powers is compared.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::incarnation::{Incarnation, on_a_thread};
use crate::config::{Common, Taint};
use crate::control::Phase;
use crate::docker::engine;
use crate::init::SpawnError;
use crate::os::Identity;
use crate::provider::Provider;
use crate::workspace::taint::{Custody, Findings, Skip, Skips};
use crate::workspace::{Slate, SlateError, Wiped, ipc};

/// The file system to be compared: outside of what is wiped, kept, or written by ourselves.
pub fn custody(
    common: &Common,
    provider: &dyn Provider,
    slate: &Slate,
    identity: Option<&Identity>,
) -> Option<Custody> {
    let agent = identity?;
    let places = &common.places;
    let whole = |path: PathBuf| (path, Skip::All);
    let mut skips: Skips = slate.temporary.iter().map(|place| (place.clone(), Skip::Content)).collect();
    skips.extend([&slate.work, &slate.agent_roots, &slate.home].into_iter().chain(&slate.kept).cloned().map(whole));
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
    if common.docker.engine.is_some() {
        // What an engine writes besides its data. A job with an engine of its own is root in this container anyway.
        skips.extend(
            ["run", "etc/docker", "var/lib/containerd", "opt/containerd"].map(|path| whole(places.of_engine(path))),
        );
        skips.insert(engine::DATA.into(), Skip::All);
    }
    Custody::of(places.root(), agent, skips)
}

impl Incarnation {
    /// Cleans the slate once, and compares what is outside. No process of a job is left by now.
    pub(super) async fn wipe(&mut self) -> Result<Wiped, SlateError> {
        // Another one follows, which finds what this one leaves, and is in nobody's way.
        self.removal = None;
        let agent = self.slate.agent.uid;
        if !ipc::of(agent).is_empty() {
            let failed = |error: SpawnError| SlateError::Ipc(error.to_string());
            let ended = self.starter.ourselves(&[ipc::COMMAND]).map_err(failed)?.ended().await;
            let left = ipc::of(agent).len();
            if left > 0 {
                return Err(SlateError::Ipc(format!("{left} remain ({ended})")));
            }
        }
        let (mut slate, mut custody) = (self.slate.clone(), self.custody.take().filter(|_| self.tainted.is_none()));
        let (slate, custody, looked, wiped) = on_a_thread(move || {
            // Before the wipe, which changes the links of the agent's files, and so the time of their last change.
            let looked = custody.as_mut().map_or(Ok(None), Custody::look);
            let wiped = slate.clean();
            (slate, custody, looked, wiped)
        })
        .await;
        self.slate = slate;
        self.custody = custody;
        let findings = looked.map_err(SlateError::Unreadable)?;
        let mut wiped = wiped?;
        if let Some(findings) = findings {
            self.judge(findings);
        }
        let (since, places) = (Instant::now(), wiped.took);
        wiped += self.empty_trash().await?;
        wiped.took = places + since.elapsed();
        self.all_is_well()?;
        Ok(wiped)
    }

    /// What changes from now on is somebody else's doing.
    pub(super) fn all_is_well(&mut self) -> Result<(), SlateError> {
        if self.tainted.is_some() {
            return Ok(());
        }
        self.custody.as_mut().map_or(Ok(()), Custody::mark).map_err(SlateError::Unreadable)
    }

    fn judge(&mut self, findings: Findings) {
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
        if findings.changed == 0 || self.common.taint == Taint::Off {
            return;
        }
        let what = findings.summary();
        if self.common.taint == Taint::Warn {
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
    pub(super) async fn stay_tainted(&mut self) {
        let Some(what) = &self.tainted else { return };
        let why = format!(
            "this container is tainted and takes no further job. Changed outside of what is wiped: {what}. Make it \
             anew: docker compose up -d --force-recreate"
        );
        self.board.fault(&why, Duration::ZERO);
        self.board.enter(Phase::Tainted);
        tracing::error!("{why}");
        if !self.stop.signalled() {
            self.stop.signal_came().await;
        }
    }
}
