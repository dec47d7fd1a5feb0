//! What is in the images and in compose.yml, before anything runs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use oscr::config::table::COMMON;
use oscr_sim::patience::LIMIT;
use serde_json::Value;

use crate::docker::{self, Container, GRACE, command, docker, inspect};
use crate::provider::{AZURE_DEVOPS, GITHUB, Provider};
use crate::world::{IMAGE, RUNNER, project_name, root, tag};

/// The image of the binary alone.
fn entry() -> String {
    format!("oddessentials/oscr-entry:{}", tag())
}

const PROGRAM: &str = "/usr/local/bin/oscr-entry";

/// Runs a script in the image as a user, with nothing of OSCR; its standard output.
fn in_image(test: &str, user: &str, script: &str) -> String {
    docker(&[
        "run",
        "--rm",
        "--name",
        &project_name(test),
        "--network",
        "none",
        "--user",
        user,
        "--entrypoint",
        "sh",
        IMAGE,
        "-c",
        script,
    ])
}

pub fn a_job_can_change_nothing_of_the_image_but_what_is_wiped(test: &str) {
    let foreign = in_image(test, "0", "find /opt/oscr /etc/oscr /usr/local ! -user 0");
    assert_eq!(foreign, "", "these do not belong to root");
    let writable =
        in_image(test, RUNNER, "find / -xdev -path /proc -prune -o -writable ! -type l -print 2>/dev/null || true");
    let wiped = ["/work", "/home/runner", "/tmp", "/var/tmp", "/run/lock"];
    // For containers that run as the agent's user; where they do not, they are taken from it before the first job.
    let taken = ["/runner", "/run/oscr", "/var/lib/oscr"];
    let beyond: Vec<&str> = writable
        .lines()
        .filter(|path| {
            !wiped.iter().any(|place| *path == *place || path.starts_with(&format!("{place}/")))
                && !taken.contains(path)
        })
        .collect();
    assert!(beyond.is_empty(), "a job could write to {beyond:?}");
}

pub fn the_image_gives_no_job_a_way_to_root(test: &str) {
    assert_eq!(in_image(test, "0", "command -v sudo doas || true"), "");
    let program = in_image(test, "0", &format!("stat -c '%u:%g %a' {PROGRAM}"));
    assert_eq!(program.trim(), "0:0 755");
    // What runs with its owner's rights is Debian's, not ours.
    // A package may name it as it was before /bin became /usr/bin.
    let foreign = in_image(
        test,
        "0",
        r#"find / -xdev -type f -perm /6000 | while read -r file; do
               dpkg -S "$file" >/dev/null 2>&1 || dpkg -S "${file#/usr}" >/dev/null 2>&1 || echo "$file"
           done"#,
    );
    assert_eq!(foreign, "");
    let id = in_image(test, RUNNER, "id; head -n 1 /opt/oscr/agent/run.sh");
    assert!(id.starts_with("uid=1001(runner) gid=1001(runner) groups=1001(runner)"), "{id}");
}

