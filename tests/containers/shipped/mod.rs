//! The compose files as users have them: nothing is added to them, and all that varies is in an `.env`.

pub mod boards;
pub mod monitoring;
pub mod ollama;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use oscr_sim::forge::{Job, JobSpec, JobStatus};
use oscr_sim::patience::LIMIT;
use oscr_sim::protocol::JobResult;

use crate::docker::{self, Container, command};
use crate::jobs_docker::rootless_works_here;
use crate::provider::GITHUB;
use crate::world::{IMAGE, World, root};

/// The project's own files, with an `.env` of a user who has filled in the example. In the project of a world, so that
/// runners reach the forge and go with it. The images are those under test, by the very names that the files have, under a tag
/// that only the world has: a name without one may be the user's.
struct Shipped<'a> {
    world: &'a World,
    env: PathBuf,
}

/// The names in what is said of a file before its first line.
fn named_at_the_head(file: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
    let words = head.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.map(str::to_owned).collect()
}

impl<'a> Shipped<'a> {
    /// What varies are these values, each of a variable that the head of one of the files names, or the example that such a head
    /// names in turn.
    fn new(world: &'a World, files: &str, values: &[(&str, &str)]) -> Self {
        let mut env = fs::read_to_string(root().join(".env.example")).expect("the project's files can be read");
        let mut named: Vec<String> = files.split(':').flat_map(named_at_the_head).collect();
        assert!(named.iter().any(|name| name == "env"), "{files} says where settings go");
        named.extend(env.lines().filter_map(|line| Some(line.trim_start_matches('#').split_once('=')?.0.to_owned())));
        let tag = world.tag();
        let common = [("COMPOSE_FILE", files), ("OSCR_TAG", tag.as_str())];
        for (name, value) in common.iter().chain(values) {
            assert!(named.iter().any(|known| known == name), "no head of {files} names {name}");
            let line = format!("\n{name}=");
            match env.find(&line).map(|start| start + line.len()) {
                // As one fills it in.
                Some(start) => env.insert_str(start, &format!("{value}\n#{name}=")),
                None => env += &format!("{name}={value}\n"),
            }
        }
        let file = world.folder.path().join("env");
        fs::write(&file, env).expect("an .env can be written");
        let image = format!("{}:{}", world.provider().repository, crate::world::tag());
        for suffix in ["", "-sudo", "-docker", "-docker-cli"] {
            let name = world.image_name(world.provider().repository, suffix);
            // There is none with the client alone, nor is any of Azure DevOps' with more than nothing.
            let variant =
                if world.provider().repository == GITHUB.repository { suffix.trim_end_matches("-cli") } else { "" };
            docker::docker(&["tag", &format!("{image}{variant}"), &name]);
        }
        Self { world, env: file }
    }

    /// One runner for the repository, or the pool, that the world's forge has.
    fn of_compose_yml(world: &'a World, files: &str, values: &[(&str, &str)]) -> Self {
        let provider = world.provider();
        let own = [("CI_PROVIDER", provider.name), (provider.token, &world.pat)];
        Self::new(world, files, &[&own[..], provider.settings, values].concat())
    }

    /// `docker compose` in the project's folder, which must succeed; its standard output.
    #[track_caller]
    fn compose(&self, arguments: &[&str]) -> String {
        docker::run(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&["compose", "--project-name", self.world.name(), "--env-file"]);
        command.arg(&self.env).args(arguments).current_dir(root());
        command
    }

    #[track_caller]
    fn containers(&self, service: &str) -> Vec<Container> {
        let ids = self.compose(&["ps", "--all", "--quiet", "--no-trunc", service]);
        ids.lines().map(|id| Container { id: id.to_owned() }).collect()
    }

    /// All that the files have, and in it one runner, which listens.
    #[track_caller]
    fn up_one(&self) -> Container {
        let container = self.up();
        wait_listening(self.world, 1);
        container
    }

    /// The same, of which nobody knows whether it can listen.
    #[track_caller]
    fn up(&self) -> Container {
        self.compose(&["up", "--detach"]);
        self.containers(self.world.provider().service).remove(0)
    }

