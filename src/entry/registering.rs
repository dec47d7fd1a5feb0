//! Registering: how a registration is made or taken up, with the agent's directory that goes with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::patience::Patience;
use super::registrar::{LAST_WORD, Registrar, cannot_start, on_disk};
use super::stop::{Stop, Urgency};
use super::teardown::interrupt;
use super::way_out::leaves_for_network;
use super::work::on_a_thread;
use crate::agent::directory;
use crate::agent::output::reason;
use crate::agent::words::{Marker, Voice};
use crate::config::name::Naming;
use crate::control::{Phase, Runner};
use crate::init::Ended;
use crate::metrics;
use crate::provider::{Candidate, Fault, Files, Grant, Registration, Releasing, Standing, Step};
use crate::workspace::{RootsLock, Spare, wipe};

/// How long the agent's configure step may take.
const CONFIGURE: Duration = Duration::from_secs(5 * 60);

/// A registered agent that is ready to listen.
pub(super) struct Ready {
    /// Its root.
    pub(super) directory: PathBuf,
    /// The command that listens.
    pub(super) run: Step,
}

impl Registrar {
    /// Registers, however long it takes. `None` when asked to stop before, or cut off.
    pub(super) async fn register(&mut self, patience: &mut Patience) -> Option<Ready> {
        while self.means.stop.urgency() == Urgency::None {
            // Before the secret is read: what is corrected while the forge refuses the old one has changed.
            patience.look_at_secrets();
            if self.keep_pace(patience).await {
                continue;
            }
            self.means.board.enter(Phase::Registering);
            let attempt = self.try_to_register().await;
            self.means.provider.rest();
            let fault = match attempt {
                Ok(registered) => {
                    self.tell_of_earlier_job(false);
                    return Some(registered);
                }
                Err(fault) => fault,
            };
            metrics::registration(metrics::Registered::Failed);
            if matches!(fault, Fault::Denied { .. }) {
                self.tell_of_earlier_job(false);
            }
            if self.means.stop.urgency() > Urgency::None {
                break;
            }
            if matches!(fault, Fault::Unreachable(_)) && leaves_for_network(&self.means, &mut self.state) {
                self.cut_off = true;
                return None;
            }
            let (phase, wait) = match &fault {
                Fault::Unreachable(_) | Fault::NameTaken { .. } => (Phase::BackingOff, patience.backoff.after_fault()),
                Fault::Limited { wait, .. } => {
                    // Whatever ends this life: the next one keeps the silence too, unless it has another credential.
                    self.state.content.pace = self.means.provider.pace();
                    (Phase::BackingOff, patience.backoff.after_limit(*wait))
                }
                Fault::Denied { .. } => (Phase::Denied, patience.backoff.after_denial()),
            };
            patience.wait_out(&mut self.state, phase, &fault.to_string(), wait).await;
        }
        None
    }

    /// Waits if the forge's limit is nearly used up, before something new is begun. Removals do not wait: they are what the rest
    /// of it is kept for.
    async fn keep_pace(&mut self, patience: &mut Patience) -> bool {
        let ours = self.means.provider.fingerprint();
        let kept = self.state.content.pace.take();
        if kept.as_ref().is_some_and(|pace| !pace.holds_for(ours.as_ref())) {
            patience.backoff.reset();
        }
        let kept = kept.filter(|pace| pace.holds_for(ours.as_ref()));
        let known = self.means.provider.pace().or(kept);
        let Some((pace, left)) = known.and_then(|pace| pace.left().map(|left| (pace, left))) else { return false };
        self.state.content.pace = Some(pace.clone());
        patience.wait_out(&mut self.state, Phase::BackingOff, &pace.why, left).await;
        true
    }

