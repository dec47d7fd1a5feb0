//! Jobs that ask for containers: on the machine's Docker, and on an engine without root beside the runner.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::super::engine::{docker, told};
use super::super::registry::{NAME, PORT};
use super::super::world::World;
use super::{Scenario, cannot, either};
use crate::forge::{ContainerSpec, JobSpec};
use crate::patience::{LIMIT, patient};
use crate::protocol::{Condition, JobResult, Step};

pub(super) const TABLE: &[Scenario] = &[
    either("docker-dind", "a job in a container, a service, an action: an engine beside the runner", beside),
    either("docker-socket", "a job in a container, a service, an action: the machine's Docker", socket),
];

/// What a step finds in the job's own container.
const LOOK: &str = r#"echo "in $(cat /of-this-image)"
echo "neighbours: $(getent hosts neighbour | wc -l)"
echo "MARK=set by a step" >>"$GITHUB_ENV"
echo "from a step" >"$GITHUB_WORKSPACE/file""#;

/// What an action finds in its container.
const ACT: &str = r#"-c "echo action in $(cat /of-this-image), $MARK, $(cat file)""#;

/// A job in a container, with a service beside it, and an action in a container of its own.
fn lives_in_containers(world: &World<'_>, image: &str) -> Result<(), String> {
    let action = Step {
        uses: Some(format!("docker://{image}")),
        entrypoint: Some("sh".into()),
        args: Some(ACT.into()),
        ..Step::default()
    };
    let job = JobSpec {
        container: Some(ContainerSpec::of(image)),
        services: BTreeMap::from([("neighbour".to_owned(), ContainerSpec::of(image))]),
        ..JobSpec::steps("containers", vec![super::jobs::step(Condition::Success, LOOK), action])
    };
    let job = world.forge.ends(world.forge.submit(&job)?, JobResult::Succeeded)?;
    for line in ["in of the image", "neighbours: 1", "action in of the image, set by a step, from a step"] {
        check!(job.log.lines().any(|found| found == line), "«{line}» is not in its log: {}", job.log);
    }
    Ok(())
}

/// Only an image with Docker's client can do this.
fn has(world: &World<'_>, program: &str) -> Result<(), String> {
    let image = world.site.with_docker.as_str();
    let look = ["run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", "command -v \"$0\"", program];
    let (there, _) = told(&look)?;
    if there { Ok(()) } else { Err(cannot(&format!("{image} has no {program} (--docker-image)"))) }
}

fn socket(world: &World<'_>) -> Result<(), String> {
    has(world, "docker")?;
    let registry = world.helper("registry", &["--publish", &format!("127.0.0.1::{PORT}")])?;
    let port = docker(&["port", &registry, &PORT.to_string()])?;
    let port = port.lines().next().and_then(|line| line.rsplit(':').next()).unwrap_or_default().to_owned();
    let image = format!("127.0.0.1:{port}/{NAME}");
    // A path that is the same on the machine and in the runner, without a folder of the machine's.
    let owner = "chown 1001:1001 .";
    let place = |volume: &str| docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", volume]);
    let work = world.volume("work", owner)?;
    let at = place(&work)?;
    let mounts = [format!("--volume={work}:{at}"), "--volume=/var/run/docker.sock:/var/run/docker.sock".to_owned()];
    let group = docker_group(world)?;
    let mut arguments: Vec<&str> = mounts.iter().map(String::as_str).collect();
    // Where Docker is in a control group of its own name the runner refuses containers within containers.
    arguments.extend(["--cgroupns=private", &group]);
    let settings = [("RUNNER_WORKDIR", at.as_str()), ("OSCR_DOCKER_GID0", "true")];
    let runner = world.runner_of(&world.site.with_docker, &settings, &arguments)?;
    world.site.engine.has_guests(&image, runner.host(), &world.site.image);
    world.forge.listening(runner.host(), 0)?;
    lives_in_containers(world, &image)?;
    runner.exits(0)?;
    let left = docker(&["ps", "--all", "--filter", &format!("ancestor={image}"), "--format", "{{.Names}}"])?;
    check!(left.is_empty(), "in the machine's Docker is left: {left}");
    world.forge.empty()
}

/// The group of the machine's socket, for a container that is not root.
fn docker_group(world: &World<'_>) -> Result<String, String> {
    let look = ["run", "--rm", "--network", "none", "--volume", "/var/run/docker.sock:/socket", "--entrypoint", "stat"];
    let group = docker(&[&look[..], &[&world.site.image, "--format", "%g", "/socket"]].concat());
    let group = group.map_err(|why| cannot(&format!("this machine's Docker has no socket here: {why}")))?;
    Ok(format!("--group-add={group}"))
}

/// An engine without root, in a container beside the runner, as `compose.docker-dind.yml` has it.
fn beside(world: &World<'_>) -> Result<(), String> {
    has(world, "dockerd")?;
    has(world, "rootlesskit")?;
    let registry = world.helper("registry", &[])?;
    let image = format!("{registry}:{PORT}/{NAME}");
    let mounts = ["socket:/run/oscr-docker", "work:/work", "roots:/runner"].map(|mount| {
        let (what, at) = mount.split_once(':').unwrap_or((mount, ""));
        world.volume(what, "true").map(|volume| format!("--volume={volume}:{at}"))
    });
    let mounts = mounts.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let engine = engine(world, &mounts, &registry)?;
    let network = format!("--network=container:{engine}");
    let arguments = [&mounts[..], &[&network, "--cgroupns=private"]].concat();
    let settings = [("DOCKER_HOST", "unix:///run/oscr-docker/docker.sock")];
    let runner = world.runner_of(&world.site.with_docker, &settings, &arguments)?;
    // It has the engine's host name, so that its name does not tell it.
    world.forge.listening("", 0)?;
    lives_in_containers(world, &image)?;
    runner.exits(0)?;
    world.forge.empty()
}

/// The engine's container, once it answers.
fn engine(world: &World<'_>, mounts: &[&str], registry: &str) -> Result<String, String> {
    const RIGHTS: [&str; 11] = [
        "--device=/dev/net/tun",
        "--device=/dev/fuse",
        "--cap-drop=ALL",
        "--cap-add=CHOWN",
        "--cap-add=DAC_OVERRIDE",
        "--cap-add=FOWNER",
        "--cap-add=KILL",
        "--cap-add=SETGID",
        "--cap-add=SETUID",
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
    ];
    const MORE: [&str; 3] = [
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
        "--volume=/home/runner/.local/share/docker",
    ];
    let insecure = format!("--insecure-registry={registry}:{PORT}");
    let all = [&RIGHTS[..], &MORE, mounts].concat();
    let engine = world.container("engine", &world.site.with_docker, &all, ["/opt/oscr/docker-rootless.sh", &insecure]);
    let engine = engine.map_err(|why| cannot(&format!("an engine beside it does not start here: {why}")))?;
    let until = Instant::now() + patient(LIMIT);
    loop {
        let ask = ["exec", &engine, "docker", "--host", "unix:///run/oscr-docker/docker.sock", "version"];
        if told(&ask)?.0 {
            return Ok(engine);
        }
        let running = docker(&["inspect", "--format", "{{.State.Running}}", &engine])?;
        if running != "true" || Instant::now() > until {
            let said = super::super::forge::last_of(&told(&["logs", &engine])?.1);
            return Err(cannot(&format!("an engine beside it does not start here: {said}")));
        }
        thread::sleep(Duration::from_millis(500));
    }
}
