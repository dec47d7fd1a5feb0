//! Registrations: how one is made, and how each is let go, now or by a later incarnation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::incarnation::Incarnation;
use super::listening::Ending;
use super::state::StateError;
use super::stop::{Stop, Urgency};
use crate::agent::root;
use crate::agent::words::{Manner, Marker};
use crate::config::name::Naming;
use crate::control::{Phase, Runner};
use crate::init::{Ended, SpawnError};
use crate::metrics::{self, Registered};
use crate::provider::{Fault, Files, Grant, Registration, Released, Releasing, Standing, Step, Wanted};
use crate::workspace::{Spare, wipe};

/// How long the agent's configure step may take.
const CONFIGURE: Duration = Duration::from_secs(5 * 60);
/// How long the forge may still take to answer once we are asked to stop. What an answer in time says need not be looked
/// for later.
const LAST_WORD: Duration = Duration::from_secs(3);
/// How long the forge of an earlier configuration may take: it may have been a mistake.
const FOREIGN: Duration = Duration::from_secs(5);

impl Incarnation {
    /// Registers, however long it takes. `None` when asked to stop before.
    pub(super) async fn register(&mut self) -> Option<PathBuf> {
        while self.stop.urgency() == Urgency::None {
            if self.keep_pace().await {
                continue;
            }
            self.board.enter(Phase::Registering);
            // Before the secret is read: what is corrected while the forge refuses the old one has changed.
            self.stamps = self.look_at_secrets();
            let attempt = self.try_to_register().await;
            self.provider.rest();
            let fault = match attempt {
                Ok(root) => {
                    // No proof yet that things work: a listener that dies each time is registered each time.
                    metrics::registration(Registered::Made);
                    return Some(root);
                }
                Err(fault) => fault,
            };
            metrics::registration(Registered::Failed);
            if self.stop.urgency() > Urgency::None {
                break;
            }
            let (phase, wait) = match &fault {
                Fault::Unreachable(_) | Fault::NameTaken(_) => (Phase::BackingOff, self.backoff.after_fault()),
                Fault::Limited { wait, .. } => (Phase::BackingOff, self.backoff.after_limit(*wait)),
                Fault::Denied { .. } => (Phase::Denied, self.backoff.after_denial()),
            };
            self.wait_out(phase, &fault.to_string(), wait).await;
        }
        None
    }

    /// Waits if the forge's limit is nearly used up, before something new is begun. Removals do not wait: they are what the rest
    /// of it is kept for.
    async fn keep_pace(&mut self) -> bool {
        let ours = self.provider.fingerprint();
        let kept = self.state.state.pace.take().filter(|pace| pace.credential.is_none() || pace.credential == ours);
        let known = self.provider.pace().or(kept);
        let Some((pace, left)) = known.and_then(|pace| pace.left().map(|left| (pace, left))) else { return false };
        self.state.state.pace = Some(pace.clone());
        self.wait_out(Phase::BackingOff, &pace.why, left).await;
        true
    }

    /// Whether the forge's limit of requests is nearly used up, so that what can wait is not asked.
    pub(super) fn nearly_used_up(&self) -> bool {
        let known = self.provider.pace().or_else(|| self.state.state.pace.clone());
        known.is_some_and(|pace| pace.left().is_some())
    }

