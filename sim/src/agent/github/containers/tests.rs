//! What is asked of Docker, noted by `docker.sh` in its place.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::*;

/// A runner's folders, with a command line of Docker that notes what it is asked.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let places = world.places();
        for folder in [&places.root, &places.temp, &places.workspace] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(places.root.join(".runner"), "\u{feff}{\"AgentName\": \"A\"}").unwrap();
        world.say("cgroup", "0::/\n");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agent/github/containers/docker.sh");
        // A link: a program that was written a moment ago can be "busy".
        symlink(script, world.path("docker")).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn places(&self) -> Places {
        let work = self.path("work");
        Places {
            root: self.path("root"),
            temp: work.join("_temp"),
            tools: self.path("tools"),
            workspace: work.join("r/r"),
            work,
        }
    }

    /// What the command line answers.
    fn say(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn containers(&self, message: &Value) -> Containers {
        let machine = Machine { docker: self.path("docker"), cgroup: self.path("cgroup"), ..Machine::here(Scale(0.0)) };
        Containers::of(message, self.places(), machine).unwrap()
    }

    /// What was asked so far. The world's folder is `@`; random digits and the label are words for what they are.
    fn calls(&self, containers: &Containers) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(|call| self.plain(call, containers)).collect()
    }

    fn plain(&self, call: &str, containers: &Containers) -> String {
        let mut call = call.replace(self.0.path().to_str().unwrap(), "@").replace(&containers.label, "LABEL");
        for container in &containers.all {
            let short = container.service.as_deref().unwrap_or("own");
            call = call.replace(&container.name, &short.to_uppercase());
        }
        let digits = call.split_once("github_network_").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
        match digits.map(str::to_owned) {
            Some(digits) => {
                assert_eq!(digits.len(), 32);
                call.replace(&format!("github_network_{digits}"), "NETWORK")
            }
            None => call,
        }
    }

    /// A command that was not run, as [`Self::calls`] has them.
    fn shown(&self, command: &Command, containers: &Containers) -> String {
        assert_eq!(command.get_program(), self.path("docker"));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        self.plain(&words.join(" "), containers)
    }
}

fn map(members: &Value) -> Value {
    let members = members.as_object().unwrap().iter();
    json!({"type": 2, "map": members.map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Vec<_>>()})
}

/// A job in a container, with a service.
fn message() -> Value {
    let own = json!({"image": "oddessentials/oscr-base:bookworm", "env": map(&json!({"A": "b c", "EMPTY": ""})),
        "volumes": {"type": 1, "seq": ["/anonymous", "/mine:/yours:ro"]}, "options": "--cpus 1"});
    let service = json!({"image": "redis:7", "ports": {"type": 1, "seq": ["6379"]},
        "options": "--health-cmd \"redis-cli ping\""});
    json!({
        "jobContainer": map(&own),
        "jobServiceContainers": map(&json!({"redis": map(&service)})),
        "variables": {"actions_container_action_runner_temp": {"value": "true"}},
    })
}

fn environment(world: &World) -> BTreeMap<String, String> {
    let Places { work, temp, tools, workspace, .. } = world.places();
    let all = [
        ("GITHUB_ENV", temp.join("_runner_file_commands/set_env_1")),
        ("GITHUB_EVENT_PATH", temp.join("_github_workflow/event.json")),
        ("GITHUB_WORKSPACE", workspace),
        ("OTHER", PathBuf::from(format!("{}ing", work.display()))),
        ("RUNNER_TEMP", temp),
        ("RUNNER_TOOL_CACHE", tools),
        ("RUNNER_WORKSPACE", work.join("r")),
    ];
    all.into_iter().map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned())).collect()
}

fn variables(command: &Command) -> BTreeMap<&str, &str> {
    command.get_envs().map(|(key, value)| (key.to_str().unwrap(), value.and_then(OsStr::to_str).unwrap())).collect()
}

