//! How the text of a value is read, whichever setting it is for: without what files, shells and editors put around it.

/// The quotes that people and programs put around values.
const QUOTES: [(char, char); 4] = [('"', '"'), ('\'', '\''), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}')];

/// The value itself: without blanks, ends of lines and marks that nobody sees around it, and without one pair of quotes. A quote that is
/// there within, too, belongs to it.
#[must_use]
pub(crate) fn meant(value: &str) -> &str {
    let value = trimmed(value);
    unquoted(value).map_or(value, trimmed)
}

/// Whether [`meant`] takes quotes off.
#[must_use]
pub(super) fn is_quoted(value: &str) -> bool {
    unquoted(trimmed(value)).is_some()
}

/// The entries of a list, which commas or ends of lines separate, and whether there were quotes or brackets around them.
#[must_use]
pub(super) fn list(value: &str) -> (Vec<&str>, bool) {
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let entries = || bare.unwrap_or(value).split([',', '\n', '\r']);
    let dressed = bare.is_some() || entries().any(is_quoted);
    (entries().map(meant).filter(|entry| !entry.is_empty()).collect(), dressed)
}

fn trimmed(value: &str) -> &str {
    value.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}' | '\0'))
}

fn unquoted(value: &str) -> Option<&str> {
    let within = |(open, close): &(char, char)| value.strip_prefix(*open)?.strip_suffix(*close);
    let (quotes, text) = QUOTES.iter().find_map(|quotes| Some((quotes, within(quotes)?)))?;
    (!text.contains([quotes.0, quotes.1])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_value_is_no_part_of_it() {
        for (value, text) in [
            ("plain", "plain"),
            (" \tplain\r\n", "plain"),
            ("\u{feff}plain\u{a0}", "plain"),
            ("\"plain\"", "plain"),
            ("' plain '\r", "plain"),
            ("\u{201c}plain\u{201d}", "plain"),
            ("\"\"", ""),
            ("'\"kept\"'", "\"kept\""),
            ("Linux pool", "Linux pool"),
            ("\"a\",\"b\"", "\"a\",\"b\""),
            ("\"open", "\"open"),
            ("it's", "it's"),
            ("\"", "\""),
            ("'mixed\"", "'mixed\""),
        ] {
            assert_eq!(meant(value), text, "{value:?}");
        }
        assert!(is_quoted(" \"a\" ") && !is_quoted("a") && !is_quoted("\"a\",\"b\""));
    }

    #[test]
    fn lists_are_read_as_people_and_programs_write_them() {
        for (value, entries, dressed) in [
            ("a, b,,c ", &["a", "b", "c"][..], false),
            ("[\"a\", \"b c\"]", &["a", "b c"], true),
            ("\"a\",'b'", &["a", "b"], true),
            ("a\nb\r\n", &["a", "b"], false),
            ("[a]", &["a"], true),
            (",", &[], false),
            ("[]", &[], true),
        ] {
            assert_eq!(list(value), (entries.to_vec(), dressed), "{value:?}");
        }
    }
}
