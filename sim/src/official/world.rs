//! What one scenario has to itself: a forge in a container, and the runners that it starts.

use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::engine::{Engine, docker, told};
use super::forge::Forge;
use super::posture::Posture;
use super::runner::Runner;
use crate::forge::{AGENT_DIR, JobSpec, RunnerView};
use crate::protocol::JobResult;

/// Where this program is in a forge's container.
const PROGRAM: &str = "/official";

/// The token that the forge takes.
const PAT: &str = "ghp_official0000000000000000000000000000";

/// How a runner registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// With a registration token, by the agent's configure step.
    Token,
    /// With a configuration that the forge makes just in time.
    Jit,
}

impl How {
    /// As it is called in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Jit => "jit",
        }
    }
}

/// What all scenarios share.
#[derive(Debug)]
pub struct Site {
    /// The machine's Docker.
    pub engine: Engine,
    /// The image under test.
    pub image: String,
    /// The same with Docker in it.
    pub with_docker: String,
    /// The version of the agent in it.
    pub agent: String,
    /// All containers are on this network.
    pub network: String,
    /// This program.
    pub program: String,
}

/// A scenario's own.
#[derive(Debug)]
pub struct World<'a> {
    /// What all share.
    pub site: &'a Site,
    /// The names of what it makes begin with this.
    pub name: String,
    /// How its runners are held.
    pub posture: Posture,
    /// How its runners register.
    pub how: How,
    /// Its forge.
    pub forge: Forge,
    containers: Mutex<Vec<String>>,
}

/// A container with this program in it, that is this part of it.
fn start(site: &Site, container: &str, arguments: &[&str], part: &str, made: &mut Vec<String>) -> Result<(), String> {
    let always = ["--name", container, "--network", &site.network, "--user", "0:0", "--no-healthcheck"];
    let program = ["--entrypoint", PROGRAM, &site.image, part];
    // Docker makes the container even where it cannot start it.
    made.push(container.to_owned());
    site.engine.make(&["create"], &[&always[..], arguments, &program].concat())?;
    docker(&["cp", &site.program, &format!("{container}:{PROGRAM}")])?;
    docker(&["start", container]).map(drop)
}

/// A forge in a container.
fn start_forge(site: &Site, name: &str, made: &mut Vec<String>) -> Result<Forge, String> {
    let container = format!("{name}-forge");
    let token = format!("FORGE_PAT={PAT}");
    // The image's own agent is what it offers as a newer one.
    let agent = format!("{AGENT_DIR}=/opt/oscr/agent");
    start(site, &container, &["--env", &token, "--env", &agent], "forge", made)?;
    Forge::of(&container, PROGRAM)
}

impl<'a> World<'a> {
    /// A world in which a forge is up.
    pub fn begin(site: &'a Site, number: usize, posture: Posture, how: How) -> Result<Self, String> {
        let name = format!("{}-{number}", site.engine.prefix);
        let mut made = Vec::new();
        let forge = start_forge(site, &name, &mut made);
        let world = forge.and_then(|forge| {
            // Nothing is over because a machine is slow, and the official runner renews a job once a minute. No newer agent is offered.
            forge.order(json!({ "hold_leases": true, "latest_version": site.agent }))?;
            Ok(Self { site, name, posture, how, forge, containers: Mutex::new(made.clone()) })
        });
        if world.is_err() {
            site.engine.remove(&made);
        }
        world
    }

    /// A runner of the image under test, with these settings besides those that it needs.
    pub fn runner(&self, settings: &[(&str, &str)]) -> Result<Runner, String> {
        self.runner_with(settings, &[])
    }

    /// The same with more arguments of `docker run`.
    pub fn runner_with(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Result<Runner, String> {
        self.runner_of(&self.site.image, settings, arguments)
    }

    /// The same of another image.
    pub fn runner_of(&self, image: &str, settings: &[(&str, &str)], arguments: &[&str]) -> Result<Runner, String> {
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}-runner-{}", self.name, containers.len());
        let registration = if self.how == How::Jit { "jit" } else { "token" };
        let mut all = vec![
            ("GITHUB_HOST", self.forge.url.as_str()),
            ("GITHUB_PAT", PAT),
            ("OSCR_REGISTRATION", registration),
            // An incarnation's end is its container's.
            ("OSCR_MIN_UPTIME", "0s"),
            // It is alone.
            ("OSCR_START_JITTER", "0s"),
        ];
        if !settings.iter().any(|(name, _)| *name == "GITHUB_OWNER") {
            all.extend([("GITHUB_OWNER", "acme"), ("GITHUB_REPO", "widgets")]);
        }
        all.retain(|(name, _)| !settings.iter().any(|(given, _)| given == name));
        all.extend(settings);
        let settings: Vec<String> = all.iter().map(|(name, value)| format!("--env={name}={value}")).collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let network = if arguments.iter().any(|argument| argument.starts_with("--network")) {
            &[][..]
        } else {
            &["--network", self.site.network.as_str()][..]
        };
        // A volume takes the place of what the posture has there.
        let mounted =
            |place: &str| arguments.iter().any(|a| a.starts_with("--volume=") && a.ends_with(&format!(":{place}")));
        let place = |argument: &str| {
            argument.strip_prefix("--tmpfs=").and_then(|rest| Some(rest.split_once(':')?.0.to_owned()))
        };
        let posture = self.posture.arguments().iter().copied();
        let posture: Vec<&str> =
            posture.filter(|argument| !place(argument).is_some_and(|place| mounted(&place))).collect();
        let all = [&["--name", &name, "--pull", "never"], network, &posture, &settings, arguments, &[image]];
        // Docker makes the container even where it cannot start it.
        containers.push(name.clone());
        let id = self.site.engine.make(&["run", "--detach"], &all.concat())?;
        Ok(Runner { id })
    }

