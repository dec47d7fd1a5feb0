//! The watchdog: a listener that looks alive and gets no job must not stay.
//!
//! It follows what the listener says and what processes it has, asks the forge now and then, and tells when the listener must be
//! ended. It decides and does nothing by itself, and says nothing against a listener whose worker lives, but for a job that is
//! over its time. What a job could write to the listener's output counts only while there is no job.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::doubt::Doubt;
use crate::config::Watch;
use crate::provider::{Fault, Sign, Standing};

/// How long the forge may refuse a session because of another one under our name. Names are new each time, so there is none.
const CONFLICT: Duration = Duration::from_secs(90);
/// How often the listener may say that its registration is not known before we believe it.
const UNKNOWN: u32 = 2;
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
    /// Nobody can say any more whether the listener is cut off.
    Lapse,
    /// End the listener and register anew. The reason is for people.
    Replace(String),
    /// It was idle for as long as it may: end it.
    Idle,
    /// The job is over its time: cancel it.
    Overdue,
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
    conflict_since: Option<Instant>,
    unknown: u32,
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
            conflict_since: None,
            unknown: 0,
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
        match sign {
            Sign::Acquiring => self.acquiring(),
            Sign::Skipped if self.ephemeral => {
                let why = "the listener passed its one job over and listens on, although its registration is used up";
                self.verdict = Some(why.to_owned());
            }
            // It stays registered, and the next job may be well.
            Sign::Skipped => self.enter(Stage::Listening),
            Sign::Unknown => {
                self.unknown += 1;
                if self.unknown >= UNKNOWN {
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
            Sign::Disconnected => {}
            Sign::Reconnected => self.doubt = None,
        }
    }

    /// Whether the listener said that it lost its connection, and nobody since that it has it back.
    pub(super) fn doubts(&self) -> bool {
        self.doubt.is_some()
    }

    /// Nobody can say whether the listener is cut off.
    pub(super) fn forget_doubt(&mut self) {
        self.doubt = None;
    }

    /// The forge is not to be asked now: later.
    pub(super) fn not_asked(&mut self) {
        self.ask_later();
        if let Some(doubt) = &mut self.doubt {
            doubt.go_on(self.limits.interval, (self.chance)());
        }
    }

    /// What the forge answered.
    pub(super) fn told(&mut self, standing: &Result<Standing, Fault>) {
        self.not_asked();
        // A job may have come while the forge was thinking.
        let idle = matches!(self.stage, Stage::Starting | Stage::Listening);
        match standing {
            _ if !idle => self.offline_since = None,
            // It is not well itself: no reason to give a registration up.
            Err(fault) => tracing::debug!("the forge cannot be asked about the registration: {fault}"),
            Ok(Standing::Online | Standing::Busy) => {
                self.offline_since = None;
                self.doubt = None;
            }
            Ok(Standing::Unknown) => {
                self.verdict = Some("the forge does not know the registration any more".to_owned());
            }
            // It says so itself, and goes on trying.
            Ok(Standing::Offline) if self.doubt.is_some() => {}
            Ok(Standing::Offline) => {
                let since = *self.offline_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.limits.offline {
                    let what = if self.stage == Stage::Listening { "listens" } else { "tries to connect" };
                    self.verdict = Some(format!(
                        "the listener {what}, but the forge has called the runner offline for {}",
                        humantime::format_duration(self.limits.offline)
                    ));
                }
                let soon = Instant::now() + self.limits.offline / LOOKS;
                self.ask_at = self.ask_at.map(|at| at.min(soon));
            }
        }
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
                dues.extend(self.conflict_since.filter(|_| self.stage == Stage::Starting).map(|since| {
                    let why = "the forge refuses a session, because of another one under this name";
                    (since + CONFLICT, Due::Replace(why.to_owned()))
                }));
                if let (Some(since), Some(most)) = (self.idle_since, self.limits.max_idle) {
                    dues.push((since + most, Due::Idle));
                }
            }
            Stage::Acquiring => {
                let limit = humantime::format_duration(self.limits.worker);
                let why = format!("the listener has taken a job, but no worker has run for {limit}");
                dues.push((self.since + self.limits.worker, Due::Replace(why)));
            }
            Stage::Running => dues.extend(self.limits.job_max.map(|most| (self.since + most, Due::Overdue))),
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
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits() -> Watch {
        Watch {
            interval: Some(10 * MINUTE),
            offline: 3 * MINUTE,
            worker: MINUTE,
            max_idle: Some(55 * MINUTE),
            job_max: Some(120 * MINUTE),
        }
    }

    fn watchdog() -> Watchdog {
        Watchdog::new(limits(), true, true, || 0.5)
    }

    /// What is due within a time, and nothing that is due later.
    async fn within(watchdog: &Watchdog, time: Duration) -> Option<Due> {
        timeout(time, watchdog.due()).await.ok()
    }

    fn replaced(due: Option<Due>, why: &str) {
        match due {
            Some(Due::Replace(reason)) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{other:?} instead of {why:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_listener_is_asked_about_and_left_alone_while_it_is_online() {
        let mut dog = watchdog();
        dog.listening();
        for _ in 0..5 {
            assert_eq!(within(&dog, 9 * MINUTE).await, None);
            assert_eq!(within(&dog, 2 * MINUTE).await, Some(Due::Ask));
            dog.told(&Ok(Standing::Online));
        }
        assert_eq!(within(&dog, 11 * MINUTE).await, Some(Due::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_spread() {
        let first = |chance| Watchdog::new(limits(), true, true, chance).ask_at.map(|at| at - Instant::now());
        assert_eq!(first(|| 0.0), Some(8 * MINUTE));
        assert_eq!(first(|| 1.0), Some(12 * MINUTE));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ephemeral_listener_that_skipped_its_job_is_a_ghost_at_once() {
        let mut dog = watchdog();
        dog.listening();
        dog.heard(Sign::Acquiring);
        dog.heard(Sign::Skipped);
        replaced(within(&dog, Duration::ZERO).await, "used up");
        let mut kept = Watchdog::new(limits(), false, true, || 0.5);
        kept.listening();
        kept.heard(Sign::Acquiring);
        kept.heard(Sign::Skipped);
        assert_eq!(within(&kept, 5 * MINUTE).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_without_a_worker_is_given_up_after_a_minute() {
        for sign in [true, false] {
            let mut dog = watchdog();
            dog.listening();
            if sign {
                dog.heard(Sign::Acquiring)
            } else {
                dog.acquiring()
            }
            assert_eq!(within(&dog, MINUTE - Duration::from_millis(1)).await, None);
            replaced(within(&dog, Duration::from_millis(2)).await, "no worker");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn offline_for_three_minutes_while_listening_is_a_ghost_but_once_offline_is_not() {
        let mut dog = watchdog();
        dog.listening();
        dog.told(&Ok(Standing::Offline));
        assert_eq!(within(&dog, MINUTE).await, Some(Due::Ask), "it looks again soon");
        dog.told(&Ok(Standing::Online));
        assert_eq!(within(&dog, 5 * MINUTE).await, None, "a moment offline is forgotten");
        dog.told(&Ok(Standing::Offline));
        for _ in 0..3 {
            assert_eq!(within(&dog, MINUTE).await, Some(Due::Ask));
            dog.told(&Ok(Standing::Offline));
        }
        replaced(within(&dog, Duration::ZERO).await, "offline for 3m");
    }

    #[tokio::test(start_paused = true)]
    async fn a_forge_that_does_not_answer_is_no_reason() {
        let mut dog = watchdog();
        dog.listening();
        for _ in 0..4 {
            dog.told(&Err(Fault::Unreachable("down".to_owned())));
            assert_eq!(within(&dog, 11 * MINUTE).await, Some(Due::Ask));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_that_is_gone_is_believed_from_the_forge_at_once_and_from_the_listener_at_the_second_time() {
        let mut dog = watchdog();
        dog.listening();
        dog.told(&Ok(Standing::Unknown));
        replaced(within(&dog, Duration::ZERO).await, "does not know");
        let mut dog = watchdog();
        dog.heard(Sign::Unknown);
        assert_eq!(within(&dog, MINUTE).await, None);
        dog.heard(Sign::Unknown);
        replaced(within(&dog, Duration::ZERO).await, "not known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_conflict_that_lasts_ends_the_wait_and_one_that_passes_does_not() {
        let mut dog = watchdog();
        dog.heard(Sign::Conflict);
        advance(MINUTE).await;
        dog.heard(Sign::Conflict);
        replaced(within(&dog, MINUTE).await, "refuses a session");
        let mut dog = watchdog();
        dog.heard(Sign::Conflict);
        dog.listening();
        assert_eq!(within(&dog, 5 * MINUTE).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_ends_a_running_job_but_its_time() {
        let mut dog = watchdog();
        dog.listening();
        dog.told(&Ok(Standing::Offline));
        dog.heard(Sign::Skipped);
        dog.acquiring();
        dog.running();
        dog.heard(Sign::Unknown);
        dog.heard(Sign::Unknown);
        dog.heard(Sign::Skipped);
        dog.heard(Sign::Conflict);
        for _ in 0..5 {
            dog.told(&Ok(Standing::Unknown));
            dog.told(&Ok(Standing::Offline));
        }
        assert_eq!(within(&dog, 119 * MINUTE).await, None);
        assert_eq!(within(&dog, 2 * MINUTE).await, Some(Due::Overdue));
        dog.done();
        assert_eq!(within(&dog, 600 * MINUTE).await, None);
    }

    /// A listener that listened and then said that it lost its connection.
    fn cut_off(can_ask: bool, chance: fn() -> f64) -> Watchdog {
        let mut dog = Watchdog::new(limits(), true, can_ask, chance);
        dog.listening();
        dog.heard(Sign::Disconnected);
        dog
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_lost_connection_the_forge_is_asked_ever_later_until_it_sees_the_runner() {
        let mut dog = cut_off(true, || 0.5);
        for minutes in [0.5, 1.0, 2.0, 4.0, 8.0, 8.0] {
            let wait = MINUTE.mul_f64(minutes);
            // The words come again for each failing poll, and put nothing off.
            dog.heard(Sign::Disconnected);
            assert_eq!(within(&dog, wait - Duration::from_millis(1)).await, None, "{minutes}");
            assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Ask), "{minutes}");
            dog.told(&Err(Fault::Unreachable("down".to_owned())));
            assert!(dog.doubts());
        }
        for standing in [Standing::Online, Standing::Busy] {
            let mut dog = cut_off(true, || 0.5);
            dog.told(&Ok(standing));
            assert!(!dog.doubts());
            assert_eq!(within(&dog, 9 * MINUTE).await, None, "and then as seldom as ever");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_lost_its_connection_together_does_not_ask_together() {
        let first = |chance| cut_off(true, chance).doubt.map(|doubt| doubt.asks_at() - Instant::now());
        assert_eq!(first(|| 0.0), Some(Duration::from_secs(20)));
        assert_eq!(first(|| 1.0), Some(Duration::from_secs(40)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_runner_that_says_that_it_is_cut_off_is_not_replaced_for_being_offline() {
        let mut dog = cut_off(true, || 0.5);
        for _ in 0..6 {
            assert_eq!(within(&dog, 11 * MINUTE).await, Some(Due::Ask));
            dog.told(&Ok(Standing::Offline));
        }
        assert!(dog.doubts());
        dog.told(&Ok(Standing::Unknown));
        replaced(within(&dog, Duration::ZERO).await, "does not know");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_put_off_is_asked_at_the_next_step() {
        let mut dog = cut_off(true, || 0.5);
        assert_eq!(within(&dog, MINUTE).await, Some(Due::Ask));
        dog.not_asked();
        assert_eq!(within(&dog, MINUTE - Duration::from_millis(1)).await, None);
        assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Ask));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_can_ask_the_doubt_lapses() {
        let mut dog = cut_off(false, || 0.5);
        assert_eq!(within(&dog, 5 * MINUTE - Duration::from_millis(1)).await, None);
        assert_eq!(within(&dog, Duration::from_millis(2)).await, Some(Due::Lapse));
        dog.forget_doubt();
        assert_eq!(within(&dog, 30 * MINUTE).await, None);
        let mut never = Watchdog::new(Watch { interval: None, ..limits() }, true, true, || 0.5);
        never.listening();
        never.heard(Sign::Disconnected);
        assert_eq!(within(&never, 6 * MINUTE).await, Some(Due::Lapse));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_ends_all_doubt_and_a_listener_that_never_listened_has_none() {
        let mut dog = cut_off(true, || 0.5);
        dog.running();
        assert!(!dog.doubts());
        let mut starting = watchdog();
        starting.heard(Sign::Disconnected);
        assert!(!starting.doubts());
    }
}
