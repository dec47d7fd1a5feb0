//! A text as the words of a command line, by the rules of .NET, which are not a shell's.

/// Spaces and tabs divide, double quotes hold together, a backslash is itself except before a double quote.
pub(super) fn words(text: &str) -> Vec<String> {
    let (mut all, mut word, mut held) = (Vec::new(), None::<String>, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' if !held => all.extend(word.take()),
            '"' => {
                word.get_or_insert_default();
                held = !held;
            }
            '\\' => {
                let mut count = 1;
                while rest.next_if_eq(&'\\').is_some() {
                    count += 1;
                }
                let word = word.get_or_insert_default();
                if rest.peek() == Some(&'"') {
                    word.extend(std::iter::repeat_n('\\', count / 2));
                    if count % 2 == 1 {
                        word.extend(rest.next());
                    }
                } else {
                    word.extend(std::iter::repeat_n('\\', count));
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    all.extend(word);
    all
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_are_divided_by_spaces_and_held_by_double_quotes() {
        assert_eq!(words(""), Vec::<String>::new());
        assert_eq!(
            words(" --cpus 1\t--health-cmd \"pg_isready -q\" "),
            ["--cpus", "1", "--health-cmd", "pg_isready -q"]
        );
        assert_eq!(
            words(r#"-c "echo \"a b\"; ls" "" C:\x 'a b'"#),
            ["-c", "echo \"a b\"; ls", "", r"C:\x", "'a", "b'"]
        );
        assert_eq!(words(r#"a\\"b c""#), [r"a\b c"]);
    }
}
