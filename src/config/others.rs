//! Names of other containers that have no meaning here: whoever sets one should know, and know what to do instead.

use super::reader::Reader;

/// The names, or how they begin (`*`), and what to do instead.
const IGNORED: &[(&str, &str)] = &[
    ("BOARD_RUNNERS", "each board's runner is a service of its own, with RUNNER_LABELS and RUNNER_RESOURCE_ID"),
    ("CONFIGURED_ACTIONS_RUNNER_FILES_DIR", "RUNNER_PERSISTENT=true keeps a registration"),
    ("CUSTOM_ACTIONS_*", "what jobs need belongs in an image of your own"),
    ("DISABLE_AUTOMATIC_DEREGISTRATION", "RUNNER_PERSISTENT=true keeps a registration"),
    ("GITHUB_TOKEN", "GITHUB_PAT or GITHUB_PAT_FILE is for the token"),
    ("PAT_TOKEN", "GITHUB_PAT or GITHUB_PAT_FILE is for the token"),
    ("RANDOM_RUNNER_SUFFIX", "names end in the host name and four random digits"),
    ("REG_TOKEN_CACHE_*", "OSCR_TOKEN_CACHE shares a registration token for as long as it is good"),
    ("RUNNER_REPLACE_EXISTING", "each life has a name of its own"),
    ("RUNNER_SCRIPT", "the agent is started by oscr-entry; hooks run around jobs"),
    ("RUN_AS_ROOT", "jobs never run as root"),
    ("START_DOCKER_SERVICE", "OSCR_DOCKERD=true starts an engine, in an image that has one"),
];

/// Notes those that are set.
pub(super) fn note(reader: &mut Reader<'_>) {
    for (pattern, instead) in IGNORED {
        for name in reader.given_like(pattern) {
            reader.note(format!("{name} has no effect: {instead}. docs/moving.md has other containers' names"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_name_without_a_meaning_here_is_noted_with_what_to_do_instead() {
        let environment = Environment::from([
            ("CUSTOM_ACTIONS_RUNNER_HOME", "/x"),
            ("REG_TOKEN_CACHE_TTL", "300"),
            ("BOARD_RUNNERS", "a:b"),
            ("RUNNER_SCRIPT", ""),
            ("BOARD_RUNNERS_MORE", "1"),
        ]);
        let mut reader = Reader::new(&environment, vec![]);
        note(&mut reader);
        let notes = reader.finish().unwrap().notes;
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes.iter().all(|note| note.contains("has no effect: ") && note.contains("docs/moving.md")));
    }

    #[test]
    fn the_page_about_moving_names_them_all() {
        let page = include_str!("../../docs/moving.md");
        for (pattern, _) in IGNORED {
            assert!(page.contains(&format!("`{pattern}`")), "docs/moving.md does not name {pattern}");
        }
    }
}