    /// Leaves nothing but the forge, so that other files can have their turn in the same world.
    #[track_caller]
    fn down(self) {
        let services = self.compose(&["config", "--services"]);
        let rm = ["rm", "--stop", "--force", "--volumes"];
        self.compose(&rm.into_iter().chain(services.lines()).collect::<Vec<_>>());
    }

    /// Runs a job to its end, which must be a good one; its log. The runner has no life after it: a stop between two lives can get
    /// lost, and Docker would wait for its whole patience.
    #[track_caller]
    fn job(&self, name: &str, script: &str) -> String {
        let runner = self.containers(self.world.provider().service).remove(0);
        docker::docker(&["update", "--restart", "no", &runner.id]);
        let id = self.world.forge.submit(&JobSpec::script(name, script));
        let log = succeeded(self.world, id).log;
        runner.wait_exit(LIMIT);
        log
    }

    /// Has a job look at what it was given, which must be this.
    #[track_caller]
    fn gives(&self, wanted: [&str; 3]) {
        self.gives_and_does(wanted, "");
    }

    /// The same with a job that has something to do besides. Its log.
    #[track_caller]
    fn gives_and_does(&self, wanted: [&str; 3], script: &str) -> String {
        let log = self.job("looks", &format!("{GIVEN}{script}"));
        let missing: Vec<&str> = wanted.into_iter().filter(|line| !log.lines().any(|found| found == *line)).collect();
        assert!(missing.is_empty(), "not so: {missing:?}: {log}");
        log
    }
}

/// How a job finds out what the files gave it.
const GIVEN: &str = r#"
echo "the image can be $(awk '$2 == "/" { print $4 }' /proc/mounts | grep -q '^ro' && echo read || echo written)"
echo "sudo makes $(sudo -n id -u 2>/dev/null || echo nobody)"
echo "Docker $(docker info >/dev/null 2>&1 && echo answers || echo is silent)"
"#;
const WRITTEN: &str = "the image can be written";
const READ: &str = "the image can be read";
const ROOT: &str = "sudo makes 0";
const NOBODY: &str = "sudo makes nobody";
const DOCKER: &str = "Docker answers";
const NO_DOCKER: &str = "Docker is silent";

/// Waits until so many runners listen: five at once take their time to start.
#[track_caller]
fn wait_listening(world: &World, runners: usize) {
    let condition = format!("min_runners={runners}&online=true&idle=true");
    world.forge.wait(&condition, LIMIT).unwrap_or_else(|why| panic!("{runners} runners should listen: {why}"));
}

/// Waits until Docker calls it healthy. It may do so already: then the event may be forgotten, because Docker keeps few.
#[track_caller]
fn wait_healthy(container: &Container) {
    if container.inspect()["State"]["Health"]["Status"] != "healthy" {
        container.wait_event("health_status: healthy", LIMIT);
    }
}

#[track_caller]
fn succeeded(world: &World, id: u64) -> Job {
    let job = world.forge.wait_job(id, JobStatus::Completed, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    job
}

/// One runner of `compose.yml` and these files, among them the hardened one, which wants the token as a file.
fn hardened<'a>(world: &'a World, files: &str, values: &[(&str, &str)]) -> Shipped<'a> {
    let (token, file) = (world.pat_from_file(&world.pat), world.provider().token_file());
    let token = [(file.as_str(), token.to_str().expect("a path is text")), (world.provider().token, "")];
    Shipped::of_compose_yml(world, files, &[&token[..], values].concat())
}

pub fn a_job_on_compose_yml_has_neither_sudo_nor_docker(world: &World) {
    let shipped = Shipped::of_compose_yml(world, "compose.yml", &[]);
    shipped.up_one();
    shipped.gives([WRITTEN, NOBODY, NO_DOCKER]);
}

