//! A forge's limits: what the headers of its answers say about them is read here, and nowhere else.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::encode::seconds;
use crate::provider::pace::{LONGEST, Pace, doubled, least_wait};

/// Below this share of its limit (one in so many) what is left is kept for removals and spread over the time that is left.
const RESERVE: u64 = 10;
/// What a forge that limits us without saying for how long is given, at first and at last.
const UNTOLD: Duration = Duration::from_secs(60);
const LAST_UNTOLD: Duration = Duration::from_secs(15 * 60);
/// What a forge says that limits us, in whatever status and with whatever headers it does. Lower case.
const WORDS: [&str; 7] = [
    "rate limit",
    "abuse detection",
    "too many requests",
    "login attempts exceeded",
    "temporarily blocked",
    // Azure DevOps, whose number for it the words follow in the user's language.
    "tf400733",
    "exceeding usage of resource",
];

/// What one says that refuses for another reason, although nothing was left of a limit when it did. Lower case.
const OTHER_WORDS: [&str; 11] = [
    "not accessible",
    "admin rights",
    "must have",
    "permission",
    "not authorized",
    "access denied",
    "forbids access",
    "conditional access",
    "saml",
    "ip allow list",
    "suspended",
];

fn speaks_of_another_reason(words: &str) -> bool {
    let words = words.to_lowercase();
    OTHER_WORDS.iter().any(|known| words.contains(known))
}

/// Whether these words of a forge's are about how often it is asked.
pub fn speaks_of_limit(words: &str) -> bool {
    let words = words.to_lowercase();
    WORDS.iter().any(|known| words.contains(known))
}

/// How much a forge may still be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests left.
    pub remaining: u64,
    /// Requests in all.
    pub limit: Option<u64>,
    /// When the count starts anew, in seconds since 1970 by the forge's clock.
    pub reset: Option<u64>,
}

/// What one answer says about limits.
#[derive(Debug)]
pub(super) struct Told {
    allowance: Option<Allowance>,
    /// The kind of requests that is counted there.
    kind: String,
    /// For how long it wants silence.
    silence: Option<Duration>,
}

/// What one kind of requests has left. Forges count kinds apart: registering runners has a limit of its own at GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Count {
    kind: String,
    limit: u64,
    remaining: u64,
    /// Seconds since 1970, by the forge's clock.
    reset: u64,
}

/// What all answers said, as far as it still matters.
#[derive(Debug, Default)]
pub(super) struct Limits {
    counts: Vec<Count>,
    /// When a forge that did what it was asked wants us to come back, in seconds since 1970 by its clock.
    calm_until: Option<u64>,
    /// Until when one that refused wants silence, and its words.
    silence: Option<(Instant, String)>,
    /// How many requests in a row it refused so.
    row: u32,
}

/// How long a forge that limits us wants us to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// So long, by its headers.
    Told(Duration),
    /// It does not say.
    Untold,
}

impl Told {
    /// Reads an answer's headers. `now` is the forge's time.
    pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        let allowance = number("x-ratelimit-remaining").map(|remaining| Allowance {
            remaining,
            limit: number("x-ratelimit-limit"),
            reset: number("x-ratelimit-reset"),
        });
        let date = || httpdate::parse_http_date(text(RETRY_AFTER.as_str())?).ok();
        let until_date = || date().map(|date| date.duration_since(now).unwrap_or_default());
        Self {
            allowance,
            kind: text("x-ratelimit-resource").unwrap_or_default().to_owned(),
            silence: number(RETRY_AFTER.as_str()).map(Duration::from_secs).or_else(until_date),
        }
    }

    /// How much the forge may still be asked, if it says so.
    pub(super) fn allowance(&self) -> Option<Allowance> {
        self.allowance
    }

    /// How long to wait, if the answer says that it was asked too often: 429; 403 with the headers of a limit, or its words; any
    /// fault of the server with such words, or with `Retry-After`. `now` is the forge's time.
    pub(super) fn refusal(&self, status: u16, words: &str, now: SystemTime) -> Option<Silence> {
        if !matches!(status, 403 | 429 | 500..) {
            return None;
        }
        let limits = status == 429 || speaks_of_limit(words);
        let used_up = limits || status == 403 && !speaks_of_another_reason(words);
        match (self.silence, self.allowance) {
            (Some(silence), _) => Some(Silence::Told(silence)),
            (None, Some(Allowance { remaining: 0, reset, .. })) if used_up => Some(match reset {
                Some(reset) => Silence::Told(Duration::from_secs(reset.saturating_sub(seconds(now)))),
                None => Silence::Untold,
            }),
            (None, _) => limits.then_some(Silence::Untold),
        }
    }
}

