//! A registration: the forge's record of one agent, how it is granted, made use of and let go, and what the forge thinks of it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::fault::Fault;
use crate::config::Secret;

/// A forge's record of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The forge's number for it, once known.
    pub id: Option<u64>,
    /// Its name.
    pub name: String,
    /// Where it is registered, in a form that the provider understands later, even with another configuration.
    pub scope: String,
}

impl Registration {
    /// Whether it is at the server of `other`. A credential is for one server, and is no business of another.
    pub(crate) fn is_at_the_server_of(&self, other: &Self) -> bool {
        server(&self.scope) == server(&other.scope)
    }

    /// The number of the one that the forge lists under this name, if it may be removed. Nobody here has ever been told that number:
    /// one that the forge does not see is what is left of an attempt of ours, or nobody's any more; a living one is somebody else's.
    ///
    /// # Errors
    /// [`Fault::NameTaken`] when it is.
    pub(super) fn of_namesake(&self, id: u64, offline: bool) -> Result<u64, Fault> {
        if !offline {
            return Err(Fault::NameTaken { name: self.name.clone(), by: Some(id) });
        }
        tracing::info!(
            "removing {} (id {id}): the forge does not see it, and it has the name that was tried here",
            self.name
        );
        Ok(id)
    }
}

/// Scheme, host and port of a scope that is an address; nothing of another.
fn server(scope: &str) -> Option<&str> {
    let begins = scope.find("://")? + 3;
    let length = scope[begins..].find('/').unwrap_or(scope.len() - begins);
    Some(&scope[..begins + length])
}

/// What a registration is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The new agent's name.
    pub name: &'a str,
    /// Where its jobs will work.
    pub work_directory: &'a Path,
}

/// Files that configure an agent: name and content.
pub type Files = Vec<(String, Zeroizing<Vec<u8>>)>;

/// The forge's permission to be an agent. Forges differ in what they give: a token that the configure step turns into a
/// registration, a registration with the files that configure the agent for it, or an id with a credential.
#[derive(Debug, Default)]
pub struct Grant {
    /// The record, if the forge has made it already; else the configure step makes it.
    pub registration: Option<Registration>,
    /// Files for the agent's directory, written before the configure step.
    pub files: Files,
    /// A secret for the configure step.
    pub credential: Option<Secret>,
    /// For a grant that somebody else got from the forge and that is good for one job: what tells it from the next one. Without
    /// it, each grant is a new one.
    pub once: Option<Once>,
}

/// A grant that is used up by a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Differs between grants, and says nothing about their secrets.
    pub fingerprint: String,
    /// What to say when it has been used.
    pub used_up: Fault,
}

/// A command of the agent.
#[derive(Debug)]
pub struct Step {
    /// Relative to the agent's directory.
    pub program: &'static str,
    /// Arguments; never a secret.
    pub args: Vec<String>,
    /// Secrets, as variables that the agent reads and removes.
    pub secrets: Vec<(&'static str, Secret)>,
}

/// How a registration is let go.
#[derive(Debug)]
pub enum Releasing {
    /// By [`Provider::release`].
    Request,
    /// By a command of the agent in its root, because we hold no credential that could ask.
    Command(Removal),
    /// By the forge itself: nothing is left to do.
    ByForge,
}

/// How the agent itself lets its registration go.
#[derive(Debug)]
pub struct Removal {
    /// The command.
    pub step: Step,
    /// What the words of one that fails hold, one or the other, if a job holds the registration.
    pub busy: &'static [&'static str],
    /// The same if the forge refuses it, as it would again.
    pub refused: &'static [&'static str],
    /// What helps against that.
    pub cure: String,
}

/// The forge's answer to a request to let a registration go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is gone; no job will come.
    Gone,
    /// A job holds it.
    Busy,
}

/// What the forge thinks of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does not know it.
    Unknown,
    /// It knows it, and sees no agent.
    Offline,
    /// The same, and it believes in a job that it gave the agent.
    OfflineBusy,
    /// It sees the agent.
    Online,
    /// It sees the agent, and has given it a job.
    Busy,
}

impl Standing {
    /// That of an agent which it does not see, and believes to have a job or not.
    #[must_use]
    pub fn offline(busy: bool) -> Self {
        if busy { Self::OfflineBusy } else { Self::Offline }
    }

    /// Whether it believes that the agent has a job.
    #[must_use]
    pub fn believes_in_job(self) -> bool {
        matches!(self, Self::Busy | Self::OfflineBusy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_the_same_by_scheme_host_and_port() {
        let at = |scope: &str| Registration { id: None, name: String::new(), scope: scope.to_owned() };
        for (one, other, same) in [
            ("https://api.github.com/orgs/a/actions", "https://api.github.com/repos/b/c/actions", true),
            ("https://api.github.com/orgs/a/actions", "https://ghe.corp/api/v3/orgs/a/actions", false),
            ("https://ghe.corp/api/v3/orgs/a", "http://ghe.corp/api/v3/orgs/a", false),
            ("https://ghe.corp:8443/api/v3", "https://ghe.corp/api/v3", false),
            ("https://ghe.corp", "https://ghe.corp/api/v3", true),
            ("a pool", "another", true),
        ] {
            assert_eq!(at(one).is_at_the_server_of(&at(other)), same, "{one} {other}");
        }
    }
}
