//! The watchdog: a listener that looks alive and gets no job must not stay.
//!
//! It follows what the listener says and what processes it has, asks the forge now and then, and tells when the listener must be
//! ended. It decides and does nothing by itself, and says nothing against a listener whose worker lives, but for a job that is
//! over its time, or that the forge has given up. What a job could write to the listener's output counts only while there is no job.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::doubt::Doubt;
use crate::config::Watch;
use crate::provider::{Fault, Sign, Standing};

/// How long the forge may refuse a session because of another one under our name. Names are new each time, so there is none;
/// the agent asks for it each 30 s.
const CONFLICT: Duration = Duration::from_secs(105);
/// A listener that has not said for so long that it listens, nor what is in its way, has trouble all the same.
const SILENT: Duration = Duration::from_secs(2 * 60);
/// Who cannot ask the forge believes a listener that its registration is not known when it says so again after this: one answer
/// makes GitHub's say it four times, and go on.
const UNKNOWN: Duration = Duration::from_secs(20);
/// A runner that the forge calls offline is looked at again so often within its time.
const LOOKS: u32 = 3;

/// What the listener is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not said that it listens.
    Starting,
    /// It waits for a job.
    Listening,
    /// It was given one, and has no worker yet.
    Acquiring,
    /// Its worker lives.
    Running,
    /// Its worker is gone.
    Done,
}

/// What must be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask the forge about the registration, and report to [`Watchdog::told`] or [`Watchdog::not_asked`].
    Ask,
    /// The listener has begun so long ago, and neither listens nor says why not: report to [`Watchdog::silent`].
    Silent(Duration),
    /// Nobody can say any more whether the listener is cut off.
    Lapse,
    /// End the listener and register anew. The reason is for people.
    Replace(String),
    /// It was idle for as long as it may: end it.
    Idle,
    /// The job is over its time: cancel it.
    Overdue,
    /// The forge has given the job up, for so long: end it.
    GivenUp(Duration),
}

/// Watches one listener.
#[derive(Debug)]
pub(super) struct Watchdog {
    limits: Watch,
    ephemeral: bool,
    /// Whether the forge can be asked, and may be.
    can_ask: bool,
    stage: Stage,
    since: Instant,
    /// How long it has listened without a break.
    idle_since: Option<Instant>,
    ask_at: Option<Instant>,
    /// Whether it lost its connection, in its own words.
    doubt: Option<Doubt>,
    offline_since: Option<Instant>,
    /// Since when the forge, in each answer, calls a runner offline and idle whose job runs.
    given_up_since: Option<Instant>,
    given_up: bool,
    conflict_since: Option<Instant>,
    /// Whether it has trouble to be let in, in its own words: the forge is asked about it.
    trouble: Option<Doubt>,
    /// Whether it was heard of while it starts, or found silent.
    noted: bool,
    unknown_since: Option<Instant>,
    verdict: Option<String>,
    chance: fn() -> f64,
}

impl Watchdog {
    /// Watches a listener that starts now. `can_ask` says whether there is a credential that can ask the forge, `chance` gives
    /// numbers from 0 to 1, for the intervals.
    pub(super) fn new(limits: Watch, ephemeral: bool, can_ask: bool, chance: fn() -> f64) -> Self {
        let mut watchdog = Self {
            limits,
            ephemeral,
            can_ask: can_ask && limits.interval.is_some(),
            stage: Stage::Starting,
            since: Instant::now(),
            idle_since: None,
            ask_at: None,
            doubt: None,
            offline_since: None,
            given_up_since: None,
            given_up: false,
            conflict_since: None,
            trouble: None,
            noted: false,
            unknown_since: None,
            verdict: None,
            chance,
        };
        watchdog.ask_later();
        watchdog
    }

    /// The listener says that it listens.
    pub(super) fn listening(&mut self) {
        if matches!(self.stage, Stage::Starting) {
            self.enter(Stage::Listening);
            self.idle_since = Some(Instant::now());
            self.conflict_since = None;
            self.trouble = None;
            self.unknown_since = None;
        }
    }

    /// The listener says that it begins a job.
    pub(super) fn acquiring(&mut self) {
        if matches!(self.stage, Stage::Starting | Stage::Listening) {
            self.enter(Stage::Acquiring);
        }
    }

