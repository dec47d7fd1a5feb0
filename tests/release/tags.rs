//! Which tags the images of a version get.

use std::process::{Command, Output};

use crate::{bad, good, project, run};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The tags of an image, where these versions exist.
fn tags(kind: &str, tag: &str, existing: &str) -> Output {
    let script = project().join("scripts/release/tags.sh");
    run(Command::new(script).args([kind, tag, COMMIT, "20261130"]), &existing.replace(' ', "\n"))
}

#[test]
fn a_version_gets_its_tags_and_none_moves_back() {
    // `+` stands before what moves; what is fixed is the version in both forms, and the commit.
    let table = [
        ("release", "v1.2.3", "", "v1.2.3 1.2.3 0123456789ab +1.2 +20261130 +latest"),
        ("release", "v1.2.3", "v1.2.3", "v1.2.3 1.2.3 0123456789ab +1.2 +20261130 +latest"),
        ("release", "v1.3.0", "v1.2.3 v1.2.10", "v1.3.0 1.3.0 0123456789ab +1.3 +20261130 +latest"),
        ("release", "v1.10.0", "v1.9.0", "v1.10.0 1.10.0 0123456789ab +1.10 +20261130 +latest"),
        // An older line gets a patch.
        ("release", "v1.2.4", "v1.2.3 v1.3.0", "v1.2.4 1.2.4 0123456789ab +1.2"),
        // One that was forgotten is released after its successor.
        ("release", "v1.2.9", "v1.2.10", "v1.2.9 1.2.9 0123456789ab"),
        ("release", "v1.2.3", "v11.2.0 v1.20.0", "v1.2.3 1.2.3 0123456789ab +1.2"),
        // A pre-release names itself alone, and hinders nobody.
        ("release", "v2.0.0-rc.1", "v1.2.3", "v2.0.0-rc.1 2.0.0-rc.1 0123456789ab"),
        ("release", "v1.2.3", "v2.0.0-rc.1 v1.2.4-rc.1", "v1.2.3 1.2.3 0123456789ab +1.2 +20261130 +latest"),
        // A rebuild moves what moves, and nothing else.
        ("rebuild", "v1.2.3", "v1.2.3 v1.2.2", "+1.2 +20261130 +latest"),
        ("rebuild", "v1.2.3", "v1.2.3 v1.3.0", "+1.2"),
    ];
    for (kind, tag, existing, wanted) in table {
        let said = good(&tags(kind, tag, existing)).replace("fixed ", "").replace("moving ", "+");
        assert_eq!(said.lines().collect::<Vec<_>>().join(" "), wanted, "{kind} {tag} beside {existing}");
    }
}

#[test]
fn what_is_no_version_or_moves_nothing_gets_no_tags() {
    for tag in ["1.2.3", "v1.2", "v1.2.3+build", "v01.2.3", "v1.2.3-", "latest", "v1.2.3 v1.2.4", ""] {
        assert!(bad(&tags("release", tag, "")).contains("is no tag of a version"), "{tag}");
    }
    for (tag, existing) in [("v1.2.3", "v1.2.4"), ("v1.2.3-rc.1", "")] {
        assert!(bad(&tags("rebuild", tag, existing)).contains("would move no tag"), "{tag}");
    }
}
