//! Jobs that ask for containers, on the machine's Docker as `compose.docker-socket.yml` gives it to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use oscr_sim::forge::{ContainerSpec, JobSpec, RunnerView};
use oscr_sim::patience::{LIMIT, patient};
use oscr_sim::protocol::JobResult;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker::{self, Container, POLL, command, docker};
use crate::world::{IMAGE, RUNNER, World};

/// The image of a job's containers, made of one that is here. Only it has this file. Its volume is anonymous.
const DOCKERFILE: &str = r#"
FROM IMAGE
RUN echo "of this image" >/of-this-image
VOLUME /data
HEALTHCHECK --interval=1s --retries=60 CMD ["test", "-e", "/of-this-image"]
ENTRYPOINT []
CMD ["sleep", "infinity"]
"#;

/// A runner, and what its jobs' containers need on the machine.
struct Place {
    /// By the same path on the machine and in the runner. In /tmp, the runner would wipe it.
    folder: TempDir,
    image: String,
    container: Container,
    runner: RunnerView,
    /// What the runner's agent marks its objects with, as PID 1 remembers it.
    label: String,
    /// The agent's root as the machine has it: in a job's container are its `externals`, and no more of it.
    root: PathBuf,
}

/// What of a job's is in Docker.
struct Objects {
    containers: Vec<Value>,
    networks: usize,
    /// Of those containers, and anonymous.
    volumes: Vec<String>,
}

impl Place {
    /// A runner in the control groups of the machine (`host`) or in its own (`private`).
    fn set_up(world: &World, groups: &str) -> Self {
        let name = world.name().to_lowercase();
        let folder = tempfile::Builder::new().prefix(&name).tempdir_in("/srv").expect("a folder in /srv");
        for part in ["work", "given", "image"] {
            fs::create_dir(folder.path().join(part)).expect("a folder can be made");
        }
        let work = folder.path().join("work").display().to_string();
        let (setting, volume) = (format!("RUNNER_WORKDIR={work}"), format!("{work}:{work}"));
        let arguments = ["--cgroupns", groups, "--env", &setting, "--volume", &volume];
        let socket = ["--volume", "/var/run/docker.sock:/var/run/docker.sock"];
        let container = world.docker_run_image(&format!("{IMAGE}-docker"), &[&arguments[..], &socket].concat());
        let runner = world.forge.wait_runner(container.host(), 0);
        let state = container.must_exec("0", "cat /var/lib/oscr/state.json");
        let state: Value = serde_json::from_str(&state).expect("the state is JSON");
        let label = state["docker_labels"][0].as_str().unwrap_or_else(|| panic!("a label: {state}")).to_owned();
        let dockerfile = DOCKERFILE.replace("IMAGE", IMAGE);
        for (file, text) in [("given/word", "of the machine\n"), ("image/Dockerfile", &dockerfile)] {
            fs::write(folder.path().join(file), text).expect("a file can be written");
        }
        let image = format!("{name}:job");
        docker(&["build", "--quiet", "--tag", &image, &folder.path().join("image").display().to_string()]);
        // Docker would make an empty folder. What a user puts there is in docs/docker.md.
        let root = Path::new("/runner").join(&runner.name);
        fs::create_dir_all(root.join("externals")).expect("a folder can be made");
        fs::write(root.join("externals/word"), "of the agent\n").expect("a file can be written");
        Self { folder, image, container, runner, label, root }
    }

    /// A job in a container, with another one beside it.
    fn job(&self, name: &str, steps: Value) -> JobSpec {
        let given = format!("{}:/given", self.folder.path().join("given").display());
        let own = ContainerSpec { volumes: vec![given], ..ContainerSpec::of(&self.image) };
        JobSpec {
            runner: Some(self.runner.name.clone()),
            container: Some(own),
            services: [("neighbour".to_owned(), ContainerSpec::of(&self.image))].into(),
            pull: Some(false),
            ..JobSpec::steps(name, serde_json::from_value(steps).expect("steps"))
        }
    }

