//! The Docker side of a job: its own container, its services, and actions that are images, all by the command line of
//! Docker.
//!
//! What is asked of Docker, in which order and with which flags, is the official runner's. Its own quirks are among it:
//! the socket that is mounted is always `/var/run/docker.sock`, and containers are removed without their anonymous volumes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::agent::pause;
use crate::scale::Scale;

mod commands;
mod docker;
mod paths;
mod spec;
#[cfg(test)]
mod tests;
mod words;

use docker::{Docker, random_hex};
use spec::Spec;

/// The least version of Docker's interface, of the daemon and of its client.
const LEAST: (u32, u32) = (1, 35);
/// Tries of each pull.
const PULLS: u32 = 3;

/// Where a job's files are on the runner's side.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Places {
    /// The agent's root, with its configuration and `externals`.
    pub(in crate::agent) root: PathBuf,
    pub(in crate::agent) work: PathBuf,
    pub(in crate::agent) temp: PathBuf,
    pub(in crate::agent) tools: PathBuf,
    pub(in crate::agent) workspace: PathBuf,
}

/// What of the machine a job's containers depend on.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Machine {
    /// The command line of Docker.
    pub(in crate::agent) docker: PathBuf,
    /// The control groups of PID 1.
    pub(in crate::agent) cgroup: PathBuf,
    /// How long pauses are.
    pub(in crate::agent) scale: Scale,
}

impl Machine {
    /// The machine as it is.
    pub(in crate::agent) fn here(scale: Scale) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("docker")).find(|program| program.is_file());
        Self { docker: found.unwrap_or_else(|| "docker".into()), cgroup: "/proc/1/cgroup".into(), scale }
    }
}

/// A container of this job.
#[derive(Debug)]
struct Container {
    spec: Spec,
    /// The name by which the others reach a service; the job's own container has none.
    service: Option<String>,
    name: String,
    /// Once it is created.
    id: Option<String>,
}

/// The containers of one job.
#[derive(Debug)]
pub(in crate::agent) struct Containers {
    places: Places,
    machine: Machine,
    docker: Docker,
    label: String,
    /// The job's own first, as it is started first.
    all: Vec<Container>,
    pull: bool,
    mounts_temp: bool,
    /// Once it is made.
    network: Option<String>,
    /// `PATH` in the job's own container.
    path: String,
}

/// Where the lines of a log go.
pub(in crate::agent) type Lines<'a> = &'a mut dyn FnMut(&str);

impl Containers {
    /// The containers that a job's message asks for. There may be none: a step can still be an image.
    ///
    /// # Errors
    ///
    /// When the runner's configuration cannot be read, from which follows by what its containers are known.
    pub(in crate::agent) fn of(message: &Value, places: Places, machine: Machine) -> Result<Self, String> {
        let configuration = places.root.join(".runner");
        let text = fs::read_to_string(&configuration).map_err(|why| format!("{}: {why}", configuration.display()))?;
        let own = spec::container(&message["jobContainer"]).map(|spec| (None, spec));
        let services = spec::services(&message["jobServiceContainers"]);
        let services = services.into_iter().map(|(alias, spec)| (Some(alias), spec));
        let container = |(service, spec): (Option<String>, Spec)| Container {
            name: format!("{}_{}", random_hex(32), name_of(&spec.image)),
            id: None,
            spec,
            service,
        };
        let variable = |name: &str| message["variables"][name]["value"].as_str();
        Ok(Self {
            docker: Docker { program: machine.docker.clone(), folder: places.workspace.clone() },
            label: label(&text),
            all: own.into_iter().chain(services).map(container).collect(),
            pull: variable("oscr.sim.pull") != Some("false"),
            mounts_temp: variable("actions_container_action_runner_temp") == Some("true"),
            network: None,
            path: String::new(),
            places,
            machine,
        })
    }

    /// Whether there is anything to initialize, and to stop.
    pub(in crate::agent) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether steps run in a container.
    pub(in crate::agent) fn has_own(&self) -> bool {
        self.own().is_some()
    }

    fn own(&self) -> Option<&Container> {
        self.all.iter().find(|container| container.service.is_none())
    }

    /// The part of the job's set-up that gets the image of a step.
    ///
    /// # Errors
    ///
    /// When it cannot be got.
    pub(in crate::agent) fn pull_action(&self, image: &str, log: Lines<'_>) -> Result<(), String> {
        log(&format!("##[group]Pull down action image '{image}'"));
        self.fetch(image, log)?;
        log("##[endgroup]");
        Ok(())
    }

