//! The words that the source has for problems, held against those that were said.

use std::path::Path;

use proc_macro2::{Delimiter, TokenTree};

use super::source::{gather, without_tests};

/// The files with words for problems that record none themselves.
const OF_OTHERS: &[&str] = &[
    "src/config/certificates.rs",
    "src/config/secret.rs",
    "src/config/secret_text.rs",
    "src/docker/endpoint.rs",
    "src/provider/azure_devops/address.rs",
    "src/provider/github/jit.rs",
    "src/provider/github/jwt.rs",
    "src/resource/wanted.rs",
];

/// What takes words that are no problem's: notes, warnings, and what is not said at all.
const NO_PROBLEMS: &[&str] = &["note", "warning", "push", "effective", "starts_with", "expect", "Setting", "digest"];

/// Sentences that are part of no problem, or of one that cannot be had, and why.
const WITHOUT_ROWS: &[(&str, &str)] = &[
    ("cannot be used with this configuration", "a forge that gives neither itself nor a problem"),
    ("please report this", "the same"),
    (" of a classic token", "what a refused token needs"),
    ("no permission", "the same"),
    ("permission Administration", "the same"),
    ("permission Self-hosted runners", "the same"),
    ("the token in {source} needs", "the same"),
    ("the service principal of {source}", "the same"),
    ("the given just-in-time configuration", "the scope's name where none is given"),
    ("without a name", "a warning's word for a certificate"),
    ("*** from {source}", "what check prints of a secret"),
    ("{} (environment)", "the same"),
];

/// Asserts that all words for problems were said.
pub(super) fn assert_all_said(said: &[String]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    gather(root, "src", &mut texts);
    let records = |text: &str| text.contains("reader.problem(") || text.contains("self.problem(");
    let mut missing = Vec::new();
    let mut count = 0;
    for (path, text) in texts.iter().filter(|(path, text)| records(text) || OF_OTHERS.contains(&path.as_str())) {
        let mut words = Vec::new();
        sentences(&without_tests(path, text), &mut words);
        for sentence in words {
            count += 1;
            let excused = WITHOUT_ROWS.iter().any(|(excused, _)| sentence.contains(excused));
            if !excused && !said.iter().any(|line| says(line, &sentence)) {
                missing.push(format!("{path}: {sentence:?}"));
            }
        }
    }
    assert!(count > 150, "{count} sentences were found");
    assert!(
        missing.is_empty(),
        "no row of tests/life/refusals/settings is told this: give it one, with its cure\n{}",
        missing.join("\n")
    );
}

/// Whether a line has what a sentence says around its gaps.
fn says(line: &str, sentence: &str) -> bool {
    let mut rest = line;
    let mut parts = sentence.split('{').enumerate().map(|(at, part)| match at {
        0 => part,
        _ => part.split_once('}').map_or(part, |(_, after)| after),
    });
    parts.all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// The texts of several words, but those that are nobody's problem.
fn sentences(tokens: &[TokenTree], found: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        let before = |back: usize| at.checked_sub(back).map(|at| tokens[at].to_string()).unwrap_or_default();
        match token {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let attribute = group.delimiter() == Delimiter::Bracket
                    && (before(1) == "#" || before(1) == "!" && before(2) == "#");
                let of_error = inner.first().is_some_and(|word| word.to_string() == "error");
                let name = if before(1) == "!" { before(2) } else { before(1) };
                if (!attribute || of_error) && !NO_PROBLEMS.contains(&name.as_str()) {
                    sentences(&inner, found);
                }
            }
            // What is compared is not said.
            TokenTree::Literal(_)
                if tokens.get(at + 1).is_some_and(|next| matches!(next.to_string().as_str(), "=" | "|")) => {}
            TokenTree::Literal(literal) => found.extend(sentence(&literal.to_string())),
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// What a literal says, if it is a text of several words.
fn sentence(literal: &str) -> Option<String> {
    let text = literal.strip_prefix('"')?.strip_suffix('"')?;
    // A line that ends in a backslash goes on behind the blanks of the next.
    let joined: String =
        text.split("\\\n").enumerate().map(|(at, part)| if at == 0 { part } else { part.trim_start() }).collect();
    let text = joined.replace("\\\"", "\"");
    (text.trim().contains(' ')).then_some(text)
}
