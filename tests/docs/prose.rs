//! What lies between the tables: lines that can be read, and links that lead somewhere.

use std::path::Path;

use crate::{pages, project, read};

/// What a line of prose may have: more is no line that anybody reads in a diff. Tables and code have the width of what they show, and
/// benches write the names of machine and programs, however long, above their figures.
const LONGEST_LINE: usize = 200;

#[test]
fn no_line_of_prose_is_longer_than_a_person_reads() {
    let mut long = Vec::new();
    for page in pages() {
        let (mut code, mut figures) = (false, false);
        for (number, line) in read(&page.to_string_lossy()).lines().enumerate() {
            code ^= line.trim_start().starts_with("```");
            figures = line.starts_with("<!-- figures:") || figures && !line.starts_with("<!-- /figures:");
            let length = line.chars().count();
            if !code && !figures && !line.trim_start().starts_with('|') && length > LONGEST_LINE {
                long.push(format!("{}:{}: {length} characters", page.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "longer than {LONGEST_LINE} characters:\n{}", long.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = read(&page.to_string_lossy());
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.clone(),
                file => page.parent().unwrap_or(Path::new("")).join(file),
            };
            assert!(project().join(&path).exists(), "{}: {target} leads nowhere", page.display());
            if !anchor.is_empty() {
                let anchors = anchors(&read(&path.to_string_lossy()));
                assert!(
                    anchors.iter().any(|known| known == anchor),
                    "{}: {target} leads to no heading: {anchors:?}",
                    page.display()
                );
            }
        }
    }
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// What GitHub makes of headings: lower case, no punctuation, dashes for spaces.
fn anchors(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}
