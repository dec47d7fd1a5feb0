//! Which jobs may run, as the settings say; [`crate::policy`] judges by it.

use super::reader::Reader;
use crate::policy::{LONGEST, Pattern, Policy};
use crate::shown::quoted;

/// Reads the settings about jobs; problems go to the reader.
pub(super) fn read(reader: &mut Reader<'_>) -> Policy {
    let forks = reader.flag("OSCR_ALLOW_FORKS").unwrap_or(false);
    let mut patterns = |name: &'static str| {
        let words = reader.list(name)?;
        if words.iter().any(|word| word.len() > LONGEST) {
            reader.problem(name, format!("has an entry of more than {LONGEST} bytes"), "write shorter patterns");
        }
        if words.is_empty() {
            reader.problem(name, "is an empty list, so no job could ever run", "name what may run, or unset it");
        }
        Some(words)
    };
    let repositories = patterns("OSCR_ALLOW_REPOS");
    let events = patterns("OSCR_ALLOW_EVENTS");
    let refs = patterns("OSCR_ALLOW_REFS");
    for word in repositories.iter().flatten().filter(|word| word.split('/').count() != 2 && *word != "**") {
        reader.problem(
            "OSCR_ALLOW_REPOS",
            format!("{} fits no repository", quoted(word)),
            "write owner/name, or owner/* for all of an owner",
        );
    }
    let all = |words: Option<Vec<String>>| words.map(|words| words.into_iter().map(Pattern::from).collect());
    let refs = refs.map(|words| {
        // A name alone is a branch.
        let full = |word: String| {
            if word.starts_with("refs/") || word == "**" { word } else { format!("refs/heads/{word}") }
        };
        words.into_iter().map(full).map(Pattern::from).collect()
    });
    Policy { forks, repositories: all(repositories), events: all(events), refs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::COMMON;
    use crate::config::{Environment, Problem};
    use crate::policy::{Denial, Evidence, Facts, Origin};

    fn policy<const N: usize>(variables: [(&str, &str); N]) -> Result<Policy, Vec<Problem>> {
        let environment = Environment::from(variables);
        let mut reader = Reader::new(&environment, vec![COMMON]);
        let policy = read(&mut reader);
        reader.finish().map(|_| policy)
    }

    #[test]
    fn lists_hold_patterns_and_all_of_them_must_agree() {
        let judged = |variables: [(&str, &str); 1], event: &str, reference: &str| {
            let facts = Facts {
                event: Some(event.to_owned()),
                repository: Some("o/r".to_owned()),
                reference: Some(reference.to_owned()),
            };
            let evidence = Evidence { facts, payload: Some(Ok(Vec::new())) };
            match policy(variables).unwrap().judge(&evidence, |_, _| Ok(Origin::default())) {
                Ok(()) => "ok",
                Err(Denial::Unlisted { .. }) => "unlisted",
                Err(_) => "other",
            }
        };
        let main = "refs/heads/main";
        assert_eq!(judged([("OSCR_ALLOW_REPOS", "o/*")], "push", main), "ok");
        assert_eq!(judged([("OSCR_ALLOW_REPOS", "x/y, O/R")], "push", main), "ok");
        assert_eq!(judged([("OSCR_ALLOW_REPOS", "o/rr,oo/r,p/*")], "push", main), "unlisted");
        assert_eq!(judged([("OSCR_ALLOW_EVENTS", "push,workflow_*")], "workflow_dispatch", main), "ok");
        assert_eq!(judged([("OSCR_ALLOW_EVENTS", "push")], "pull_request", main), "unlisted");
        assert_eq!(judged([("OSCR_ALLOW_REFS", "main,refs/tags/v*")], "push", main), "ok");
        assert_eq!(judged([("OSCR_ALLOW_REFS", "main,refs/tags/v*")], "push", "refs/tags/v1.2"), "ok");
        for other in ["refs/tags/main", "refs/heads/main/x", "refs/heads/x/main", "refs/pull/1/merge", "main", ""] {
            assert_ne!(judged([("OSCR_ALLOW_REFS", "main,refs/tags/v*")], "push", other), "ok", "{other}");
        }
        assert_eq!(judged([("OSCR_ALLOW_REFS", "release/*")], "push", "refs/heads/release/1/x"), "unlisted");
        assert_eq!(judged([("OSCR_ALLOW_REFS", "release/**")], "push", "refs/heads/release/1/x"), "ok");
        for (name, value) in [("OSCR_ALLOW_FORKS", "some"), ("OSCR_ALLOW_REPOS", "o"), ("OSCR_ALLOW_EVENTS", ",")] {
            assert_eq!(policy([(name, value)]).unwrap_err()[0].setting, name);
        }
    }
}
