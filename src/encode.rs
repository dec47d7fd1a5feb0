//! Digests and times as others read them.

use std::time::{Duration, SystemTime};

/// Bytes in hexadecimal digits.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of several texts in hexadecimal digits. Where the texts end counts: no other texts have it.
#[must_use]
pub(crate) fn digest(texts: &[&str]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    hex(context.finish().as_ref())
}

/// The day, in UTC, of a time in seconds since 1970: `2026-10-06`.
#[must_use]
pub(crate) fn day(seconds: u64) -> String {
    rfc3339(seconds).split('T').next().unwrap_or_default().to_owned()
}

/// A time in seconds since 1970 as in `2026-10-06T11:12:13Z`.
#[must_use]
pub(crate) fn rfc3339(seconds: u64) -> String {
    // What comes from a file may be later than what can be written.
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(LAST_SECOND)));
    humantime::format_rfc3339_seconds(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

/// When such a day begins, in seconds since 1970; `None` for what is no day.
#[must_use]
pub(crate) fn day_begins(day: &str) -> Option<u64> {
    humantime::parse_rfc3339(&format!("{day}T00:00:00Z")).ok().map(seconds)
}

/// The end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Seconds since 1970; 0 for a time before it.
#[must_use]
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_read_as_it_is_written() {
        let begins = day_begins("2026-10-06").unwrap();
        assert_eq!(begins % 86_400, 0);
        assert_eq!((day(begins), day(begins + 86_399)), ("2026-10-06".to_owned(), "2026-10-06".to_owned()));
        assert_eq!(day(u64::MAX), "9999-12-31");
        for nonsense in ["", "soon", "2026-13-01", "2026-10-06T00:00:00Z", "06.10.2026"] {
            assert_eq!(day_begins(nonsense), None, "{nonsense}");
        }
    }
}