pub fn the_images_say_what_they_are(_: &str) {
    let azure = format!("{}:{}", AZURE_DEVOPS.repository, tag());
    for image in [IMAGE, &azure, &entry()] {
        let facts = inspect("image", image);
        let labels = &facts["Config"]["Labels"];
        let label =
            |name: &str| labels[format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default().to_owned();
        for name in ["title", "description", "source", "licenses", "created", "revision"] {
            assert!(!label(name).is_empty(), "{image} has no {name}: {labels}");
        }
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"), "{image}");
    }
    for (image, provider) in [(IMAGE, &GITHUB), (&azure, &AZURE_DEVOPS)] {
        let facts = inspect("image", image);
        let config = &facts["Config"];
        // What the label says is what PID 1 knows.
        let of_agent = |what: &str| {
            let label = &config["Labels"][format!("io.github.oddessentials.oscr.agent.{what}")];
            label.as_str().unwrap_or_else(|| panic!("{image} has no {what} of its agent: {config}")).to_owned()
        };
        let note = docker(&["run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/opt/oscr/agent.json"]);
        let note: Value = serde_json::from_str(&note).expect("the image's note is JSON");
        assert_eq!(note, serde_json::json!({ "version": of_agent("version"), "released": of_agent("released") }));
        let stat = ["--entrypoint", "stat", image, "-c", "%u %a", "/opt/oscr/agent.json"];
        let stat = docker(&[&["run", "--rm", "--network", "none"][..], &stat].concat());
        assert_eq!(stat.trim(), "0 644", "no job can change it");
        assert_eq!(config["Entrypoint"], serde_json::json!([PROGRAM]));
        assert_eq!(config["StopSignal"], "SIGTERM");
        let environment = config["Env"].to_string();
        assert!(environment.contains(&format!("\"CI_PROVIDER={}\"", provider.name)), "{environment}");
    }
}

pub fn the_entry_image_is_one_static_file(test: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let archive = folder.path().join("image.tar");
    docker(&["save", "--output", archive.to_str().expect("a path is text"), &entry()]);
    let tar = |arguments: &[&str]| docker::run(Command::new("tar").args(arguments).current_dir(folder.path()));
    tar(&["-xf", "image.tar"]);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json")).expect("an image has a manifest"))
            .expect("a manifest is JSON");
    let layers = manifest[0]["Layers"].as_array().expect("an image has layers");
    let files: String =
        layers.iter().map(|layer| tar(&["-tf", layer.as_str().expect("a layer's name is text")])).collect();
    assert_eq!(files.trim(), "oscr-entry");

    let version = docker(&["run", "--rm", "--name", &project_name(test), &entry(), "--version"]);
    assert_eq!(version.trim(), format!("oscr-entry {}", env!("CARGO_PKG_VERSION")));
}

/// An image and a container that go with this.
pub struct Built(pub String);

impl Drop for Built {
    fn drop(&mut self) {
        docker::output(&mut command(&["rm", "--force", "--volumes", &self.0]));
        docker::output(&mut command(&["rmi", "--force", &self.0]));
    }
}

pub fn the_entry_is_an_init_for_any_image_that_copies_it(test: &str) {
    let built = Built(project_name(test));
    let name = built.0.as_str();
    let dockerfile = format!(
        "FROM {IMAGE}\nCOPY --from={} /oscr-entry /\nENTRYPOINT [\"/oscr-entry\", \"exec\", \"--\"]\nHEALTHCHECK NONE\n",
        entry()
    );
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("Dockerfile"), dockerfile).expect("a file can be written");
    docker(&["build", "--tag", name, folder.path().to_str().expect("a path is text")]);

    for (words, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
        // It neither waits for orphans nor dies of them.
        (&["sh", "-c", "(sleep 600 &) ; exit 5"], 5),
    ] {
        let mut run = command(&["run", "--rm", "--name", name, name]);
        let output = docker::output(run.args(words));
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }

    // A stop reaches the program, whose answer is the container's.
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let id = docker(&["run", "--detach", "--name", name, name, "sh", "-c", script]);
    let container = Container { id: id.trim().to_owned() };
    container.wait_log("ready", LIMIT);
    container.stop(GRACE).join().expect("docker stop succeeds");
    assert_eq!(container.inspect()["State"]["ExitCode"], 7);
}

/// `docker compose config` of the project's own compose.yml.
fn config(settings: &[(&str, &str)]) -> Value {
    config_of(&["compose.yml"], settings)
}

/// The same of several files.
pub fn config_of(files: &[&str], settings: &[(&str, &str)]) -> Value {
    let mut command = command(&["compose", "--env-file", "/dev/null"]);
    for file in files {
        command.arg("--file").arg(root().join(file));
    }
    command.args(["config", "--format", "json"]).env("COMPOSE_PROFILES", "*").envs(settings.iter().copied());
    serde_json::from_str(&docker::run(&mut command)).expect("docker compose config prints JSON")
}

/// The default of a setting, as the product's own table has it.
fn default_of(name: &str) -> Duration {
    let setting = COMMON.iter().find(|setting| setting.name == name).unwrap_or_else(|| panic!("{name} is a setting"));
    humantime::parse_duration(setting.default.trim_matches('`')).expect("the default is a duration")
}

pub fn compose_gives_runners_no_more_than_they_need(_: &str) {
    let config = config(&[("GITHUB_PAT", "ghp_inNobodysEnvironment"), ("GITHUB_OWNER", "acme")]);
    let services = config["services"].as_object().expect("there are services");
    assert!(services.contains_key("github-runner"), "{config}");
    let needed: BTreeSet<&str> = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"].into();
    for (name, service) in services {
        for absent in ["privileged", "container_name", "ports", "volumes", "devices", "network_mode", "pid", "ipc"] {
            let value = &service[absent];
            assert!(value.is_null() || value == false, "{name}: {absent}: {value}");
        }
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        let added: BTreeSet<&str> =
            service["cap_add"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(added, needed, "{name}");
        assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]));
        assert_eq!(service["restart"], "always", "{name}");
        assert!(!service["healthcheck"]["test"].is_null(), "{name}");
        assert!(service["pids_limit"].as_i64().is_some_and(|limit| limit > 0), "{name}");

        let grace = service["stop_grace_period"].as_str().unwrap_or_default();
        let grace = humantime::parse_duration(grace).expect("the grace period is a duration");
        let drain = default_of("OSCR_STOP_TIMEOUT") + 2 * default_of("OSCR_KILL_TIMEOUT");
        assert!(grace >= drain, "{name}: {grace:?} is less than {drain:?}");

        let environment = service["environment"].to_string();
        assert!(!environment.contains("ghp_"), "{name}: {environment}");
    }
}

