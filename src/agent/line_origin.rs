//! Where a line of an agent's output comes from, by the prefixes of traces.

/// The prefixes of traces, before the time.
pub(super) const LISTENERS: &str = "[RUNNER ";
pub(super) const WORKERS: &str = "[WORKER ";
/// What stands before a trace's copy of words for people.
const COPIES: [&str; 2] = ["WRITE LINE: ", "WRITE ERROR: "];
/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineOrigin<'a> {
    /// It is for people.
    Words(&'a str),
    /// The listener's trace of words for people.
    Copy(&'a str),
    /// Another trace of the listener's: the part of it that traces, and what it says.
    Trace(&'a str, &'a str),
    /// A trace of the worker's, or a line with one in it. With the text where it is the only one.
    Workers(Option<&'a str>),
    /// A trace in the middle of something else.
    Mixed,
}

/// Of a whole line.
pub(super) fn origin(line: &str) -> LineOrigin<'_> {
    let inside = |text: &str, prefix: &str| {
        text.match_indices(prefix)
            .any(|(at, _)| time(&text[at + prefix.len()..]).is_some_and(|rest| rest.starts_with(' ')))
    };
    if let Some((_, text)) = trace(line, WORKERS) {
        return LineOrigin::Workers((!inside(text, WORKERS)).then_some(text));
    }
    if inside(line, WORKERS) {
        return LineOrigin::Workers(None);
    }
    let copied = |text: &str| COPIES.iter().find(|prefix| text.starts_with(**prefix)).map(|prefix| prefix.len());
    let Some((source, text)) = trace(line, LISTENERS) else {
        return match copied(line) {
            _ if inside(line, LISTENERS) => LineOrigin::Mixed,
            // Its prefix came before another's.
            Some(at) => LineOrigin::Copy(&line[at..]),
            None => LineOrigin::Words(line),
        };
    };
    match copied(text) {
        Some(at) if source == "Terminal" => LineOrigin::Copy(&text[at..]),
        _ => LineOrigin::Trace(source, text),
    }
}

/// The source and the text of a trace: `[RUNNER 2026-11-29 10:31:10Z INFO Terminal] WRITE LINE: …`.
fn trace<'a>(line: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let (head, text) = time(line.strip_prefix(prefix)?)?.split_once(']')?;
    let source = head.trim_start().split_once(' ').map_or("", |(_, source)| source.trim());
    Some((source, text.strip_prefix(' ').unwrap_or(text)))
}

/// What follows a time such as `2026-11-29 10:31:10Z`.
pub(super) fn time(text: &str) -> Option<&str> {
    const FORM: &[u8] = b"0000-00-00 00:00:00Z";
    let (time, rest) = text.split_at_checked(FORM.len())?;
    let fits = |(byte, form): (u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == *form };
    time.bytes().zip(FORM).all(fits).then_some(rest)
}
