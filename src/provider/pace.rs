//! Slowing down before a forge makes us: what its answers say about the requests that are left, and how long to wait for it.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};

use crate::encode::seconds;

/// Below this share of its limit (one in so many) what is left is kept for removals and spread over the time that is left.
const RESERVE: u64 = 10;
/// No count of a forge's starts anew later, and no forge is obeyed for longer: it will say so again.
pub const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);

/// Until when nothing new should be begun, and why. It outlives a restart in the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Seconds since 1970, by our clock.
    pub until: u64,
    /// The reason, for people.
    pub why: String,
    /// The fingerprint of the credential whose limit it is, if it is known: another one has a limit of its own.
    #[serde(default)]
    pub credential: Option<String>,
}

/// What one kind of requests has left. Forges count kinds apart: registering runners has a limit of its own at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowance {
    kind: String,
    limit: u64,
    remaining: u64,
    /// Seconds since 1970, by the forge's clock.
    reset: u64,
}

/// What the last answers said.
#[derive(Debug, Default)]
pub struct Allowances {
    known: Vec<Allowance>,
    /// When a forge that answered asked us to come back, in seconds since 1970 by its clock.
    asked: Option<u64>,
}

impl Pace {
    /// So long from now on.
    #[must_use]
    pub fn after(wait: Duration, why: String) -> Self {
        // A part of a second counts as one.
        Self { until: seconds(SystemTime::now() + wait.min(LONGEST)) + 1, why, credential: None }
    }

    /// How long that is from now on; `None` when it is over.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = Duration::from_secs(self.until.saturating_sub(seconds(SystemTime::now()))).min(LONGEST);
        (!left.is_zero()).then_some(left)
    }
}

impl Allowances {
    /// Takes note of an answer. `now` is the forge's time.
    pub fn note(&mut self, status: u16, headers: &HeaderMap, now: SystemTime) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let number = |name| text(name).and_then(|text| text.parse::<u64>().ok());
        // A refusal is waited out where it is met.
        if status < 300 {
            self.asked = number(RETRY_AFTER.as_str()).map(|wait| seconds(now).saturating_add(wait));
        }
        let (Some(limit), Some(remaining), Some(reset)) =
            (number("x-ratelimit-limit"), number("x-ratelimit-remaining"), number("x-ratelimit-reset"))
        else {
            return;
        };
        let kind = text("x-ratelimit-resource").unwrap_or_default().to_owned();
        self.known.retain(|known| known.kind != kind && known.reset > seconds(now));
        // As many kinds as no forge has.
        self.known.truncate(8);
        self.known.push(Allowance { kind, limit, remaining, reset });
    }

    /// What to wait for before anything new is begun.
    #[must_use]
    pub fn pace(&self, now: SystemTime) -> Option<Pace> {
        let now = seconds(now);
        let mut slowest: Option<(Duration, String)> = None;
        let mut consider = |wait: Duration, why: String| {
            if !wait.is_zero() && slowest.as_ref().is_none_or(|(slowest, _)| wait > *slowest) {
                slowest = Some((wait, why));
            }
        };
        if let Some(asked) = self.asked {
            let wait = Duration::from_secs(asked.saturating_sub(now)).min(LONGEST);
            consider(wait, "the forge asks us to slow down".to_owned());
        }
        for Allowance { kind, limit, remaining, reset } in &self.known {
            let left = Duration::from_secs(reset.saturating_sub(now)).min(LONGEST);
            let wait = left.mul_f64(share(*limit, *remaining));
            let kind = if kind.is_empty() { String::new() } else { format!(" ({kind})") };
            let anew = humantime::format_duration(left);
            consider(wait, format!("{remaining} of {limit} requests{kind} are left for the next {anew}: slowing down"));
        }
        let (wait, why) = slowest?;
        Some(Pace::after(wait, why))
    }
}

/// The share of the time until the count starts anew that is waited: none at the reserve, all of it when nothing is left. All
/// who share a limit see the same count, and slow down together.
fn share(limit: u64, remaining: u64) -> f64 {
    let reserve = limit / RESERVE;
    if remaining >= reserve {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio of counts far below 2^52")]
    let left = remaining as f64 / reserve as f64;
    1.0 - left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, u64)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.to_string().parse().unwrap())).collect()
    }

    fn limit(limit: u64, remaining: u64, reset: u64) -> HeaderMap {
        headers(&[("x-ratelimit-limit", limit), ("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", reset)])
    }

    fn wait(status: u16, headers: &HeaderMap) -> u64 {
        let now = SystemTime::now();
        let mut allowances = Allowances::default();
        allowances.note(status, headers, now);
        allowances.pace(now).map_or(0, |pace| pace.until - seconds(now))
    }

    #[test]
    fn nothing_is_waited_for_above_the_reserve_and_all_of_it_when_nothing_is_left() {
        let reset = seconds(SystemTime::now()) + 1000;
        assert_eq!(wait(201, &limit(5000, 5000, reset)), 0);
        assert_eq!(wait(201, &limit(5000, 500, reset)), 0);
        assert!((495..=505).contains(&wait(201, &limit(5000, 250, reset))));
        assert!((895..=905).contains(&wait(201, &limit(5000, 50, reset))));
        assert!((995..=1001).contains(&wait(201, &limit(5000, 0, reset))));
    }

    #[test]
    fn what_a_forge_says_is_obeyed_within_reason() {
        let now = seconds(SystemTime::now());
        assert_eq!(wait(201, &limit(5000, 0, now - 10)), 0, "the count has started anew");
        assert!(wait(201, &limit(5000, 0, u64::MAX)) <= LONGEST.as_secs() + 1);
        assert_eq!(wait(201, &limit(0, 0, now + 100)), 0, "no limit to have a tenth of");
        assert!((9..=11).contains(&wait(200, &headers(&[("retry-after", 10)]))));
        assert!(wait(200, &headers(&[("retry-after", u64::MAX)])) <= LONGEST.as_secs() + 1);
        assert_eq!(wait(429, &headers(&[("retry-after", 10)])), 0, "waited out where it is met");
    }

    #[test]
    fn kinds_are_counted_apart_and_the_scarcest_counts() {
        let now = SystemTime::now();
        let reset = seconds(now) + 1000;
        let mut allowances = Allowances::default();
        let of_kind = |kind: &'static str, remaining| {
            let mut headers = limit(1000, remaining, reset);
            headers.insert("x-ratelimit-resource", kind.parse().unwrap());
            headers
        };
        allowances.note(201, &of_kind("actions_runner_registration", 10), now);
        allowances.note(200, &of_kind("core", 999), now);
        let why = allowances.pace(now).unwrap().why;
        assert!(why.contains("10 of 1000 requests (actions_runner_registration) are left"), "{why}");
        allowances.note(201, &of_kind("actions_runner_registration", 900), now);
        assert_eq!(allowances.pace(now), None);
    }
}