    async fn try_to_register(&mut self) -> Result<PathBuf, Fault> {
        let stop = self.stop.clone();
        unless_stopped(&stop, self.release_leftovers()).await?;
        if let Some(root) = unless_stopped(&stop, self.take_up_kept()).await? {
            return Ok(root);
        }
        let swept = async {
            self.mark_stale().await;
            Ok(())
        };
        unless_stopped(&stop, swept).await?;
        // A name that was tried and may or may not be known to the forge is tried again: then one clean-up covers both.
        let name = match &self.state.state.current {
            Some(pending) => pending.name.clone(),
            None => self.common.naming.next(Naming::entropy()),
        };
        self.state.state.current = Some(self.provider.registration(&name));
        self.save()?;
        self.board.set_runner(Some(Runner { name: name.clone(), id: None }));
        let work_directory = self.common.work_directory.clone();
        let wanted = Wanted { name: &name, work_directory: &work_directory };
        let grant = match unless_stopped(&stop, self.provider.grant(wanted)).await {
            Ok(grant) => grant,
            Err(fault) => {
                if matches!(fault, Fault::NameTaken(_)) {
                    self.demote();
                }
                return Err(fault);
            }
        };
        if let Some(once) = &grant.once {
            if self.state.state.used_up.as_ref() == Some(&once.fingerprint) {
                return Err(once.used_up.clone());
            }
            self.once = Some(once.fingerprint.clone());
        }
        if let Some(registration) = &grant.registration {
            // Known to the forge already, so known to the next incarnation before anything else.
            self.state.state.current = Some(registration.clone());
            self.save()?;
        }
        let (root, registration) = match self.make_use_of(grant, wanted).await {
            Ok(made) => made,
            Err(fault) => {
                self.demote();
                return Err(fault);
            }
        };
        self.state.state.current = Some(registration.clone());
        self.save()?;
        if self.common.persistent {
            self.state.keep(&root, self.provider.agent().configuration).map_err(|error| on_disk(&error))?;
        }
        self.board.set_runner(Some(Runner { name: registration.name.clone(), id: registration.id }));
        tracing::info!(id = registration.id, "registered with {}", self.provider.scope());
        Ok(root)
    }

    /// Turns what the forge granted into a registered agent.
    async fn make_use_of(&self, grant: Grant, wanted: Wanted<'_>) -> Result<(PathBuf, Registration), Fault> {
        let root = self.make_root(wanted.name, &grant.files)?;
        if let Some(step) = self.provider.configure(&grant, wanted) {
            self.configure(&root, &step).await?;
        }
        let registration = match grant.registration {
            Some(registration) => registration,
            None => self.provider.identify(wanted.name, &root).await?,
        };
        Ok((root, registration))
    }

    /// For a persistent runner: the registration of an earlier incarnation or job, if the forge still has it.
    async fn take_up_kept(&mut self) -> Result<Option<PathBuf>, Fault> {
        if !self.common.persistent {
            return Ok(None);
        }
        let files = self.state.kept(self.provider.agent().configuration);
        let current =
            self.state.state.current.clone().filter(|current| {
                !files.is_empty() && current.scope == self.provider.registration(&current.name).scope
            });
        let Some(current) = current else {
            self.state.forget_kept();
            self.demote_known();
            return Ok(None);
        };
        let known = match self.provider.releasing(false) {
            Releasing::Request => self.provider.standing(&current).await? != Standing::Unknown,
            // Without a credential that could ask, the listener itself will find out.
            Releasing::Command(_) | Releasing::ByForge => true,
        };
        if !known {
            tracing::warn!("the forge does not know {} any more: registering anew", current.name);
            self.state.forget_kept();
            self.state.state.current = None;
            return Ok(None);
        }
        let root = self.make_root(&current.name, &files)?;
        self.board.set_runner(Some(Runner { name: current.name.clone(), id: current.id }));
        tracing::debug!("taking up the registration {}", current.name);
        Ok(Some(root))
    }

    fn make_root(&self, name: &str, files: &Files) -> Result<PathBuf, Fault> {
        let roots = self.common.places.agent_roots();
        let fault =
            |what: String| Fault::Denied { what, cure: "check the disk and the permissions of that place".to_owned() };
        // An earlier attempt may have left one.
        wipe(&roots, &Spare::default())
            .map_err(|error| fault(format!("{} cannot be emptied: {error}", roots.display())))?;
        let agent = &self.slate.agent;
        let made = root::make(&self.pristine_agent(), &roots, name, agent).map_err(|error| fault(error.to_string()))?;
        for (file, content) in files {
            root::write(&made, file, content, agent)
                .map_err(|error| fault(format!("{} cannot be written: {error}", made.join(file).display())))?;
        }
        Ok(made)
    }

