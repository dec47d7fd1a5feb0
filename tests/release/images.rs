//! How images of two architectures become one, and how that gets its signature and its tags.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{bad, good, project, run, sha256};

/// An OCI archive as buildx writes it: an index of one image, and of its attestations.
fn archive(path: &Path, name: &str, architecture: &str, attested: bool) {
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
    let mut image = blob(&json!({"image of": architecture, "called": name}));
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
    join_image(folder, "oscr-entry", archives)
}

/// The same of an image, whose content is its name's.
fn join_image(folder: &Path, image: &str, archives: &[(&str, bool)]) -> Output {
    let mut command = Command::new(project().join("scripts/release/join.sh"));
    command.arg(folder.join("layouts").join(image));
    for (architecture, attested) in archives {
        let path = folder.join(format!("{image}-{architecture}.tar"));
        archive(&path, image, architecture, *attested);
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
        fs::create_dir(folder.path().join("bin")).unwrap();
        let program = |name: &str, script: &str| {
            let text = format!("#!/bin/bash\nset -euo pipefail\n{script}");
            crate::program(&folder.path().join("bin").join(name), &text);
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
fn a_variant_is_a_tag_of_its_image_and_fixed_where_that_is() {
    let registries = Registries::new();
    let folder = registries.folder.path();
    let both = [("amd64", true), ("arm64", true)];
    let [plain, full] = ["oscr-github", "oscr-github+full"].map(|image| good(&join_image(folder, image, &both)));
    assert_ne!(plain, full);
    let (tags, place) = ("fixed:1.2.3 moving:latest", "hub.example/o");
    let pushed = good(&registries.push("content", tags, place));
    let sums = [&plain, &full].map(|digest| digest.trim().strip_prefix("sha256:").unwrap());
    assert_eq!(pushed, sums.map(|sum| format!("{sum}  hub.example/o/oscr-github\n")).concat());
    registries.done();
    good(&registries.push("tags", tags, place));
    let wanted = ["1.2.3", "1.2.3-full", "latest", "latest-full"].map(|tag| format!("hub.example/o/oscr-github:{tag}"));
    assert_eq!(registries.done(), wanted);
    fs::write(folder.join("registry/hub.example_o_oscr-github:1.2.4-full"), "another image").unwrap();
    let said = bad(&registries.push("content", "fixed:1.2.4", place));
    assert!(said.contains("hub.example/o/oscr-github:1.2.4-full is sha256:"), "{said}");
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
