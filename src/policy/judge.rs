//! The judgement of a job.

use super::evidence::{Evidence, Origin, ReadOrigin, Whose};
use super::pattern::{LONGEST, Pattern};
use crate::plain::plain;

/// What may run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether work that comes from a fork may.
    pub forks: bool,
    /// From which repositories; all when unset.
    pub repositories: Option<Vec<Pattern>>,
    /// For which events.
    pub events: Option<Vec<Pattern>>,
    /// For which refs.
    pub refs: Option<Vec<Pattern>>,
}

/// Why a job may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// It comes from a fork.
    #[error("{0}; work from forks may not run on this runner (OSCR_ALLOW_FORKS is false)")]
    Fork(String),
    /// It is not on a list.
    #[error("{what} {value:?} is none of those that may use this runner ({setting})")]
    Unlisted {
        /// Repository, event or ref.
        what: &'static str,
        /// The job's.
        value: String,
        /// The list.
        setting: &'static str,
    },
    /// It cannot be judged.
    #[error("it cannot be judged whether this job may run here: {0}")]
    Unclear(String),
}

impl Policy {
    /// Whether there is nothing to judge.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.forks && self.repositories.is_none() && self.events.is_none() && self.refs.is_none()
    }

    /// Whether the user has asked for more than the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Judges a job. `read` knows the forge's payloads.
    ///
    /// # Errors
    /// Why it may not run.
    pub fn judge(&self, evidence: &Evidence, read: ReadOrigin) -> Result<(), Denial> {
        if self.allows_everything() {
            return Ok(());
        }
        let facts = &evidence.facts;
        let known = |value: &Option<String>, what: &str| {
            let value = value.as_ref().filter(|value| !value.is_empty() && value.len() <= LONGEST);
            value.cloned().ok_or_else(|| Denial::Unclear(format!("the agent named no {what}")))
        };
        let event = known(&facts.event, "event")?;
        let repository = known(&facts.repository, "repository")?;
        if let Some(list) = &self.repositories {
            listed(list, "the repository", &repository, "OSCR_ALLOW_REPOS")?;
        }
        if let Some(list) = &self.events {
            listed(list, "the event", &event, "OSCR_ALLOW_EVENTS")?;
        }
        if let Some(list) = &self.refs {
            listed(list, "the ref", &known(&facts.reference, "ref")?, "OSCR_ALLOW_REFS")?;
        }
        let origin = origin(evidence, read)?;
        if let Some(named) = origin.repository.filter(|named| !named.eq_ignore_ascii_case(&repository)) {
            return Err(Denial::Unclear(format!(
                "the agent names the repository {repository:?}, and the event's payload {:?}",
                plain(&named)
            )));
        }
        match origin.work {
            Whose::Outside(whose) if !self.forks => Err(Denial::Fork(whose)),
            Whose::Unclear(why) if !self.forks => Err(Denial::Unclear(why)),
            _ => Ok(()),
        }
    }
}

fn listed(list: &[Pattern], what: &'static str, value: &str, setting: &'static str) -> Result<(), Denial> {
    if list.iter().any(|pattern| pattern.fits(value)) {
        return Ok(());
    }
    Err(Denial::Unlisted { what, value: plain(value), setting })
}

fn origin(evidence: &Evidence, read: ReadOrigin) -> Result<Origin, Denial> {
    let unclear = |why: &str| Denial::Unclear(format!("the event's payload {why}"));
    match &evidence.payload {
        None => Err(unclear("is missing")),
        Some(Err(why)) => Err(unclear(&plain(why))),
        Some(Ok(bytes)) => {
            read(&evidence.facts, bytes).map_err(|why| unclear(&format!("makes no sense: {}", plain(&why))))
        }
    }
}