    async fn configure(&self, root: &Path, step: &Step) -> Result<(), Fault> {
        let started = self.starter.start(root, step, Manner::Step);
        let (mut agent, mut markers) = started.map_err(|error| cannot_start(&error))?;
        let ended = tokio::select! {
            ended = agent.ended() => ended,
            () = self.stop.reached(Urgency::Finish) => self.interrupt(&mut agent).await,
            () = sleep(CONFIGURE) => {
                tracing::warn!("the agent's configure step hangs: interrupting it");
                self.interrupt(&mut agent).await
            }
        };
        // All that it said must have been read before it is looked at.
        let _ = agent.tail.last_words().await;
        while let Ok(marker) = markers.try_recv() {
            if let Marker::Version(version) = marker {
                self.board.set_agent(version);
            }
        }
        match ended {
            Ended::Code(0) => Ok(()),
            Ended::Code(code @ (126 | 127)) => Err(Fault::Denied {
                what: format!("the agent cannot run in this image (code {code})"),
                cure: "check that the image holds the libraries that the agent needs".to_owned(),
            }),
            ended => {
                let said = agent.tail.last_words().await;
                // Whoever has to find out why wants to read all of it.
                said.iter().for_each(|words| tracing::info!("agent: {words}"));
                let words = said.last().cloned().unwrap_or_default();
                Err(self.provider.configure_failed(&format!("the agent's configure step failed ({ended}): {words}")))
            }
        }
    }