    /// A worker was found. Whatever spoke against the listener is void.
    pub(super) fn running(&mut self) {
        if self.stage != Stage::Running {
            self.verdict = None;
            self.doubt = None;
            self.trouble = None;
            self.enter(Stage::Running);
        }
    }

    /// The worker is gone, or the listener says that its job is over.
    pub(super) fn done(&mut self) {
        self.enter(Stage::Done);
    }

    /// The listener gave another sign.
    pub(super) fn heard(&mut self, sign: Sign) {
        if matches!(self.stage, Stage::Running | Stage::Done) {
            return;
        }
        self.noted |= sign.is_trouble();
        match sign {
            Sign::Acquiring => self.acquiring(),
            Sign::Skipped if self.ephemeral => {
                let why = "the listener passed its one job over and listens on, although its registration is used up";
                self.verdict = Some(why.to_owned());
                self.enter(Stage::Listening);
            }
            // It stays registered, and the next job may be well.
            Sign::Skipped => self.enter(Stage::Listening),
            // What it says may pass; what the forge says does not.
            Sign::Unknown if self.can_ask => self.has_trouble(),
            Sign::Unknown => {
                let since = *self.unknown_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= UNKNOWN {
                    self.verdict = Some("the listener says that its registration is not known any more".to_owned());
                }
            }
            Sign::Conflict => {
                self.conflict_since.get_or_insert_with(Instant::now);
            }
            // It is about to end.
            Sign::Refused => self.done(),
            // It tries again by itself, and while the forge is out of reach it does what can be done.
            Sign::Disconnected if self.stage == Stage::Listening && self.doubt.is_none() => {
                // That it is offline is no news now.
                self.offline_since = None;
                self.doubt = Some(Doubt::begin(self.limits.interval, (self.chance)()));
            }
            // One that has not listened yet says the same when it gets no session; what the forge thinks of it decides.
            Sign::Disconnected if self.stage == Stage::Starting && self.can_ask => self.has_trouble(),
            Sign::Disconnected => {}
            Sign::Reconnected => self.doubt = None,
            // It listens on, or ends and says by its code why.
            Sign::Updating | Sign::Reconfigured | Sign::Cancelled => {}
        }
    }

    /// Until when its worker may take to appear, while the listener has taken a job and shows none.
    pub(super) fn acquires_until(&self) -> Option<Instant> {
        (self.stage == Stage::Acquiring).then(|| self.since + self.limits.worker)
    }

    /// It was found silent: what the forge thinks of it decides.
    pub(super) fn silent(&mut self) {
        self.noted = true;
        if self.can_ask {
            self.has_trouble();
        }
    }

    fn has_trouble(&mut self) {
        let begin = || Doubt::begin(self.limits.interval, (self.chance)());
        self.trouble = Some(self.trouble.unwrap_or_else(begin));
    }

    /// Whether the listener said that it lost its connection, and nobody since that it has it back.
    pub(super) fn doubts(&self) -> bool {
        self.doubt.is_some()
    }

    /// Whether it has trouble with its connection, by its own words, be it one that it never had.
    pub(super) fn is_cut_off(&self) -> bool {
        self.doubt.is_some() || self.trouble.is_some()
    }

    /// Nobody can say whether the listener is cut off.
    pub(super) fn forget_doubt(&mut self) {
        self.doubt = None;
    }

    /// The forge is not to be asked now: later.
    pub(super) fn not_asked(&mut self) {
        self.given_up_since = None;
        self.put_off();
    }

    fn put_off(&mut self) {
        self.ask_later();
        for doubt in [&mut self.doubt, &mut self.trouble].into_iter().flatten() {
            doubt.go_on(self.limits.interval, (self.chance)());
        }
    }

