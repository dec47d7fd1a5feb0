//! The documentation says what the code does: its tables are the code's own, its links lead somewhere, and its lines are short.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes the tables anew.

#[path = "docs/compose.rs"]
mod compose;
#[path = "docs/groups.rs"]
mod groups;
#[path = "life/page.rs"]
mod page;
#[path = "docs/prose.rs"]
mod prose;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use groups::GROUPS;
use oscr::agent::worker::WorkerWatch;
use oscr::config::table::{COMMON, Setting, SettingKind, markdown};
use oscr::control::{AgentAge, Board, Job, LeftInDocker, Phase, Runner};
use oscr::entry::posture::{DockerSocket, Guarded, Lasting, Posture, Runtime};
use oscr::exit;
use oscr::metrics::{FAMILIES, MetricKind};
use oscr::provider::FORGES;
use oscr::workspace::Space;
use serde_json::Value;

/// Settings that `compose.yml` does not hand on, and why.
const NOT_IN_COMPOSE: &[(&str, &str)] = &[
    ("CI_PROVIDER", "the image sets it; in .env it selects the profile"),
    ("DOCKER_HOST", "in a shell it is the machine's; the compose files for Docker set it"),
    ("OSCR_DOCKERD", "compose.docker-own.yml sets it, with all else that it needs"),
    ("OSCR_SUDO", "the image sets it: it says whether there is a sudo"),
    ("OSCR_ADD_LABELS_*", "each compose file that adds labels has a name of its own for them"),
    ("OSCR_ADD_JOB_ENV_*", "the same"),
    ("OSCR_ROOT", "for tests"),
];

/// Variables that Compose itself reads.
const OF_COMPOSE: &[&str] = &["COMPOSE_FILE", "COMPOSE_PROFILES"];

/// Names of other containers that are no alias of one setting, but are read all the same.
/// The sources that read settings must agree, and `compose.yml` hands them all on.
const FOREIGN: &[&str] = &[
    "ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE",
    "AGENT_TOOLSDIRECTORY",
    "APP_LOGIN",
    "AZP_AGENT_NAME",
    "AZP_WORK",
    "EPHEMERAL",
    "REPO_URL",
    "RUNNER_ENTERPRISE_URL",
    "RUNNER_ORGANIZATION_URL",
    "RUNNER_PRINCIPAL",
    "RUNNER_REPOSITORY_URL",
    "RUNNER_SCOPE",
    "RUNNER_TOOL_CACHE",
    "RUNNER_WORK_DIRECTORY",
    "VSTS_HTTP_PROXY",
];

/// What is read of Docker's client, whose settings come from the compose files for Docker.
const OF_DOCKER: &[&str] = &["DOCKER_TLS_VERIFY"];

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn tables() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    let providers = FORGES.0.iter().map(|provider| (provider.name, provider.settings));
    std::iter::once(("common", COMMON)).chain(providers)
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    tables().flat_map(|(_, settings)| settings)
}

/// The pages that people read, relative to the project.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "sim/README.md"].map(PathBuf::from).to_vec();
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
    let mut ungrouped: BTreeSet<&str> = COMMON.iter().map(|setting| setting.name).collect();
    for (group, names) in GROUPS {
        let of_group = names.iter().map(|name| {
            assert!(
                ungrouped.remove(name),
                "{name} of the group {group} is no setting of every runner, or in two groups"
            );
            *COMMON.iter().find(|setting| setting.name == *name).expect("it was in the list")
        });
        let settings: Vec<Setting> = of_group.collect();
        page::keep("docs/configuration.md", &format!("settings:{group}"), &markdown(&settings));
    }
    assert!(ungrouped.is_empty(), "in no group of docs/configuration.md: {ungrouped:?}");
    for (name, settings) in tables().filter(|(name, _)| *name != "common") {
        page::keep("docs/configuration.md", &format!("settings:{name}"), &markdown(settings));
    }
}

