//! How old the agent is, for people and for whoever counts.

use super::rule::Rule;
use crate::config::Common;
use crate::control::AgentAge;
use crate::encode::{day, rfc3339};
use crate::entry::in_use::InUse;
use crate::entry::schedule::Memory;
use crate::entry::state::StateFile;
use crate::provider::Provider;

/// Of the agent in use, with what is remembered of newer ones.
pub(super) fn age_of(in_use: &InUse, rule: &Rule, memory: &Memory) -> AgentAge {
    AgentAge {
        version: in_use.release.version.clone().or_else(|| memory.ours.clone()),
        released: in_use.release.released.map(day),
        update: rule.to_string(),
        newer: memory.newer().map(str::to_owned),
        urged: memory.urged.map(rfc3339),
        failures: memory.failures,
        trouble: memory.trouble.clone(),
    }
}

/// What `doctor` says of it, by what the state file remembers.
pub(crate) fn age(common: &Common, provider: &dyn Provider) -> (InUse, AgentAge) {
    let state = StateFile::read(&common.places.state()).unwrap_or_default();
    let in_use = InUse::of(&common.places, provider.agent().listener, state.agent.as_ref());
    let age = age_of(&in_use, &Rule::of(common, provider), &state.update);
    (in_use, age)
}
