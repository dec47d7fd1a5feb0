//! Registrations: which there are, and how each is let go, now or by a later incarnation.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::ending::{Ending, Why};
use super::later::Later;
use super::means::Means;
use super::open_job::OpenJob;
use super::state::{StateError, StateFile};
use super::stop::Urgency;
use super::teardown::interrupt;
use crate::agent::output::reason;
use crate::agent::words::Voice;
use crate::config::name::Naming;
use crate::control::Phase;
use crate::init::{Ended, SpawnError};
use crate::metrics::{self, Registered};
use crate::provider::http::speaks_of_limit;
use crate::provider::{Answer, Fault, Registration, Released, Releasing, Removal, Standing};

/// How long the forge of an earlier configuration may take: it may have been a mistake.
const FOREIGN: Duration = Duration::from_secs(5);
/// How long the forge may still take to answer once we are asked to stop. What an answer in time says need not be looked
/// for later.
pub(super) const LAST_WORD: Duration = Duration::from_secs(3);

/// Who registers, and lets registrations go.
pub(super) struct Registrar {
    pub(super) means: Rc<Means>,
    /// Which registrations there are, in the file that the next incarnation reads.
    pub(super) state: StateFile,
    /// The fingerprint of the grant in use, if it is good for one job only.
    pub(super) once: Option<String>,
    /// What the forge called busy in this life. It is believed for the rest of a listener's end, and of this life.
    refused: Vec<String>,
    /// A name that was tried, and that the forge cannot know.
    pub(super) unused_name: Option<String>,
    /// The forge refused to remove the registration in use. Asked again in the same breath, it would refuse again.
    pub(super) denial: Option<Fault>,
    /// It refused to remove a leftover when it was last asked.
    leftovers_denied: bool,
    /// The network has no way out, and this life ends for that: nobody can be asked anything.
    pub(super) cut_off: bool,
    /// The agent was tried and does not run: the forge is asked for nothing before it does.
    pub(super) agent_failed: bool,
    /// Whether the job in the state is an earlier incarnation's.
    untold: bool,
}

impl Registrar {
    pub(super) fn new(means: Rc<Means>, mut state: StateFile) -> Self {
        if !means.common.persistent {
            // Whatever is there was left by an incarnation that could not clean up.
            state.demote();
            state.forget_kept();
        }
        let untold = state.content.job.is_some();
        Self {
            means,
            state,
            once: None,
            refused: Vec::new(),
            unused_name: None,
            denial: None,
            leftovers_denied: false,
            cut_off: false,
            agent_failed: false,
            untold,
        }
    }

    /// A job runs, or more is known of it: should this incarnation be killed, the next one tells of it.
    pub(super) fn note_job(&mut self) {
        self.tell_of_earlier_job(false);
        let (job, runner) = self.means.board.job();
        self.state.content.job = Some(match self.state.content.job.take() {
            Some(known) => OpenJob { job, ..known },
            None => OpenJob::begins(job, runner),
        });
        self.state.save_or_warn();
    }

    /// The report of this incarnation's is written, or there was none after all.
    pub(super) fn forget_job(&mut self) {
        if self.state.content.job.take_if(|_| !self.untold).is_some() {
            self.state.save_or_warn();
        }
    }

    /// Tells of the job that an earlier incarnation was killed under, if that is still to be done. The forge `believes` in it still, or
    /// does not, or cannot be asked.
    pub(super) fn tell_of_earlier_job(&mut self, believes: bool) {
        if let Some(open) = self.state.content.job.take_if(|_| std::mem::take(&mut self.untold)) {
            open.tell(believes);
            self.means.numbers.keep();
            self.state.save_or_warn();
        }
    }

    /// The forge has said whether it `believes` that the runner of this name has a job.
    pub(super) fn heard_of(&mut self, name: &str, believes: bool) {
        if self.state.content.job.as_ref().is_some_and(|open| open.runner == name) {
            self.tell_of_earlier_job(believes);
        }
    }

    /// The name of the registration in use.
    pub(super) fn name(&self) -> String {
        self.state.content.current.as_ref().map_or_else(String::new, |own| own.name.clone())
    }

    /// A job has come, or the registration is worth nothing any more: a grant for one job is not tried again.
    pub(super) fn use_up(&mut self) {
        if let Some(fingerprint) = self.once.take() {
            self.state.content.used_up = Some(fingerprint);
            self.state.save_or_warn();
        }
    }

