//! Logs as the forges show them.

/// A stored log as people see it: without the byte order mark and the time before each line.
pub(crate) fn untimed(text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}');
    text.split_inclusive('\n')
        .map(|line| line.split_once(' ').filter(|(time, _)| is_time(time)).map_or(line, |(_, rest)| rest))
        .collect()
}

/// `2026-11-29T10:56:04.5229913Z`.
fn is_time(text: &str) -> bool {
    text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T') && text.parse::<jiff::Timestamp>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::untimed;

    #[test]
    fn only_the_times_at_the_beginning_of_lines_go() {
        let stored = "\u{feff}2026-11-29T10:56:04.5229913Z hello at 2026-11-29T10:56:04Z\nplain words\n2026-11-29T10:56:05.0000000Z \n";
        assert_eq!(untimed(stored), "hello at 2026-11-29T10:56:04Z\nplain words\n\n");
    }
}
