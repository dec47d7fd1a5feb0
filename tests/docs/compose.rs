//! What the compose files say of themselves, and what is said of them, is so, and is tried.

use std::collections::BTreeSet;
use std::fs;

use super::{pages, project, read};

/// The compose files of the project's root, by name.
pub fn files() -> Vec<(String, String)> {
    let names = fs::read_dir(project()).expect("the project can be read").flatten();
    let mut files: Vec<(String, String)> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("compose") && name.ends_with(".yml") && name != "compose.override.yml")
        .map(|name| (name.clone(), read(&name)))
        .collect();
    files.sort();
    files
}

/// The variables that Compose puts into a file.
pub fn variables(file: &str) -> impl Iterator<Item = &str> {
    file.split("${").skip(1).map(|part| &part[..part.find([':', '}']).expect("${ is closed")])
}

#[test]
fn each_compose_file_names_the_variables_that_it_reads() {
    let outside = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let example = read(".env.example");
    for (name, text) in files() {
        let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        for variable in variables(&text) {
            // A secret is named by its file, or by itself.
            let names = [variable.to_owned(), format!("{variable}_FILE")];
            let mut words = [&head, &example].into_iter().flat_map(|text| text.split(outside));
            let known = words.any(|word| names.iter().any(|name| name == word));
            assert!(known, "neither the first lines of {name} nor .env.example name {variable}");
        }
    }
}

/// What a text names for `COMPOSE_FILE`: `compose.yml` or `compose.boards.yml`, and what is added.
fn combinations(text: &str) -> BTreeSet<&str> {
    let part = |c: char| !c.is_ascii_alphanumeric() && !".-:_".contains(c);
    let files = |words: &&str| {
        words.split(':').all(|file| file.starts_with("compose.") && file.ends_with(".yml"))
            && ["compose.yml", "compose.boards.yml"].contains(&words.split(':').next().unwrap_or_default())
    };
    // A file of the user's own is not ours to try.
    text.split(part).filter(files).filter(|words| !words.contains("compose.override.yml")).collect()
}

#[test]
fn every_compose_file_and_each_combination_that_is_named_is_brought_up_by_a_test() {
    let folder = fs::read_dir(project().join("tests/containers/shipped")).expect("the tests are there").flatten();
    let tests: String = folder.map(|file| fs::read_to_string(file.path()).expect("a source")).collect();
    let tried = combinations(&tests);
    let files = files();
    for (name, _) in &files {
        assert!(tried.iter().any(|words| words.split(':').any(|file| file == name)), "no test brings {name} up");
    }
    let page = read("docs/compose.md");
    let told = combinations(&page);
    let pages = pages().into_iter().map(|page| (page.display().to_string(), fs::read_to_string(project().join(page))));
    let pages = pages.map(|(name, text)| (name, text.expect("a page can be read")));
    for (name, text) in pages.chain(files).chain([(".env.example".to_owned(), read(".env.example"))]) {
        for words in combinations(&text) {
            assert!(tried.contains(words), "{name} names {words}, which no test brings up");
            assert!(told.contains(words), "{name} names {words}, which docs/compose.md does not");
        }
    }
    assert_eq!(told, tried, "the page has what is tried, and nothing else");
}
