//! How the values of settings are written.

use std::time::Duration;

/// Strict booleans.
#[must_use]
pub(crate) fn parse_flag(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The longest duration: more is a slip of the pen, and sums of durations cannot overflow.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Seconds, or numbers with units, as they are printed: `90`, `30m`, `1h 30m`, `1day`.
#[must_use]
pub(crate) fn parse_duration(value: &str) -> Option<Duration> {
    let lower = value.trim().to_ascii_lowercase();
    let duration = match lower.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(&lower).ok()?,
    };
    (duration <= WEEK && duration.subsec_nanos() == 0).then_some(duration)
}

/// Bytes, or a number with `k`, `m`, `g` or `t` for powers of 1024, as they are printed: `512`, `20g`, `1.5 GiB`. `M`, `MB` and `MiB` mean
/// the same as `m`.
#[must_use]
pub(crate) fn parse_size(value: &str) -> Option<u64> {
    let lower = value.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim() {
        "" | "b" | "byte" | "bytes" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(part.len()).ok().filter(|digits| (1..=6).contains(digits))?;
    let part = part.parse::<u64>().ok()?.checked_mul(1 << shift)? / 10_u64.pow(digits);
    whole.parse::<u64>().ok()?.checked_mul(1 << shift)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_flags_are_strict() {
        assert_eq!(parse_duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("30m"), Some(Duration::from_secs(1800)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for (text, minutes) in [
            ("1h 30m", 90),
            ("1h30m", 90),
            ("30 m", 30),
            ("1day", 1440),
            ("2H", 120),
            ("1hour 1min", 61),
            ("7days", 10080),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(60 * minutes)), "{text}");
        }
        for seconds in [0, 1, 59, 90, 5400, 86_400, 7 * 86_400] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(parse_duration(&humantime::format_duration(duration).to_string()), Some(duration));
        }
        for wrong in ["", "-1", "m", "500ms", "99999999999999999999h", "200h", "1h soon"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for (text, bytes) in [("0", 0), ("12", 12), ("3k", 3072), ("2 MiB", 2 << 20), ("1G", 1 << 30), ("1tb", 1 << 40)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for (text, bytes) in [("1.5 GiB", 3 << 29), ("512 bytes", 512), ("1.0 KiB", 1024)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bytes in [0, 1023, 1024, 3 << 29, 100 << 20, 7 << 40] {
            assert_eq!(parse_size(&crate::workspace::space::shown(bytes)), Some(bytes));
        }
        for wrong in ["", "g", "-1", ".5g", "1.g", "1.2.3g", "1x", "99999999999t", "1gg"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
        assert_eq!(parse_flag("No"), Some(false));
        assert_eq!(parse_flag("nope"), None);
    }

    #[test]
    fn fuzz_values() {
        crate::fuzz::run("values", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let duration = parse_duration(&text);
            assert!(duration.is_none_or(|duration| duration <= Duration::from_secs(7 * 24 * 3600)));
            let wanted = text.parse::<crate::resource::Wanted>();
            if let Ok(wanted) = &wanted {
                let again: crate::resource::Wanted = wanted.to_string().parse().unwrap();
                assert_eq!(&again, wanted);
                // Each becomes the name of a file.
                assert!(wanted.ids().iter().all(|id| !id.as_str().contains('/') && !id.as_str().starts_with('.')));
            }
            (duration.is_some(), parse_size(&text).is_some(), parse_flag(&text), wanted.is_ok())
        });
    }
}
