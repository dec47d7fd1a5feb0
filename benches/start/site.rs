//! The forge, the two images, and the containers that take part.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use oscr_sim::forge::{JobSpec, JobStatus};
use oscr_sim::official::{Asked, Engine, How, Posture, Runner, Site, World, agent_of, docker};

use crate::moments::{Moments, now};
use crate::turn::{Begun, Parts};

/// Whose entrypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Ours,
    Plain,
}

/// An entrypoint and a way to register.
#[derive(Debug, Clone, Copy)]
pub struct Contender {
    pub who: Who,
    pub how: How,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.who == Who::Ours { "OSCR" } else { "plain" };
        f.write_str(&format!("{who}, {}", self.how.word()))
    }
}

/// A container that listens.
pub struct Stand {
    pub contender: Contender,
    runner: Runner,
    /// Its registration.
    registered: u64,
    /// Since when PID 1 is there, by and large.
    up: f64,
}

/// Where everything happens.
pub struct Place {
    world: World<'static>,
    site: &'static Site,
    plain: String,
    moments: Moments,
    /// What a life of ours lasts at least.
    least: &'static str,
}

/// The program of the simulation that is the forge in its container.
fn program() -> Result<PathBuf, String> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.to_owned()));
    let folders = [std::env::var_os("OSCR_SIM_BIN_DIR").map(PathBuf::from), beside];
    let found = folders.into_iter().flatten().map(|folder| folder.join("official")).find(|program| program.exists());
    found.ok_or_else(|| "there is no program `official`: cargo build -p oscr-sim --bins".to_owned())
}

/// What this machine lacks for a measurement.
pub fn missing() -> Option<String> {
    docker(&["version", "--format", "{{.Server.Version}}"]).and_then(|_| crate::moments::allowed()).err()
}

/// The engine, in words for people.
pub fn engine() -> Result<String, String> {
    let info = docker(&["info", "--format", "{{.ServerVersion}} with {{.Driver}}"])?;
    Ok(format!("Docker {}", info.trim()))
}

/// The signals that end a measurement.
fn ends() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// Removes all that was made.
fn remove(site: &Site, plain: &str) -> Result<(), String> {
    site.engine.remove_all()?;
    docker(&["rmi", plain]).map(drop)
}

/// A measurement that is broken off leaves nothing behind either.
fn clean_up_when_told(site: &'static Site, plain: String) {
    // Ends with the program.
    thread::spawn(move || {
        if let Ok(signal) = ends().wait() {
            eprintln!("start_bench: removing all that was made");
            if let Err(why) = remove(site, &plain) {
                eprintln!("start_bench: {why}");
            }
            std::process::exit(128 + signal as i32);
        }
    });
}

impl Place {
    /// Builds the plain image and starts the forge.
    pub fn new(image: &str, least: &'static str) -> Result<Self, String> {
        // Before any thread is there, so that none is interrupted: they wait for whoever cleans up.
        ends().thread_block().map_err(|error| error.to_string())?;
        let moments = Moments::watch()?;
        let agent = agent_of(image)?;
        let engine = Engine::new()?;
        let plain = format!("{}-plain", engine.prefix);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/start");
        let folder = folder.to_str().ok_or("the project's folder has no readable name")?;
        let named = format!("IMAGE={image}");
        let file = format!("{folder}/plain.Dockerfile");
        docker(&["build", "--quiet", "--file", &file, "--build-arg", &named, "--tag", &plain, folder])?;
        let site = Site {
            network: format!("{}-net", engine.prefix),
            engine,
            image: image.to_owned(),
            with_docker: image.to_owned(),
            agent,
            program: program()?.display().to_string(),
        };
        // Threads of the simulation may hold on to it, and the program ends with the measurement.
        let site: &'static Site = Box::leak(Box::new(site));
        clean_up_when_told(site, plain.clone());
        let made = site
            .engine
            .make(&["network", "create"], &[&site.network])
            .and_then(|_| World::begin(site, 0, Posture::Default, How::Token));
        match made {
            Ok(world) => Ok(Self { world, site, plain, moments, least }),
            Err(why) => remove(site, &plain).and(Err(why)),
        }
    }

    pub fn agent(&self) -> &str {
        &self.site.agent
    }

    fn forge(&self) -> &Asked {
        &self.world.forge
    }

    /// A new container, and how long it took until it listened; `None` if a moment was missed.
    pub fn run(&mut self, contender: Contender) -> Result<(Stand, Option<Parts>), String> {
        self.world.how = contender.how;
        let image = if contender.who == Who::Ours { &self.site.image } else { &self.plain };
        let begun = now();
        let runner = self.world.runner_of(image, &[("OSCR_MIN_UPTIME", self.least)], &["--restart=always"])?;
        let mut stand = Stand { contender, runner, registered: 0, up: begun };
        let parts = self.listens(&mut stand, begun, Begun::Command(begun))?;
        Ok((stand, parts))
    }

    /// The same container anew.
    pub fn restart(&self, stand: &mut Stand) -> Result<Option<Parts>, String> {
        docker(&["stop", "--time", "3", &stand.runner.id])?;
        let begun = now();
        stand.runner.start()?;
        self.listens(stand, begun, Begun::Command(begun))
    }

    /// A job, once the container has been up for so many seconds, and how long it takes from its end until the next runner listens.
    pub fn cycle(&self, stand: &mut Stand, script: &str, settled: f64) -> Result<Option<Parts>, String> {
        thread::sleep(Duration::from_secs_f64((stand.up + settled - now()).max(0.0)));
        let begun = now();
        let host = stand.runner.host().to_owned();
        let job = self.forge().submit(&JobSpec { runner: Some(host), ..JobSpec::script("bench", script) })?;
        self.forge().wait_job(job, JobStatus::Completed)?;
        self.listens(stand, begun, Begun::Job)
    }

    /// Removes it.
    pub fn end(&self, stand: &Stand) {
        self.site.engine.remove(std::slice::from_ref(&stand.runner.id));
    }

    /// Removes everything.
    pub fn remove(&self) -> Result<(), String> {
        remove(self.site, &self.plain)
    }

    /// Waits until a new runner of this container listens.
    fn listens(&self, stand: &mut Stand, since: f64, begun: Begun) -> Result<Option<Parts>, String> {
        let host = stand.runner.host();
        let registered = self.forge().listening(host, stand.registered)?;
        stand.registered = registered.id;
        let seconds = |at: i128| at as f64 / 1e9;
        let online = |event: &&oscr_sim::forge::Event| {
            event.kind == "runner_online" && event.runner.as_deref() == Some(&registered.name)
        };
        let events = self.forge().events()?;
        let session = events.iter().find(online).ok_or("the forge knows of no session of a runner that listens")?;
        let session = seconds(session.at.as_nanosecond());
        let answers: Vec<(f64, f64)> = self
            .forge()
            .requests()?
            .iter()
            .filter(|request| !request.agent)
            .filter_map(|request| {
                Some((seconds(request.at.as_nanosecond()), seconds(request.answered?.as_nanosecond())))
            })
            .collect();
        // What the kernel said of the listener may still be on its way here.
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            let moments = self.moments.of(host, since);
            let parts = Parts::of(&moments, begun, session, &answers);
            if parts.is_some() || Instant::now() > until {
                if let Some(at) = Parts::init(&moments) {
                    stand.up = at;
                }
                return Ok(parts);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