    /// Of the job, by its path below what is the same on both sides.
    fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Waits until a step has made this file.
    #[track_caller]
    fn wait_file(&self, world: &World, job: u64, path: &str) {
        let until = Instant::now() + patient(LIMIT);
        while !self.file(path).exists() {
            assert!(Instant::now() < until, "no step made {path}: {}", world.forge.job(job).live);
            thread::sleep(POLL);
        }
    }

    /// The ids of what has the agent's label.
    fn labelled(&self, arguments: &[&str]) -> Vec<String> {
        let filter = format!("label={}", self.label);
        let all = [arguments, &["--quiet", "--no-trunc", "--filter", &filter]].concat();
        let output = docker::output(&mut command(&all));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// One network of the job's.
    #[track_caller]
    fn network(&self) -> String {
        let networks = self.labelled(&["network", "ls"]);
        let [network] = networks.as_slice() else { panic!("one network: {networks:?}") };
        network.clone()
    }

    fn objects(&self) -> Objects {
        let containers = self.labelled(&["ps", "--all"]);
        let containers: Vec<Value> = containers.iter().map(|id| docker::inspect("container", id)).collect();
        let mounts = containers.iter().filter_map(|container| container["Mounts"].as_array()).flatten();
        let volumes = mounts.filter_map(|mount| mount["Name"].as_str()).map(str::to_owned).collect();
        Objects { containers, networks: self.labelled(&["network", "ls"]).len(), volumes }
    }
}

/// The host name of a container.
fn host_of(container: &Value) -> String {
    container["Config"]["Hostname"].as_str().expect("a container has a host name").to_owned()
}

impl Drop for Place {
    fn drop(&mut self) {
        // It makes nothing more.
        docker::output(&mut command(&["kill", &self.container.id]));
        for id in self.labelled(&["ps", "--all"]) {
            docker::output(&mut command(&["rm", "--force", "--volumes", &id]));
        }
        docker::output(&mut command(&["network", "prune", "--force", "--filter", &format!("label={}", self.label)]));
        docker::output(&mut command(&["rmi", "--force", &self.image]));
        let _ = fs::remove_dir_all(&self.root);
        // Unless others have something there.
        let _ = self.root.parent().map(fs::remove_dir);
    }
}

/// Removes volumes.
struct Volumes<'a>(&'a [String]);

impl Volumes<'_> {
    /// So many of them are there.
    fn left(&self) -> usize {
        let there = |volume: &&String| docker::output(&mut command(&["volume", "inspect", volume])).status.success();
        self.0.iter().filter(there).count()
    }
}

impl Drop for Volumes<'_> {
    fn drop(&mut self) {
        for volume in self.0 {
            docker::output(&mut command(&["volume", "rm", "--force", volume]));
        }
    }
}

/// What a step finds in the job's container.
const LOOK: &str = r#"echo "step on $(cat /etc/hostname): $(cat /of-this-image), $(cat /given/word), $(cat /__e/word)"
echo "neighbours: $(getent hosts neighbour | wc -l)"
echo "MARK=set by a step" >>"$GITHUB_ENV"
echo "from a step" >"$GITHUB_WORKSPACE/file"
touch /given/running
until [ -e /given/go-on ]; do sleep 0.1; done
"#;

/// The same in a container of an action, which has the workspace and nothing that the job was given.
const ACT: &str = r#"sh -c "echo action on $(cat /etc/hostname): $MARK, $(cat file), $(cat /of-this-image)
touch acting; until [ -e go-on ]; do sleep 0.1; done""#;