impl Limits {
    /// Takes note of an answer. `now` is the forge's time.
    pub(super) fn note(&mut self, status: u16, told: &Told, now: SystemTime) {
        // A refusal is waited out where it is met.
        if status < 300 {
            self.calm_until = told.silence.map(|wait| seconds(now).saturating_add(wait.as_secs()));
        }
        let Some(Allowance { remaining, limit: Some(limit), reset: Some(reset) }) = told.allowance else { return };
        self.counts.retain(|known| known.kind != told.kind && known.reset > seconds(now));
        // As many kinds as no forge has.
        self.counts.truncate(8);
        self.counts.push(Count { kind: told.kind.clone(), limit, remaining, reset });
    }

    /// Takes note of a refusal: the forge wants silence, and said this. How long it is kept grows with each in a row, whatever the
    /// forge says: one whose moment is always past would be asked for ever.
    pub(super) fn refused(&mut self, wanted: Silence, what: String) -> Duration {
        let wait = match wanted {
            Silence::Told(wait) => wait,
            Silence::Untold => doubled(UNTOLD, self.row, LAST_UNTOLD),
        };
        self.row = self.row.saturating_add(1);
        let wait = wait.max(least_wait(self.row)).min(LONGEST);
        self.silence = Some((Instant::now() + wait, what));
        wait
    }

    /// The forge limits us no more.
    pub(super) fn answered(&mut self) {
        self.row = 0;
    }

    /// The silence that is still to be kept: whoever asks, no request is made.
    pub(super) fn silence(&self) -> Option<(Duration, String)> {
        let (until, what) = self.silence.as_ref()?;
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        Some((left, what.clone()))
    }

    /// What to wait for before anything new is begun.
    #[must_use]
    pub(super) fn pace(&self, now: SystemTime) -> Option<Pace> {
        if let Some((wait, what)) = self.silence() {
            return Some(Pace::after(wait, format!("the forge has limited our requests ({what})")));
        }
        let now = seconds(now);
        let mut slowest: Option<(Duration, String)> = None;
        let mut consider = |wait: Duration, why: String| {
            if !wait.is_zero() && slowest.as_ref().is_none_or(|(slowest, _)| wait > *slowest) {
                slowest = Some((wait, why));
            }
        };
        if let Some(asked) = self.calm_until {
            let wait = Duration::from_secs(asked.saturating_sub(now)).min(LONGEST);
            consider(wait, "the forge asks us to slow down".to_owned());
        }
        for Count { kind, limit, remaining, reset } in &self.counts {
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
        let mut limits = Limits::default();
        limits.note(status, &Told::read(headers, now), now);
        limits.pace(now).map_or(0, |pace| pace.until - seconds(now))
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
        let mut limits = Limits::default();
        let of_kind = |kind: &'static str, remaining| {
            let mut headers = limit(1000, remaining, reset);
            headers.insert("x-ratelimit-resource", kind.parse().unwrap());
            Told::read(&headers, now)
        };
        limits.note(201, &of_kind("actions_runner_registration", 10), now);
        limits.note(200, &of_kind("core", 999), now);
        let why = limits.pace(now).unwrap().why;
        assert!(why.contains("10 of 1000 requests (actions_runner_registration) are left"), "{why}");
        limits.note(201, &of_kind("actions_runner_registration", 900), now);
        assert_eq!(limits.pace(now), None);
    }

