//! When the forge is asked for a newer agent, and when one is fetched: by given times alone, and what is remembered of earlier
//! ones over restarts of the container.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::provider::Package;
use crate::provider::finding::is_newer;

/// Seconds.
const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
/// Before our agent is so old, nothing is asked: GitHub replaces it within some weeks, and gives it jobs for 30 days more.
const YOUNG: u64 = 25 * DAY;
/// For an agent of unknown age: how long after a newer one was first seen that one is fetched.
const PATIENCE: u64 = 14 * DAY;
/// How much time lies between two questions of a container, and over how much time a fleet is spread.
const PAUSE: u64 = 6 * HOUR;
/// So many fetches that jobs cut short are enough: the next one comes before a registration.
const CUTS: u32 = 3;
/// No timer is set for longer, so that a clock which is set meanwhile matters little.
const LONGEST_SLEEP: u64 = HOUR;

/// When a newer agent is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before ours gets too old, while it listens.
    InTime,
    /// As soon as it is offered, before ours is registered again.
    AtOnce,
}

/// What is remembered. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    /// The version that is in use, as far as it is known: all else is about its successors.
    pub ours: Option<String>,
    /// When the forge may be asked next.
    pub ask_at: Option<u64>,
    /// When our agent last said that the forge told it to become a newer one.
    pub urged: Option<u64>,
    /// Since when newer ones are offered.
    pub newer_since: Option<u64>,
    /// What it offered last, if that is newer than ours.
    pub offer: Option<Offer>,
    /// How many fetches in a row a job, or the end of an incarnation, cut short.
    pub cuts: u32,
    /// How many in a row failed.
    pub failures: u32,
    /// Why the last one did.
    pub trouble: Option<String>,
    /// A version that does not run here.
    pub unfit: Option<String>,
}

/// A newer version that is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    /// What the forge says of it.
    pub package: Package,
    /// Since when.
    pub since: u64,
    /// Whether it was tried since the forge was asked last, in vain.
    #[serde(default)]
    pub tried: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, for so long.
    Wait(Duration),
    /// The forge is asked.
    Ask,
    /// What it offers is fetched.
    Fetch,
}

impl Memory {
    /// Forgets all that is about another version than the one in use.
    pub(super) fn is_about(&mut self, version: Option<&str>) {
        if let Some(version) = version
            && self.ours.as_deref() != Some(version)
        {
            // What our agent said is about ours, whether its version was known then or not.
            let urged = self.urged.filter(|_| self.ours.is_none());
            *self = Self { ours: Some(version.to_owned()), urged, ..Self::default() };
        }
    }

    /// What comes next at `now`, for an agent that was `released` then. A container that never asked picks a moment of its own,
    /// by a number between 0 and 1, and keeps to it.
    pub(super) fn next(&mut self, when: When, released: Option<u64>, now: u64, random: impl FnOnce() -> f64) -> Next {
        let due = match (when, released) {
            (When::InTime, Some(released)) => released.saturating_add(YOUNG),
            _ => 0,
        };
        let first = now.max(due);
        let ask_at = match self.ask_at {
            // What lies further ahead was written by a clock that was wrong.
            Some(at) if at <= first.saturating_add(PAUSE) => match self.urged == Some(at) {
                true => at,
                false => at.max(due),
            },
            _ => {
                let spread = match when {
                    When::AtOnce => 0,
                    When::InTime => Duration::from_secs(PAUSE).mul_f64(random()).as_secs(),
                };
                let at = first.saturating_add(spread);
                self.ask_at = Some(at);
                at
            }
        };
        let fetch_at = self.wanted().map(|_| match (when, released) {
            (When::InTime, None) => self.newer_since.unwrap_or(now).saturating_add(PATIENCE),
            _ => due,
        });
        if fetch_at.is_some_and(|at| at <= now) {
            return Next::Fetch;
        }
        if ask_at <= now {
            return Next::Ask;
        }
        let next = ask_at.min(fetch_at.unwrap_or(u64::MAX));
        Next::Wait(Duration::from_secs((next - now).min(LONGEST_SLEEP)))
    }