pub fn a_job_in_a_container_with_a_service_and_an_action_leaves_nothing(world: &World) {
    let place = Place::set_up(world, "private");
    let action = format!("docker://{}", place.image);
    let steps = json!([{"run": LOOK}, {"uses": action, "run": "", "args": ACT}]);
    let job = world.forge.submit(&place.job("containers", steps));
    place.wait_file(world, job, "given/running");
    let objects = place.objects();
    let volumes = Volumes(&objects.volumes);
    assert_eq!((objects.containers.len(), objects.networks, volumes.left()), (2, 1, 2), "{:?}", objects.containers);
    let own = objects.containers.iter().find(|container| container["Config"]["Entrypoint"][0] == "tail");
    let own = host_of(own.expect("the job's own container"));
    fs::write(place.file("given/go-on"), "").expect("a file can be written");
    place.wait_file(world, job, "work/widgets/widgets/acting");
    let acting = place.objects();
    let action =
        acting.containers.iter().find(|container| !objects.containers.iter().any(|c| c["Id"] == container["Id"]));
    let action = host_of(action.expect("the action's container"));
    assert_eq!((acting.containers.len(), acting.networks, acting.volumes.len()), (3, 1, 3), "{:?}", acting.containers);
    fs::write(place.file("work/widgets/widgets/go-on"), "").expect("a file can be written");

    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let found = [
        format!("step on {own}: of this image, of the machine, of the agent"),
        "neighbours: 1".to_owned(),
        format!("action on {action}: set by a step, from a step, of this image"),
    ];
    for line in found {
        assert!(job.log.lines().any(|found| found == line), "«{line}» is not in {}", job.log);
    }
    assert_eq!(place.container.wait_exit(LIMIT), 0);
    // The runner removes its containers without their volumes, of which PID 1 was told. Docker removed the action's with it.
    let left = place.objects();
    assert_eq!((left.containers.len(), left.networks, volumes.left()), (0, 0, 0), "{:?}", left.containers);
    let log = place.container.logs();
    assert!(log.contains("removed what a job left in Docker containers=0 images=0 networks=0 volumes=2"), "{log}");
}

pub fn containers_of_a_job_whose_worker_was_killed_are_removed_with_their_volumes(world: &World) {
    let place = Place::set_up(world, "private");
    let job = world.forge.submit(&place.job("killed", json!([{"run": "touch /given/running; sleep 100000"}])));
    let line = place.container.wait_log("the worker is process ", LIMIT);
    let (_, worker) = line.split_once("the worker is process ").expect("it was found by that");
    let worker: String = worker.chars().take_while(char::is_ascii_digit).collect();
    place.wait_file(world, job, "given/running");
    let objects = place.objects();
    let volumes = Volumes(&objects.volumes);
    assert_eq!((objects.containers.len(), objects.networks, volumes.left()), (2, 1, 2), "{:?}", objects.containers);
    // What a job makes by itself stays, and does not keep the job's network.
    let mine = Mine::make(world, &["--network", &place.network()]);
    place.container.must_exec(RUNNER, &format!("kill -KILL {worker}"));

    let job = world.forge.finished(job);
    assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
    assert_eq!(place.container.wait_exit(LIMIT), 0);
    let log = place.container.logs();
    assert!(log.contains("removed what a job left in Docker containers=2 images=0 networks=1"), "{log}");
    let left = place.objects();
    assert_eq!((left.containers.len(), left.networks, volumes.left()), (0, 0, 0), "{:?}", left.containers);
    assert!(mine.runs(), "{log}");
}

/// A container that is nobody's but the test's, and runs.
struct Mine(String);

impl Mine {
    #[track_caller]
    fn make(world: &World, arguments: &[&str]) -> Self {
        let name = format!("{}-mine", world.name().to_lowercase());
        let run = ["run", "--detach", "--name", &name, "--entrypoint", "sleep"];
        docker(&[&run[..], arguments, &[IMAGE, "infinity"]].concat());
        Self(name)
    }

    fn runs(&self) -> bool {
        docker::inspect("container", &self.0)["State"]["Running"] == true
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        docker::output(&mut command(&["rm", "--force", "--volumes", &self.0]));
    }
}