    async fn try_to_register(&mut self) -> Result<Ready, Fault> {
        self.denial = None;
        let stop = self.means.stop.clone();
        unless_stopped(&stop, self.release_leftovers()).await?;
        if let Some(kept) = unless_stopped(&stop, self.take_up_kept()).await? {
            return Ok(kept);
        }
        let swept = async {
            self.mark_stale().await;
            Ok(())
        };
        unless_stopped(&stop, swept).await?;
        if self.agent_failed {
            let tried = unless_stopped(&stop, self.try_agent()).await;
            self.agent_was_tried(tried)?;
        }
        // A name that was tried and may or may not be known to the forge is tried again: then one clean-up covers both. So is one
        // that it cannot know, for whoever reads the log.
        let pending = self.state.content.current.is_some();
        let name = match &self.state.content.current {
            Some(pending) => pending.name.clone(),
            None => self.unused_name.take().unwrap_or_else(|| self.means.common.naming.next(Naming::entropy())),
        };
        self.state.content.current = Some(self.means.provider.registration(&name));
        self.save()?;
        self.means.board.set_runner(Some(Runner { name: name.clone(), id: None }));
        let work_directory = self.means.common.work_directory.clone();
        let wanted = Candidate { name: &name, work_directory: &work_directory };
        // At the same time, so that it costs no time of its own. Neither answer is lost for the other.
        let (granted, tried) = tokio::join!(
            unless_stopped(&stop, self.means.provider.grant(wanted)),
            unless_stopped(&stop, self.try_agent())
        );
        let tried = self.agent_was_tried(tried);
        let grant = match granted {
            Ok(grant) => grant,
            Err(fault) => {
                if matches!(fault, Fault::NameTaken { .. }) {
                    self.demote();
                } else if !pending && !self.means.provider.may_have_registered() {
                    self.never_registered();
                }
                return Err(fault);
            }
        };
        if let Some(once) = &grant.once {
            if self.state.content.used_up.as_ref() == Some(&once.fingerprint) {
                return Err(once.used_up.clone());
            }
            self.once = Some(once.fingerprint.clone());
        }
        if let Some(registration) = &grant.registration {
            // Known to the forge already, so known to the next incarnation before anything else.
            self.state.content.current = Some(registration.clone());
            self.save()?;
        }
        let mut asked = pending || grant.registration.is_some();
        let made = match tried {
            Ok(()) => self.make_use_of(&grant, wanted, &mut asked).await,
            // Nothing is registered yet, and the name is as good for the next try.
            Err(fault) if grant.registration.is_none() => {
                if !pending {
                    self.never_registered();
                }
                return Err(fault);
            }
            Err(fault) => Err(fault),
        };
        let (directory, registration) = match made {
            Ok(made) => made,
            Err(fault) => {
                if asked {
                    self.demote()
                } else {
                    self.never_registered()
                }
                return Err(fault);
            }
        };
        self.state.content.current = Some(registration.clone());
        self.save()?;
        // No proof yet that things work: a listener that dies each time is registered each time. Kept now, or a kill would make it
        // one that is removed and was never made.
        metrics::registration(metrics::Registered::Made);
        self.means.numbers.keep();
        if self.means.common.persistent {
            self.state.keep(&directory, self.means.provider.agent().configuration).map_err(|error| on_disk(&error))?;
        }
        self.means.board.set_runner(Some(Runner { name: registration.name.clone(), id: registration.id }));
        tracing::info!(id = registration.id, "registered with {}", self.means.provider.scope());
        Ok(Ready { directory, run: self.means.provider.run(&registration, &grant) })
    }

    /// Turns what the forge granted into a registered agent, and says whether the forge was `asked` for one.
    async fn make_use_of(
        &self,
        grant: &Grant,
        wanted: Candidate<'_>,
        asked: &mut bool,
    ) -> Result<(PathBuf, Registration), Fault> {
        let directory = self.make_agent_directory(wanted.name, &grant.files).await?;
        *asked = true;
        if let Some(step) = self.means.provider.configure(grant, wanted) {
            self.configure(&directory, &step).await?;
        }
        let registration = match &grant.registration {
            Some(registration) => registration.clone(),
            None => self.means.provider.identify(wanted.name, &directory).await?,
        };
        Ok((directory, registration))
    }

    /// For a persistent runner: the registration of an earlier incarnation or job, if the forge still has it.
    async fn take_up_kept(&mut self) -> Result<Option<Ready>, Fault> {
        if !self.means.common.persistent {
            return Ok(None);
        }
        let files = self.state.kept(self.means.provider.agent().configuration);
        let current = self.state.content.current.clone().filter(|current| {
            !files.is_empty() && current.scope == self.means.provider.registration(&current.name).scope
        });
        let Some(current) = current else {
            self.state.forget_kept();
            self.demote_known();
            return Ok(None);
        };
        let standing = async {
            match self.means.provider.releasing(false) {
                Releasing::Request => self.means.provider.standing(&current).await.map(Some),
                // Without a credential that could ask, the listener itself will find out.
                Releasing::Command(_) | Releasing::ByForge => Ok(None),
            }
        };
        let (standing, tried) = tokio::join!(standing, self.try_agent());
        let tried = self.agent_was_tried(tried);
        let standing = standing?;
        if let Some(standing) = standing {
            self.heard_of(&current.name, standing.believes_in_job());
        }
        tried?;
        if standing == Some(Standing::Unknown) {
            tracing::warn!("the forge does not know {} any more: registering anew", current.name);
            self.state.forget_kept();
            self.state.content.current = None;
            return Ok(None);
        }
        let directory = self.make_agent_directory(&current.name, &files).await?;
        self.means.board.set_runner(Some(Runner { name: current.name.clone(), id: current.id }));
        tracing::debug!("taking up the registration {}", current.name);
        let grant = Grant { files, ..Grant::default() };
        Ok(Some(Ready { directory, run: self.means.provider.run(&current, &grant) }))
    }

