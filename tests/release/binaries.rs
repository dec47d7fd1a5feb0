//! The files of GitHub's release.

use std::fs;
use std::process::Command;

use crate::checkout::Checkout;
use crate::{bad, good, program, project, run, sha256};

#[test]
fn what_is_released_has_checksums_and_the_release_says_what_the_changelog_does() {
    let checkout = Checkout::new();
    checkout.change("CHANGELOG.md", |text| {
        text.replacen("## [1.2.3]", "## [Unreleased]\n\n- What comes.\n\n## [1.2.3]", 1)
            + "\n## [1.2.2] - 2026-01-01\n\n- What was.\n"
    });
    let binaries = checkout.path("out/binary");
    fs::create_dir_all(&binaries).unwrap();
    let assets = |version: &str| {
        let script = checkout.path("scripts/release/assets.sh");
        run(Command::new(script).arg(&binaries).env("VERSION", version), "")
    };
    fs::write(binaries.join("oscr-entry-linux-amd64"), "x64").unwrap();
    assert!(bad(&assets("1.2.3")).contains("there is no binary for arm64"));
    fs::write(binaries.join("oscr-entry-linux-arm64"), "arm").unwrap();
    assert!(bad(&assets("1.2.3")).contains("there are no man pages"));
    let page = "share/man/man1/oscr-entry.1";
    fs::create_dir_all(checkout.path("out/share/man/man1")).unwrap();
    fs::write(checkout.path("out").join(page), "page").unwrap();

    good(&assets("1.2.3"));
    let archive = binaries.join("oscr-entry-share.tar.gz");
    let list = good(&run(Command::new("tar").arg("--verbose").arg("-tzf").arg(&archive), ""));
    let entry = list.lines().find(|line| line.ends_with(&format!(" {page}"))).expect(&list);
    assert!(entry.starts_with("-rw-r--r-- 0/0 "), "{list}");
    let (amd64, arm64, share) = (sha256(b"x64"), sha256(b"arm"), sha256(&fs::read(&archive).unwrap()));
    assert_eq!(
        checkout.read("out/binary/SHA256SUMS"),
        format!("{amd64}  oscr-entry-linux-amd64\n{arm64}  oscr-entry-linux-arm64\n{share}  oscr-entry-share.tar.gz\n")
    );
    let notes = checkout.read("out/notes.md");
    assert!(
        notes.contains("one static binary") && !notes.contains("What comes") && !notes.contains("What was"),
        "{notes}"
    );
    good(&assets("1.3.0-rc.1"));
    assert_eq!(checkout.read("out/notes.md").trim(), "- What comes.");
    assert!(bad(&assets("1.2.4")).contains("says nothing of 1.2.4"));
}

#[test]
fn the_release_is_public_when_its_files_are_there_and_latest_if_its_images_are() {
    let table = [
        ("v1.2.3", "fixed:1.2.3 moving:1.2 moving:latest", "--prerelease=false --latest=true"),
        ("v1.1.9", "fixed:1.1.9 moving:1.1", "--prerelease=false --latest=false"),
        ("v1.3.0-rc.1", "fixed:1.3.0-rc.1", "--prerelease=true --latest=false"),
    ];
    for (tag, tags, flags) in table {
        let folder = tempfile::tempdir().unwrap();
        let (gh, files) = (folder.path().join("bin/gh"), folder.path().join("binary"));
        fs::create_dir(gh.parent().unwrap()).unwrap();
        fs::create_dir(&files).unwrap();
        fs::write(files.join("SHA256SUMS"), "").unwrap();
        // There is no release before it is made, and it is not made twice.
        let script = "#!/bin/bash\n[ \"$2\" != view ] || { [ -e \"$LOG\" ]; exit; }\necho \"${*:2}\" >>\"$LOG\"\n";
        program(&gh, script);
        let path = format!("{}:{}", gh.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let log = folder.path().join("log");
        for _ in 0..2 {
            let mut command = Command::new(project().join("scripts/release/publish.sh"));
            command.arg(&files).env("PATH", &path).env("LOG", &log).env("TAG", tag).env("TAGS", tags);
            good(&run(&mut command, ""));
        }
        let log = fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 5, "{log}");
        assert!(lines[0].starts_with(&format!("create {tag} --verify-tag --draft ")), "{log}");
        for pair in lines[1..].chunks(2) {
            assert!(
                pair[0].starts_with(&format!("upload {tag} --clobber ")) && pair[0].ends_with("/SHA256SUMS"),
                "{log}"
            );
            assert_eq!(pair[1], format!("edit {tag} --draft=false {flags}"));
        }
    }
}
