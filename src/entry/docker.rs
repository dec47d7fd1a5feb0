//! Docker for jobs, in the life of an incarnation: it is there before a job can come, and swept after it.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::children::Running;
use super::means::Means;
use super::patience::Patience;
use super::state::StateFile;
use super::stop::{Stop, Urgency};
use crate::agent::output::Tail;
use crate::config::Common;
use crate::control::Phase;
use crate::docker::{Docker, Endpoint, Label, engine, link};
use crate::init::Ended;
use crate::provider::LabelledBy;

/// How often Docker is asked whether it is there yet.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long our own engine may take to end its containers and itself.
const ENGINE_STOP: Duration = Duration::from_secs(20);
/// Where the kernel shows control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The Docker that jobs use: what the user says, our own, or a socket that is mounted. Tools that look for it in the usual place
/// are led to it.
fn prepare(common: &Common) -> Option<Docker> {
    let usual = common.places.docker_socket();
    let endpoint = match &common.docker.host {
        Some(Endpoint::Socket(socket)) if *socket != usual => {
            match link(&usual, socket) {
                Ok(true) => {}
                Ok(false) => tracing::warn!(
                    "tools that look for Docker at {} find another one than DOCKER_HOST names",
                    usual.display()
                ),
                Err(error) => tracing::warn!("{} cannot be made a link to Docker's socket: {error}", usual.display()),
            }
            Endpoint::Socket(socket.clone())
        }
        Some(other) => {
            if !matches!(other, Endpoint::Socket(_)) {
                tracing::warn!(
                    "Docker is at {other}: tools that know nothing but {}, such as the agent for container jobs, do not find it",
                    usual.display()
                );
            }
            other.clone()
        }
        None if common.docker.engine.is_some() || usual.exists() => Endpoint::Socket(usual),
        None => return None,
    };
    match Docker::at(&endpoint) {
        Ok(Some(docker)) => Some(docker),
        Ok(None) => {
            tracing::warn!("Docker at {endpoint} speaks TLS, which OSCR does not: it is neither waited for nor swept");
            None
        }
        Err(error) => {
            tracing::warn!("{error}; it is neither waited for nor swept");
            None
        }
    }
}

