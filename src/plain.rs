//! Others' words, freed of what disturbs the line or the screen that shows them.

/// The most characters of a text that was written by others.
const LONGEST: usize = 200;

/// Whether a character does something to what stands around it: a control character, a break between lines, or a mark
/// that changes the direction of writing.
#[must_use]
pub(crate) fn disturbs(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Text of others on one short line.
#[must_use]
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !disturbs(*c)).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_disturbs_is_gone_and_words_in_any_script_stay() {
        for c in "\0\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}".chars() {
            assert_eq!(plain(&format!("a{c}b")), "ab", "{c:?}");
        }
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert_eq!(plain(&format!("a{c}b")), "ab", "{c:?}");
        }
        for text in ["Prüfstand 7", "لوحة", "板\u{3000}一", "e\u{301}", "👩\u{200d}🔧"] {
            assert_eq!(plain(text), text);
        }
        assert_eq!(plain(&"é".repeat(1000)).chars().count(), LONGEST);
    }
}
