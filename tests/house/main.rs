//! The house stands as `docs/architecture.md` says: its floors and the length of its files.
//!
//! `UPDATE_DOCS=1 cargo test --test house` writes the tables of modules anew.

mod floors;
#[path = "../life/page.rs"]
mod page;
mod source;
mod words;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use floors::FLOORS;
use source::{Source, gather};

/// Files of more than 500 lines, and why each is one.
const LONG: &[(&str, &str)] = &[
    ("sim/src/forge/state.rs", "all that the forge knows, changed under one lock"),
    ("tests/containers/boards.rs", "one laboratory of boards and lock directories, and what is tried in it"),
    ("tests/containers/soak.rs", "one long run: its pool, the blows to it, and the count at its end"),
    ("tests/faults/agents.rs", "the rows of one table"),
    ("tests/life/harness.rs", "the world of each test: forge, container, and all that can be asked of them"),
    ("tests/life/update.rs", "one agent that is replaced by another, in each setting"),
];

/// Lines that a file may have without a reason.
const ENOUGH: usize = 500;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn each_module_uses_only_what_stands_below_it() {
    let faults = floors::faults(&Source::of_crate(project()), FLOORS);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// What the checks say of a house of two floors, `upper` and `lower`.
fn faults_of(texts: &[(&str, &str)]) -> Vec<String> {
    let root = ("src/lib.rs", "pub mod lower; pub mod upper;");
    floors::faults(&Source::of(texts.iter().copied().chain([root])), &["upper", "lower"])
}

#[test]
fn one_wrong_use_is_a_sentence_that_names_the_floor() {
    let wrong = [
        "use crate::upper::Thing;",
        "use crate::{upper::{self as above, Thing}};",
        "fn f() { let x = crate::upper::thing(); }",
        "fn f() { format!(\"{}\", crate::upper::thing()); }",
        "mod inner { use super::super::upper::Thing; }",
        "#[cfg(test)] mod tests { } use crate::upper::Thing;",
    ];
    for text in wrong {
        let faults = faults_of(&[("src/upper.rs", "pub struct Thing;"), ("src/lower/mod.rs", text)]);
        assert_eq!(
            faults,
            [
                "src/lower/mod.rs uses src/upper.rs, but `upper` stands on a floor above `lower`: what both need belongs \
                 below both"
            ],
            "{text}"
        );
    }
    let right = [
        "#[cfg(test)] use crate::upper::Thing;",
        "#[cfg(test)] mod tests { use crate::upper::Thing; }",
        "/// See [`crate::upper::Thing`].\npub(crate) struct Lower;",
        "use std::upper::Thing; use upper::Thing;",
        "pub(in crate::upper) struct Lower;",
    ];
    for text in right {
        let faults = faults_of(&[("src/upper.rs", "use crate::lower::X;"), ("src/lower/mod.rs", text)]);
        assert!(faults.is_empty(), "{text}: {faults:?}");
    }
    let test_file = [
        ("src/upper.rs", ""),
        ("src/lower/mod.rs", "#[cfg(test)] mod tests;"),
        ("src/lower/tests.rs", "use crate::upper::Thing;"),
    ];
    assert!(faults_of(&test_file).is_empty());
}

#[test]
fn files_of_one_module_that_use_each_other_are_told() {
    let lower = ("src/lower.rs", "");
    let circle = faults_of(&[
        lower,
        ("src/upper/mod.rs", "mod a; mod b; pub use a::A;"),
        ("src/upper/a.rs", "use super::b::B; pub struct A;"),
        ("src/upper/b.rs", "use super::A; pub struct B;"),
    ]);
    let said = "src/upper/a.rs uses src/upper/b.rs uses src/upper/a.rs: files that use each other in a circle cannot be read \
                one by one";
    assert_eq!(circle, [said]);
    let through_the_parent = faults_of(&[
        lower,
        ("src/upper/mod.rs", "mod a; pub struct Shared; fn f() { a::f(); }"),
        ("src/upper/a.rs", "use super::Shared; pub fn f() {}"),
    ]);
    assert_eq!(through_the_parent.len(), 1, "{through_the_parent:?}");
    // A module that only declares and hands on uses nothing.
    let handed_on = faults_of(&[
        lower,
        ("src/upper/mod.rs", "mod a; mod b; pub use a::{A, f as g}; pub use b::B;"),
        ("src/upper/a.rs", "pub struct A; pub fn f() {}"),
        ("src/upper/b.rs", "use super::{A, g}; pub struct B;"),
    ]);
    assert!(handed_on.is_empty(), "{handed_on:?}");
}

/// The first sentence of a module's own words.
fn first_sentence(module: &str) -> String {
    let file = [format!("src/{module}.rs"), format!("src/{module}/mod.rs")];
    let text = file.iter().find(|path| project().join(path).exists()).map(|path| read(path)).unwrap_or_default();
    let words: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let paragraph = words.split(|line| line.is_empty()).next().unwrap_or_default().join(" ");
    paragraph.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

#[test]
fn the_tables_of_modules_are_the_codes_own() {
    let uses = floors::uses(&Source::of_crate(project()));
    let mut table = String::from("| module | what lives there | uses |\n| --- | --- | --- |\n");
    let mut map = String::from("//!\n//! | module | what lives there |\n//! | --- | --- |\n");
    for module in FLOORS {
        let what = first_sentence(module);
        assert!(!what.is_empty(), "`{module}` does not say in its first line what it is");
        let file = if project().join(format!("src/{module}.rs")).exists() { "" } else { "/mod" };
        let used = uses.get(*module);
        let used: Vec<String> = FLOORS
            .iter()
            .filter(|other| used.is_some_and(|used| used.contains(**other)))
            .map(|other| format!("`{other}`"))
            .collect();
        let _ = writeln!(table, "| [`{module}`](../src/{module}{file}.rs) | {what} | {} |", used.join(", "));
        let _ = writeln!(map, "//! | [`{module}`] | {what} |");
    }
    // The mark of its end stands in a comment too.
    map.push_str("//!\n//! ");
    page::keep("docs/architecture.md", "modules", &table);
    page::keep("src/lib.rs", "modules", &map);
}

#[test]
fn a_long_file_has_a_reason() {
    let mut texts = Vec::new();
    for folder in ["src", "tests", "benches", "man/src", "man/tests", "sim/src", "sim/tests"] {
        gather(project(), folder, &mut texts);
    }
    let long: Vec<(&str, usize)> = texts
        .iter()
        .map(|(path, text)| (path.as_str(), text.lines().count()))
        .filter(|(_, lines)| *lines > ENOUGH)
        .collect();
    for (path, lines) in &long {
        assert!(
            LONG.iter().any(|(reasoned, _)| reasoned == path),
            "{path} has {lines} lines: give each idea in it a file, or say in LONG (tests/house/main.rs) why it is one"
        );
    }
    for (path, _) in LONG {
        assert!(long.iter().any(|(other, _)| other == path), "{path} is not long any more: take it out of LONG");
    }
}