/// Our own engine while it runs, and what its end means.
struct Engine {
    pid: Pid,
    tail: Tail,
    /// Whether jobs depend on it now.
    needed: Rc<Cell<bool>>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Engine {
    /// Looks after it. Should it end while it is needed, no further job is taken: the next life has another engine.
    fn watch(mut running: Running, stop: Stop) -> Self {
        let (sender, ended) = watch::channel(None);
        let (pid, tail, needed) = (running.pid, running.tail.clone(), Rc::new(Cell::new(false)));
        let still_needed = Rc::clone(&needed);
        tokio::task::spawn_local(async move {
            let how = running.ended().await;
            if still_needed.get() {
                tracing::error!("Docker's engine ended ({how}) while jobs may need it: no further one is taken");
                stop.drain(true);
            }
            let _ = sender.send(Some(how));
        });
        Self { pid, tail, needed, ended }
    }

    /// Waits for its end.
    async fn ended(&mut self) -> Ended {
        let seen = self.ended.wait_for(Option::is_some).await.ok().and_then(|ended| *ended);
        // The sender is dropped unsent only with the whole process.
        match seen {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    fn signal(&self, signal: Signal) {
        if self.ended.borrow().is_none() {
            let _ = kill(self.pid, signal);
        }
    }
}

/// The Docker that jobs use.
pub(super) struct JobsDocker {
    means: Rc<Means>,
    /// If there is one that can be asked.
    client: Option<Docker>,
    /// An engine of our own.
    engine: Option<Engine>,
}

impl JobsDocker {
    pub(super) fn new(means: Rc<Means>) -> Self {
        let client = prepare(&means.common);
        Self { means, client, engine: None }
    }

    /// Has Docker there, and nothing of an earlier job in it. `false` when asked to stop before.
    pub(super) async fn before_listening(&mut self, patience: &mut Patience, state: &mut StateFile) -> bool {
        while self.means.stop.urgency() == Urgency::None {
            let Err(trouble) = self.be_there().await else {
                self.sweep(state).await;
                return self.means.stop.urgency() == Urgency::None;
            };
            self.stop_engine(state).await;
            if self.means.stop.urgency() == Urgency::None {
                let wait = patience.backoff.after_fault();
                patience
                    .wait_out(state, Phase::BackingOff, &format!("no job is taken without Docker: {trouble}"), wait)
                    .await;
            }
        }
        false
    }

    async fn be_there(&mut self) -> Result<(), String> {
        if self.means.common.docker.engine.is_some() && self.engine.is_none() {
            self.start_engine()?;
        }
        let Some(docker) = self.client.as_ref().filter(|_| !self.means.common.docker.wait.is_zero()) else {
            return Ok(());
        };
        self.means.board.enter(Phase::Waiting);
        let until = Instant::now() + self.means.common.docker.wait;
        loop {
            let asked = tokio::select! {
                asked = docker.ping() => asked,
                () = self.means.stop.reached(Urgency::Finish) => return Ok(()),
            };
            match asked {
                Ok(()) => {
                    if let Some(engine) = &self.engine {
                        engine.needed.set(true);
                    }
                    return Ok(());
                }
                Err(error) if Instant::now() >= until => return Err(error.to_string()),
                Err(_) => {}
            }
            let Some(engine) = &mut self.engine else {
                sleep(ASK_AGAIN).await;
                continue;
            };
            if let Ok(ended) = timeout(ASK_AGAIN, engine.ended()).await {
                let last = engine.tail.last_words().await.pop().unwrap_or_default();
                self.engine = None;
                return Err(format!("the engine ended ({ended}): {last}"));
            }
        }
    }

    fn start_engine(&mut self) -> Result<(), String> {
        let Some(settings) = &self.means.common.docker.engine else { return Ok(()) };
        if let Err(error) = engine::make_room_for_groups(Path::new(GROUPS)) {
            tracing::warn!("Docker's containers may have no limits of their own: {error}");
        }
        // Of an engine that was killed: a new one would take its number for somebody else's by now.
        for left in ["docker.pid", "docker/containerd/containerd.pid"] {
            let _ = fs::remove_file(Path::new("/var/run").join(left));
        }
        let arguments = engine::arguments(settings, &self.means.agent);
        let network = &self.means.common.network;
        let proxies = [
            ("HTTP_PROXY", &network.http_proxy),
            ("HTTPS_PROXY", &network.https_proxy),
            ("NO_PROXY", &network.no_proxy),
        ];
        let mut env: Vec<(OsString, OsString)> =
            vec![("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())];
        env.extend(proxies.into_iter().filter_map(|(name, value)| Some((name.into(), value.as_ref()?.into()))));
        let engine = self.means.starter.engine(arguments, env).map_err(|error| error.to_string())?;
        self.engine = Some(Engine::watch(engine, self.means.stop.clone()));
        Ok(())
    }

    /// Ends our own engine, and with it its containers.
    pub(super) async fn stop_engine(&mut self, state: &mut StateFile) {
        let Some(mut engine) = self.engine.take() else { return };
        engine.needed.set(false);
        engine.signal(Signal::SIGTERM);
        if timeout(ENGINE_STOP, engine.ended()).await.is_err() {
            tracing::warn!("Docker's engine does not end: killing it");
            engine.signal(Signal::SIGKILL);
            engine.ended().await;
        }
        // What it kept goes with the slate.
        state.content.docker_labels.clear();
    }

    /// Remembers what the agent in `root` marks its objects with, before a job can change what that follows from.
    pub(super) fn remember_label(&self, directory: &Path, state: &mut StateFile) {
        if self.client.is_none() {
            return;
        }
        let text = match self.means.provider.agent().docker_label {
            LabelledBy::Root => Some(directory.to_string_lossy().into_owned()),
            LabelledBy::File(name) => fs::read_to_string(directory.join(name)).ok(),
        };
        let Some(label) = text.map(|text| Label::of(&text)) else {
            tracing::warn!("what jobs leave in Docker cannot be told from what others have there, and stays");
            return;
        };
        if !state.content.docker_labels.contains(&label) {
            state.content.docker_labels.push(label);
            state.save_or_warn();
        }
    }

    /// Removes what jobs of ours left in a Docker that is not ours alone. What cannot be removed is tried again by the next life.
    pub(super) async fn sweep(&self, state: &mut StateFile) {
        let Some(docker) = self.client.as_ref().filter(|_| !state.content.docker_labels.is_empty()) else { return };
        let mut remaining = Vec::new();
        for label in state.content.docker_labels.clone() {
            match timeout(self.means.common.kill_timeout, docker.sweep(&label)).await {
                Ok(Ok(swept)) if swept.is_empty() => {}
                Ok(Ok(swept)) => tracing::info!(
                    containers = swept.containers,
                    networks = swept.networks,
                    images = swept.images,
                    "removed what a job left in Docker"
                ),
                Ok(Err(error)) => {
                    tracing::warn!("what a job left in Docker is tried again later: {error}");
                    remaining.push(label);
                }
                Err(_) => {
                    tracing::warn!("what a job left in Docker is tried again later: it takes too long");
                    remaining.push(label);
                }
            }
        }
        state.content.docker_labels = remaining;
        state.save_or_warn();
    }
}
