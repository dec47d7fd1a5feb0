//! Each refusal of a start: `check` and `doctor` tell it too, nothing was changed by then, and where its cure is followed the runner
//! starts.

mod given;
mod hooks;
mod image;
mod mounts;
mod settings;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use oscr_sim::agent::Kind;

use crate::harness::{Container, Forge, each, outcome, write};

/// A configuration that is refused, and what its own words say to do.
#[derive(Clone, Copy)]
struct Refusal {
    /// For whoever reads a failure.
    what: &'static str,
    /// Makes it so, and gives what is mounted before PID 1 begins.
    spoil: fn(&mut Container<'_>) -> String,
    /// The settings that are told.
    told: &'static [&'static str],
    /// What the cure says.
    words: &'static [&'static str],
    /// Follows the cure, and gives what is mounted from then on.
    follow: fn(&mut Container<'_>) -> String,
}

/// The setting that names the secret's file.
fn secret(container: &Container<'_>) -> &'static str {
    match container.kind {
        Kind::GitHub => "GITHUB_PAT_FILE",
        Kind::Azure => "ADO_PAT_FILE",
    }
}

fn make(container: &Container<'_>, place: &str) -> String {
    fs::create_dir_all(container.path(place)).expect("a directory");
    container.text(place)
}

fn set(container: &mut Container<'_>, name: &str, place: &str) -> String {
    let place = container.text(place);
    container.set(name, &place);
    String::new()
}

/// All that is below the root, with what is set on it.
fn all_of(container: &Container<'_>) -> BTreeMap<String, (u32, u32, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![container.root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("ours").map(|entry| entry.expect("ours").path()) {
            let meta = fs::symlink_metadata(&entry).expect("ours");
            let size = if meta.is_file() { meta.len() } else { 0 };
            // Who looks at locks makes them, so that nobody else does.
            if entry.extension().is_none_or(|kind| kind != "lock") {
                found.insert(entry.display().to_string(), (meta.mode(), meta.uid(), size));
            }
            if meta.is_dir() {
                open.push(entry);
            }
        }
    }
    found
}

fn problems(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = lines.filter(|line| line.starts_with("  - ")).collect();
    found.sort();
    found
}

fn walk(refusal: &Refusal, kind: Kind) {
    let Refusal { what, spoil, told, words, follow } = refusal;
    walk_with(what, kind, |container, _| spoil(container), told, words, |container, _| follow(container));
}

/// Walks one, and gives the problems that were told.
fn walk_with(
    what: &str,
    kind: Kind,
    spoil: impl Fn(&mut Container<'_>, &Forge) -> String,
    told: &[&str],
    words: &[&str],
    follow: impl Fn(&mut Container<'_>, &Forge) -> String,
) -> Vec<String> {
    let forge = Forge::start();
    let mut container = match kind {
        Kind::GitHub => Container::new(&forge),
        Kind::Azure => Container::azure(&forge),
    };
    make(&container, "runner");
    let script = spoil(&mut container, &forge);
    container.in_namespace(&script);
    let before = all_of(&container);
    let registered = || forge.kinds().iter().filter(|kind| *kind == "runner_registered").count();
    let (registered, known) = (&registered, registered());
    container.start();
    assert_eq!(container.exit_code(), 78, "{what}: {:#?}", container.lines());
    let said = problems(container.lines().into_iter());
    let settings: Vec<&str> = said.iter().filter_map(|line| line["  - ".len()..].split(": ").next()).collect();
    let credential = secret(&container).trim_end_matches("_FILE");
    let told: Vec<String> = told.iter().map(|told| told.replace("CREDENTIAL", credential)).collect();
    assert_eq!(settings, told, "{what}: {said:#?}");
    for word in words {
        let word =
            word.replace("ROOT", &container.text("")).replace("CREDENTIAL", credential).replace("FORGE", &forge.url());
        assert!(said.iter().any(|line| line.contains(&word)), "{what}: no {word:?} in {said:#?}");
    }
    let (code, out, error) = outcome(container.command_after(&script, &["check"]));
    assert_eq!(code, 78, "{what}: {out}");
    assert!(!out.contains("complete"), "{what}: {out}");
    assert_eq!(problems(error.lines().map(str::to_owned)), said, "{what}");
    let (code, report, _) = outcome(container.command_after(&script, &["doctor"]));
    assert_eq!(code, 1, "{what}: {report}");
    assert_eq!(all_of(&container), before, "{what}");
    assert_eq!(registered(), known, "{what}");

    let script = follow(&mut container, &forge);
    container.in_namespace(&script);
    let (code, _, error) = outcome(container.command_after(&script, &["check"]));
    assert_eq!(code, 0, "{what}: {error}");
    container.start();
    forge.listening();
    // Beside a runner that lives, too.
    let (code, _, error) = outcome(container.command_after(&script, &["check"]));
    assert_eq!(code, 0, "{what}: {error}");
    said
}

/// Walks them for both forges, a few at a time.
fn walk_all(refusals: &[Refusal]) {
    let cases: Vec<_> = refusals.iter().flat_map(|refusal| [(refusal, Kind::GitHub), (refusal, Kind::Azure)]).collect();
    for some in cases.chunks(6) {
        each(some, |(refusal, kind)| walk(refusal, *kind));
    }
}

const AS_BEFORE: fn(&mut Container<'_>) -> String = |c| set(c, "RUNNER_WORKDIR", "work");

/// Gives the agent's user this home.
fn home_at(container: &mut Container<'_>, home: &str) -> String {
    make(container, home);
    container.with_accounts();
    let passwd = container.path("etc/passwd");
    let text =
        fs::read_to_string(&passwd).expect("a file").replace(&container.text("home/runner"), &container.text(home));
    fs::write(passwd, text).expect("a file");
    // Its own way of mounting is not that of `check`.
    container.mount_nothing();
    let [passwd, group] = ["etc/passwd", "etc/group"].map(|file| container.text(file));
    format!("mount --bind '{passwd}' /etc/passwd; mount --bind '{group}' /etc/group")
}

const MOUNT: &str = "mkdir -p 'ROOTvolume/work' 'AT'; mount --bind 'ROOTvolume' 'AT'";

fn mounted(container: &Container<'_>, place: &str) -> String {
    let at = make(container, place);
    write(&container.path("volume/precious"), "x", 0o644);
    make(container, "volume/work");
    MOUNT.replace("AT", &at).replace("ROOT", &container.text(""))
}

/// What the volume had beside what jobs leave there.
#[track_caller]
fn assert_lasting(container: &Container<'_>) {
    assert!(container.path("volume/precious").exists());
}