    fn texts(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_limit_is_told_from_a_denial() {
        let now = SystemTime::now();
        let limit = |status, headers: &HeaderMap| Told::read(headers, now).refusal(status, "Forbidden", now);
        let told = |seconds| Some(Silence::Told(Duration::from_secs(seconds)));
        assert_eq!(limit(403, &texts(&[])), None);
        assert_eq!(limit(401, &texts(&[("retry-after", "5")])), None);
        assert_eq!(limit(403, &texts(&[("retry-after", "7")])), told(7));
        assert_eq!(limit(429, &texts(&[])), Some(Silence::Untold));
        assert_eq!(limit(429, &texts(&[("retry-after", "soon")])), Some(Silence::Untold));
        assert_eq!(limit(403, &texts(&[("x-ratelimit-remaining", "3")])), None);
        assert_eq!(limit(503, &texts(&[])), None);
        assert_eq!(limit(503, &texts(&[("x-ratelimit-remaining", "0")])), None);
        assert_eq!(limit(503, &texts(&[("retry-after", "90")])), told(90));
        let date = httpdate::fmt_http_date(now - Duration::from_secs(5));
        assert_eq!(limit(503, &texts(&[("retry-after", &date)])), told(0));
        let reset =
            |reset: u64| texts(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset.to_string().as_str())]);
        let Some(Silence::Told(wait)) = limit(403, &reset(seconds(now) + 100)) else { panic!("no limit") };
        assert!((98..=100).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn what_a_refusal_says_makes_it_a_limit_and_its_number_alone_does_not() {
        let now = SystemTime::now();
        // GitHub counts all the while.
        let counted = limit(5000, 4990, seconds(now) + 100);
        for words in [
            "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            "You have triggered an abuse detection mechanism. Please wait a few minutes before you try again.",
            "API rate limit exceeded for installation ID 4711.",
            "Maximum number of login attempts exceeded. Please try again later.",
            "TF400733: The request has been canceled: Request was blocked due to exceeding usage of resource 'Concurrency'.",
        ] {
            for headers in [&texts(&[]), &counted] {
                for status in [403, 429, 503] {
                    assert_eq!(Told::read(headers, now).refusal(status, words, now), Some(Silence::Untold), "{words}");
                }
                for status in [200, 401, 404, 422] {
                    assert_eq!(Told::read(headers, now).refusal(status, words, now), None, "{status} {words}");
                }
            }
        }
        for words in [
            "Resource not accessible by integration",
            "Although you appear to have the correct authorization credentials, the organization has an IP allow list enabled",
            "Resource protected by organization SAML enforcement.",
            "The runner group has reached its limit of 10000 runners",
            "TF400813: The user is not authorized to access this resource.",
            "",
        ] {
            assert_eq!(Told::read(&counted, now).refusal(403, words, now), None, "{words}");
            let used_up = Told::read(&limit(5000, 0, seconds(now) + 100), now).refusal(403, words, now);
            assert_eq!(used_up.is_some(), words.is_empty() || words.contains("its limit"), "{words}");
        }
    }

    #[test]
    fn the_waits_of_limits_in_a_row_grow_and_what_is_asked_is_obeyed_up_to_an_hour() {
        let told = |seconds| Silence::Told(Duration::from_secs(seconds));
        let waits = |wanted: Silence| {
            let mut limits = Limits::default();
            let mut wait = || limits.refused(wanted, String::new()).as_secs();
            [wait(), wait(), wait(), wait(), wait(), wait(), wait(), wait(), wait(), wait()]
        };
        assert_eq!(waits(told(0)), [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(waits(told(20)), [20, 20, 20, 20, 32, 64, 128, 256, 300, 300]);
        assert_eq!(waits(told(1800)), [1800; 10]);
        assert_eq!(waits(told(u64::MAX)), [3600; 10], "whatever a forge says");
        assert_eq!(waits(Silence::Untold), [60, 120, 240, 480, 900, 900, 900, 900, 900, 900]);
        let mut limits = Limits::default();
        limits.refused(told(0), String::new());
        limits.answered();
        assert_eq!(limits.refused(told(0), String::new()).as_secs(), 2, "not in a row");
    }

    #[test]
    fn fuzz_headers() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        crate::fuzz::run("headers", |bytes| {
            let mut map = HeaderMap::new();
            for line in bytes.split(|byte| *byte == b'\n') {
                let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
                let name = reqwest::header::HeaderName::from_bytes(line[..at].trim_ascii());
                if let (Ok(name), Ok(value)) =
                    (name, reqwest::header::HeaderValue::from_bytes(line[at + 1..].trim_ascii()))
                {
                    map.append(name, value);
                }
            }
            let waits = [200, 403, 429, 500].map(|status| {
                let wanted = Told::read(&map, now).refusal(status, "", now)?;
                Some(Limits::default().refused(wanted, String::new()))
            });
            for wait in waits.into_iter().flatten() {
                assert!(wait >= least_wait(1) && wait <= LONGEST);
                // It can be waited for.
                assert!(tokio::time::Instant::now().checked_add(wait).is_some());
            }
            let mut limits = Limits::default();
            for status in [200, 403] {
                limits.note(status, &Told::read(&map, now), now);
            }
            let pace = limits.pace(now).map(|pace| {
                crate::fuzz::assert_plain(&pace.why);
                pace.left().is_some()
            });
            (waits.map(|wait| wait.is_some()), pace, Told::read(&map, now).allowance().is_some())
        });
    }
}
