//! The list of what the stand-in does names tests that there are.

use std::path::Path;

#[test]
fn each_line_of_the_list_is_held_by_tests_that_there_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(folder.join("README.md")).expect("the page");
    let begin = readme.find("## What GitHub's stand-in does").expect("the list");
    let end = begin + readme[begin..].find("Seen of it, and not copied").expect("the end of the list");
    let lines: Vec<&str> = readme[begin..end].lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(lines.len() > 50, "{}", lines.len());
    for line in lines {
        let (what, tests) = line.trim_matches('|').rsplit_once('|').expect("two columns");
        if what.trim_start().starts_with('*') && tests.trim().is_empty() {
            continue;
        }
        let named: Vec<&str> = tests.split('`').filter(|part| part.contains("::")).collect();
        assert!(!named.is_empty(), "nothing holds {what}");
        for name in named {
            let (file, test) = name.split_once("::").expect("a module and a test");
            let at = match file {
                "tests" => folder.join("src/agent/github/containers/tests.rs"),
                file => folder.join(format!("tests/sim/{file}.rs")),
            };
            let text = std::fs::read_to_string(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
            assert!(text.contains(&format!("#[test]\nfn {test}()")), "{name} is not there");
        }
    }
}