    /// What is offered and worth a fetch.
    pub(super) fn wanted(&self) -> Option<&Package> {
        let offer = self.offer.as_ref().filter(|offer| !offer.tried)?;
        Some(&offer.package).filter(|package| self.unfit.as_ref() != Some(&package.version))
    }

    /// The newer version that the forge offers, if any.
    pub(super) fn newer(&self) -> Option<&str> {
        self.offer.as_ref().map(|offer| offer.package.version.as_str())
    }

    /// Whether jobs have cut it short so often that it should come before the next one.
    pub(super) fn comes_first(&self) -> bool {
        self.cuts >= CUTS && self.wanted().is_some()
    }

    /// The forge is about to be asked: not again for a while, whatever comes of it.
    pub(super) fn asks(&mut self, now: u64) {
        self.ask_at = Some(now.saturating_add(PAUSE));
    }

    /// Our agent says that the forge offers a newer one: which, the forge is asked now, however young ours is. A forge that says
    /// so all the time is not asked more often for it.
    pub(super) fn urge(&mut self, now: u64) {
        let said = self.urged.replace(now);
        if self.offer.is_none() && said.is_none_or(|said| said > now || now - said >= PAUSE) {
            self.ask_at = Some(now);
        }
    }

    /// The forge offers this. Whether it is newer than ours.
    pub(super) fn told(&mut self, package: Package, now: u64) -> bool {
        if !self.ours.as_deref().is_some_and(|ours| is_newer(&package.version, ours)) {
            // An older one too: a release may have been withdrawn.
            (self.offer, self.newer_since) = (None, None);
            return false;
        }
        self.newer_since.get_or_insert(now);
        let known = self.offer.take().filter(|offer| offer.package.version == package.version);
        self.offer = Some(Offer { package, since: known.map_or(now, |offer| offer.since), tried: false });
        true
    }