    /// A listener ended as one does whose registration is gone. One that is meant to stay is given up only if the forge says that
    /// it does not know it, which it is asked before it is taken up again; where nobody can ask, that end has to do.
    pub(super) fn forget_lost(&mut self) {
        self.use_up();
        if self.means.common.persistent && !self.can_ask() {
            self.state.forget_kept();
            self.demote();
        }
    }

    pub(super) fn demote(&mut self) {
        self.state.demote();
        self.state.save_or_warn();
    }

    /// The forge was asked for no registration of the name that was to be tried: nobody need look for one.
    pub(super) fn never_registered(&mut self) {
        self.unused_name = self.state.content.current.take().map(|current| current.name);
        self.state.save_or_warn();
    }

    /// Demotes a registration that the forge is known to have had; a name that was only tried stays to be tried again.
    pub(super) fn demote_known(&mut self) {
        if self.state.content.current.as_ref().is_some_and(|current: &Registration| current.id.is_some()) {
            self.demote();
        }
    }

    pub(super) fn save(&mut self) -> Result<(), Fault> {
        self.state.save().map_err(|error| on_disk(&error))
    }

    pub(super) fn has_leftovers(&self) -> bool {
        self.means.board.set_leftovers(self.state.content.leftovers.len());
        !self.state.content.leftovers.is_empty()
    }

    fn can_ask(&self) -> bool {
        matches!(self.means.provider.releasing(false), Releasing::Request)
    }

