//! What one test has to itself: a compose project with a forge, and the runners that it starts there.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::docker::{self, Container, command, program};
use crate::forge::Forge;
use crate::provider::{AZURE_DEVOPS, GITHUB, Provider};

/// The image under test, as `make images` tags it; or another one, named when the tests are compiled.
pub const IMAGE: &str = match option_env!("OSCR_TEST_IMAGE") {
    Some(image) => image,
    None => "oddessentials/oscr-github:sim",
};

/// Its tag.
pub fn tag() -> &'static str {
    IMAGE.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

/// The user of jobs in it.
pub const RUNNER: &str = "1001";

/// How a runner registers, and with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Token,
    Jit,
    AzureDevOps,
}

impl Mode {
    /// As tests are called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Jit => "jit",
            Self::AzureDevOps => "azure-devops",
        }
    }

    pub fn provider(self) -> &'static Provider {
        match self {
            Self::Token | Self::Jit => &GITHUB,
            Self::AzureDevOps => &AZURE_DEVOPS,
        }
    }

    /// The end of the path of the first request by which it registers.
    pub fn request(self) -> &'static str {
        match self {
            Self::Token => "/registration-token",
            Self::Jit => "/generate-jitconfig",
            Self::AzureDevOps => "/distributedtask/pools",
        }
    }
}

/// The name of everything that a test makes begins with this, and with what `.ci/run` looks for, if it runs us.
pub fn project_name(test: &str) -> String {
    let prefix = std::env::var("OSCR_TEST_PREFIX").unwrap_or_else(|_| format!("oscr-test-{}", std::process::id()));
    let name: String = test.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    // It becomes part of names that the forge and the resolver limit.
    format!("{prefix}-{:.32}-{:x}", name, random() & 0xffff)
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The folder of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A test's own project. Everything in it is gone when this is.
pub struct World {
    project: String,
    pub mode: Mode,
    pub forge: Forge,
    /// The token that the forge accepts.
    pub pat: String,
    /// The environment of `docker compose` and `docker run`.
    settings: Mutex<BTreeMap<String, String>>,
    /// Compose files besides the project's own and the tests'.
    overrides: Mutex<Vec<&'static str>>,
    /// What was started by `docker run`.
    extra: Mutex<Vec<Container>>,
    /// What images are called here and nowhere else.
    names: Mutex<Vec<String>>,
    /// Of this machine, for files that containers are given.
    pub folder: TempDir,
}

/// Removes a project, whatever has been made of it.
struct Remove<'a>(&'a World);