    /// The step "Initialize containers".
    ///
    /// # Errors
    ///
    /// The step's error. What it made until then is there for [`Self::stop`].
    pub(in crate::agent) fn initialize(&mut self, log: Lines<'_>) -> Result<(), String> {
        let groups = fs::read_to_string(&self.machine.cgroup)
            .map_err(|why| format!("{}: {why}", self.machine.cgroup.display()))?;
        if groups.to_lowercase().contains(":/docker/") {
            return Err("Container feature is not supported when runner is already running inside container.".into());
        }
        self.check_version(log)?;
        self.remove_leftovers(log)?;
        log("##[group]Create local container network");
        let network = format!("github_network_{}", random_hex(32));
        let code = self.docker.run(&["network", "create", "--label", &self.label, &network], log)?;
        // Known even if it was not made: the official runner removes it by that name.
        self.network = Some(network);
        if code != 0 {
            return Err(format!("Docker network create failed with exit code {code}"));
        }
        log("##[endgroup]");
        for at in 0..self.all.len() {
            self.start(at, log)?;
        }
        self.wait_for_services(log)
    }

    fn check_version(&self, log: Lines<'_>) -> Result<(), String> {
        log("##[group]Checking docker version");
        let mut found = Vec::new();
        for (side, title) in [("Server", "daemon"), ("Client", "client")] {
            // The quotes are part of the argument, and come back in the answer.
            let format = format!("'{{{{.{side}.APIVersion}}}}'");
            let version = self.docker.ask(&["version", "--format", &format], log)?.into_iter().next();
            let version =
                version.ok_or_else(|| format!("Value cannot be null. (Parameter 'Docker.{side}.Version')"))?;
            log(&format!("Docker {title} API version: {version}"));
            found.push((side.to_lowercase(), version.trim_matches('\'').to_owned()));
        }
        log("##[endgroup]");
        for (side, version) in found {
            let numbers = version.split_once('.').and_then(|(major, rest)| {
                let minor = rest.split('.').next().unwrap_or_default();
                Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
            });
            if numbers.is_none_or(|numbers| numbers < LEAST) {
                return Err(format!(
                    "Min required docker engine API {side} version is '{}.{}', your docker ('{}') {side} version is \
                     '{version}'",
                    LEAST.0,
                    LEAST.1,
                    self.docker.program.display()
                ));
            }
        }
        Ok(())
    }