    /// Asks the forge what it thinks of the registration. `None` with no more than a registration token, which cannot ask.
    pub(super) fn ask(&self) -> Option<Answer<'static, Standing>> {
        if !self.can_ask() {
            return None;
        }
        let (provider, current) = (Rc::clone(&self.means.provider), self.state.content.current.clone()?);
        Some(Box::pin(async move { provider.standing(&current).await }))
    }

    /// Whether the forge's limit of requests is nearly used up, so that what can wait is not asked.
    pub(super) fn nearly_used_up(&self) -> bool {
        let ours = self.means.provider.fingerprint();
        let kept = || self.state.content.pace.clone().filter(|pace| pace.holds_for(ours.as_ref()));
        let known = self.means.provider.pace().or_else(kept);
        known.is_some_and(|pace| pace.left().is_some())
    }

    /// Makes sure that the forge does not have the registration any more, or that it is a leftover. One that is meant to stay stays,
    /// whatever its listener ended of.
    pub(super) async fn unregister(&mut self, directory: &Path, ending: &Ending) {
        self.cut_off = *ending == Ending::Stopped(Why::CutOff);
        if self.means.common.persistent {
            return;
        }
        if self.state.content.current.is_none() {
            return;
        }
        if self.cut_off {
            return self.demote();
        }
        self.means.board.enter(Phase::Unregistering);
        let next = match (ending.goes_on(), self.means.stop.urgency()) {
            (true, Urgency::None) => "it is tried again before this container registers anew",
            (false, Urgency::None) => "it is tried again when this container starts again",
            (_, Urgency::Finish | Urgency::Cancel) => "it is tried again before this container leaves",
        };
        let given_up = Instant::now() + self.means.common.kill_timeout;
        let mut pause = Duration::from_millis(250);
        loop {
            // Of a job that was ended or never was the forge learns by time alone, and by far more of it than is to be had here.
            let in_vain = !ending.is_known_soon() && self.means.stop.urgency() == Urgency::None;
            if in_vain && self.is_refused(&self.name()) {
                tracing::warn!(
                    "the registration could not be removed: the forge still believes that a job runs; {next}"
                );
                self.demote();
                break;
            }
            let released = match self.denial.clone() {
                Some(denial) => Err(denial),
                None => self.release_current(directory, ending.is_done()).await,
            };
            let trouble = match released {
                Ok(Released::Gone) => {
                    tracing::info!("the registration is gone");
                    break;
                }
                Ok(Released::Busy) if in_vain => continue,
                Ok(Released::Busy) => "the forge still believes that a job runs".to_owned(),
                Err(fault @ Fault::Denied { .. }) => {
                    // It would refuse again before we leave.
                    let leaves = !ending.goes_on() || self.means.stop.urgency() > Urgency::None;
                    let next = if leaves { "the next incarnation will try again" } else { next };
                    tracing::warn!("the registration cannot be removed: {fault}; {next}");
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
                tracing::warn!("the registration could not be removed: {trouble}; {next}");
                self.demote();
                break;
            }
            tracing::debug!("the registration is not gone yet: {trouble}");
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.means.provider.rest();
        self.means.board.set_runner(None);
    }

    /// One attempt to let the current registration go.
    pub(super) async fn release_current(&mut self, directory: &Path, job_done: bool) -> Result<Released, Fault> {
        let Some(current) = self.state.content.current.clone() else {
            return Ok(Released::Gone);
        };
        let released = match self.means.provider.releasing(job_done) {
            Releasing::Request => match self.release(&current).await {
                // The living one is ours, and nobody has told us its number.
                Err(Fault::NameTaken { by, .. }) if by.is_some() => {
                    self.release(&Registration { id: by, ..current.clone() }).await
                }
                released => released,
            },
            Releasing::Command(removal) => self.release_by_command(directory, removal).await,
            Releasing::ByForge => {
                if !job_done {
                    tracing::info!(
                        "{} stays registered: nothing here may remove it. The forge does, a day after it was last seen",
                        current.name
                    );
                }
                Ok(Released::Gone)
            }
        }
        .inspect_err(|fault| self.denial = Some(fault.clone()).filter(|fault| matches!(fault, Fault::Denied { .. })))?;
        if released == Released::Busy {
            self.refused.push(current.name.clone());
        }
        if released == Released::Gone {
            metrics::registration(Registered::Removed);
            self.state.content.current = None;
            self.state.save_or_warn();
        }
        Ok(released)
    }

    /// The registration in use is busy with a job that is there: that it was called so says nothing of what comes after it.
    pub(super) fn is_rightly_busy(&mut self) {
        self.refused.clear();
        self.denial = None;
    }

    /// Whether the forge has called it busy in this life.
    fn is_refused(&self, name: &str) -> bool {
        self.refused.iter().any(|refused| refused == name)
    }

    /// One request, and where the forge knows that, one before it, so that no job is given out between the two.
    async fn release(&self, registration: &Registration) -> Result<Released, Fault> {
        if let Some(disabled) = self.means.provider.disable(registration) {
            disabled.await?;
        }
        self.means.provider.release(registration).await
    }

    async fn release_by_command(&self, directory: &Path, removal: Removal) -> Result<Released, Fault> {
        let started = self.means.starter.start(directory, &removal.step, Voice::Step);
        let (mut agent, _) = started.map_err(|error| cannot_start(&error))?;
        let ended = match timeout(self.means.common.kill_timeout, agent.ended()).await {
            Ok(ended) => ended,
            Err(_) => interrupt(&self.means, &mut agent).await,
        };
        if ended == Ended::Code(0) {
            return Ok(Released::Gone);
        }
        let said = agent.tail.last_words().await;
        let has = |signs: &[&str]| signs.iter().any(|sign| said.iter().any(|words| words.contains(sign)));
        let what = format!("the agent's remove command failed ({ended}): {}", reason(&said));
        if has(removal.busy) {
            return Ok(Released::Busy);
        }
        // GitHub says 403 of a limit, too.
        if said.iter().any(|words| speaks_of_limit(words)) {
            return Err(self.means.provider.http().limited(what));
        }
        Err(if has(removal.refused) { Fault::denied(what, removal.cure) } else { Fault::Unreachable(what) })
    }

    /// Lets go of what earlier incarnations could not. What is busy or at another server stays for later; what another scope refuses is
    /// given up.
    pub(super) async fn release_leftovers(&mut self) -> Result<(), Fault> {
        if self.state.content.leftovers.is_empty() {
            return Ok(());
        }
        if matches!(self.means.provider.releasing(false), Releasing::ByForge) {
            self.state.content.leftovers.clear();
            return Ok(());
        }
        if !matches!(self.means.provider.releasing(false), Releasing::Request) {
            let names: Vec<&str> = self.state.content.leftovers.iter().map(|left| left.name.as_str()).collect();
            tracing::warn!(
                "{} may still be registered and cannot be removed without a token for the API; the forge removes an ephemeral \
                 runner after a day",
                names.join(", ")
            );
            self.state.content.leftovers.clear();
            return Ok(());
        }
        let mut later = Later::default();
        self.leftovers_denied = false;
        let released = self.release_each_leftover(&mut later).await;
        self.leftovers_denied = matches!(released, Err(Fault::Denied { .. }));
        later.say();
        released
    }

    /// One by one, so that being cut short (by a stop, or a job that comes) forgets none.
    async fn release_each_leftover(&mut self, later: &mut Later) -> Result<(), Fault> {
        for registration in self.state.content.leftovers.clone() {
            let ours = self.means.provider.registration(&registration.name);
            let foreign = registration.scope != ours.scope;
            let released = if !registration.is_at_the_server_of(&ours) {
                Err(Fault::Unreachable("that is another server, and this runner's credential is not for it".to_owned()))
            } else if foreign {
                // Nothing that this runner waits for.
                timeout(FOREIGN, self.release(&registration))
                    .await
                    .unwrap_or_else(|_| Err(Fault::Unreachable("it does not answer".to_owned())))
            } else {
                self.release(&registration).await
            };
            match released {
                Ok(Released::Busy) => {
                    self.heard_of(&registration.name, true);
                    later.busy.push(registration.name);
                    continue;
                }
                Ok(Released::Gone) => {
                    self.heard_of(&registration.name, false);
                    metrics::registration(Registered::Removed);
                    tracing::info!("{} of an earlier incarnation is not registered any more", registration.name);
                }
                Err(Fault::NameTaken { name, by }) => self.leave_to_others(&name, by, foreign)?,
                Err(fault @ Fault::Denied { .. }) if foreign => tracing::warn!(
                    "{} may still be registered at {}, which refuses us: {fault}",
                    registration.name,
                    registration.scope
                ),
                Err(fault) if foreign => {
                    let why = (registration.scope, fault.to_string());
                    later.away.entry(why).or_default().push(registration.name);
                    continue;
                }
                Err(fault) => return Err(fault),
            }
            self.state.content.leftovers.retain(|left| *left != registration);
            self.state.save_or_warn();
        }
        Ok(())
    }

    /// A living agent has the name of a registration that may never have been made. It is left alone, and this container takes
    /// another name, if it may.
    fn leave_to_others(&self, name: &str, by: Option<u64>, foreign: bool) -> Result<(), Fault> {
        let ours = self.state.content.current.as_ref().is_some_and(|current| current.id.is_some() && current.id == by);
        if ours || foreign || !matches!(self.means.common.naming, Naming::Fixed(_)) {
            tracing::info!("{}: it stays", Fault::NameTaken { name: name.to_owned(), by });
            return Ok(());
        }
        Err(Fault::denied(
            format!("{}, and is not taken from it", Fault::NameTaken { name: name.to_owned(), by }),
            "only one container may have an exact name: stop the other one, or unset RUNNER_NAME here",
        ))
    }

    /// Before the end: nothing stays registered that can be let go, and the next incarnation knows the rest.
    pub(super) async fn leave(&mut self) {
        if !self.means.common.persistent {
            self.demote();
        }
        // What the forge has just called busy is no less so now; whoever was stopped may not come back.
        let in_vain = !self.means.stop.signalled()
            && self.state.content.leftovers.iter().all(|leftover| self.is_refused(&leftover.name))
            || self.denial.is_some()
            || self.cut_off
            || self.leftovers_denied;
        if self.has_leftovers() && !in_vain {
            self.means.board.enter(Phase::Unregistering);
            // Where nobody answered the request that may have made them, nobody will say so now.
            let unsure = self.means.provider.http().silent_since().is_some()
                && self.state.content.leftovers.iter().all(|leftover| leftover.id.is_none());
            let most = if unsure { LAST_WORD } else { self.means.common.kill_timeout };
            let released = timeout(most.min(self.means.common.kill_timeout), self.release_leftovers()).await;
            let trouble = match released {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault.to_string()),
                Err(_) => Some("the forge does not answer".to_owned()),
            };
            if let Some(trouble) = trouble {
                tracing::warn!("a registration could not be removed: {trouble}; the next incarnation will");
            }
        }
        self.tell_of_earlier_job(false);
        // A life that was stopped before it asked for anything knows no more than the last one did.
        self.state.content.pace = self.means.provider.pace().or(self.state.content.pace.take());
        self.state.save_or_warn();
        self.means.provider.rest();
        self.means.board.set_runner(None);
    }
}

pub(super) fn cannot_start(error: &SpawnError) -> Fault {
    Fault::Denied {
        what: format!("the agent cannot be started: {error}"),
        cure: "check the image and the capabilities that the container is given".to_owned(),
    }
}

pub(super) fn on_disk(error: &StateError) -> Fault {
    Fault::Denied { what: error.to_string(), cure: "free some space, or make that place writable".to_owned() }
}