    /// What the forge answered.
    pub(super) fn told(&mut self, standing: &Result<Standing, Fault>) {
        self.put_off();
        if self.stage == Stage::Running {
            self.told_under_job(standing);
        }
        // A job may have come while the forge was thinking.
        let idle = matches!(self.stage, Stage::Starting | Stage::Listening);
        match standing {
            _ if !idle => self.offline_since = None,
            // It is not well itself: no reason to give a registration up.
            Err(fault) => tracing::debug!("the forge cannot be asked about the registration: {fault}"),
            Ok(Standing::Online | Standing::Busy) => {
                self.offline_since = None;
                self.doubt = None;
                self.trouble = None;
            }
            Ok(Standing::Unknown) => {
                self.verdict = Some("the forge does not know the registration any more".to_owned());
            }
            // It says so itself, and goes on trying.
            Ok(Standing::Offline | Standing::OfflineBusy) if self.doubt.is_some() => {}
            Ok(Standing::Offline | Standing::OfflineBusy) => {
                let since = *self.offline_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.limits.offline {
                    let what = if self.stage == Stage::Listening { "listens" } else { "tries to connect" };
                    self.verdict = Some(format!(
                        "the listener {what}, but the forge has called the runner offline for {}",
                        humantime::format_duration(self.limits.offline)
                    ));
                }
                self.ask_soon(self.limits.offline);
            }
        }
    }

    /// What the forge answered while a job runs. Only that it sees the runner offline, and believes in no job of it, speaks
    /// against the job: it takes an ephemeral runner off its list when it gives it one.
    fn told_under_job(&mut self, standing: &Result<Standing, Fault>) {
        let (Ok(Standing::Offline), Some(limit)) = (standing, self.limits.job_offline) else {
            self.given_up_since = None;
            return;
        };
        let since = *self.given_up_since.get_or_insert_with(Instant::now);
        self.given_up = since.elapsed() >= limit;
        self.ask_soon(limit);
    }

    /// The next question comes no later than a part of this time from now.
    fn ask_soon(&mut self, limit: Duration) {
        let soon = Instant::now() + limit / LOOKS;
        self.ask_at = self.ask_at.map(|at| at.min(soon));
    }

    /// Waits until something must be done. Safe to drop and call again.
    pub(super) async fn due(&self) -> Due {
        if let Some(why) = &self.verdict {
            return Due::Replace(why.clone());
        }
        let mut dues: Vec<(Instant, Due)> = Vec::new();
        match self.stage {
            Stage::Starting | Stage::Listening => {
                dues.extend(self.ask_at.map(|at| (at, Due::Ask)));
                dues.extend(self.doubt.map(|doubt| match self.can_ask {
                    true => (doubt.asks_at(), Due::Ask),
                    false => (doubt.lapses_at(), Due::Lapse),
                }));
                dues.extend(self.trouble.map(|trouble| (trouble.asks_at(), Due::Ask)));
                if self.stage == Stage::Starting {
                    // One that is to stay has its name for good, and its earlier session ends some day.
                    dues.extend(self.conflict_since.filter(|_| self.ephemeral).map(|since| {
                        let why = "the forge refuses a session, because of another one under this name";
                        (since + CONFLICT, Due::Replace(why.to_owned()))
                    }));
                    dues.extend((!self.noted).then_some((self.since + SILENT, Due::Silent(SILENT))));
                }
                if let (Some(since), Some(most)) = (self.idle_since, self.limits.max_idle) {
                    dues.push((since + most, Due::Idle));
                }
            }
            Stage::Acquiring => {
                let limit = humantime::format_duration(self.limits.worker);
                let why = format!("the listener has taken a job, but no worker has run for {limit}");
                dues.push((self.since + self.limits.worker, Due::Replace(why)));
            }
            Stage::Running => {
                if let (true, Some(limit)) = (self.given_up, self.limits.job_offline) {
                    return Due::GivenUp(limit);
                }
                dues.extend(self.ask_at.filter(|_| self.limits.job_offline.is_some()).map(|at| (at, Due::Ask)));
                dues.extend(self.limits.job_max.map(|most| (self.since + most, Due::Overdue)));
            }
            Stage::Done => {}
        }
        match dues.into_iter().min_by_key(|(at, _)| *at) {
            Some((at, due)) => {
                sleep_until(at).await;
                due
            }
            None => std::future::pending().await,
        }
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.since = Instant::now();
    }

    /// The next question: after the interval, give or take a fifth, so that replicas that were started together do not ask
    /// together.
    fn ask_later(&mut self) {
        let interval = self.limits.interval.filter(|_| self.can_ask);
        self.ask_at = interval.map(|interval| Instant::now() + interval.mul_f64(0.8 + 0.4 * (self.chance)()));
    }
}

#[cfg(test)]
mod tests;