    fn remove_leftovers(&self, log: Lines<'_>) -> Result<(), String> {
        log("##[group]Clean up resources from previous jobs");
        let filter = format!("label={}", self.label);
        for id in self.docker.ask(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter], log)? {
            let code = self.docker.run(&["rm", "--force", &id], log)?;
            if code != 0 {
                log(&format!(
                    "##[warning]Delete stale containers failed, docker rm fail with exit code {code} for container {id}"
                ));
            }
        }
        let code = self.docker.run(&["network", "prune", "--force", "--filter", &filter], log)?;
        if code != 0 {
            log(&format!(
                "##[warning]Delete stale container networks failed, docker network prune fail with exit code {code}"
            ));
        }
        log("##[endgroup]");
        Ok(())
    }

    /// An image that must be here is only looked at; every other one is pulled, even if it is here.
    fn fetch(&self, image: &str, log: Lines<'_>) -> Result<(), String> {
        if !self.pull {
            return self.docker.ask(&["image", "inspect", "--format", "{{.Id}}", image], log).map(drop);
        }
        let mut tried = 0;
        loop {
            let code = self.docker.run(&["pull", image], log)?;
            tried += 1;
            if code == 0 {
                return Ok(());
            }
            if tried == PULLS {
                return Err(format!("Docker pull failed with exit code {code}"));
            }
            let pause = self.machine.scale.ms(pause::between(1_000, 10_000));
            log(&format!(
                "##[warning]Docker pull failed with exit code {code}, back off {} seconds before retry.",
                pause.as_secs_f64()
            ));
            std::thread::sleep(pause);
        }
    }

    fn start(&mut self, at: usize, log: Lines<'_>) -> Result<(), String> {
        let container = &self.all[at];
        match &container.service {
            None => log("##[group]Starting job container"),
            Some(alias) => log(&format!("##[group]Starting {alias} service container")),
        }
        self.fetch(&container.spec.image, log)?;
        let arguments = self.create_arguments(container)?;
        let id = self.docker.ask(&arguments, log)?.into_iter().next();
        let id = id.ok_or("Value cannot be null. (Parameter 'ContainerId')")?;
        let of_job = container.service.is_none();
        self.all[at].id = Some(id.clone());
        let code = self.docker.run(&["start", &id], log)?;
        if code != 0 {
            return Err(format!("Docker start fail with exit code {code}"));
        }
        self.look_whether_it_runs(&id, log);
        if of_job {
            let environment = "{{range .Config.Env}}{{println .}}{{end}}";
            let lines = self.docker.ask(&["inspect", "--format", environment, &id], log)?;
            let path = lines.iter().find_map(|line| line.strip_prefix("PATH="));
            self.path = path.unwrap_or_default().to_owned();
        } else {
            self.docker.ask(&["port", &id], log)?;
        }
        log("##[endgroup]");
        Ok(())
    }

    /// The official runner says that a container does not run, and goes on.
    fn look_whether_it_runs(&self, id: &str, log: Lines<'_>) {
        const FORMAT: &str = "{{.ID}} {{.Status}}";
        let of_it = format!("id={id}");
        let running =
            ["ps", "--all", "--filter", &of_it, "--filter", "status=running", "--no-trunc", "--format", FORMAT];
        let Ok(lines) = self.docker.ask(&running, log) else { return };
        if lines.first().is_some_and(|line| line.starts_with(id)) {
            return;
        }
        // Both only show in the log why.
        let _ = self.docker.ask(&["ps", "--all", "--filter", &of_it, "--no-trunc", "--format", FORMAT], log);
        let _ = self.docker.run(&["logs", "--details", id], log);
        log(&format!("##[warning]Docker container {id} is not in running state."));
    }

    fn wait_for_services(&self, log: Lines<'_>) -> Result<(), String> {
        log("##[group]Waiting for all services to be ready");
        let mut failed = Vec::new();
        for container in &self.all {
            let (Some(alias), Some(id)) = (&container.service, &container.id) else { continue };
            if !self.becomes_healthy(alias, id, log)? {
                failed.push((alias, id, &container.spec.image));
            }
        }
        log("##[endgroup]");
        for (alias, id, image) in &failed {
            log(&format!("##[group]Service container {alias} failed."));
            self.docker.run(&["logs", "--details", id], log)?;
            log(&format!("##[error]Failed to initialize container {image}"));
            log("##[endgroup]");
        }
        if failed.is_empty() { Ok(()) } else { Err("One or more containers failed to start.".into()) }
    }

    /// A service without a health check is healthy.
    fn becomes_healthy(&self, alias: &str, id: &str, log: Lines<'_>) -> Result<bool, String> {
        let format = "--format={{if .Config.Healthcheck}}{{print .State.Health.Status}}{{end}}";
        let mut pause = Duration::from_secs(2);
        loop {
            let lines = self.docker.ask(&["inspect", format, id], log)?;
            match lines.first().map_or("", String::as_str) {
                "" => return Ok(true),
                "healthy" => {
                    log(&format!("{alias} service is healthy."));
                    return Ok(true);
                }
                "starting" => {}
                _ => return Ok(false),
            }
            log(&format!("{alias} service is starting, waiting {} seconds before checking again.", pause.as_secs()));
            std::thread::sleep(self.machine.scale.of(pause));
            pause = (pause * 2).min(Duration::from_secs(32));
        }
    }

    /// The step "Stop containers", whose condition is `always()`. It is due once [`Self::initialize`] has begun.
    ///
    /// # Errors
    ///
    /// The step's error: without a network there is nothing that it could remove.
    pub(in crate::agent) fn stop(&mut self, log: Lines<'_>) -> Result<(), String> {
        for container in &mut self.all {
            let Some(id) = container.id.take() else { continue };
            log(&format!("Stop and remove container: {}", container.name));
            let code = self.docker.run(&["rm", "--force", &id], log)?;
            if code != 0 {
                log(&format!("##[warning]Docker rm fail with exit code {code}"));
            }
        }
        let network = self.network.take().ok_or("Value cannot be null. (Parameter 'network')")?;
        log(&format!("Remove container network: {network}"));
        let code = self.docker.run(&["network", "rm", &network], log)?;
        if code != 0 {
            log(&format!("##[warning]Docker network rm failed with exit code {code}"));
        }
        Ok(())
    }
}

/// By what the runner knows its containers: the first six digits of a hash of its configuration, in lower case and without
/// the byte order mark.
fn label(configuration: &str) -> String {
    use sha2::{Digest as _, Sha256};
    let text = configuration.trim_start_matches('\u{feff}').to_lowercase();
    Sha256::digest(text.as_bytes()).iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}

/// An image's name as part of a container's, which begins with a letter and has no dots, dashes, slashes and colons.
fn name_of(image: &str) -> String {
    let kept: String = image.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    format!("{}_{}", kept.trim_start_matches(|c: char| c.is_ascii_digit()), random_hex(6))
}
