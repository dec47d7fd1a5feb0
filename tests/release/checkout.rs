//! What is asked of a checkout before anything is built: its version, its changelog, and the agents that it pins.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use crate::{bad, good, project, run};

/// A copy of what a release reads of the project, to be broken.
pub struct Checkout {
    folder: TempDir,
}

impl Checkout {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = Command::new("cp")
            .args([
                "--recursive",
                "--parents",
                "scripts",
                "images",
                "docs/images.md",
                "docs/moving.md",
                "Cargo.toml",
                "CHANGELOG.md",
            ])
            .args([".env.example", "compose.yml"])
            .arg(folder.path())
            .current_dir(project())
            .status();
        assert!(copy.unwrap().success());
        let checkout = Self { folder };
        checkout
            .change("Cargo.toml", |text| text.replacen(&format!("\"{}\"", env!("CARGO_PKG_VERSION")), "\"1.2.3\"", 1));
        let images = ["images/runner/Dockerfile", "images/entry/Dockerfile", "docs/images.md", "docs/moving.md"];
        for name in images.into_iter().chain(["compose.yml", ".env.example"]) {
            let image = |version: &str| format!("oddessentials/oscr-entry:{version}");
            checkout.change(name, |text| text.replace(&image(env!("CARGO_PKG_VERSION")), &image("1.2.3")));
        }
        checkout.change("CHANGELOG.md", |text| text.replace("## [Unreleased]", "## [1.2.3] - 2026-11-30"));
        checkout
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn change(&self, name: &str, change: impl Fn(String) -> String) {
        let old = self.read(name);
        let new = change(old.clone());
        assert_ne!(old, new, "{name} is as it was");
        fs::write(self.path(name), new).unwrap();
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        run(Command::new(self.path(script)).args(arguments).current_dir(self.folder.path()), "")
    }

    fn git(&self, arguments: &[&str]) {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"];
        let status = Command::new("git").args(identity).args(arguments).current_dir(self.folder.path()).output();
        good(&status.unwrap());
    }
}

#[test]
fn a_checkout_that_lacks_something_is_refused_with_a_line_for_it() {
    good(&Checkout::new().run("scripts/release/check.sh", &["1.2.3"]));

    let checkout = Checkout::new();
    checkout.change("images/runner/Dockerfile", |text| {
        let (head, tail) = text.split_once("FROM system AS azure-devops").unwrap();
        let without = |line: &str| {
            if line.starts_with("ARG AGENT_SHA256_ARM64=") { "ARG AGENT_SHA256_ARM64=" } else { line }.to_owned()
        };
        format!("{head}FROM system AS azure-devops{}\n", tail.lines().map(without).collect::<Vec<_>>().join("\n"))
    });
    let said = bad(&checkout.run("scripts/release/check.sh", &["1.2.4"]));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(lines[0].contains("the tag says 1.2.4, and Cargo.toml says 1.2.3"), "{said}");
    let stale =
        ".env.example compose.yml docs/images.md docs/moving.md images/entry/Dockerfile images/runner/Dockerfile";
    assert!(lines[1].ends_with(&format!("these name another version of oscr-entry than 1.2.4: {stale}")), "{said}");
    assert!(lines[2].contains("CHANGELOG.md has no section «## [1.2.4] - DAY»"), "{said}");
    assert!(lines[3].contains("has no AGENT_SHA256_ARM64 of azure-devops"), "{said}");
    assert!(lines[4].contains("cannot be released"), "{said}");
}

#[test]
fn the_plan_is_to_release_the_tag_that_is_pushed_and_to_rebuild_the_newest_otherwise() {
    let checkout = Checkout::new();
    checkout.git(&["init", "--quiet"]);
    checkout.git(&["add", "."]);
    checkout.git(&["commit", "--quiet", "--message", "all"]);
    let plan = |tag: &str| checkout.run("scripts/release/plan.sh", &[tag]);
    assert_eq!(good(&plan("")), "", "there is nothing to rebuild");

    for tag in ["v1.2.3", "v1.2.2", "v1.10.0-rc.1"] {
        checkout.git(&["tag", tag]);
    }
    let said = good(&plan("v1.2.3"));
    assert!(said.starts_with("kind=release\ntag=v1.2.3\nversion=1.2.3\ncommit="), "{said}");
    assert!(said.contains("\ntags=fixed:v1.2.3 fixed:1.2.3 fixed:"), "{said}");
    assert!(said.ends_with(" moving:latest\n"), "{said}");
    let said = good(&plan(""));
    assert!(said.starts_with("kind=rebuild\ntag=v1.2.3\n"), "{said}");
    assert!(said.contains("\ntags=moving:1.2 moving:20"), "{said}");
    // Of another version than the files say.
    assert!(bad(&plan("v1.2.2")).contains("the tag says 1.2.2"));
    assert!(bad(&plan("v9.9.9")).contains("there is no tag v9.9.9"));
}

/// GitHub's answer for a release of Azure Pipelines' agent, with these checksums in its notes.
fn answer(version: &str, checksums: &[(&str, &str)]) -> String {
    let rows: String = checksums
        .iter()
        .map(|(arch, sum)| {
            format!("| Linux | [vsts-agent-linux-{arch}-{version}.tar.gz](https://example.org) | {sum} |\n")
        })
        .collect();
    json!({"tag_name": format!("v{version}"), "published_at": "2031-05-06T07:08:09Z", "assets": [], "body": rows})
        .to_string()
}

#[test]
fn an_agent_is_taken_with_both_checksums_of_its_release_and_its_day_or_not_at_all() {
    let checkout = Checkout::new();
    let (x64, arm64) = ("a".repeat(64), "b".repeat(64));
    let bump = |answer: &str| {
        fs::write(checkout.path("answer"), answer).unwrap();
        checkout.run("scripts/agent-bump.sh", &["azure-devops", "answer"])
    };
    let before = checkout.read("images/runner/Dockerfile");
    assert!(bad(&bump(&answer("9.8.7", &[("x64", &x64)]))).contains("no checksum for linux-arm64"));
    assert_eq!(checkout.read("images/runner/Dockerfile"), before);

    assert_eq!(good(&bump(&answer("9.8.7", &[("x64", &x64), ("arm64", &arm64)]))), "9.8.7\n");
    let after = checkout.read("images/runner/Dockerfile");
    let (github, azure) = after.split_once("FROM system AS azure-devops").unwrap();
    assert_eq!(github, before.split_once("FROM system AS azure-devops").unwrap().0, "the other agent's lines");
    let lines = format!(
        "ARG AGENT_VERSION=9.8.7\nARG AGENT_RELEASED=2031-05-06\nARG AGENT_SHA256_X64={x64}\nARG AGENT_SHA256_ARM64={arm64}\n"
    );
    assert!(azure.contains(&lines), "{azure}");

    // The same once more is nothing new; the same with another file is an alarm.
    assert_eq!(good(&bump(&answer("9.8.7", &[("x64", &x64), ("arm64", &arm64)]))), "");
    assert!(bad(&bump(&answer("9.8.7", &[("x64", &x64), ("arm64", &x64)]))).contains("has other checksums"));
    // A day that nobody knew is written when it is known.
    checkout.change("images/runner/Dockerfile", |text| text.replace("RELEASED=2031-05-06", "RELEASED="));
    assert_eq!(good(&bump(&answer("9.8.7", &[("x64", &x64), ("arm64", &arm64)]))), "9.8.7\n");
    assert_eq!(checkout.read("images/runner/Dockerfile"), after);
}
