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
use super::docker_findings;
use super::means::Means;
use super::patience::Patience;
use super::state::StateFile;
use super::stop::{Stop, Urgency};
use super::volume_notes::VolumeNotes;
use crate::agent::output::Tail;
use crate::config::Common;
use crate::control::{LeftInDocker, Phase};
use crate::docker::{Docker, DockerError, Endpoint, Label, Swept, engine, link};
use crate::init::Ended;
use crate::provider::LabelledBy;
use crate::provider::finding::Finding;

/// How often Docker is asked whether it is there yet.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long our own engine may take to end its containers and itself.
const ENGINE_STOP: Duration = Duration::from_secs(20);
/// Where the kernel shows control groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// The Docker that jobs use: what the user says, our own, or a socket that is mounted. Tools that look for it in the usual place
/// are led to it.
fn prepare(common: &Common) -> Option<Docker> {
    let usual = common.places.docker_socket();
    let endpoint = docker_findings::endpoint(common)?;
    match &endpoint {
        Endpoint::Socket(socket) if *socket != usual => match link(&usual, socket) {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                "tools that look for Docker at {} find another one than DOCKER_HOST names",
                usual.display()
            ),
            Err(error) => tracing::warn!("{} cannot be made a link to Docker's socket: {error}", usual.display()),
        },
        Endpoint::Socket(_) => {}
        Endpoint::Tcp(_) | Endpoint::Tls(_) => tracing::warn!(
            "Docker is at {endpoint}: tools that know nothing but {}, such as the agent for container jobs, do not find it",
            usual.display()
        ),
    }
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
    /// What the agent in use marks its objects with.
    label: Option<Label>,
    /// The anonymous volumes of the job's containers, while there is a job.
    notes: Option<VolumeNotes>,
    /// Whether the log has what containers of jobs lack.
    looked: bool,
    /// Why something stays there, as the log has it already.
    told: Option<String>,
}

impl JobsDocker {
    pub(super) fn new(means: Rc<Means>) -> Self {
        let client = prepare(&means.common);
        Self { means, client, engine: None, label: None, notes: None, looked: false, told: None }
    }

    /// Has Docker there, and nothing of an earlier job in it. `false` when asked to stop before.
    pub(super) async fn before_listening(&mut self, patience: &mut Patience, state: &mut StateFile) -> bool {
        while self.means.stop.urgency() == Urgency::None {
            let Err(trouble) = self.be_there().await else {
                self.look_once().await;
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

    /// Says once in a life what containers of jobs lack here: a job would find out in its own, misleading words.
    async fn look_once(&mut self) {
        let Some(docker) = self.client.as_ref().filter(|_| !self.looked) else { return };
        self.looked = true;
        let Means { common, provider, .. } = &*self.means;
        let mut found: Vec<Finding> = docker_findings::groups(&common.places).into_iter().collect();
        found.extend(docker_findings::containers(common, &**provider, docker).await);
        docker_findings::warnings(&found).for_each(|warning| tracing::warn!("{warning}"));
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
        let mut env: Vec<(OsString, OsString)> = vec![("PATH".into(), engine::PATH.into())];
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
        state.content.docker_volumes.clear();
    }

    /// Remembers what the agent in `root` marks its objects with, before a job can change what that follows from.
    pub(super) fn remember_label(&mut self, directory: &Path, state: &mut StateFile) {
        if self.client.is_none() {
            return;
        }
        let text = match self.means.provider.agent().docker_label {
            LabelledBy::Root => Some(directory.to_string_lossy().into_owned()),
            LabelledBy::File(name) => fs::read_to_string(directory.join(name)).ok(),
        };
        let Some(label) = text.map(|text| Label::of(&text)) else {
            tracing::warn!("what jobs leave in Docker cannot be told from what others have there, and stays");
            self.label = None;
            return;
        };
        self.label = Some(label.clone());
        if !state.content.docker_labels.contains(&label) {
            state.content.docker_labels.push(label);
            state.save_or_warn();
        }
    }

    /// A job runs: the anonymous volumes of its containers are noted from now on. All that an engine of our own has goes anyway.
    pub(super) fn job_runs(&mut self) {
        if self.means.common.docker.engine.is_none()
            && self.notes.is_none()
            && let Some((docker, label)) = self.client.as_ref().zip(self.label.as_ref())
        {
            self.notes = Some(VolumeNotes::begin(docker.clone(), label.clone()));
        }
    }

    /// The next volume that is to be remembered.
    pub(super) async fn next_volume(&mut self) -> String {
        match &mut self.notes {
            Some(notes) => notes.next().await,
            None => std::future::pending().await,
        }
    }

    /// Remembers a volume, so that the next life knows of it if this one is killed.
    pub(super) fn remember_volume(volume: String, state: &mut StateFile) {
        if !state.content.docker_volumes.contains(&volume) {
            state.content.docker_volumes.push(volume);
            state.save_or_warn();
        }
    }

    /// Removes what jobs of ours left in a Docker that is not ours alone. What cannot be removed is tried again by the next life.
    pub(super) async fn sweep(&mut self, state: &mut StateFile) {
        if let Some(notes) = self.notes.take() {
            notes.end().await.into_iter().for_each(|volume| Self::remember_volume(volume, state));
        }
        let Some(docker) = &self.client else { return };
        if state.content.docker_labels.is_empty() && state.content.docker_volumes.is_empty() {
            return;
        }
        let mut swept = Swept::default();
        let all = Self::sweep_all(docker, state, &mut swept);
        let trouble = match timeout(self.means.common.kill_timeout, all).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it takes too long".to_owned()),
        };
        if let Some(trouble) = trouble {
            swept.leave(trouble);
        }
        if !swept.is_empty() {
            tracing::info!(
                containers = swept.containers,
                networks = swept.networks,
                images = swept.images,
                volumes = swept.volumes,
                "removed what a job left in Docker"
            );
        }
        if let Some(why) = &swept.why
            && self.told.as_ref() != Some(why)
        {
            tracing::warn!(things = swept.left, "what a job left in Docker is tried again later: {why}");
        }
        self.told = swept.why.clone();
        self.means.board.set_left_in_docker(swept.why.map(|why| LeftInDocker { things: swept.left as u64, why }));
        state.save_or_warn();
    }

    /// The newest first: what cannot be removed for long must not keep what can from its turn. What is done is forgotten at once.
    async fn sweep_all(docker: &Docker, state: &mut StateFile, swept: &mut Swept) -> Result<(), DockerError> {
        for label in state.content.docker_labels.clone().into_iter().rev() {
            let left = swept.left;
            docker.sweep(&label, swept).await?;
            if swept.left == left {
                state.content.docker_labels.retain(|other| *other != label);
            }
        }
        let labels = state.content.docker_labels.clone();
        for volume in state.content.docker_volumes.clone().into_iter().rev() {
            if docker.sweep_volume(&volume, &labels, swept).await? {
                state.content.docker_volumes.retain(|other| *other != volume);
            }
        }
        Ok(())
    }
}