#[test]
fn a_job_with_containers_asks_docker_what_the_official_runner_asks() {
    let world = World::new();
    let mut containers = world.containers(&message());
    assert!(containers.has_own() && !containers.is_empty());
    let mut log = Vec::new();
    containers.initialize(&mut |line| log.push(line.to_owned())).unwrap();
    let running = "--filter status=running --no-trunc --format <{{.ID}} {{.Status}}>";
    let create_own = "create --name OWN --label LABEL --workdir /__w/r/r --network NETWORK --cpus 1 -e <A=b c> -e EMPTY \
                      -e HOME=/github/home -e GITHUB_ACTIONS=true -e CI=true \
                      -v /var/run/docker.sock:/var/run/docker.sock -v /anonymous -v /mine:/yours:ro -v @/work:/__w \
                      -v @/root/externals:/__e:ro -v @/work/_temp:/__w/_temp -v @/work/_actions:/__w/_actions \
                      -v @/tools:/__t -v @/work/_temp/_github_home:/github/home \
                      -v @/work/_temp/_github_workflow:/github/workflow --entrypoint tail oddessentials/oscr-base:bookworm -f /dev/null";
    let create_service = "create --name REDIS --label LABEL --network NETWORK --network-alias redis -p 6379 \
                          --health-cmd <redis-cli ping> -e GITHUB_ACTIONS=true -e CI=true redis:7";
    let expected = [
        "version --format '{{.Server.APIVersion}}'",
        "version --format '{{.Client.APIVersion}}'",
        "ps --all --quiet --no-trunc --filter label=LABEL",
        "network prune --force --filter label=LABEL",
        "network create --label LABEL NETWORK",
        "pull oddessentials/oscr-base:bookworm",
        create_own,
        "start container-1",
        &format!("ps --all --filter id=container-1 {running}"),
        "inspect --format <{{range .Config.Env}}{{println .}}{{end}}> container-1",
        "pull redis:7",
        create_service,
        "start container-2",
        &format!("ps --all --filter id=container-2 {running}"),
        "port container-2",
        "inspect <--format={{if .Config.Healthcheck}}{{print .State.Health.Status}}{{end}}> container-2",
    ];
    assert_eq!(world.calls(&containers), expected);
    for line in ["Docker daemon API version: '1.41'", "##[group]Starting redis service container", "##[endgroup]"] {
        assert!(log.iter().any(|logged| logged == line), "{line} is not in {log:#?}");
    }
    let name = &containers.all[0].name;
    assert_eq!((name.find("_oddessentialsoscrbasebookworm_"), name.len()), (Some(32), 32 + 31 + 6));
    for folder in ["_github_home", "_github_workflow"] {
        assert!(world.places().temp.join(folder).is_dir());
    }

    world.say("calls", "");
    containers.stop(&mut |_| {}).unwrap();
    let calls = world.calls(&containers);
    assert_eq!(calls, ["rm --force container-1", "rm --force container-2", "network rm NETWORK"]);
}

#[test]
fn a_step_in_the_jobs_container_has_its_files_in_the_containers_terms() {
    let world = World::new();
    let mut containers = world.containers(&message());
    let script = world.places().temp.join("x.sh");
    let env = environment(&world);
    let missing = containers.exec(&script, "", &env).unwrap_err();
    assert_eq!(missing, "Value cannot be null. (Parameter 'ContainerId')");
    containers.initialize(&mut |_| {}).unwrap();
    let names: String = env.keys().map(|name| format!(" -e {name}")).collect();
    let command = containers.exec(&script, "", &env).unwrap();
    let plain = format!("exec -i --workdir /__w/r/r{names} container-1 sh -e /__w/_temp/x.sh");
    assert_eq!(world.shown(&command, &containers), plain);
    let [own, other] = [variables(&command), BTreeMap::from([("OTHER", env["OTHER"].as_str())])];
    let theirs = BTreeMap::from([
        ("GITHUB_ENV", "/__w/_temp/_runner_file_commands/set_env_1"),
        ("GITHUB_EVENT_PATH", "/github/workflow/event.json"),
        ("GITHUB_WORKSPACE", "/__w/r/r"),
        ("RUNNER_TEMP", "/__w/_temp"),
        ("RUNNER_TOOL_CACHE", "/__t"),
        ("RUNNER_WORKSPACE", "/__w/r"),
    ]);
    assert_eq!(own, theirs.into_iter().chain(other).collect());
    let command = containers.exec(&script, "/added", &BTreeMap::new()).unwrap();
    let added = "exec -i --workdir /__w/r/r -e PATH=/added:/image/bin container-1 sh -e /__w/_temp/x.sh";
    assert_eq!(world.shown(&command, &containers), added);
}

#[test]
fn a_docker_action_has_folders_of_its_own_and_the_jobs_network() {
    let world = World::new();
    let mut containers = world.containers(&message());
    let env = environment(&world);
    let volumes = "-v /var/run/docker.sock:/var/run/docker.sock -v @/work/_temp:/github/runner_temp \
                   -v @/work/_temp/_github_home:/github/home -v @/work/_temp/_github_workflow:/github/workflow \
                   -v @/work/_temp/_runner_file_commands:/github/file_commands -v @/work/r/r:/github/workspace";
    let begin = "run --name NAME --label LABEL --workdir /github/workspace --rm";
    let shown = |containers: &Containers, command: &Command| {
        let shown = world.shown(command, containers);
        let name = shown.split(' ').nth(2).unwrap();
        assert_eq!((name.find("alpine39_"), name.len()), (Some(0), 15), "{name}");
        shown.replace(name, "NAME")
    };
    let alone = containers.action("alpine:3.9", "", "", &BTreeMap::new()).unwrap();
    let expected = format!("{begin} -e HOME -e GITHUB_ACTIONS=true -e CI=true {volumes} alpine:3.9");
    assert_eq!(shown(&containers, &alone), expected);

    containers.initialize(&mut |_| {}).unwrap();
    let command = containers.action("alpine:3.9", "/bin/sh", "-c \"echo 1\"", &env).unwrap();
    let mut names: Vec<&str> =
        env.keys().map(String::as_str).chain(["HOME", "INPUT_ARGS", "INPUT_ENTRYPOINT"]).collect();
    names.sort_unstable();
    let names: String = names.iter().map(|name| format!(" -e {name}")).collect();
    let expected = format!(
        "{begin}{names} -e GITHUB_ACTIONS=true -e CI=true --entrypoint /bin/sh --network NETWORK {volumes} alpine:3.9 -c \
         echo 1"
    );
    assert_eq!(shown(&containers, &command), expected);
    assert_eq!(command.get_args().last(), Some(OsStr::new("echo 1")));
    let own = variables(&command);
    let theirs = [
        ("GITHUB_ENV", "/github/file_commands/set_env_1"),
        ("GITHUB_EVENT_PATH", "/github/workflow/event.json"),
        ("GITHUB_WORKSPACE", "/github/workspace"),
        ("HOME", "/github/home"),
        ("INPUT_ARGS", "-c \"echo 1\""),
        ("RUNNER_TEMP", "/github/runner_temp"),
        ("RUNNER_WORKSPACE", env["RUNNER_WORKSPACE"].as_str()),
    ];
    for (name, value) in theirs {
        assert_eq!(own[name], value, "{name}");
    }
}

