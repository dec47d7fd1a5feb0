//! Where the oscr-entry of an image comes from: what was built here, or else a published image, of one version and one name.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use oscr_sim::registry::Registry;

use crate::{bad, good, program, project, run};

const PROGRAM: &str = "#!/bin/sh\necho \"oscr-entry 9.9.9\"\n";

/// `images/entry.sh` with a context, and what it made of it.
struct Built {
    folder: tempfile::TempDir,
}

impl Built {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("context")).unwrap();
        Self { folder }
    }

    fn run(&self, image: &str, proxy: Option<&str>) -> Output {
        let mut command = Command::new("sh");
        command.arg(project().join("images/entry.sh")).arg(image);
        command.args(["context", "out/bin/oscr-entry"]).current_dir(self.folder.path());
        for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        if let Some(proxy) = proxy {
            command.env("http_proxy", proxy);
        }
        run(&mut command, "")
    }

    fn program(&self) -> Option<String> {
        fs::read_to_string(self.folder.path().join("out/bin/oscr-entry")).ok()
    }
}

/// Of this machine, as images call it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A registry with version 1 for this architecture and another.
fn registry() -> (Registry, String) {
    let registry = Registry::start().unwrap();
    let own = registry.add_image("oscr-entry", PROGRAM.as_bytes()).unwrap();
    let other = registry.add_image("oscr-entry", b"of another machine").unwrap();
    let digest = registry.add_index(&[("riscv64", &other), (architecture(), &own)]);
    registry.name("1", &digest);
    registry.name("plain", &own);
    registry.requests();
    (registry, digest)
}

#[test]
fn what_was_built_here_is_taken_and_no_registry_is_asked() {
    let (registry, _) = registry();
    let built = Built::new();
    let own = PROGRAM.replace("9.9.9", "of this checkout");
    program(&built.folder.path().join("context/oscr-entry"), &own);
    let said = good(&built.run(&format!("{}/oddessentials/oscr-entry:1", registry.host()), None));
    assert_eq!(said, "oscr-entry of this checkout, of dist/\n");
    assert_eq!(built.program().as_deref(), Some(own.as_str()));
    assert!(registry.requests().is_empty());
}

#[test]
fn without_it_the_image_of_this_architecture_is_fetched_by_tag_or_digest_and_through_a_proxy() {
    let (registry, digest) = registry();
    let name = format!("{}/oddessentials/oscr-entry", registry.host());
    for image in
        [format!("{name}:1"), format!("{name}@{digest}"), format!("{name}:9@{digest}"), format!("{name}:plain")]
    {
        let built = Built::new();
        assert_eq!(good(&built.run(&image, None)), format!("oscr-entry 9.9.9, of {image}\n"));
        assert_eq!(built.program().as_deref(), Some(PROGRAM), "{image}");
        let asked = registry.requests();
        assert_eq!(asked.iter().filter(|path| path.starts_with("/token?")).count(), 1, "{asked:?}");
    }
    // Nobody listens there, and the proxy knows all the same what is asked for.
    let proxy = format!("http://{}", registry.host());
    good(&Built::new().run("127.0.0.1:1/oddessentials/oscr-entry:1", Some(&proxy)));
    assert_eq!(registry.requests()[0], "/v2/oddessentials/oscr-entry/manifests/1");
}

#[test]
fn what_cannot_be_had_ends_the_build_with_one_line_that_says_why_and_both_ways() {
    let (registry, digest) = registry();
    let host = registry.host();
    let foreign = registry.add_image("oscr-entry", b"of another machine").unwrap();
    registry.name("foreign", &registry.add_index(&[("riscv64", &foreign)]));
    registry.name("misnamed", &foreign);
    registry.name("empty", &registry.add_image("another", b"").unwrap());
    let wrong = format!("sha256:{}", "0".repeat(64));
    registry.name(&wrong, &digest);
    let refused = |image: &str, why: &str| {
        let built = Built::new();
        let said = bad(&built.run(image, None));
        assert_eq!(said.lines().count(), 1, "{image}: {said}");
        for part in [why, "`make build`", "--build-arg OSCR_ENTRY_IMAGE=oddessentials/oscr-entry:"] {
            assert!(said.contains(part), "{image}: {part} is not in {said}");
        }
    };
    for (image, why) in [
        (format!("{host}/o/e:2"), "no such image, or not for everybody (HTTP 404)".to_owned()),
        (format!("{host}/o/e:foreign"), format!("it has none for {}", architecture())),
        (format!("{host}/o/e:misnamed"), format!("does not run on {}", architecture())),
        (format!("{host}/o/e:empty"), "it holds no oscr-entry".to_owned()),
        (format!("{host}/o/e@{wrong}"), format!("sent something else than {wrong}")),
        ("127.0.0.1:1/o/e:1".to_owned(), "127.0.0.1 port 1".to_owned()),
        (format!("{host}/o/e"), "the name has no version".to_owned()),
        (String::new(), "no name of an image: «»".to_owned()),
        ("a b:1".to_owned(), "no name of an image: «a b:1»".to_owned()),
    ] {
        refused(&image, &why);
    }
    registry.spoil_layers();
    refused(&format!("{host}/o/e:1"), "sent something else than sha256:");
    registry.want_password();
    refused(&format!("{host}/o/e:1"), "wants a password");
}

/// All text of the project that somebody wrote, by file.
fn texts() -> Vec<(PathBuf, String)> {
    let (mut folders, mut texts) = (vec![project().to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let made = ["target", "dist", ".git", ".tools", "corpus"].iter().any(|name| path.ends_with(name));
            if !made && entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if !made && let Ok(text) = fs::read_to_string(&path) {
                texts.push((path, text));
            }
        }
    }
    texts
}

#[test]
fn the_image_of_oscr_entry_has_one_name_and_builds_take_this_version_of_it() {
    let wanted = concat!("oddessentials/oscr-entry:", env!("CARGO_PKG_VERSION"));
    let read = |name: &str| fs::read_to_string(project().join(name)).unwrap();
    assert!(read("images/runner/Dockerfile").contains(&format!("\nARG OSCR_ENTRY_IMAGE={wanted}\n")));
    let compose = read("compose.yml");
    let arguments: Vec<&str> =
        compose.lines().filter(|line| line.trim_start().starts_with("OSCR_ENTRY_IMAGE:")).collect();
    assert!(!arguments.is_empty(), "compose.yml hands it on");
    for line in arguments {
        assert!(line.ends_with(&format!("${{OSCR_ENTRY_IMAGE:-{wanted}}}")), "{line}");
    }
    // Somebody else may publish under this name.
    let mut foreign =
        ["entry", "forge", "base", "github", "azure-devops"].map(|image| format!("oscr/{image}")).to_vec();
    foreign.extend(["image: ", "FROM ", "--from="].map(|before| format!("{before}oscr/")));
    let is_of_path = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "/.-_}".contains(c));
    let mut seen = 0;
    for (file, text) in texts() {
        for name in &foreign {
            let named = text.match_indices(name.as_str()).find(|(at, _)| !is_of_path(&text[..*at]));
            assert!(named.is_none(), "{}: «{name}» is an image of somebody else's", file.display());
        }
        seen += usize::from(text.contains("oddessentials/oscr-entry"));
    }
    assert!(seen > 5, "{seen}");
}
