//! Patterns of names, as lists of what may run hold them.

/// The longest pattern, and the longest text that is held against one, in bytes. Git refs and names are shorter.
pub(crate) const LONGEST: usize = 1024;

/// A text in which `*` stands for anything but `/`, and `**` for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Pattern {
    /// Whether the whole of `text` fits, whatever the case of ASCII letters.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        if text.len() > LONGEST {
            return false;
        }
        // reached[n]: what was read of the pattern so far can stand for the first n bytes.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        let mut at = 0;
        while at < pattern.len() {
            let mut next = vec![false; text.len() + 1];
            if pattern[at] == b'*' {
                let across = pattern.get(at + 1) == Some(&b'*');
                at += if across { 2 } else { 1 };
                for n in 0..=text.len() {
                    next[n] = reached[n] || (n > 0 && next[n - 1] && (across || text[n - 1] != b'/'));
                }
            } else {
                for n in 1..=text.len() {
                    next[n] = reached[n - 1] && text[n - 1].eq_ignore_ascii_case(&pattern[at]);
                }
                at += 1;
            }
            reached = next;
        }
        reached[text.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, the same in each run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % end as u64).unwrap()
        }

        fn text(&mut self, letters: &[u8], longest: usize) -> String {
            (0..self.below(longest + 1)).map(|_| char::from(letters[self.below(letters.len())])).collect()
        }
    }

    /// The same by trying every way, which is slow and plainly right.
    fn fits_by_trying(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| fits_by_trying(rest, &text[n..])),
            [b'*', rest @ ..] => {
                let end = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
                (0..=end).any(|n| fits_by_trying(rest, &text[n..]))
            }
            [byte, rest @ ..] => text.first() == Some(byte) && fits_by_trying(rest, &text[1..]),
        }
    }

    #[test]
    fn patterns_fit_as_trying_every_way_says() {
        let mut dice = Dice(0x5eed);
        let mut fitting = 0;
        for _ in 0..20_000 {
            let (pattern, text) = (dice.text(b"ab/**", 6), dice.text(b"ab/", 7));
            let wanted = fits_by_trying(pattern.as_bytes(), text.as_bytes());
            assert_eq!(Pattern(pattern.clone()).fits(&text), wanted, "{pattern:?} {text:?}");
            fitting += usize::from(wanted);
        }
        assert!(fitting > 1000, "{fitting}");
        let slow = Pattern("*a".repeat(LONGEST / 2));
        assert!(!slow.fits(&"a".repeat(LONGEST - 1).replace('a', "b")));
    }

    #[test]
    fn fuzz_pattern() {
        crate::fuzz::run("pattern", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (pattern, value) = text.split_once('\n').unwrap_or((&text, ""));
            let fits = Pattern(pattern.to_owned()).fits(value);
            assert!(Pattern(pattern.to_owned()).fits(value) == fits);
            (fits, pattern.contains('*'), value.len() > 10)
        });
    }
}