#[test]
fn containers_are_refused_within_a_container_of_docker_and_the_stop_complains_of_something_else() {
    let world = World::new();
    world.say("cgroup", "12:pids:/docker/0123\n1:name=systemd:/docker/0123\n");
    let mut containers = world.containers(&message());
    let refused = containers.initialize(&mut |_| {}).unwrap_err();
    assert_eq!(refused, "Container feature is not supported when runner is already running inside container.");
    assert_eq!(containers.stop(&mut |_| {}).unwrap_err(), "Value cannot be null. (Parameter 'network')");
    assert_eq!(world.calls(&containers), Vec::<String>::new());
}

#[test]
fn what_an_earlier_job_left_is_found_by_the_label() {
    let world = World::new();
    world.say("leftovers", "old-1\nold-2\n");
    let mut containers = world.containers(&message());
    // printf %s '{"agentname": "a"}' | sha256sum
    assert_eq!(containers.label, "864f0a");
    containers.initialize(&mut |_| {}).unwrap();
    let calls = world.calls(&containers);
    let expected = ["rm --force old-1", "rm --force old-2", "network prune --force --filter label=LABEL"];
    assert_eq!(calls[3..6], expected);
}

#[test]
fn an_old_docker_and_none_are_refused() {
    let world = World::new();
    world.say("version", "1.34");
    let mut containers = world.containers(&message());
    let refused = containers.initialize(&mut |_| {}).unwrap_err();
    assert!(refused.starts_with("Min required docker engine API server version is '1.35'"), "{refused}");
    world.say("version", "1.35");
    containers.initialize(&mut |_| {}).unwrap();
    containers.docker.program = world.path("nothing");
    let refused = containers.initialize(&mut |_| {}).unwrap_err();
    assert_eq!(refused, format!("File not found: '{}'", world.path("nothing").display()));
}

#[test]
fn an_image_is_pulled_three_times_unless_it_must_be_there() {
    let world = World::new();
    world.say("pull", "18");
    let mut message = message();
    let mut containers = world.containers(&message);
    let refused = containers.initialize(&mut |_| {}).unwrap_err();
    assert_eq!(refused, "Docker pull failed with exit code 18");
    assert_eq!(world.calls(&containers)[5..], ["pull oddessentials/oscr-base:bookworm"; 3]);
    containers.stop(&mut |_| {}).unwrap();

    world.say("calls", "");
    message["variables"]["oscr.sim.pull"] = json!({"value": "false"});
    let containers = world.containers(&message);
    containers.pull_action("alpine", &mut |_| {}).unwrap();
    assert_eq!(world.calls(&containers), ["image inspect --format {{.Id}} alpine"]);
}

#[test]
fn the_job_waits_for_a_service_with_a_health_check() {
    let world = World::new();
    world.say("health", "starting\nstarting\nhealthy\n");
    let mut containers = world.containers(&message());
    let mut log = Vec::new();
    containers.initialize(&mut |line| log.push(line.to_owned())).unwrap();
    let waits = log.iter().filter(|line| line.starts_with("redis service is starting, waiting "));
    assert_eq!((waits.count(), log.contains(&"redis service is healthy.".to_owned())), (2, true), "{log:#?}");

    world.say("health", "starting\nunhealthy\n");
    let mut containers = world.containers(&message());
    let refused = containers.initialize(&mut |line| log.push(line.to_owned())).unwrap_err();
    assert_eq!(refused, "One or more containers failed to start.");
    assert!(log.contains(&"##[error]Failed to initialize container redis:7".to_owned()), "{log:#?}");
    assert!(world.calls(&containers).iter().any(|call| call.starts_with("logs --details container-")));
}

#[test]
fn a_container_that_ends_at_once_is_a_warning() {
    let world = World::new();
    world.say("running", "");
    let mut containers = world.containers(&message());
    let mut log = Vec::new();
    containers.initialize(&mut |line| log.push(line.to_owned())).unwrap();
    let warning = "##[warning]Docker container container-1 is not in running state.";
    assert!(log.iter().any(|line| line == warning), "{log:#?}");
}
