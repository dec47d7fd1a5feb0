//! The documentation says what the code does: its tables are the code's own, and its links lead somewhere.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes the tables anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use oscr::config::table::{COMMON, Kind, Setting, markdown};
use oscr::control::Phase;
use oscr::entry::exit;
use oscr::provider::PROVIDERS;

/// Settings that `compose.yml` does not hand on, and why.
const NOT_IN_COMPOSE: &[(&str, &str)] =
    &[("CI_PROVIDER", "the image sets it; in .env it selects the profile"), ("OSCR_ROOT", "for tests")];

/// Variables that Compose itself reads.
const OF_COMPOSE: &[&str] = &["COMPOSE_FILE", "COMPOSE_PROFILES"];

/// Names of other containers that are no alias of one setting, but are read all the same.
const FOREIGN: &[&str] = &["EPHEMERAL", "REPO_URL", "RUNNER_SCOPE"];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn tables() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    let providers = PROVIDERS.iter().map(|provider| (provider.name, provider.settings));
    std::iter::once(("common", COMMON)).chain(providers)
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    tables().flat_map(|(_, settings)| settings)
}

/// A setting's own name and its aliases.
fn names(setting: &'static Setting) -> impl Iterator<Item = &'static str> {
    std::iter::once(setting.name).chain(setting.aliases.iter().copied())
}

/// The pages that people read, relative to the project.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "sim/README.md"].map(PathBuf::from).to_vec();
    let docs = fs::read_dir(project().join("docs")).expect("docs/ is there");
    for entry in docs {
        let name = entry.expect("docs/ can be read").file_name();
        pages.push(Path::new("docs").join(name));
    }
    pages.sort();
    pages
}

#[test]
fn the_tables_of_settings_are_the_codes_own() {
    const PAGE: &str = "docs/configuration.md";
    const END: &str = "<!-- /settings -->";
    let old = read(PAGE);
    let mut new = old.clone();
    for (name, settings) in tables() {
        let begin = format!("<!-- settings:{name} -->\n");
        let from = new.find(&begin).unwrap_or_else(|| panic!("{PAGE} has no {begin}")) + begin.len();
        let to = from + new[from..].find(END).unwrap_or_else(|| panic!("{PAGE} has no {END}"));
        new.replace_range(from..to, &markdown(settings));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(project().join(PAGE), new).expect("the page can be written");
    } else {
        assert!(old == new, "the tables of {PAGE} are not those of the code: UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn compose_hands_on_every_setting_under_every_name() {
    let compose = read("compose.yml");
    let keys: BTreeSet<&str> =
        compose.lines().filter_map(|line| line.trim_start().split_once(':')).map(|(key, _)| key).collect();
    for setting in settings() {
        for name in names(setting) {
            let handed_on = keys.contains(name) || keys.contains(format!("{name}_FILE").as_str());
            let excused = NOT_IN_COMPOSE.iter().any(|(excused, _)| *excused == name);
            assert!(handed_on != excused, "{name}: handed on by compose.yml: {handed_on}, excused from it: {excused}");
        }
    }
    for name in FOREIGN {
        assert!(keys.contains(name), "compose.yml does not hand {name} on");
    }
}

#[test]
fn the_example_environment_names_only_what_somebody_reads() {
    let mut known: BTreeSet<String> = OF_COMPOSE.iter().chain(FOREIGN).map(|name| (*name).to_owned()).collect();
    for setting in settings() {
        for name in names(setting) {
            known.insert(name.to_owned());
            if setting.kind == Kind::Secret {
                known.insert(format!("{name}_FILE"));
            }
        }
    }
    for file in ["compose.yml", "compose.docker-socket.yml", "compose.boards.yml"] {
        let text = read(file);
        for part in text.split("${").skip(1) {
            let end = part.find([':', '}']).expect("${ is closed");
            known.insert(part[..end].to_owned());
        }
    }
    let mut seen = 0;
    for line in read(".env.example").lines() {
        let Some((name, _)) = line.trim_start_matches('#').split_once('=') else {
            continue;
        };
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            continue;
        }
        assert!(known.contains(name), ".env.example: nobody reads {name}: {line}");
        seen += 1;
    }
    assert!(seen > 10, "only {seen} names were found in .env.example");
}

#[test]
fn every_phase_and_exit_code_is_explained() {
    let page = read("docs/configuration.md");
    // The error lists them all, so a new one cannot be forgotten here.
    let refused = serde_json::from_str::<Phase>("\"none\"").expect_err("there is no such phase").to_string();
    let phases: Vec<&str> =
        refused.rsplit_once("expected one of").expect("serde lists them").1.split('`').skip(1).step_by(2).collect();
    assert!(phases.contains(&"listening"), "{refused}");
    for phase in phases {
        assert!(page.contains(&format!("| `{phase}` |")), "the phase {phase} has no row");
    }
    for code in [exit::DONE, exit::USAGE, exit::SOFTWARE, exit::TEMPORARY, exit::CONFIG] {
        assert!(page.contains(&format!("| {code} |")), "the exit code {code} has no row");
    }
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
