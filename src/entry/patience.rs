//! Waiting after a failure: for how long, what is said of it, and what cuts it short.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::ending::Ending;
use super::means::Means;
use super::state::StateFile;
use super::stop::Urgency;
use crate::config::secret::{FileStamp, SecretSource};
use crate::control::Phase;

/// How often a secret's file is looked at meanwhile. Not by notification: mounts of single files
/// and the links of Kubernetes' secrets do not give any.
const LOOK_AT_SECRET: Duration = Duration::from_secs(2);

/// So many listeners in a row that the forge refuses are no chance any more.
const TOLERATED_REFUSALS: u32 = 3;

/// Who waits when something failed, and knows how often it did.
pub(super) struct Patience {
    means: Rc<Means>,
    pub(super) backoff: Backoff,
    /// How many listeners in a row the forge has refused without saying why.
    refusals: u32,
    /// What the secrets' files looked like before they were last used.
    stamps: Vec<FileStamp>,
    /// The fingerprint of the credential that they held.
    credential: Option<String>,
}

impl Patience {
    /// Goes on counting where an earlier incarnation ended.
    pub(super) fn new(means: Rc<Means>, state: &StateFile) -> Self {
        let backoff = Backoff::after(state.content.failures);
        let mut patience = Self { means, backoff, refusals: 0, stamps: Vec::new(), credential: None };
        patience.look_at_secrets();
        patience
    }

    /// The secrets are about to be used.
    pub(super) fn look_at_secrets(&mut self) {
        self.stamps = self.secrets();
        self.credential = self.means.provider.fingerprint();
        // What an agent was refused with it is a limit of its too.
        self.means.provider.http().ask_as(self.credential.clone());
    }

    /// Whether a secret was corrected since: while the forge refuses it, whoever touches its file says so; else a file that is
    /// written anew with what it held is no reason to ask.
    fn is_corrected(&mut self, phase: Phase) -> bool {
        if self.secrets() == self.stamps {
            return false;
        }
        let before = self.credential.clone();
        self.look_at_secrets();
        phase == Phase::Denied || self.credential.is_some() && self.credential != before
    }

    fn secrets(&self) -> Vec<FileStamp> {
        self.means.provider.secrets().into_iter().map(SecretSource::stamp).collect()
    }

    /// A listener has ended like this. Refusals count as long as they come one after the other.
    pub(super) fn hear_of(&mut self, ending: &Ending) {
        self.refusals = match ending {
            Ending::Refused { .. } => self.refusals.saturating_add(1),
            _ => 0,
        };
    }

    /// Waits after a listener that the forge refused without saying why. One may be a fault that passes; after several it is
    /// said what it can mean, because only a person can find out.
    pub(super) async fn wait_out_refusal(&mut self, state: &mut StateFile, what: &str, causes: &str) {
        if self.refusals < TOLERATED_REFUSALS {
            let wait = self.backoff.after_fault();
            return self.wait_out(state, Phase::BackingOff, what, wait).await;
        }
        let wait = self.backoff.after_denial();
        let trouble = format!("{what}; {} listeners in a row ended so: {causes}", self.refusals);
        self.wait_out(state, Phase::Denied, &trouble, wait).await;
    }

    /// Says what went wrong and waits, unless asked to stop or a secret's file changes.
    pub(super) async fn wait_out(&mut self, state: &mut StateFile, phase: Phase, trouble: &str, wait: Duration) {
        let means = Rc::clone(&self.means);
        let Means { board, stop, numbers, .. } = &*means;
        match phase {
            Phase::Dirty => board.waits(trouble, wait),
            _ => board.fault(trouble, wait),
        }
        // While it is tried again, nothing is known to be better.
        if let Phase::Denied | Phase::Outdated | Phase::Dirty = phase {
            board.keep_reason(phase, trouble);
        }
        board.enter(phase);
        state.content.failures = self.backoff.failures;
        state.save_or_warn();
        numbers.keep();
        let next = humantime::format_duration(Duration::from_secs(wait.as_secs().max(1)));
        match phase {
            Phase::BackingOff => tracing::warn!("{trouble}; trying again in {next}"),
            _ => tracing::error!("{trouble}; trying again in {next}"),
        }
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let step = (Instant::now() + LOOK_AT_SECRET).min(until);
            tokio::select! {
                () = sleep_until(step) => {}
                () = stop.reached(Urgency::Finish) => return,
            }
            if self.is_corrected(phase) {
                tracing::info!("the secret's file has changed: trying again now");
                self.backoff.reset();
                return;
            }
        }
    }

    /// Whether there is anything that [`Self::forget_failures`] would make history.
    pub(super) fn has_failures(&self, state: &StateFile) -> bool {
        self.means.board.has_faults() || self.backoff != Backoff::default() || state.content.failures != 0
    }

    pub(super) fn forget_failures(&mut self, state: &mut StateFile) {
        self.means.board.well();
        self.refusals = 0;
        self.backoff.reset();
        if state.content.failures != 0 {
            state.content.failures = 0;
            state.save_or_warn();
        }
    }
}