    async fn make_agent_directory(&self, name: &str, files: &Files) -> Result<PathBuf, Fault> {
        let places = &self.means.common.places;
        let (roots, lock) = (places.agent_directories(), RootsLock::below(&places.run()));
        let fault =
            |what: String| Fault::Denied { what, cure: "check the disk and the permissions of that place".to_owned() };
        // An earlier attempt may have left one.
        let all = roots.clone();
        let wiped = on_a_thread(move || {
            let _held = lock.hold();
            wipe(&all, &Spare::default())
        });
        wiped.await.map_err(|error| fault(format!("{} cannot be emptied: {error}", roots.display())))?;
        let agent = &self.means.agent;
        let made = directory::make(&self.means.in_use(&self.state).place, &roots, name, agent)
            .map_err(|error| fault(error.to_string()))?;
        for (file, content) in files {
            directory::write(&made, file, content, agent)
                .map_err(|error| fault(format!("{} cannot be written: {error}", made.join(file).display())))?;
        }
        Ok(made)
    }

    async fn configure(&self, directory: &Path, step: &Step) -> Result<(), Fault> {
        let started = self.means.starter.start(directory, step, Voice::Step);
        let (mut agent, mut markers) = started.map_err(|error| cannot_start(&error))?;
        let ended = tokio::select! {
            ended = agent.ended() => ended,
            () = self.means.stop.reached(Urgency::Finish) => interrupt(&self.means, &mut agent).await,
            () = sleep(CONFIGURE) => {
                tracing::warn!("the agent's configure step hangs: interrupting it");
                interrupt(&self.means, &mut agent).await
            }
        };
        // All that it said must have been read before it is looked at.
        let _ = agent.tail.last_words().await;
        while let Ok(marker) = markers.try_recv() {
            if let Marker::Version(version) = marker {
                self.means.board.set_agent(version);
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
                let what = format!("the agent's configure step failed ({ended}): {}", reason(&said));
                Err(refused_by_proxy(&what).unwrap_or_else(|| self.means.provider.configure_failed(&what, &said)))
            }
        }
    }

    /// Adds old registrations that nobody will come back to, if the user wants that, to those that are let go.
    async fn mark_stale(&mut self) {
        match self.means.provider.stale().await {
            Ok(stale) if stale.is_empty() => {}
            Ok(stale) => {
                tracing::info!("{} agents of ours are offline and older than a day: removing them", stale.len());
                self.state.content.leftovers.extend(stale);
                self.state.save_or_warn();
                if let Err(fault) = self.release_leftovers().await {
                    tracing::warn!("old agents cannot be removed yet: {fault}");
                }
            }
            Err(fault) => tracing::warn!("old agents cannot be looked for: {fault}"),
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

/// What an agent's words mean if a proxy does not take who it says that it is: it will not later either.
fn refused_by_proxy(words: &str) -> Option<Fault> {
    let lower = words.to_ascii_lowercase();
    let told = lower.contains("status code '407'") || (lower.contains("407") && lower.contains("proxy authentication"));
    told.then(|| {
        let cure = "correct the user and the password in HTTPS_PROXY or HTTP_PROXY, or in what you set for the agent's own proxy";
        Fault::denied(words, cure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_refuses_the_agent_is_told_from_the_forge() {
        for words in [
            "The proxy tunnel request to proxy 'http://proxy:3128/' failed with status code '407'.",
            "Response status code does not indicate success: 407 (Proxy Authentication Required).",
        ] {
            assert!(matches!(refused_by_proxy(words), Some(Fault::Denied { .. })), "{words}");
        }
        for words in ["Response status code does not indicate success: 404 (Not Found).", "agent 407 exists already"] {
            assert_eq!(refused_by_proxy(words), None, "{words}");
        }
    }
}
