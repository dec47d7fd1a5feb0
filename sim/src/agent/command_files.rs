//! Files by which a step sets what follows.

/// The lines of a `GITHUB_ENV` file: `KEY=value`, or `KEY<<END`, lines, `END`.
pub(super) fn assignments(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let heredoc = line.split_once("<<").filter(|(key, _)| !key.contains('='));
        if let Some((key, end)) = heredoc {
            let value: Vec<&str> = lines.by_ref().take_while(|l| *l != end).collect();
            found.push((key.to_owned(), value.join("\n")));
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::assignments;

    #[test]
    fn env_files_hold_single_and_multi_line_values() {
        let text = "A=1\nB<<END\none\ntwo=2\nEND\nC=x<<y\n";
        let found = assignments(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, [("A", "1"), ("B", "one\ntwo=2"), ("C", "x<<y")]);
    }
}