pub fn two_runners_on_one_engine_touch_nothing_of_each_others_or_the_users(world: &World) {
    let [killed, other] = [(); 2].map(|()| Place::set_up(world, "private"));
    assert_ne!(killed.label, other.label);
    let jobs = [&killed, &other].map(|place| {
        world.forge.submit(
            &place.job("two", json!([{"run": "touch /given/running; until [ -e /given/go-on ]; do sleep 0.1; done"}])),
        )
    });
    for (place, job) in [&killed, &other].into_iter().zip(jobs) {
        place.wait_file(world, job, "given/running");
    }
    let (of_killed, of_other) = (killed.objects(), other.objects());
    let (volumes, others) = (Volumes(&of_killed.volumes), Volumes(&of_other.volumes));
    assert_eq!((volumes.left(), others.left()), (2, 2));
    // The user's: a container with an anonymous volume and one of a job's, without a label.
    let adopted = &of_killed.volumes[0];
    let mine = Mine::make(world, &["--volume", "/anonymous", "--volume", &format!("{adopted}:/adopted")]);
    killed.container.kill("KILL");
    killed.container.start();
    killed.container.wait_log("removed what a job left in Docker containers=2 images=0 networks=1 volumes=", LIMIT);

    let left = killed.objects();
    assert_eq!((left.containers.len(), left.networks, volumes.left()), (0, 0, 1), "{:?}", left.containers);
    let of_mine = docker::inspect("container", &mine.0)["Mounts"].as_array().map_or(0, Vec::len);
    assert!(mine.runs() && of_mine == 2);
    let left = other.objects();
    assert_eq!((left.containers.len(), left.networks, others.left()), (2, 1, 2), "{:?}", left.containers);
    fs::write(other.file("given/go-on"), "").expect("a file can be written");
    let job = world.forge.finished(jobs[1]);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(other.container.wait_exit(LIMIT), 0);
    let left = other.objects();
    assert_eq!((left.containers.len(), left.networks, others.left()), (0, 0, 0), "{:?}", left.containers);
    assert!(mine.runs());
}

pub fn a_start_and_doctor_say_what_containers_of_jobs_would_miss(world: &World) {
    // Docker follows the link, and shows it.
    let socket = world.folder.path().join("docker.sock");
    std::os::unix::fs::symlink("/run/docker.sock", &socket).expect("a link can be made");
    let shown = format!("{}:/var/run/docker.sock", socket.display());
    let arguments = ["--cgroupns", "host", "--volume", &shown];
    let container = world.docker_run_image(&format!("{IMAGE}-docker"), &arguments);
    world.forge.wait_runner(container.host(), 0);
    let unseen = "Docker does not see what is in /work, /runner";
    let elsewhere = format!("jobs {}", socket.display());
    let (log, doctor) = (container.logs(), container.exec("0", "oscr-entry doctor").1);
    for said in [&log, &doctor] {
        assert!(said.contains(unseen) && said.contains(&elsewhere), "{said}");
    }
    assert!(doctor.contains("the client here speaks API 1."), "{doctor}");
    let check = container.must_exec("0", "oscr-entry check");
    let groups = container.must_exec("0", "cat /proc/1/cgroup");
    for said in [&log, &doctor, &check] {
        assert_eq!(said.contains("--cgroupns private"), groups.contains(":/docker/"), "{groups}{said}");
    }
    assert_eq!(container.must_exec("0", "ls -A /work").trim(), "", "what was made to be seen is gone");
}

pub fn a_job_in_a_container_is_refused_where_pid_1_is_in_a_control_group_of_docker(world: &World) {
    let place = Place::set_up(world, "host");
    let groups = place.container.must_exec("0", "cat /proc/1/cgroup");
    if !groups.contains(":/docker/") {
        return println!("not tried: this machine's Docker calls its control groups otherwise: {groups}");
    }
    let job = world.forge.finished(world.forge.submit(&place.job("refused", json!([{"run": "true"}]))));
    assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
    let errors: Vec<&str> = job.log.lines().filter_map(|line| line.strip_prefix("##[error]")).collect();
    let refused = "Container feature is not supported when runner is already running inside container.";
    assert_eq!(errors, [refused, "Value cannot be null. (Parameter 'network')"], "{}", job.log);
    assert_eq!(place.container.wait_exit(LIMIT), 0);
}