    /// Another container with this program in it, as this part of it; its name.
    pub fn helper(&self, part: &str, arguments: &[&str]) -> Result<String, String> {
        let name = format!("{}-{part}", self.name);
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        start(self.site, &name, arguments, part, &mut containers)?;
        Ok(name)
    }

    /// Another container, which is removed with the world; its name.
    pub fn container(&self, what: &str, image: &str, arguments: &[&str], run: [&str; 2]) -> Result<String, String> {
        let name = format!("{}-{what}", self.name);
        let mut containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        containers.push(name.clone());
        let always = ["--name", &name, "--network", &self.site.network, "--no-healthcheck"];
        let program = ["--entrypoint", run[0], image, run[1]];
        self.site.engine.make(&["run", "--detach"], &[&always[..], arguments, &program].concat())?;
        Ok(name)
    }

    /// A runner that listens, and its registration.
    pub fn listening(&self, settings: &[(&str, &str)]) -> Result<(Runner, RunnerView), String> {
        let runner = self.runner(settings)?;
        let registration = self.forge.listening(runner.host(), 0)?;
        Ok((runner, registration))
    }

    /// A runner whose job has begun, and goes on until it is given `/tmp/go-on`; the job's and the registration's ids.
    pub fn busy(&self, settings: &[(&str, &str)]) -> Result<(Runner, u64, u64), String> {
        let (runner, registration) = self.listening(settings)?;
        let job = self.forge.script("long", &gated("/tmp"))?;
        runner.file("/tmp/begun")?;
        Ok((runner, job, registration.id))
    }

    /// A volume with a directory's worth of files, made by a script that is run as root in `/v`.
    pub fn volume(&self, what: &str, script: &str) -> Result<String, String> {
        let volume = format!("{}-{what}", self.name);
        self.site.engine.make(&["volume", "create"], &[&volume])?;
        let mount = format!("{volume}:/v");
        let image = self.site.image.as_str();
        let arguments = ["--rm", "--user", "0:0", "--no-healthcheck", "--volume", &mount, "--workdir", "/v"];
        let program = ["--network", "none", "--entrypoint", "/bin/sh", image, "-euc", script];
        self.site.engine.make(&["run"], &[&arguments[..], &program].concat())?;
        Ok(volume)
    }

    /// A whole job of a runner that listens again, to show that all is well.
    pub fn works(&self, runner: &Runner, after: u64) -> Result<(), String> {
        let registration = self.forge.listening(runner.host(), after)?;
        let job = JobSpec { runner: Some(registration.name), ..JobSpec::script("after", "echo fine") };
        self.forge.ends(self.forge.submit(&job)?, JobResult::Succeeded).map(drop)
    }

    /// What must be so at the end of every scenario.
    pub fn check(&self) -> Result<(), String> {
        let violations = self.forge.violations()?;
        if violations.is_empty() { Ok(()) } else { Err(format!("against the description: {}", violations.join("; "))) }
    }

    /// What was seen, for whoever must find out why a line is red.
    pub fn seen(&self) -> String {
        let mut text = String::new();
        for event in self.forge.events().unwrap_or_default() {
            text += &format!("{}\n", crate::forge::event_line(&event));
        }
        for container in &*self.containers.lock().unwrap_or_else(PoisonError::into_inner) {
            let log = told(&["logs", "--tail", "60", container]).map_or_else(|why| why, |(_, log)| log);
            text += &format!("-- {container}\n{log}");
        }
        text
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        let containers = self.containers.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.site.engine.remove(containers);
        for volume in docker(&["volume", "ls", "--quiet", "--filter", &format!("name={}-", self.name)])
            .unwrap_or_default()
            .lines()
        {
            let _ = told(&["volume", "rm", "--force", volume]);
        }
    }
}

/// A script that says that it has begun, and goes on when it is told to, both by a file in a folder.
pub fn gated(folder: &str) -> String {
    format!("touch {folder}/begun; until [ -e {folder}/go-on ]; do sleep 0.1; done")
}
