//! The words: identifiers say a thing by its one name, and the name of a type means one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};

use crate::page::marked;
use crate::source::{gather, without_tests};
use crate::{project, read};

/// A row of the glossary.
struct Row {
    word: String,
    /// The words that are not used for it.
    not: Vec<String>,
}

/// Reads the glossary's table: the word, what it is, the words that are not used for it.
fn glossary(table: &str) -> Vec<Row> {
    let quoted = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    table
        .lines()
        .filter(|line| line.starts_with("| **"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            assert_eq!(cells.len(), 3, "a row of the glossary has three cells: {line}");
            Row { word: cells[0].trim().trim_matches('*').to_owned(), not: quoted(cells[2]) }
        })
        .collect()
}

/// Every identifier of some files, as its words with a blank between them, and a file that has it.
fn identifiers(texts: &[(String, String)]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, text) in texts {
        let tokens = TokenStream::from_str(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        each_identifier(tokens, &mut |name| {
            found.entry(words_of(name)).or_insert_with(|| format!("`{name}` in {path}"));
        });
    }
    found
}

fn each_identifier(tokens: TokenStream, seen: &mut impl FnMut(&str)) {
    let mut of_libc = false;
    for token in tokens {
        match token {
            // The kernel's names are its own.
            TokenTree::Ident(ident) if ident == "libc" => of_libc = true,
            TokenTree::Ident(_) if of_libc => of_libc = false,
            TokenTree::Ident(ident) => seen(&ident.to_string()),
            TokenTree::Group(group) => each_identifier(group.stream(), seen),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// `WaitFor`, `wait_for` and `WAIT_FOR` are all `wait for`.
fn words_of(identifier: &str) -> String {
    let mut words = String::new();
    let mut before = '_';
    for c in identifier.chars() {
        if (c.is_uppercase() && before.is_lowercase()) || c == '_' {
            words.push(' ');
        }
        if c != '_' {
            words.extend(c.to_lowercase());
        }
        before = c;
    }
    words
}

/// Whether some words have `these` among them, one behind the other.
fn have(words: &str, these: &str) -> bool {
    format!(" {words} ").contains(&format!(" {these} "))
}

/// The types that some files define, and the files of each.
fn types(texts: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in texts {
        for pair in without_tests(path, text).windows(2) {
            if let [TokenTree::Ident(keyword), TokenTree::Ident(name)] = pair
                && ["struct", "enum", "trait", "type", "union"].iter().any(|known| keyword == known)
            {
                found.entry(name.to_string()).or_default().insert(path.clone());
            }
        }
    }
    found
}

/// Types of one name in several files, and what they have in common.
const NAMESAKES: &[(&str, &str)] = &[
    ("Api", "each forge's own"),
    ("Credential", "each forge's own"),
    ("Settings", "each forge's own"),
    ("Token", "a token as a forge answers with one"),
];

#[test]
fn the_name_of_a_type_means_one_thing() {
    let mut texts = Vec::new();
    gather(project(), "src", &mut texts);
    let twice: Vec<(String, Vec<String>)> = types(&texts)
        .into_iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|(name, files)| (name, files.into_iter().collect()))
        .collect();
    let unexcused: Vec<String> = twice
        .iter()
        .filter(|(name, _)| !NAMESAKES.iter().any(|(excused, _)| excused == name))
        .map(|(name, files)| format!("`{name}` is a type of {}", files.join(" and of ")))
        .collect();
    assert!(unexcused.is_empty(), "two ideas need two names:\n{}", unexcused.join("\n"));
    for (name, _) in NAMESAKES {
        assert!(twice.iter().any(|(other, _)| other == name), "`{name}` is one type: take it out of NAMESAKES");
    }
}

#[test]
fn identifiers_use_the_words_of_the_glossary() {
    let page = read("docs/architecture.md");
    let glossary = glossary(&page[marked(&page, "glossary")]);
    assert!(glossary.len() >= 20, "{} words", glossary.len());
    let mut texts = Vec::new();
    gather(project(), "src", &mut texts);
    let identifiers = identifiers(&texts);
    let mut faults = Vec::new();
    for Row { word, not } in &glossary {
        if !identifiers.keys().any(|words| have(words, word)) {
            faults.push(format!("the glossary has `{word}`, and no identifier uses it"));
        }
        for other in not {
            let users = identifiers.iter().filter(|(words, _)| have(words, other)).map(|(_, shown)| shown);
            faults.extend(users.map(|shown| format!("{shown}: the word for this is `{word}`, not `{other}`")));
        }
    }
    assert!(faults.is_empty(), "docs/architecture.md begins with the words that we use:\n{}", faults.join("\n"));
}

#[test]
fn words_are_found_in_every_kind_of_identifier() {
    let texts =
        [("x.rs".to_owned(), "fn let_go() { LetGo::LET_GO; m!(letting, \"let_go\"); } struct Unlock;".to_owned())];
    let identifiers = identifiers(&texts);
    assert!(identifiers.keys().any(|words| have(words, "let go")), "{identifiers:?}");
    assert!(!identifiers.keys().any(|words| have(words, "lock") || have(words, "let going")));
    assert_eq!(types(&texts).into_keys().collect::<Vec<_>>(), ["Unlock"]);
    let rows =
        glossary("| word | is | not |\n| --- | --- | --- |\n| **release** | to let `it` go | `let go`, `free` |\n");
    assert_eq!((rows[0].word.as_str(), rows[0].not.join(",")), ("release", "let go,free".to_owned()));
}
