//! Docker for jobs: the host's, one without root in a container beside the runner, and one of the runner's own.

use std::time::Duration;

use oscr_sim::forge::{ContainerSpec, JobSpec};
use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::{self, Container, GRACE, command, docker};
use crate::world::{IMAGE, World, root};

/// Starts take their time: a daemon, its network, its storage.
const LONG: Duration = LIMIT.saturating_mul(2);

/// The image with Docker in it.
fn image() -> String {
    format!("{IMAGE}-docker")
}

/// Functions for jobs: an image of one program, made without a registry, and the label of this agent, as the agent makes it.
const FUNCTIONS: &str = r#"
make_image() {
    program=$(command -v cat)
    tar -C / -ch "$program" $(ldd "$program" | grep -o '/[^ ]*') 2>/dev/null | docker import --change "$2" - "$1" >/dev/null
}
label=$(LC_ALL=C sed '1s/^\xef\xbb\xbf//' /runner/*/.runner | tr '[:upper:]' '[:lower:]' | sha256sum | head -c 6)
"#;

/// Leaves what a container job leaves when its worker is killed, and something of somebody else's.
const LEAVE: &str = r#"
unset DOCKER_HOST
make_image "NAME:base" "VOLUME /data"
docker tag NAME:base "$label:NAME"
docker create --label "$label" --name NAME-job NAME:base cat >/dev/null
docker network create --label "$label" NAME-net >/dev/null
docker create --name NAME-other NAME:base cat >/dev/null
docker network create NAME-othernet >/dev/null
echo "volumes $(docker inspect --format '{{range .Mounts}}{{.Name}} {{end}}' NAME-job)"
echo "groups $(id -G)"
"#;

/// Removes what a test made in the host's Docker.
struct Sweep(String);

impl Drop for Sweep {
    fn drop(&mut self) {
        let name = &self.0;
        for arguments in [
            vec!["rm", "--force", "--volumes", &format!("{name}-job"), &format!("{name}-other")],
            vec!["network", "rm", &format!("{name}-net"), &format!("{name}-othernet")],
            vec!["rmi", "--force", &format!("{name}:base")],
        ] {
            docker::output(&mut command(&arguments));
        }
    }
}

pub fn what_a_job_left_in_the_hosts_docker_is_removed_and_nothing_else(world: &World) {
    let sweep = Sweep(world.name().to_lowercase());
    let name = sweep.0.as_str();
    // Docker on another machine has no socket here.
    let container = world.docker_run_image(&image(), &["--volume", "/var/run/docker.sock:/var/run/docker.sock"]);
    world.forge.wait_runner(container.host(), 0);
    container.wait_log("a job that can use it is root on the host", LIMIT);
    let script = format!("{FUNCTIONS}{LEAVE}").replace("NAME", name);
    let job = world.forge.finished(world.forge.script_on(container.host(), "leave", &script));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let volume = job.log.lines().find_map(|line| line.strip_prefix("volumes ")).expect("a volume").trim().to_owned();
    container.wait_exit(LONG);

    let log = container.logs();
    assert!(log.contains("removed what a job left in Docker containers=1 images=1 networks=1"), "{log}");
    let there = |kind: &str, what: &str| docker::output(&mut command(&[kind, "inspect", what])).status.success();
    assert!(!there("container", &format!("{name}-job")), "{log}");
    assert!(!there("network", &format!("{name}-net")), "{log}");
    assert!(!there("volume", &volume), "its anonymous volume: {log}");
    assert!(there("container", &format!("{name}-other")) && there("network", &format!("{name}-othernet")), "{log}");
    let images = docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let of_job = images.lines().filter(|image| image.ends_with(&format!(":{name}")));
    assert_eq!(of_job.count(), 0, "{images}");
}

/// Uses Docker as a container job does: files of the job by their own path, from a socket in the usual place.
const USE: &str = r#"
docker version --format 'server {{.Server.Version}}'
unset DOCKER_HOST
make_image mine:1 "VOLUME /data"
echo "from the job" >"$GITHUB_WORKSPACE/file"
docker run --rm --volume "$GITHUB_WORKSPACE:/w" mine:1 cat /w/file
docker run --rm --volume "$(ls -d /runner/*)/run.sh:/agent:ro" mine:1 cat /agent | head -n 1
docker run --rm --volume /var/run/docker.sock:/var/run/docker.sock mine:1 cat /proc/mounts | grep -c docker.sock
docker create --label "$label" --name left mine:1 cat >/dev/null
docker create --name kept mine:1 cat >/dev/null
echo "seen $(docker ps --all --format '{{.Names}}' | tr '\n' ' ')"
sed -n 's/^\(Cap[A-Z][a-z]*\|NoNewPrivs\):\s*/job \1 /p' /proc/self/status
"#;

fn uses_docker(log: &str) {
    for part in ["server ", "\nfrom the job", "\n#!/bin/bash", "\n1\n", "seen kept left"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    for part in ["job CapEff 0000000000000000", "job NoNewPrivs 1"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

/// Whether a daemon without root can be at all; if not, says that nothing is tried.
pub fn rootless_works_here() -> bool {
    let restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    let works = std::fs::read_to_string(restricted).map_or(true, |text| text.trim() != "1");
    if !works {
        println!("not tried: this machine's AppArmor lets nobody but root make user namespaces ({restricted})");
    }
    works
}

/// The host name of a runner that shares the network of its engine's container.
fn host_beside(container: &Container, sidecar: &Container) -> String {
    let inspected = container.inspect();
    let own = inspected["Config"]["Hostname"].as_str().filter(|host| !host.is_empty());
    own.unwrap_or(sidecar.host()).to_owned()
}

pub fn a_docker_without_root_beside_the_runner_serves_jobs_and_is_swept(world: &World) {
    if !rootless_works_here() {
        return;
    }
    world.also("compose.docker-dind.yml");
    let container = world.up_one();
    let sidecar = world.container_of("docker");
    let host = host_beside(&container, &sidecar);
    let runner = world.forge.wait_runner(&host, 0);
    let job = world.forge.finished(world.forge.script_on(&host, "use", &format!("{FUNCTIONS}{USE}")));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    uses_docker(&job.log);
    world.forge.wait_runner(&host, runner.id);
    let left =
        sidecar.must_exec("0", "docker --host unix:///run/oscr-docker/docker.sock ps --all --format '{{.Names}}'");
    assert_eq!(left.trim(), "kept", "{}", container.logs());
    // The daemon's processes belong to no root of the machine, nor does what its containers leave.
    let processes = docker(&["top", &sidecar.id, "-eo", "pid,uid,args"]);
    let mut daemons = processes.lines().filter(|line| line.contains("dockerd --"));
    assert!(daemons.next().is_some_and(|line| line.split_whitespace().nth(1) == Some("1001")), "{processes}");
}

/// What `docker run` takes for an engine of the runner's own.
fn own_engine() -> Vec<&'static str> {
    let mut arguments = vec!["--env", "OSCR_DOCKERD=true", "--cgroupns", "private", "--volume", "/var/lib/docker"];
    let privileged = ["run", "--rm", "--privileged", "--entrypoint", "true", IMAGE];
    if docker::output(&mut command(&privileged)).status.success() {
        arguments.push("--privileged");
    } else {
        // A daemon that lacks a capability itself cannot give all of them.
        arguments.extend(["--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined"]);
        arguments.extend(["--security-opt", "apparmor=unconfined"]);
    }
    arguments
}

/// Lets the engine in there make control groups, as it may in a privileged container.
fn open_groups(container: &Container) {
    let script = "for place in /sys/fs/cgroup /sys/fs/cgroup/*; do mountpoint -q $place && mount -o remount,bind,rw $place; done; true";
    container.must_exec("0", script);
}

pub fn an_engine_of_its_own_starts_before_the_agent_and_is_gone_with_its_job(world: &World) {
    let arguments = [&own_engine()[..], &["--env", "OSCR_DOCKERD_MTU=1400"]].concat();
    let container = world.docker_run_image(&image(), &arguments);
    let runner = world.forge.wait_runner(container.host(), 0);
    open_groups(&container);
    let script = format!("{FUNCTIONS}{USE}cat /proc/1/status | sed -n 's/^CapEff:\\s*/pid1 /p'\n");
    let job = world.forge.finished(world.forge.script_on(container.host(), "use", &script));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    uses_docker(&job.log);
    assert!(job.log.contains("job CapBnd 0000000000000000"), "{}", job.log);
    assert_eq!(container.wait_exit(LONG), 0);
    assert!(world.forge.runners().is_empty());

    // The next life has none of it, and a stop is as quick as ever.
    container.start();
    world.forge.wait_runner(container.host(), runner.id);
    let look = "docker ps --all --format '{{.Names}}'; docker images --format '{{.Repository}}'; echo 'that is all'";
    let job = world.forge.finished(world.forge.script_on(container.host(), "look", look));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("that is all"), "{}", job.log);
    for name in ["kept", "left", "mine"] {
        assert!(!job.log.lines().any(|line| line == name), "{}", job.log);
    }

    // An engine that dies takes the runner with it, which leaves nothing.
    container.wait_exit(LONG);
    container.start();
    world.forge.wait_runner(container.host(), runner.id + 1);
    container.must_exec("0", "cat /run/docker.pid | xargs -n 1 sh -c 'kill -KILL $0'");
    container.wait_log("while jobs may need it", LIMIT);
    assert_eq!(container.wait_exit(LONG), 0);
    world.forge.wait_empty();
}

/// Makes an image for containers of jobs out of programs that are here.
const SMALL: &str = r#"
programs=$(for name in sh tail cat sleep; do command -v "$name"; done)
root=$(mktemp -d)
for file in $programs $(ldd $programs | grep -o '/[^ :]*' | sort -u); do
    mkdir -p "$root$(dirname "$file")" && cp -L "$file" "$root$file"
done
tar -C "$root" -c . | docker import --change "VOLUME /data" --change 'CMD ["sleep", "infinity"]' - small:1
"#;

/// A job in a container of that image, with a service beside it, and what it says in there.
fn container_job(world: &World, host: &str) {
    let job = JobSpec {
        runner: Some(world.forge.wait_runner(host, 0).name),
        container: Some(ContainerSpec::of("small:1")),
        services: [("neighbour".to_owned(), ContainerSpec::of("small:1"))].into(),
        pull: Some(false),
        ..JobSpec::script("in a container", "test ! -e /opt/oscr && echo \"this is the job's own container\"")
    };
    let job = world.forge.finished(world.forge.submit(&job));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("\nthis is the job's own container"), "{}", job.log);
}

pub fn a_container_job_works_in_an_engine_beside_the_runner_and_in_its_own(world: &World) {
    let own = world.docker_run_image(&image(), &own_engine());
    world.forge.wait_runner(own.host(), 0);
    open_groups(&own);
    own.must_exec("0", SMALL);
    container_job(world, own.host());
    assert_eq!(own.wait_exit(LONG), 0);
    if !rootless_works_here() {
        return;
    }
    world.also("compose.docker-dind.yml");
    let container = world.up_one();
    let sidecar = world.container_of("docker");
    let host = host_beside(&container, &sidecar);
    let runner = world.forge.wait_runner(&host, 0);
    let doctor = container.exec("0", "oscr-entry doctor").1;
    assert!(doctor.contains("it sees the files of jobs by the same paths"), "{doctor}");
    let docker = "export DOCKER_HOST=unix:///run/oscr-docker/docker.sock\n";
    sidecar.must_exec("0", &format!("{docker}{SMALL}"));
    container_job(world, &host);
    world.forge.wait_runner(&host, runner.id);
    let left = sidecar.must_exec("0", &format!("{docker}docker ps --all --quiet; docker volume ls --quiet"));
    assert_eq!(left.trim(), "", "{}", container.logs());
}

pub fn the_pages_commands_put_the_agent_where_containers_of_jobs_find_it(_: &str) {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("the project can be read");
    let page = read("docs/docker.md");
    let blocks: Vec<&str> = page.split("```\n").filter(|block| block.contains("--entrypoint tar")).collect();
    let [commands] = blocks.as_slice() else { panic!("one block of commands: {blocks:?}") };
    let named = "oddessentials/oscr-github:latest-docker-cli";
    assert!(commands.contains(named), "{commands}");
    let made = named.replace("latest", "${OSCR_TAG:-latest}");
    assert!(read("compose.docker-socket.yml").contains(&format!("image: {made}\n")), "{made}");
    // On a machine where nothing of it is yet: once, and once more with the next image.
    let commands = commands.replace(named, &image());
    let look = "test -x /opt/oscr/agent/bin/Runner.Listener\nls /opt/oscr /opt/oscr/agent";
    let script = format!("set -eu\nrm -rf /opt/oscr\n{commands}\n{commands}\n{look}");
    let socket = ["--volume", "/var/run/docker.sock:/var/run/docker.sock"];
    let run = [&["run", "--rm"][..], &socket, &["--entrypoint", "sh", &image(), "-c", &script]];
    let found = docker(&run.concat());
    assert!(found.starts_with("/opt/oscr:\nagent\n") && !found.lines().skip(3).any(|name| name == "agent"), "{found}");
}

pub fn a_docker_that_does_not_answer_keeps_the_runner_from_taking_jobs(world: &World) {
    let container = world.docker_run(&["--env", "DOCKER_HOST=tcp://127.0.0.1:1", "--env", "OSCR_DOCKER_WAIT=1s"]);
    container.wait_log("no job is taken without Docker", LIMIT);
    container.wait_log("tools that know nothing but /var/run/docker.sock", LIMIT);
    assert!(world.forge.runners().is_empty());
    container.stop(GRACE).join().expect("docker stop succeeds");
}

/// What a job finds out about its privileges.
const SELF: &str = r#"
sed -n 's/^\(Cap[A-Z][a-z]*\|NoNewPrivs\):\s*/job \1 /p' /proc/self/status
sed -n 's/^CapEff:\s*/pid1 /p' /proc/1/status
echo "user $(id -u), root is $(awk '$1 == 0 { print $2 }' /proc/self/uid_map)"
cat /proc/1/environ 2>&1 | head -c 100
"#;

pub fn a_runner_works_in_rootless_docker_where_its_root_is_nobody(world: &World) {
    if !rootless_works_here() {
        return;
    }
    world.also("compose.docker-dind.yml");
    world.compose(&["up", "--detach", "--no-deps", "docker"]);
    let sidecar = world.container_of("docker");
    sidecar.wait_event("health_status: healthy", LONG);
    // The image goes in by a pipe.
    let mut save = command(&["save", IMAGE]).stdout(std::process::Stdio::piped()).spawn().expect("docker save runs");
    let image = save.stdout.take().expect("piped");
    docker::run(command(&["exec", "--interactive", &sidecar.id, "docker", "load"]).stdin(image));
    save.wait().expect("docker save ends");

    let forge = world.container_of("forge").inspect();
    let networks = forge["NetworkSettings"]["Networks"].as_object().expect("it is in a network");
    let address = networks.values().find_map(|network| network["IPAddress"].as_str()).expect("it has an address");
    let run = format!(
        "docker run --detach --name runner --hostname rootless --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE \
         --cap-add FOWNER --cap-add KILL --cap-add SETGID --cap-add SETUID --env GITHUB_PAT={} --env GITHUB_OWNER=acme \
         --env GITHUB_REPO=widgets --env GITHUB_HOST=http://{address} --env OSCR_START_JITTER=0 {IMAGE}",
        world.pat
    );
    sidecar.must_exec("0", &run);
    world.forge.wait_runner("rootless", 0);
    let check = sidecar.must_exec("0", "docker exec runner oscr-entry check");
    assert!(check.contains("in a user namespace whose root is 1001 outside"), "{check}");
    let job = world.forge.finished(world.forge.script_on("rootless", "self", SELF));
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    for part in ["job CapEff 0000000000000000", "job NoNewPrivs 1", "pid1 00000000000000eb", "user 1001, root is 1001"]
    {
        assert!(job.log.contains(part), "{part} is not in {}", job.log);
    }
    assert!(job.log.contains("Permission denied"), "{}", job.log);
    assert_eq!(sidecar.must_exec("0", "docker wait runner").trim(), "0");
}