#[test]
fn every_command_that_help_names_is_explained() {
    let help = Command::new(env!("CARGO_BIN_EXE_oscr-entry")).arg("--help").output().expect("oscr-entry runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, commands) = help.split_once("Commands:\n").expect("it names its commands");
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(names.contains(&"lock") && names.len() > 6, "{help}");
    let page = read("docs/configuration.md");
    for name in names {
        let row = format!("| `oscr-entry {name}");
        let alone = format!("`oscr-entry {name}` |");
        assert!(
            page.contains(&row) || page.contains(&alone),
            "docs/configuration.md has no row for `oscr-entry {name}`"
        );
    }
}

/// The first column of a table, without the quotes.
fn rows(table: &str) -> BTreeSet<String> {
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_table_of_metrics_is_the_codes_own() {
    let mut table = String::from("| metric | kind | labels | what it says |\n| --- | --- | --- | --- |\n");
    for family in FAMILIES {
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{}` | {kind} | {} | {} |\n", family.name, labels.join(", "), family.help);
    }
    page::keep("docs/operations.md", "metrics", &table);
}

/// The paths to all values of an object, as `runner.id` and `disk[].free`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                found.insert(path.clone());
                paths(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_status_is_described_and_no_other() {
    let board = Board::new("github", "o/r");
    board.set_runner(Some(Runner { name: "a".to_owned(), id: Some(1) }));
    board.set_job(Some(Job { name: Some("j".to_owned()), ..Job::default() }));
    board.set_space(Space::new(None, Path::new("/"), []));
    board.set_agent_age(AgentAge::default());
    let _waiting = board.waits_for("board-1");
    let posture = Posture {
        uid: 0,
        root_outside: None,
        capabilities: Vec::new(),
        lacking: Vec::new(),
        bounding: Vec::new(),
        no_new_privileges: true,
        seccomp: true,
        watch: WorkerWatch::Told,
        user_namespaces: None,
        runtime: Runtime::Runc,
        read_only_root: false,
        lasting: vec![Lasting { place: "/x".into(), file_system: "ext4".to_owned(), jobs_may_write: false }],
        secrets: vec![Guarded {
            setting: "GITHUB_PAT_FILE".to_owned(),
            file: None,
            readers: "root".to_owned(),
            jobs_may_read: false,
        }],
        docker: Some(DockerSocket { path: "/x".into(), gid: 1, jobs_may_use: false }),
        sudo_installed: false,
        sudo: false,
        weaknesses: Vec::new(),
    };
    board.set_posture(&posture, Vec::new(), Vec::new());
    let mut status = board.status();
    let aside = serde_json::json!({ "resource": "board-1", "since": "", "who": "", "why": "", "next": "" });
    status.aside.push(serde_json::from_value(aside).expect("one that is set aside"));
    status.left_in_docker = Some(LeftInDocker { things: 1, why: String::new() });
    let status = serde_json::to_value(status).expect("it is JSON");
    let mut known = BTreeSet::new();
    paths(&status, "", &mut known);
    let page = read("docs/operations.md");
    assert_eq!(rows(&page[page::marked(&page, "status")]), known);
}

#[test]
fn dashboard_and_alerts_name_only_metrics_that_exist_and_every_alert_is_explained() {
    let dashboard = read("monitoring/grafana-dashboard.json");
    let rules = read("monitoring/prometheus-rules.yml");
    let _: Value = serde_json::from_str(&dashboard).expect("the dashboard is JSON");
    let exists = |name: &str| {
        FAMILIES.iter().any(|family| match family.kind {
            MetricKind::Histogram(_) => {
                ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(family.name))
            }
            _ => name == family.name,
        })
    };
    let mut seen = BTreeSet::new();
    for (file, text) in [("the dashboard", &dashboard), ("the rules", &rules)] {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("oscr_") {
                assert!(exists(word), "{file} names {word}, which is no metric");
                seen.insert(word.to_owned());
            }
        }
        for label in text
            .split("phase=~\\\"")
            .chain(text.split("phase=~\""))
            .skip(1)
            .filter_map(|rest| rest.split(['"', '\\']).next())
        {
            for phase in label.split('|').filter(|phase| phase.chars().all(|c| c.is_ascii_lowercase() || c == '-')) {
                assert!(Phase::ALL.iter().any(|known| known.name() == phase), "{file}: there is no phase {phase:?}");
            }
        }
    }
    assert!(seen.len() > 12, "{seen:?}");
    let page = read("docs/operations.md");
    let mut alerts = 0;
    for alert in rules.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap_or_default();
        assert!(alert.contains("expr: ") && alert.contains("summary: ") && alert.contains("severity: "), "{name}");
        assert!(page.contains(&format!("| `{name}` |")), "docs/operations.md does not explain {name}");
        alerts += 1;
    }
    assert_eq!(alerts, page.matches("| `Oscr").count(), "docs/operations.md explains alerts that are not there");
}

#[test]
fn compose_hands_on_every_setting_under_every_name() {
    let compose = read("compose.yml");
    let mut keys = BTreeSet::new();
    // What an image is built with is not handed on to its containers.
    let mut build_arguments = None;
    for line in compose.lines() {
        let indented = line.len() - line.trim_start().len();
        if build_arguments.is_some_and(|outer| indented <= outer) {
            build_arguments = None;
        }
        match line.trim_start().split_once(':') {
            Some(("args", _)) => build_arguments = Some(indented),
            Some((key, _)) if build_arguments.is_none() => drop(keys.insert(key)),
            _ => {}
        }
    }
    for setting in settings() {
        for name in setting.names() {
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
fn what_the_sources_read_besides_the_tables_is_what_compose_hands_on() {
    let mut read_there = BTreeSet::new();
    let mut folders = vec![project().join("src/config"), project().join("src/provider")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let text = fs::read_to_string(entry.path()).expect("a source");
            let calls = text.split("foreign(\"").skip(1);
            read_there.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            // The one list that is read name by name.
            let list = text.split_once("CACHES_OF_AGENTS: [&str; 3] =").and_then(|(_, rest)| rest.split_once(';'));
            let list = list.map(|(list, _)| list.split('"').skip(1).step_by(2).map(str::to_owned));
            read_there.extend(list.into_iter().flatten());
        }
    }
    let known: BTreeSet<String> = FOREIGN.iter().chain(OF_DOCKER).map(|name| (*name).to_owned()).collect();
    assert_eq!(read_there, known);
}

#[test]
fn what_is_said_of_the_runner_of_compose_yml_does_not_reach_those_of_compose_boards_yml() {
    let boards = read("compose.boards.yml");
    let own = |name: &str| boards.contains(&format!("\n      {name}: "));
    let blank = |name: &str| boards.contains(&format!("\n  {name}: \"\"\n"));
    for setting in tables().filter(|(table, _)| ["common", "github"].contains(table)).flat_map(|(_, table)| table) {
        for name in setting.names() {
            if setting.kind == SettingKind::Secret {
                let file = format!("{name}_FILE");
                assert!(own(&file) || blank(&file), "{file} can be given, or name a file that is not there");
            } else if own(setting.name) {
                assert!(own(name) || blank(name), "{name} can contradict {}", setting.name);
            }
        }
    }
    // Of Azure DevOps' services the page has a sentence.
    let page = read("docs/shared-hardware.md");
    let secrets = tables().filter(|(table, _)| *table == "azure-devops").flat_map(|(_, table)| table);
    for name in secrets
        .filter(|setting| setting.kind == SettingKind::Secret)
        .flat_map(Setting::names)
        .filter(|name| *name != "ADO_PAT")
    {
        assert!(
            page.contains(&format!("`{name}_FILE`")),
            "docs/shared-hardware.md does not say what to do with {name}"
        );
    }
}

#[test]
fn the_example_environment_names_only_what_somebody_reads() {
    let mut known: BTreeSet<String> = OF_COMPOSE.iter().chain(FOREIGN).map(|name| (*name).to_owned()).collect();
    for setting in settings() {
        for name in setting.names() {
            known.insert(name.to_owned());
            if setting.kind == SettingKind::Secret {
                known.insert(format!("{name}_FILE"));
            }
        }
    }
    for (_, text) in compose::files() {
        known.extend(compose::variables(&text).map(str::to_owned));
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
fn the_example_environment_names_each_other_name_that_is_read() {
    let example = read(".env.example");
    for alias in settings().flat_map(|setting| setting.aliases) {
        // Proxies are the same in small letters.
        let named = example.lines().any(|line| line.trim_start_matches('#').starts_with(&format!("{alias}=")));
        assert!(named || alias.ends_with("_proxy"), ".env.example does not name {alias}");
    }
}

#[test]
fn documented_commands_that_hand_on_dockers_socket_ask_for_control_groups_of_their_own() {
    let mut seen = 0;
    for page in pages() {
        let text = read(&page.display().to_string()).replace("\\\n", " ");
        for line in text.lines().filter(|line| line.starts_with("docker run ") && line.contains("docker.sock")) {
            assert!(line.contains("--cgroupns private"), "{}: {line}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "docs/docker.md has one");
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
fn the_tests_that_pages_name_as_proof_exist() {
    let mut seen = 0;
    for page in pages() {
        let text = read(&page.to_string_lossy());
        for part in text.split("[`").skip(1) {
            let Some((name, rest)) = part.split_once("`](") else { continue };
            let Some((target, _)) = rest.split_once(')') else { continue };
            let words = name.split('_').count();
            if !target.ends_with(".rs") || words < 4 {
                continue;
            }
            let file = page.parent().unwrap_or(Path::new("")).join(target);
            let code = read(&file.to_string_lossy());
            assert!(code.contains(&format!("fn {name}(")), "{}: {target} has no test {name}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} tests are named");
}

/// The names of the rows in a table of hostile attempts, with the column of docs/security.md that they belong to.
fn hostile_rows(file: &str) -> BTreeSet<(String, usize)> {
    let text = read(&format!("tests/containers/hostile/{file}.rs"));
    let mut rows = BTreeSet::new();
    for (kind, start) in
        ["row(", "anybody(", "root("].iter().flat_map(|kind| text.match_indices(kind)).map(|(at, k)| (k, at + k.len()))
    {
        let Some((name, rest)) = text[start..].trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'))
        else {
            continue;
        };
        let end = rest.trim_start_matches(',').trim_start();
        let column = match kind {
            "root(" => 2,
            "row(" if end.starts_with("ForRoot") => 2,
            "row(" if end.starts_with("Possible") => 3,
            _ => 1,
        };
        rows.insert((name.to_owned(), column));
    }
    rows
}

#[test]
fn every_hostile_attempt_is_named_with_its_end() {
    let page = read("docs/security.md");
    let (_, section) = page.split_once("## Hostile jobs").expect("the section is there");
    let table: Vec<&str> = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1).take(3).collect();
    let mut all = 0;
    for (line, file) in table.iter().zip(["attempts", "leftovers", "limits"]) {
        let mut named = BTreeSet::new();
        for (column, cell) in line.trim_matches('|').split('|').enumerate().skip(1) {
            named.extend(cell.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), column)));
        }
        let rows = hostile_rows(file);
        assert_eq!(named, rows, "{file}");
        all += rows.len();
    }
    assert!(all >= 40, "{all}");
}

/// Not even `--version` is answered before the directory of the agent's logs is there, and its root is another user's.
#[test]
fn an_agent_that_is_asked_for_its_version_can_make_its_logs() {
    let script = read("scripts/try-image.sh");
    let asked: Vec<&str> = script.lines().filter(|line| line.contains(".Listener --version")).collect();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert!(asked[0].contains("--tmpfs /opt/oscr/agent/_diag "), "{}", asked[0]);
}