    /// It failed, and is not tried again before the forge has been asked again.
    pub(super) fn failed(&mut self, why: String, now: u64) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(why);
        self.cuts = 0;
        if let Some(offer) = &mut self.offer {
            offer.tried = true;
        }
        self.asks(now);
    }

    /// It is here, but does not run: not fetched again.
    pub(super) fn unfit(&mut self, version: &str, why: String, now: u64) {
        self.failed(why, now);
        self.unfit = Some(version.to_owned());
    }

    /// There was nothing to complain of.
    pub(super) fn well(&mut self) {
        (self.failures, self.trouble) = (0, None);
    }

    /// A job, or the end of an incarnation, came between.
    pub(super) fn cut(&mut self) {
        self.cuts = self.cuts.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASED: u64 = 1_790_000_000;

    fn package(version: &str) -> Package {
        Package { version: version.to_owned(), url: "http://x".to_owned(), sha256: None }
    }

    fn ours() -> Memory {
        Memory { ours: Some("2.338.0".to_owned()), ..Memory::default() }
    }

    /// Where the chosen moment is in the middle of what is possible.
    fn next(memory: &mut Memory, released: Option<u64>, now: u64) -> Next {
        memory.next(When::InTime, released, now, || 0.5)
    }

    #[test]
    fn nothing_is_asked_while_the_agent_is_young_and_a_fleet_asks_over_six_hours() {
        for (random, after) in [(0.0, 0), (0.5, 3 * HOUR), (1.0, 6 * HOUR)] {
            let mut memory = ours();
            let mut now = RELEASED;
            let mut waits = 0;
            while let Next::Wait(wait) = memory.next(When::InTime, Some(RELEASED), now, || random) {
                assert!(!wait.is_zero() && wait <= Duration::from_secs(LONGEST_SLEEP));
                now += wait.as_secs();
                waits += 1;
            }
            assert_eq!(now, RELEASED + 25 * DAY + after);
            assert!(waits >= 25 * 24);
        }
        // One that is made when the agent is old already picks a moment too, and keeps to it over restarts.
        let mut memory = ours();
        let now = RELEASED + 54 * DAY;
        assert!(matches!(next(&mut memory, Some(RELEASED), now), Next::Wait(_)));
        let mut again: Memory = serde_json::from_slice(&serde_json::to_vec(&memory).unwrap()).unwrap();
        assert_eq!(
            again.next(When::InTime, Some(RELEASED), now + 3 * HOUR, || unreachable!("it is chosen")),
            Next::Ask
        );
    }

    #[test]
    fn the_forge_is_asked_once_in_six_hours_whatever_it_says() {
        let now = RELEASED + 30 * DAY;
        let mut memory = Memory { ask_at: Some(now), ..ours() };
        assert_eq!(next(&mut memory, Some(RELEASED), now), Next::Ask);
        memory.asks(now);
        assert!(matches!(next(&mut memory, Some(RELEASED), now + PAUSE - 1), Next::Wait(_)));
        assert_eq!(next(&mut memory, Some(RELEASED), now + PAUSE), Next::Ask);
        memory.asks(now);
        assert!(memory.told(package("2.339.0"), now));
        assert_eq!(next(&mut memory, Some(RELEASED), now), Next::Fetch);
        memory.failed("it is away".to_owned(), now + 60);
        assert!(matches!(next(&mut memory, Some(RELEASED), now + PAUSE), Next::Wait(_)));
        assert_eq!(next(&mut memory, Some(RELEASED), now + 60 + PAUSE), Next::Ask);
        assert_eq!((memory.failures, memory.newer()), (1, Some("2.339.0")));
    }

    #[test]
    fn only_what_is_newer_is_wanted_and_its_first_day_is_kept() {
        let mut memory = ours();
        for version in ["2.338.0", "2.337.9", "2.99.0", "1.999.0", "latest", ""] {
            assert!(!memory.told(package(version), 5) && memory.offer.is_none(), "{version}");
        }
        assert!(memory.told(package("2.1000.0"), 7));
        memory.failed(String::new(), 8);
        assert!(memory.told(package("2.1000.0"), 9));
        assert_eq!(memory.offer.as_ref().map(|offer| (offer.since, offer.tried)), Some((7, false)));
        assert!(memory.told(package("2.1001.0"), 11));
        assert_eq!((memory.newer_since, memory.offer.as_ref().map(|offer| offer.since)), (Some(7), Some(11)));
        assert!(!Memory::default().told(package("2.339.0"), 5), "nobody knows what it would replace");
    }

    #[test]
    fn an_agent_of_unknown_age_is_replaced_a_fortnight_after_a_newer_one_was_seen() {
        let now = RELEASED;
        let mut memory = Memory { ask_at: Some(now), ..ours() };
        assert_eq!(next(&mut memory, None, now), Next::Ask);
        memory.asks(now);
        assert!(memory.told(package("2.339.0"), now));
        let mut at = now;
        while at < now + 14 * DAY {
            match next(&mut memory, None, at) {
                Next::Wait(wait) => at += wait.as_secs(),
                Next::Ask => {
                    memory.asks(at);
                    // The next release does not begin it anew.
                    assert!(memory.told(package(if at > now + 9 * DAY { "2.340.0" } else { "2.339.0" }), at));
                }
                Next::Fetch => panic!("too early by {} s", now + 14 * DAY - at),
            }
        }
        assert_eq!(next(&mut memory, None, at), Next::Fetch);
        assert_eq!(memory.newer(), Some("2.340.0"));
    }

    #[test]
    fn true_asks_at_once_and_fetches_at_once() {
        let at_once = |memory: &mut Memory, now| memory.next(When::AtOnce, Some(RELEASED), now, || unreachable!());
        let mut memory = ours();
        assert_eq!(at_once(&mut memory, RELEASED + 1), Next::Ask);
        memory.asks(RELEASED + 1);
        assert!(matches!(at_once(&mut memory, RELEASED + 2), Next::Wait(_)));
        assert!(memory.told(package("2.339.0"), RELEASED + 2));
        assert_eq!(at_once(&mut memory, RELEASED + 2), Next::Fetch);
    }

    #[test]
    fn what_our_agent_was_told_is_asked_at_once_and_fetched_when_its_time_comes() {
        let due = RELEASED + 25 * DAY;
        for when in [When::InTime, When::AtOnce] {
            let next = |memory: &mut Memory, now| memory.next(when, Some(RELEASED), now, || unreachable!());
            let now = RELEASED + DAY;
            let mut memory = Memory { ask_at: Some(now + PAUSE), ..ours() };
            assert!(matches!(next(&mut memory, now), Next::Wait(_)));
            memory.urge(now);
            assert_eq!(next(&mut memory, now), Next::Ask);
            memory.asks(now);
            assert!(matches!(next(&mut memory, now), Next::Wait(_)));
            // Said again, by each listener, it is not asked again before its time.
            memory.urge(now + 1);
            assert!(matches!(next(&mut memory, now + 1), Next::Wait(_)));
            assert!(memory.told(package("2.339.0"), now + 2));
            assert_eq!(next(&mut memory, now + 3) == Next::Fetch, when == When::AtOnce);
            assert_eq!(next(&mut memory, due), Next::Fetch);
            memory.failed(String::new(), due);
            memory.urge(due + 1);
            assert!(matches!(next(&mut memory, due + 2), Next::Wait(_)), "what failed is tried again in its own time");
        }
        // It is known of an agent whose version is heard of later, and forgotten with that.
        let mut memory = Memory::default();
        memory.urge(5);
        memory.is_about(Some("2.338.0"));
        assert_eq!(memory.urged, Some(5));
        memory.is_about(Some("2.339.0"));
        assert_eq!(memory.urged, None);
        // A clock that was wrong keeps nothing back.
        let mut memory = Memory { urged: Some(RELEASED + 9 * DAY), ..ours() };
        memory.urge(RELEASED);
        assert_eq!(memory.ask_at, Some(RELEASED));
    }

    #[test]
    fn what_does_not_run_here_is_not_fetched_again_and_what_follows_it_is() {
        let now = RELEASED + 30 * DAY;
        let mut memory = ours();
        memory.told(package("2.339.0"), now);
        memory.unfit("2.339.0", "no ICU".to_owned(), now);
        memory.told(package("2.339.0"), now + PAUSE);
        assert_eq!(memory.wanted(), None);
        assert_eq!(memory.newer(), Some("2.339.0"), "and it is said to be there");
        memory.told(package("2.340.0"), now + 2 * PAUSE);
        assert_eq!(memory.wanted(), Some(&package("2.340.0")));
    }

    #[test]
    fn a_runner_that_is_always_at_work_fetches_before_a_registration() {
        let mut memory = ours();
        memory.told(package("2.339.0"), RELEASED);
        for _ in 0..3 {
            assert!(!memory.comes_first());
            memory.cut();
        }
        assert!(memory.comes_first());
        memory.failed(String::new(), RELEASED);
        assert!(!memory.comes_first());
    }

    #[test]
    fn a_clock_that_was_wrong_and_another_agent_are_forgotten() {
        let now = RELEASED + 30 * DAY;
        let mut memory = Memory { ask_at: Some(now + 4000 * DAY), ..ours() };
        assert!(matches!(next(&mut memory, Some(RELEASED), now), Next::Wait(_)));
        assert_eq!(next(&mut memory, Some(RELEASED), now + PAUSE), Next::Ask);
        memory.failed("x".to_owned(), now);
        memory.is_about(None);
        assert_eq!(memory.failures, 1);
        memory.is_about(Some("2.339.0"));
        assert_eq!(memory, Memory { ours: Some("2.339.0".to_owned()), ..Memory::default() });
    }
}