pub fn compose_files_with_docker_ask_for_control_groups_of_their_own(_: &str) {
    let mut asked = 0;
    for file in fs::read_dir(root()).expect("the project can be read") {
        let file = file.expect("it can be listed").path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap_or_default();
        let gives = ["docker.sock", "OSCR_DOCKERD:"].iter().any(|part| text.contains(part));
        if !name.starts_with("compose.") || !gives {
            continue;
        }
        let config = config_of(&["compose.yml", &name], &[("GITHUB_PAT", "x")]);
        for service in ["github-runner", "azure-devops-agent"] {
            assert_eq!(config["services"][service]["cgroup"], "private", "{name}: {service}");
        }
        asked += 1;
    }
    assert_eq!(asked, 3, "so many files give jobs a Docker");
}

/// All that a value says: each of its ends, by the path to it.
fn ends(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| ends(value, &format!("{path}.{name}"), found)),
        Value::Array(items) => items.iter().for_each(|item| ends(item, &format!("{path}[]"), found)),
        end => drop(found.insert(format!("{path} {end}"))),
    }
}

/// What a forge's services are.
fn of_forge(config: &Value, forge: &Provider) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, service) in config["services"].as_object().expect("there are services") {
        if service["profiles"].as_array().is_some_and(|profiles| profiles.contains(&forge.name.into())) {
            ends(service, name, &mut found);
        }
    }
    found
}

pub fn each_compose_file_does_the_same_for_every_forge(_: &str) {
    let forges = [&GITHUB, &AZURE_DEVOPS];
    let settings = [("GITHUB_PAT", "x"), ("GRAFANA_PASSWORD", "x")];
    let plain = config(&settings);
    assert_eq!(plain["services"].as_object().map(serde_json::Map::len), Some(forges.len()), "{plain}");
    let mut changing = 0;
    for file in fs::read_dir(root()).expect("the project can be read") {
        let file = file.expect("it can be listed").path();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("compose.") || name.starts_with("compose.boards.") || name == "compose.yml" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("it can be read");
        let files = text.split_once("COMPOSE_FILE=").and_then(|(_, rest)| rest.split_whitespace().next());
        let files: Vec<&str> = files.unwrap_or_else(|| panic!("{name} says how it is used")).split(':').collect();
        let config = config_of(&files, &settings);
        let [github, azure] = forges.map(|forge| {
            let (before, after) = (of_forge(&plain, forge), of_forge(&config, forge));
            let short = format!("{}-", forge.name.split('-').next().unwrap_or_default());
            let nameless = |what: &str, end: &String| {
                let end = end.replace(forge.service, "RUNNER").replace(forge.repository, "IMAGE");
                format!("{what} {}", end.replace(forge.name, "FORGE").replace(&short, ""))
            };
            let more = after.difference(&before).map(|end| nameless("with", end));
            more.chain(before.difference(&after).map(|end| nameless("without", end))).collect::<BTreeSet<String>>()
        });
        assert_eq!(github, azure, "{name}");
        changing += usize::from(!github.is_empty());
    }
    assert_eq!(changing, 10, "so many files change runners");
}

pub fn compose_sets_the_limits_that_it_is_told(_: &str) {
    let config = config(&[
        ("GITHUB_PAT", "x"),
        ("OSCR_CPUS", "1.5"),
        ("OSCR_MEMORY", "1g"),
        ("OSCR_PIDS", "99"),
        ("OSCR_STOP_GRACE", "1h"),
    ]);
    let runner = &config["services"]["github-runner"];
    assert_eq!(runner["cpus"], 1.5, "{runner}");
    assert_eq!(runner["mem_limit"], "1073741824", "{runner}");
    assert_eq!(runner["pids_limit"], 99, "{runner}");
    assert_eq!(runner["stop_grace_period"], "1h0m0s", "{runner}");
}
