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

/// Seconds, or a number with `s`, `m` or `h`.
#[must_use]
pub(crate) fn parse_duration(value: &str) -> Option<Duration> {
    let (number, unit) = match value.char_indices().last()? {
        (at, 's') => (&value[..at], 1),
        (at, 'm') => (&value[..at], 60),
        (at, 'h') => (&value[..at], 3600),
        _ => (value, 1),
    };
    // A week at most: more is a slip of the pen, and sums of durations cannot overflow.
    let seconds = number.trim().parse::<u64>().ok()?.checked_mul(unit)?;
    (seconds <= 7 * 24 * 3600).then(|| Duration::from_secs(seconds))
}

/// Bytes, or a number with `k`, `m`, `g` or `t` for powers of 1024. `M`, `MB` and `MiB` mean the same as `m`.
#[must_use]
pub(crate) fn parse_size(value: &str) -> Option<u64> {
    let lower = value.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_flags_are_strict() {
        assert_eq!(parse_duration("90"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("30m"), Some(Duration::from_secs(1800)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for wrong in ["", "-1", "1d", "m", "1.5h", "99999999999999999999h", "200h"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for (text, bytes) in [("0", 0), ("12", 12), ("3k", 3072), ("2 MiB", 2 << 20), ("1G", 1 << 30), ("1tb", 1 << 40)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "g", "-1", "1.5g", "1x", "99999999999t", "1gg"] {
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