pub fn a_job_on_compose_hardened_yml_cannot_change_the_image(world: &World) {
    let shipped = hardened(world, "compose.yml:compose.hardened.yml", &[]);
    let container = shipped.up_one();
    wait_healthy(&container);
    let (changed, said) = container.exec("0", "touch /etc/changed");
    assert!(!changed && said.contains("Read-only file system"), "{said}");
    let keep = "cd \"$HOME\" && echo kept >file && cp file /work/ && cat /work/file\n";
    let log = shipped.gives_and_does([READ, NOBODY, NO_DOCKER], keep);
    assert!(log.contains("kept\n"), "{log}");
    shipped.down();

    let shipped = hardened(world, "compose.yml:compose.hardened.yml:compose.docker-socket.yml", &[]);
    shipped.up_one();
    shipped.gives([READ, NOBODY, DOCKER]);
    shipped.down();
    let shipped = hardened(world, "compose.yml:compose.hardened.yml:compose.sudo.yml", &[]);
    shipped.up_one();
    shipped.gives([READ, ROOT, NO_DOCKER]);
}

/// An image of GitHub's with all that jobs can be given, as `docker compose build` makes it for several files.
fn with_everything(world: &World, suffix: &str) {
    let recipe = format!(
        "FROM {IMAGE}-docker\nUSER root\nRUN OSCR_SUDO=true /opt/oscr/extras.sh\nRUN [\"oscr-entry\", \"baseline\"]\nENV OSCR_SUDO=true\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("Dockerfile"), recipe).expect("a file");
    let name = world.image_name(GITHUB.repository, suffix);
    docker::run(command(&["build", "--quiet", "--tag", &name]).arg(folder.path()));
}

pub fn a_job_on_compose_sudo_yml_can_be_root(world: &World) {
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.sudo.yml", &[]);
    wait_healthy(&shipped.up_one());
    shipped.gives([WRITTEN, ROOT, NO_DOCKER]);
    shipped.down();

    // The last file names the image. One without sudo, and then one with both.
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.sudo.yml:compose.docker-socket.yml", &[]);
    let container = shipped.up_one();
    container.wait_log("jobs are to have sudo, and this image has none", LIMIT);
    shipped.gives([WRITTEN, NOBODY, DOCKER]);
    with_everything(world, "-docker-cli");
    shipped.up_one();
    shipped.gives([WRITTEN, ROOT, DOCKER]);
    shipped.down();
    if rootless_works_here() {
        world.also("compose.docker-dind.yml");
        let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.sudo.yml:compose.docker-dind.yml", &[]);
        with_everything(world, "-docker");
        shipped.up_one();
        shipped.gives([WRITTEN, ROOT, DOCKER]);
    }
}

pub fn a_job_on_compose_docker_socket_yml_has_the_machines_docker(world: &World) {
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.docker-socket.yml", &[]);
    shipped.up_one();
    let mine = format!("docker inspect --format 'this is {{{{.Name}}}}' {}\n", world.container_of("forge").id);
    let log = shipped.gives_and_does([WRITTEN, NOBODY, DOCKER], &mine);
    assert!(log.contains(&format!("this is /{}", world.name())), "{log}");
}

/// What `compose.docker-own.yml` is told, so that an engine in the runner's container starts on this machine; if it cannot, nothing.
fn own_engine_here() -> Option<&'static [(&'static str, &'static str)]> {
    let runtimes = docker::docker(&["info", "--format", "{{json .Runtimes}}"]);
    let privileged = ["run", "--rm", "--privileged", "--entrypoint", "true", IMAGE];
    if runtimes.contains("\"sysbox-runc\"") {
        Some(&[])
    } else if docker::output(&mut command(&privileged)).status.success() {
        Some(&[("OSCR_RUNTIME", "runc"), ("OSCR_PRIVILEGED", "true")])
    } else {
        println!(
            "not tried: this machine has no Sysbox and starts no privileged container, so no engine of a runner's own starts"
        );
        None
    }
}

pub fn a_job_on_compose_docker_own_yml_has_an_engine_or_the_log_says_why_not(world: &World) {
    let here = own_engine_here();
    let values = here.unwrap_or(&[("OSCR_RUNTIME", "runc")]);
    let tried = |shipped: &Shipped, given: [&str; 3]| {
        let container = shipped.up();
        if here.is_some() {
            wait_listening(world, 1);
            shipped.gives(given);
        } else {
            let why = container.wait_log("which every engine must", LIMIT);
            assert!(why.contains("OSCR_RUNTIME=sysbox-runc") && why.contains("OSCR_PRIVILEGED=true"), "{why}");
        }
        container
    };
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.docker-own.yml", values);
    let container = tried(&shipped, [WRITTEN, NOBODY, DOCKER]);
    if here.is_none() {
        container.wait_log("no job is taken without Docker: the engine ended", LIMIT);
        assert!(world.forge.runners().is_empty());
    }
    shipped.down();
    let shipped = hardened(world, "compose.yml:compose.hardened.yml:compose.docker-own.yml", values);
    tried(&shipped, [READ, NOBODY, DOCKER]);
    shipped.down();
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.sudo.yml:compose.docker-own.yml", values);
    if here.is_some() {
        with_everything(world, "-docker");
    }
    tried(&shipped, [WRITTEN, ROOT, DOCKER]);
}

