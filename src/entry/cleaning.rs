//! Between two jobs: what the last one left goes, and what it cannot have changed without root's powers is compared.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::emptying::Emptier;
use super::ending::Why;
use super::means::Means;
use super::outside::Outside;
use super::patience::Patience;
use super::report::JobReport;
use super::set_up::try_places;
use super::state::StateFile;
use super::stop::Urgency;
use super::work::on_a_thread;
use crate::config::Cache;
use crate::control::Phase;
use crate::init::SpawnError;
use crate::metrics;
use crate::workspace::space::shown;
use crate::workspace::taint::Custody;
use crate::workspace::{Slate, SlateError, Wiped, evict, sysv};

/// Who keeps the slate clean.
pub(super) struct Keeper {
    means: Rc<Means>,
    slate: Slate,
    pub(super) outside: Outside,
    pub(super) emptier: Emptier,
    /// A job that is over, and of which only the wiping is left to be told.
    report: Option<JobReport>,
}

impl Keeper {
    pub(super) fn new(means: Rc<Means>, slate: Slate, outside: Outside) -> Self {
        let emptier = Emptier::new(Rc::clone(&means));
        Self { means, slate, outside, emptier, report: None }
    }

    /// Whether a job is over that was not told of yet.
    pub(super) fn owes_report(&self) -> bool {
        self.report.is_some()
    }

    /// A job is over, and is told of once its slate is clean.
    pub(super) fn job_over(&mut self, report: JobReport) {
        self.report = Some(report);
        self.means.numbers.keep();
    }

    /// Makes the slate clean, however often it takes. `false` when asked to stop before it was.
    pub(super) async fn clean(&mut self, patience: &mut Patience, state: &mut StateFile) -> bool {
        loop {
            if self.outside.is_tainted() {
                return false;
            }
            self.means.board.enter(Phase::Cleaning);
            let why = match self.wipe().await {
                Ok(wiped) => {
                    self.means.board.drop_reason(Phase::Dirty);
                    self.tell(Some(wiped.took));
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
                    let Err(why) = try_places(&self.means, state, &self.slate).await else {
                        return self.means.stop.urgency() == Urgency::None && !self.outside.is_tainted();
                    };
                    why
                }
                Err(error) => {
                    self.tell(None);
                    error.to_string()
                }
            };
            let wait = patience.backoff.after_denial();
            patience.wait_out(state, Phase::Dirty, &format!("no job is taken: {why}"), wait).await;
            if self.means.stop.urgency() > Urgency::None {
                return false;
            }
        }
    }

    /// Has it known, before a job can come, what everything outside of the slate should be like.
    ///
    /// # Errors
    /// With why no listener may be started: what could not be read is tried again by the next [cleaning](Self::clean).
    pub(super) async fn knows_outside(&mut self) -> Result<(), Why> {
        let stop = self.means.stop.clone();
        tokio::select! {
            known = self.outside.is_known() => known.map_err(|error| {
                tracing::warn!("{error}");
                Why::Unclean
            })?,
            () = stop.reached(Urgency::Finish) => return Err(Why::Asked),
        }
        if let Err(error) = self.outside.all_is_well() {
            // More will be read than needed, and no less.
            tracing::debug!("{error}");
        }
        Ok(())
    }

    /// Before the end: once.
    pub(super) async fn clean_at_last(&mut self) {
        self.means.board.enter(Phase::Cleaning);
        match self.wipe().await {
            Ok(wiped) => self.tell(Some(wiped.took)),
            Err(error) => {
                self.tell(None);
                // The next incarnation cleans before it takes a job, and takes none while it cannot.
                tracing::warn!("{error}");
            }
        }
    }

    /// Cleans the slate once, and compares what is outside. No process of a job is left by now.
    async fn wipe(&mut self) -> Result<Wiped, SlateError> {
        self.emptier.give_up();
        let agent = self.slate.agent.uid;
        if !sysv::of(agent).is_empty() {
            let failed = |error: SpawnError| SlateError::Sysv(error.to_string());
            let ended = self.means.starter.ourselves(&[sysv::COMMAND]).map_err(failed)?.ended().await;
            let left = sysv::of(agent).len();
            if left > 0 {
                return Err(SlateError::Sysv(format!("{left} remain ({ended})")));
            }
        }
        let (mut custody, looked) = self.outside.take_looked().await;
        let mut slate = self.slate.clone();
        let (slate, custody, looked, wiped) = on_a_thread(move || {
            // Before the wipe, which changes the links of the agent's files, and so the time of their last change.
            let looked = looked.unwrap_or_else(|| custody.as_mut().map_or(Ok(None), Custody::look));
            let wiped = slate.clean();
            (slate, custody, looked, wiped)
        })
        .await;
        self.slate = slate;
        self.outside.give_back(custody);
        let findings = looked.map_err(SlateError::Unreadable)?;
        let mut wiped = wiped?;
        if let Some(findings) = findings {
            self.outside.judge(&findings, self.means.common.taint);
        }
        let (since, places) = (Instant::now(), wiped.took);
        wiped += self.emptier.empty(&self.slate).await?;
        wiped.took = places + since.elapsed();
        self.outside.all_is_well()?;
        Ok(wiped)
    }

    /// Holds the caches to their cap. What goes wrong there keeps no job away: a cache that is too large is no dirt.
    async fn shrink_caches(&self) {
        let Some(most) = self.means.common.cache_cap else { return };
        for Cache { place: cache, .. } in self.means.common.caches.clone() {
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
    fn tell(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            metrics::wiped(took);
        }
        if let Some(report) = self.report.take() {
            report.say(took);
        }
        self.means.numbers.keep();
    }
}