impl Drop for Remove<'_> {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl World {
    /// A project in which a forge is up.
    pub fn start(test: &str, mode: Mode) -> Self {
        let pat = format!("ghp_{:016x}{:016x}0000", random(), random());
        let provider = mode.provider();
        let mut settings = vec![
            ("FORGE_PAT", pat.as_str()),
            ("FORGE_IMAGE", option_env!("OSCR_TEST_FORGE_IMAGE").unwrap_or("oddessentials/oscr-forge:sim")),
            (provider.token, &pat),
            ("CI_PROVIDER", provider.name),
            ("COMPOSE_PROFILES", provider.name),
            ("OSCR_TAG", tag()),
            // compose.monitoring.yml is not read without.
            ("GRAFANA_PASSWORD", "of-a-test"),
            // An incarnation's end is soon followed by the next one.
            ("OSCR_MIN_UPTIME", "2s"),
            // What must not be in a log must not be in the longest one.
            ("OSCR_LOG_LEVEL", "debug"),
        ];
        settings.extend(provider.settings);
        if mode == Mode::Jit {
            settings.push(("OSCR_REGISTRATION", "jit"));
        }
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let world = Self {
            project: project_name(test),
            mode,
            forge: Forge::nowhere(),
            pat,
            settings: Mutex::new(settings),
            overrides: Mutex::default(),
            extra: Mutex::default(),
            names: Mutex::default(),
            folder: tempfile::tempdir().expect("a folder for temporary files can be made"),
        };
        world.compose(&["up", "--detach", "forge"]);
        world.forge.moved_to(&world.forge_address());
        world
    }

    /// The project's name, which no other test has.
    pub fn name(&self) -> &str {
        &self.project
    }

    /// The one container of a service.
    #[track_caller]
    pub fn container_of(&self, service: &str) -> Container {
        Container { id: self.compose(&["ps", "--all", "--quiet", "--no-trunc", service]).trim().to_owned() }
    }

    /// Whose runners these are.
    pub fn provider(&self) -> &'static Provider {
        self.mode.provider()
    }

    fn settings(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a variable of what is started from now on; without a value it is unset.
    pub fn set(&self, name: &str, value: impl Into<Option<&'static str>>) {
        match value.into() {
            Some(value) => self.settings().insert(name.to_owned(), value.to_owned()),
            None => self.settings().remove(name),
        };
    }

    /// A tag that no other world has, and no user.
    pub fn tag(&self) -> String {
        self.project.to_lowercase()
    }

    /// A name for an image under that tag, which is gone with the world.
    pub fn image_name(&self, repository: &str, suffix: &str) -> String {
        let name = format!("{repository}:{}{suffix}", self.tag());
        self.names.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        name
    }

    /// Has runners started from now on use another of the project's compose files besides.
    pub fn also(&self, file: &'static str) {
        self.overrides.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    }

    /// Has runners be as `compose.hardened.yml` makes them, with the token in a file as that demands.
    pub fn harden(&self) {
        self.pat_from_file(&self.pat);
        self.also("compose.hardened.yml");
    }

    /// Has runners take their token from a file of this machine instead of a variable. Returns the file.
    pub fn pat_from_file(&self, content: &str) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let provider = self.provider();
        let file = self.folder.path().join("token");
        std::fs::write(&file, format!("{content}\n")).expect("the secret can be written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).expect("the secret's mode can be set");
        let path = file.to_str().expect("a path is text").to_owned();
        self.settings().insert(provider.token_file(), path);
        self.settings().remove(provider.token);
        file
    }

    fn compose_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.in_project(command(&["compose"]));
        command.args(arguments);
        command
    }

    /// A script that says `docker compose` as people do who stand in the folder of this project.
    pub fn shell(&self, script: &str) -> Command {
        self.in_project(program("bash", &["-euo", "pipefail", "-c", script]))
    }

    /// Has Compose, however it is called, mean this project.
    fn in_project(&self, mut command: Command) -> Command {
        let overrides = self.overrides.lock().unwrap_or_else(PoisonError::into_inner);
        let files = ["compose.yml", "tests/containers/compose.yml"].iter().chain(&*overrides);
        let files: Vec<String> = files.map(|file| root().join(file).display().to_string()).collect();
        command.env("COMPOSE_PROJECT_NAME", &self.project).env("COMPOSE_FILE", files.join(":"));
        // The .env of whoever works here has no say.
        command.env("COMPOSE_ENV_FILES", "/dev/null").envs(&*self.settings());
        command
    }

    /// `docker compose`, which must succeed; its standard output.
    #[track_caller]
    pub fn compose(&self, arguments: &[&str]) -> String {
        docker::run(&mut self.compose_command(arguments))
    }

    /// `docker compose up --scale SERVICE=N`; the runners' containers.
    #[track_caller]
    pub fn up(&self, replicas: usize) -> Vec<Container> {
        let scale = format!("{}={replicas}", self.provider().service);
        self.compose(&["up", "--detach", "--scale", &scale]);
        self.containers()
    }

    /// `docker compose up` of one runner.
    #[track_caller]
    pub fn up_one(&self) -> Container {
        let mut all = self.up(1);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// One runner, and the forge as it is.
    #[track_caller]
    pub fn up_without_forge(&self) -> Container {
        self.compose(&["up", "--detach", "--no-deps", self.provider().service]);
        self.containers().remove(0)
    }

    /// The runners' containers.
    #[track_caller]
    pub fn containers(&self) -> Vec<Container> {
        self.compose(&["ps", "--all", "--quiet", "--no-trunc", self.provider().service])
            .lines()
            .map(|id| Container { id: id.to_owned() })
            .collect()
    }

    /// `docker run --detach` of the image, in the project's network, with the variables of the README and `arguments`.
    #[track_caller]
    pub fn docker_run(&self, arguments: &[&str]) -> Container {
        self.docker_run_image(&format!("{}:{}", self.provider().repository, tag()), arguments)
    }

    /// The same with another image.
    #[track_caller]
    pub fn docker_run_image(&self, image: &str, arguments: &[&str]) -> Container {
        let network = format!("{}_default", self.project);
        let mut extra = self.extra.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}-run-{}", self.project, extra.len());
        let mut command = command(&["run", "--detach", "--name", &name, "--network", &network]);
        let provider = self.provider();
        let own = provider.settings.iter().map(|(name, _)| *name).chain([provider.token]);
        for variable in own.chain(["OSCR_REGISTRATION", "OSCR_MIN_UPTIME", "OSCR_LOG_LEVEL"]) {
            if self.settings().contains_key(variable) {
                command.args(["--env", variable]);
            }
        }
        command.args(arguments).arg(image);
        command.envs(&*self.settings());
        let output = docker::output(&mut command);
        // Docker makes the container even where it cannot start it.
        let container = Container { id: name };
        extra.push(container.clone());
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Container { id: String::from_utf8_lossy(&output.stdout).trim().to_owned() }
    }

    /// The runner's image once more, as another one: under a tag of this world's own, and with a label that the other has not.
    #[track_caller]
    pub fn another_image(&self) -> String {
        let repository = self.provider().repository;
        let image = format!("{repository}:{}", self.project);
        let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
        let file = format!("FROM {repository}:{}\nLABEL oscr.test={}\n", tag(), self.project);
        std::fs::write(folder.path().join("Dockerfile"), file).expect("a file can be written");
        docker::run(command(&["build", "--quiet", "--tag", &image]).arg(folder.path()));
        self.names.lock().unwrap_or_else(PoisonError::into_inner).push(image.clone());
        image
    }

    fn forge_address(&self) -> String {
        self.compose(&["port", "forge", "80"]).trim().to_owned()
    }

    /// Takes the forge off the network, and everything that it knows with it.
    pub fn stop_forge(&self) {
        self.compose(&["stop", "--timeout", "0", "forge"]);
    }

    /// Brings an empty forge back.
    pub fn start_forge(&self) {
        self.compose(&["start", "forge"]);
        self.forge.moved_to(&self.forge_address());
    }

    /// What must be so at the end of every test.
    #[track_caller]
    pub fn check(&self) {
        let violations = self.forge.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// What a test prints when it fails: the requests, and the log of every container of whatever service.
    pub fn seen(&self) -> String {
        let said = |arguments: &[&str]| {
            let output = docker::output(&mut command(arguments));
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        let ours = format!("label=com.docker.compose.project={}", self.project);
        let mut text = format!("==== {}: what was seen\nrequests:\n{}", self.project, self.forge.report());
        text += &said(&["ps", "--all", "--filter", &ours]);
        let mut names: Vec<String> =
            said(&["ps", "--all", "--filter", &ours, "--format", "{{.Names}}"]).lines().map(str::to_owned).collect();
        names.extend(self.extra.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|run| run.id.clone()));
        for id in names {
            text += &format!("-- {id}\n{}", Container { id: id.clone() }.logs());
        }
        format!("{text}==== end of {}", self.project)
    }

    fn remove(&self) {
        for container in &*self.extra.lock().unwrap_or_else(PoisonError::into_inner) {
            docker::output(&mut command(&["rm", "--force", "--volumes", &container.id]));
        }
        // Docker can leave an end of the network behind where one is stopped in the moment in which it is started again.
        let ours = format!("label=com.docker.compose.project={}", self.project);
        let listed = docker::output(&mut command(&["ps", "--all", "--quiet", "--filter", &ours]));
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let containers: Vec<&str> = listed.split_whitespace().collect();
        if !containers.is_empty() {
            docker::output(&mut command(&[&["update", "--restart", "no"], &containers[..]].concat()));
        }
        let down =
            docker::output(&mut self.compose_command(&["down", "--volumes", "--remove-orphans", "--timeout", "0"]));
        if !down.status.success() {
            eprintln!("{} cannot be removed: {}", self.project, String::from_utf8_lossy(&down.stderr));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.drain(..).for_each(|name| drop(docker::output(&mut command(&["rmi", &name]))));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _remove = Remove(self);
        if std::thread::panicking() {
            // At once, because other tests print too.
            eprintln!("{}", self.seen());
        }
    }
}