/// Says something to whoever comes, at a port of all of this machine's addresses.
fn serve() -> u16 {
    let server = TcpListener::bind("0.0.0.0:0").expect("a port of this machine");
    let port = server.local_addr().expect("it has an address").port();
    thread::spawn(move || {
        for mut guest in server.incoming().flatten() {
            // One that is gone again has heard enough.
            let _ = guest.write_all(b"this is the machine\n");
        }
    });
    port
}

pub fn a_job_on_compose_host_yml_reaches_this_machine_by_a_name(world: &World) {
    let visit = format!("cat </dev/tcp/host.docker.internal/{}\n", serve());
    let mut with = vec!["compose.yml:compose.host.yml"];
    if rootless_works_here() {
        world.also("compose.docker-dind.yml");
        with.push("compose.yml:compose.docker-dind.yml:compose.docker-dind.host.yml");
    }
    for files in with {
        let shipped = Shipped::of_compose_yml(world, files, &[]);
        shipped.up_one();
        let log = shipped.job("visit", &visit);
        assert!(log.contains("this is the machine\n"), "{files}: {log}");
        shipped.down();
    }
}

/// With Azure DevOps' image, which has nothing of what may be added.
pub fn with_each_compose_file_a_start_says_what_its_image_lacks(world: &World) {
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.sudo.yml", &[]);
    shipped.up_one().wait_log("jobs are to have sudo, and this image has none", LIMIT);
    shipped.gives([WRITTEN, NOBODY, NO_DOCKER]);
    shipped.down();

    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.docker-socket.yml", &[]);
    let container = shipped.up_one();
    let lacks = "jobs are to have Docker, and this image has no client";
    container.wait_log(lacks, LIMIT);
    for command in ["check", "doctor"] {
        let said = container.exec("0", &format!("oscr-entry {command}")).1;
        assert_eq!(said.matches(lacks).count(), 1, "{said}");
    }
    shipped.gives([WRITTEN, NOBODY, NO_DOCKER]);
    shipped.down();

    let values = [("OSCR_RUNTIME", "runc"), ("OSCR_DOCKER_WAIT", "1s")];
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.docker-own.yml", &values);
    let lacks = "jobs are to have an engine of their own, and this image has none";
    shipped.up().wait_log(lacks, LIMIT);
    let check = docker::output(&mut shipped.command(&["run", "--rm", world.provider().service, "check"]));
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(!check.status.success() && said.contains(lacks), "{said}");
    shipped.down();

    world.also("compose.docker-dind.yml");
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.docker-dind.yml", &values[1..]);
    shipped.up().wait_log("this image has no client", LIMIT);
    shipped.containers("azure-docker").remove(0).wait_log("this image has no dockerd", LIMIT);
    assert!(world.forge.runners().is_empty());
    shipped.down();
}

pub fn a_job_on_compose_docker_dind_yml_has_an_engine(world: &World) {
    if !rootless_works_here() {
        return;
    }
    // For what its volumes are called when the world is removed.
    world.also("compose.docker-dind.yml");
    let shipped = Shipped::of_compose_yml(world, "compose.yml:compose.docker-dind.yml", &[]);
    wait_healthy(&shipped.up_one());
    let ask = "docker version --format 'server {{.Server.Version}}'\n\
        docker info --format 'rootless {{.SecurityOptions}}, containers {{.Containers}}'\n";
    let log = shipped.job("docker", ask);
    assert!(log.contains("server ") && log.contains("name=rootless") && log.contains("containers 0\n"), "{log}");
}