    /// Makes sure that the forge does not have the registration any more, or that the next incarnation will.
    pub(super) async fn unregister(&mut self, root: &Path, ending: &Ending) {
        if self.common.persistent && !matches!(ending, Ending::Again(_) | Ending::Outdated(_) | Ending::Fatal(_)) {
            return;
        }
        if self.state.state.current.is_none() {
            return;
        }
        self.board.enter(Phase::Unregistering);
        let given_up = Instant::now() + self.common.kill_timeout;
        let mut pause = Duration::from_millis(250);
        loop {
            let trouble = match self.release_current(root, matches!(ending, Ending::JobDone)).await {
                Ok(Released::Gone) => {
                    tracing::info!("the registration is gone");
                    break;
                }
                Ok(Released::Busy) => "the forge still believes that a job runs".to_owned(),
                Err(fault @ Fault::Denied { .. }) => {
                    tracing::warn!("the registration cannot be removed: {fault}; the next incarnation will try");
                    self.demote();
                    break;
                }
                Err(fault) => {
                    if let Fault::Limited { wait, .. } = fault {
                        pause = pause.max(wait);
                    }
                    fault.to_string()
                }
            };
            if Instant::now() + pause >= given_up {
                tracing::warn!("the registration could not be removed: {trouble}; the next incarnation will");
                self.demote();
                break;
            }
            tracing::debug!("the registration is not gone yet: {trouble}");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.provider.rest();
        self.board.set_runner(None);
    }

    /// One attempt to let the current registration go.
    pub(super) async fn release_current(&mut self, root: &Path, job_done: bool) -> Result<Released, Fault> {
        let Some(current) = self.state.state.current.clone() else {
            return Ok(Released::Gone);
        };
        let released = match self.provider.releasing(job_done) {
            Releasing::Request => self.provider.release(&current).await?,
            Releasing::Command(step) => self.release_by_command(root, &step).await?,
            Releasing::ByForge => {
                if !job_done {
                    tracing::info!(
                        "{} stays registered: nothing here may remove it. The forge does, a day after it was last seen",
                        current.name
                    );
                }
                Released::Gone
            }
        };
        if released == Released::Gone {
            metrics::registration(Registered::Removed);
            self.state.state.current = None;
            self.state.save_or_warn();
        }
        Ok(released)
    }

    async fn release_by_command(&self, root: &Path, step: &Step) -> Result<Released, Fault> {
        let started = self.starter.start(root, step, Manner::Step);
        let (mut agent, _) = started.map_err(|error| cannot_start(&error))?;
        let ended = match timeout(self.common.kill_timeout, agent.ended()).await {
            Ok(ended) => ended,
            Err(_) => self.interrupt(&mut agent).await,
        };
        if ended == Ended::Code(0) {
            return Ok(Released::Gone);
        }
        let words = agent.tail.last_words().await.join(" ");
        if words.contains("running a job") || words.contains("currently running") {
            return Ok(Released::Busy);
        }
        Err(Fault::Unreachable(format!("the agent's remove command failed ({ended}): {words}")))
    }

    /// Lets go of what earlier incarnations could not. What is busy stays for later; what another scope refuses is given up.
    pub(super) async fn release_leftovers(&mut self) -> Result<(), Fault> {
        if self.state.state.leftovers.is_empty() {
            return Ok(());
        }
        if matches!(self.provider.releasing(false), Releasing::ByForge) {
            self.state.state.leftovers.clear();
            return Ok(());
        }
        if !matches!(self.provider.releasing(false), Releasing::Request) {
            let names: Vec<&str> = self.state.state.leftovers.iter().map(|left| left.name.as_str()).collect();
            tracing::warn!(
                "{} may still be registered and cannot be removed without a token for the API; the forge removes an ephemeral \
                 runner after a day",
                names.join(", ")
            );
            self.state.state.leftovers.clear();
            return Ok(());
        }
        // One by one, so that being cut short (by a stop, or a job that comes) forgets none.
        for registration in self.state.state.leftovers.clone() {
            let foreign = registration.scope != self.provider.registration(&registration.name).scope;
            let released = if foreign {
                // Another forge, perhaps, and nothing that this runner waits for.
                timeout(FOREIGN, self.provider.release(&registration))
                    .await
                    .unwrap_or_else(|_| Err(Fault::Unreachable("it does not answer".to_owned())))
            } else {
                self.provider.release(&registration).await
            };
            match released {
                Ok(Released::Busy) => {
                    tracing::info!(
                        "the forge believes that {} still runs a job; it is removed later",
                        registration.name
                    );
                    continue;
                }
                Ok(Released::Gone) => {
                    metrics::registration(Registered::Removed);
                    tracing::info!("{} of an earlier incarnation is not registered any more", registration.name);
                }
                Err(fault @ Fault::Denied { .. }) if foreign => tracing::warn!(
                    "{} may still be registered at {}, which refuses us: {fault}",
                    registration.name,
                    registration.scope
                ),
                Err(fault) if foreign => {
                    tracing::warn!(
                        "{} may still be registered at {}; it is tried again later: {fault}",
                        registration.name,
                        registration.scope
                    );
                    continue;
                }
                Err(fault) => return Err(fault),
            }
            self.state.state.leftovers.retain(|left| *left != registration);
            self.state.save_or_warn();
        }
        Ok(())
    }

    /// Adds old registrations that nobody will come back to, if the user wants that, to those that are let go.
    async fn mark_stale(&mut self) {
        match self.provider.stale().await {
            Ok(stale) if stale.is_empty() => {}
            Ok(stale) => {
                tracing::info!("{} agents of ours are offline and older than a day: removing them", stale.len());
                self.state.state.leftovers.extend(stale);
                self.state.save_or_warn();
                if let Err(fault) = self.release_leftovers().await {
                    tracing::warn!("old agents cannot be removed yet: {fault}");
                }
            }
            Err(fault) => tracing::warn!("old agents cannot be looked for: {fault}"),
        }
    }

    /// A job has come, or the registration is worth nothing any more: a grant for one job is not tried again.
    pub(super) fn use_up(&mut self) {
        if let Some(fingerprint) = self.once.take() {
            self.state.state.used_up = Some(fingerprint);
            self.state.save_or_warn();
        }
    }

    pub(super) fn has_leftovers(&self) -> bool {
        self.board.set_leftovers(self.state.state.leftovers.len());
        !self.state.state.leftovers.is_empty()
    }

    fn save(&mut self) -> Result<(), Fault> {
        self.state.save().map_err(|error| on_disk(&error))
    }

    pub(super) fn demote(&mut self) {
        self.state.demote();
        self.state.save_or_warn();
    }

    /// Demotes a registration that the forge is known to have had; a name that was only tried stays to be tried again.
    fn demote_known(&mut self) {
        if self.state.state.current.as_ref().is_some_and(|current: &Registration| current.id.is_some()) {
            self.demote();
        }
    }
}

/// What the forge says, unless we are asked to stop meanwhile and it does not answer soon.
async fn unless_stopped<T>(stop: &Stop, answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let enough = async {
        stop.reached(Urgency::Finish).await;
        sleep(LAST_WORD).await;
    };
    tokio::select! {
        answer = answer => answer,
        () = enough => Err(Fault::Unreachable("asked to stop before the forge answered".to_owned())),
    }
}

fn cannot_start(error: &SpawnError) -> Fault {
    Fault::Denied {
        what: format!("the agent cannot be started: {error}"),
        cure: "check the image and the capabilities that the container is given".to_owned(),
    }
}

fn on_disk(error: &StateError) -> Fault {
    Fault::Denied { what: error.to_string(), cure: "free some space, or make that place writable".to_owned() }
}
