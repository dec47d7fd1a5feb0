//! What a release does, as far as it can be done without GitHub: the scripts of `scripts/release`, with stand-ins for the programs that reach out.

#![expect(clippy::unwrap_used, reason = "a case that cannot be set up is no case")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs it with these bytes as standard input: the output, which a failure shows.
fn run(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Its standard output; it must succeed.
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What it says for people; it must fail.
fn bad(output: &Output) -> String {
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

// ---------------------------------------------------------------------------------------------------------------- tags

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

// ------------------------------------------------------------------------------------------------------------ checkout

/// A copy of what a release reads of the project, to be broken.
struct Checkout {
    folder: TempDir,
}

impl Checkout {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let copy = Command::new("cp")
            .args(["--recursive", "--parents", "scripts", "images/runner/Dockerfile", "Cargo.toml", "CHANGELOG.md"])
            .arg(folder.path())
            .current_dir(project())
            .status();
        assert!(copy.unwrap().success());
        let checkout = Self { folder };
        checkout
            .change("Cargo.toml", |text| text.replacen(&format!("\"{}\"", env!("CARGO_PKG_VERSION")), "\"1.2.3\"", 1));
        checkout.change("CHANGELOG.md", |text| text.replace("## [Unreleased]", "## [1.2.3] - 2026-11-30"));
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn change(&self, name: &str, change: impl Fn(String) -> String) {
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
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[0].contains("the tag says 1.2.4, and Cargo.toml says 1.2.3"), "{said}");
    assert!(lines[1].contains("CHANGELOG.md has no section «## [1.2.4] - DAY»"), "{said}");
    assert!(lines[2].contains("has no AGENT_SHA256_ARM64 of azure-devops"), "{said}");
    assert!(lines[3].contains("cannot be released"), "{said}");
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

// -------------------------------------------------------------------------------------------------------------- images

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An OCI archive as buildx writes it: an index of one image, and of its attestations.
fn archive(path: &Path, architecture: &str, attested: bool) {
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    let mut blob = |value: &Value| {
        let bytes = value.to_string().into_bytes();
        let digest = sha256(&bytes);
        add(&format!("blobs/sha256/{digest}"), &bytes);
        json!({"digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let mut image = blob(&json!({"image of": architecture}));
    image["platform"] = json!({"os": "linux", "architecture": architecture});
    let mut manifests = vec![image];
    if attested {
        let mut attestation = blob(&json!({"attested": architecture}));
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        manifests.push(attestation);
    }
    let index = blob(&json!({"schemaVersion": 2, "manifests": manifests}));
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json", json!({"manifests": [index]}).to_string().as_bytes());
    archive.finish().unwrap();
}

/// Joins archives of these architectures into `layouts/oscr-entry`.
fn join(folder: &Path, archives: &[(&str, bool)]) -> Output {
    let mut command = Command::new(project().join("scripts/release/join.sh"));
    command.arg(folder.join("layouts/oscr-entry"));
    for (architecture, attested) in archives {
        let path = folder.join(format!("{architecture}.tar"));
        archive(&path, architecture, *attested);
        command.arg(path);
    }
    run(&mut command, "")
}

#[test]
fn the_joined_image_has_both_architectures_and_what_is_attested_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let digest = good(&join(folder.path(), &[("amd64", true), ("arm64", true)]));
    let layout = folder.path().join("layouts/oscr-entry");
    let sum = digest.trim().strip_prefix("sha256:").unwrap();
    let index = fs::read(layout.join("blobs/sha256").join(sum)).unwrap();
    assert_eq!(sha256(&index), sum);
    let index: Value = serde_json::from_slice(&index).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let platforms: Vec<&str> = manifests.iter().map(|one| one["platform"]["architecture"].as_str().unwrap()).collect();
    assert_eq!(platforms, ["amd64", "unknown", "arm64", "unknown"]);
    for manifest in manifests {
        let name = manifest["digest"].as_str().unwrap().replace(':', "/");
        assert!(layout.join("blobs").join(name).exists(), "{manifest}");
    }
}

#[test]
fn half_an_image_is_not_joined_nor_one_that_nothing_attests() {
    let table: [(&[(&str, bool)], &str); 3] = [
        (&[("amd64", true)], "linux/amd64 and linux/arm64"),
        (&[("amd64", true), ("arm64", false)], "attestations"),
        (&[("amd64", true), ("riscv64", true)], "linux/riscv64"),
    ];
    for (archives, word) in table {
        let folder = tempfile::tempdir().unwrap();
        let said = bad(&join(folder.path(), archives));
        assert!(said.contains(word), "{said}");
    }
}

/// Registries that are a folder, by a stand-in for skopeo, and a list of what was done to them.
struct Registries {
    folder: TempDir,
}

impl Registries {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, script: &str| {
            let path = folder.path().join("bin").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/bash\nset -euo pipefail\n{script}")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        program(
            "skopeo",
            r#"
place() { echo "$REGISTRY/$(tr / _ <<<"${1#docker://}")"; }
case $1 in
inspect)
    if [[ ${*: -1} = *silent* ]]; then echo "connection refused" >&2 && exit 1; fi
    [ -e "$(place "${*: -1}")" ] || { echo "reading manifest: manifest unknown" >&2 && exit 1; }
    cat "$(place "${*: -1}")"
    ;;
copy)
    from=${*: -2:1} to=${*: -1}
    if [[ $from = oci:* ]]; then
        digest=$(jq --raw-output '.manifests[0].digest' "${from#oci:}/index.json")
        cp "${from#oci:}/blobs/${digest/://}" "$(place "$to")"
    else
        cp "$(place "$from")" "$(place "$to")"
    fi
    echo "${to#docker://}" >>"$REGISTRY.log"
    ;;
esac
"#,
        );
        program("cosign", "echo \"$1 ${*: -1}\" >>\"$REGISTRY.log\"\n");
        fs::create_dir(folder.path().join("registry")).unwrap();
        Self { folder }
    }

    fn command(&self, script: &str) -> Command {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(project().join("scripts/release").join(script));
        command.env("PATH", path).env("REGISTRY", self.folder.path().join("registry"));
        command
    }

    fn push(&self, what: &str, tags: &str, repositories: &str) -> Output {
        let mut command = self.command("push.sh");
        command.arg(what).arg(self.folder.path().join("layouts"));
        run(command.env("TAGS", tags).env("REPOSITORIES", repositories), "")
    }

    /// What was done since the last look.
    fn done(&self) -> Vec<String> {
        let log = self.folder.path().join("registry.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(log, "").unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn images_are_signed_before_they_have_a_tag_and_what_moves_moves_last() {
    let registries = Registries::new();
    let digest = good(&join(registries.folder.path(), &[("amd64", true), ("arm64", true)])).trim().to_owned();
    let (tags, places) = ("fixed:v1.2.3 moving:1.2 moving:latest", "hub.example/o ghcr.example/o");
    let by_digest = |place: &str| format!("{place}/oscr-entry@{digest}");

    // A repetition changes nothing that it should not.
    for _ in 0..2 {
        let pushed = good(&registries.push("content", tags, places));
        let sum = digest.strip_prefix("sha256:").unwrap();
        assert_eq!(pushed, format!("{sum}  hub.example/o/oscr-entry\n{sum}  ghcr.example/o/oscr-entry\n"));
        let (hub, ghcr) = (by_digest("hub.example/o"), by_digest("ghcr.example/o"));
        assert_eq!(registries.done(), [hub.clone(), format!("sign {hub}"), ghcr.clone(), format!("sign {ghcr}")]);

        good(&registries.push("tags", tags, places));
        let wanted = ["hub:v1.2.3", "ghcr:v1.2.3", "hub:1.2", "hub:latest", "ghcr:1.2", "ghcr:latest"];
        let wanted = wanted.map(|tag| tag.replace(':', ".example/o/oscr-entry:"));
        assert_eq!(registries.done(), wanted);

        good(&run(registries.command("verify.sh").arg("https://example.org/release.yml"), &pushed));
        assert_eq!(registries.done(), [format!("verify {hub}"), format!("verify {ghcr}")]);
    }
}

#[test]
fn a_fixed_tag_is_never_given_to_another_image_and_nothing_is_pushed_then() {
    let registries = Registries::new();
    good(&join(registries.folder.path(), &[("amd64", true), ("arm64", true)]));
    fs::write(registries.folder.path().join("registry/ghcr.example_o_oscr-entry:v1.2.3"), "another image").unwrap();
    for what in ["content", "tags"] {
        let said = bad(&registries.push(what, "fixed:v1.2.3 moving:latest", "hub.example/o ghcr.example/o"));
        assert!(said.contains("ghcr.example/o/oscr-entry:v1.2.3 is sha256:"), "{said}");
        assert!(said.contains("never moves"), "{said}");
    }
    // A registry that does not answer has not said that there is no such tag.
    let said = bad(&registries.push("content", "fixed:v1.2.4", "hub.example/o silent.example/o"));
    assert!(said.contains("it cannot be known whether there is silent.example/o/oscr-entry:v1.2.4"), "{said}");
    assert!(registries.done().is_empty());
}

// ------------------------------------------------------------------------------------------------------------- binaries

#[test]
fn the_binaries_have_checksums_and_the_release_says_what_the_changelog_does() {
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

    good(&assets("1.2.3"));
    let (amd64, arm64) = (sha256(b"x64"), sha256(b"arm"));
    assert_eq!(
        checkout.read("out/binary/SHA256SUMS"),
        format!("{amd64}  oscr-entry-linux-amd64\n{arm64}  oscr-entry-linux-arm64\n")
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
        fs::write(&gh, script).unwrap();
        fs::set_permissions(&gh, fs::Permissions::from_mode(0o755)).unwrap();
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

// ------------------------------------------------------------------------------------------------------------ workflow

/// The jobs of the release's workflow by name, each with its text.
fn jobs() -> Vec<(String, String)> {
    let workflow = fs::read_to_string(project().join(".github/workflows/release.yml")).unwrap();
    let (_, jobs) = workflow.split_once("\njobs:\n").expect("jobs");
    let mut found: Vec<(String, String)> = Vec::new();
    for line in jobs.lines() {
        match line.strip_prefix("  ").and_then(|rest| rest.strip_suffix(':')) {
            Some(name) if !name.starts_with([' ', '#']) => found.push((name.to_owned(), String::new())),
            _ => found.last_mut().map_or((), |(_, text)| *text += &format!("{line}\n")),
        }
    }
    found
}

#[test]
fn only_jobs_that_wait_for_all_that_is_built_and_tested_may_write_or_have_secrets() {
    let jobs = jobs();
    let names: Vec<&str> = jobs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["plan", "test", "build", "images", "release"]);
    for (name, text) in &jobs {
        let writes = text.contains(": write\n") || text.contains("${{ secrets.");
        let waits = match name.as_str() {
            "images" => text.contains("    needs: [plan, test, build]\n"),
            "release" => text.contains("    needs: [plan, images]\n"),
            _ => false,
        };
        assert_eq!(writes, waits, "{name}");
        assert!(text.contains("    permissions:\n"), "{name} has the rights of whoever may change the default");
    }
    let build = &jobs[2].1;
    for machine in ["arch: amd64, runner: ubuntu-24.04,", "arch: arm64, runner: ubuntu-24.04-arm,", "release/try.sh"] {
        assert!(build.contains(machine), "{machine}");
    }
}

/// Without it, GitHub's shell takes a pipe for good whatever its first program says.
#[test]
fn a_pipe_that_breaks_ends_the_step_of_a_workflow() {
    for workflow in fs::read_dir(project().join(".github/workflows")).unwrap() {
        let path = workflow.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\ndefaults:\n  run:\n    shell: bash\n"), "{}", path.display());
    }
}

#[test]
fn every_script_of_a_release_is_called_by_its_workflow_or_by_another() {
    let all = jobs().into_iter().map(|(_, text)| text).collect::<String>();
    let scripts: Vec<PathBuf> =
        fs::read_dir(project().join("scripts/release")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let plan = fs::read_to_string(project().join("scripts/release/plan.sh")).unwrap();
    for script in &scripts {
        let call = format!("scripts/release/{} ", script.file_name().unwrap().to_str().unwrap());
        assert!(all.contains(&call) || plan.contains(&call), "nobody calls {call}");
    }
    for part in all.split("scripts/release/").skip(1) {
        let name = part.split_once([' ', '\n']).unwrap().0;
        assert!(scripts.iter().any(|script| script.ends_with(name)) || name.is_empty(), "there is no {name}");
    }
}
