//! What differs between forges.
//!
//! A [`Provider`] knows one forge and its agent: how a registration is granted, which commands configure and run the
//! agent, what the agent's exit codes mean, and how a registration is let go. It knows [`http`] and the configuration, and
//! nothing of the life cycle that uses it. Adding a forge is a folder here, an image, and a line in [`PROVIDERS`].

pub mod github;
pub mod http;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::table::Setting;
use crate::config::{Common, Reader, Secret, SecretSource};
use crate::init::Ended;

/// One entry of the list of providers.
#[derive(Debug)]
pub struct Entry {
    /// The value of `CI_PROVIDER`.
    pub name: &'static str,
    /// The settings of this provider.
    pub settings: &'static [Setting],
    /// Reads them; `None` when a problem was recorded.
    pub read: fn(&mut Reader<'_>, &Common) -> Option<Box<dyn Provider>>,
}

/// All providers.
pub const PROVIDERS: &[Entry] = &[github::ENTRY];

/// What a forge says, some time later. Everything runs on one thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + 'a>>;

/// Why a forge did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It was not reached, or is not well: try again soon, then ever later.
    #[error("{0}")]
    Unreachable(String),
    /// It asks us to wait.
    #[error("the forge limits our requests ({what}); it wants {} of silence", humantime::format_duration(Duration::from_secs(wait.as_secs())))]
    Limited {
        /// For how long.
        wait: Duration,
        /// Its answer.
        what: String,
    },
    /// It refused, and will go on refusing until somebody changes something.
    #[error("{what}; {cure}")]
    Denied {
        /// What was refused.
        what: String,
        /// What to change.
        cure: String,
    },
    /// The name is in use: another one may do.
    #[error("the name {0} is taken")]
    NameTaken(String),
}

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

/// What a registration is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The new agent's name.
    pub name: &'a str,
    /// Where its jobs will work.
    pub work_directory: &'a Path,
}

/// Files that configure an agent: name and content.
pub type Files = Vec<(String, Zeroizing<Vec<u8>>)>;

/// The forge's permission to be an agent.
#[derive(Debug)]
pub enum Grant {
    /// A secret for the configure step.
    Token(Secret),
    /// The agent is registered already; these files in its root configure it.
    Files {
        /// The record.
        registration: Registration,
        /// The files.
        files: Files,
    },
}

/// A command of the agent.
#[derive(Debug)]
pub struct Step {
    /// Relative to the agent's root.
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
    Command(Step),
}

/// The forge's answer to a request to let a registration go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is gone; no job will come.
    Gone,
    /// A job holds it.
    Busy,
}

/// What the end of the listener means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It did what it was started for.
    Done,
    /// Something passing: a new registration will do.
    Retry(String),
    /// The forge does not know the registration any more: make a new one.
    Lost(String),
    /// The forge does not accept this version of the agent.
    Outdated(String),
    /// It cannot work here: somebody must change something.
    Fatal(String),
}

/// What is fixed about an agent.
#[derive(Debug)]
pub struct AgentFacts {
    /// What people call it.
    pub title: &'static str,
    /// The listener, relative to the agent's root.
    pub listener: &'static str,
    /// The process name of a worker.
    pub worker: &'static str,
    /// The listener's line that says that it is connected.
    pub listening_marker: &'static str,
    /// The listener's line that says that a job begins; the job's name follows.
    pub running_marker: &'static str,
    /// The files in the root that make up a configuration, for a registration that is kept.
    pub configuration: &'static [&'static str],
    /// Variables of ours that the agent gets whatever the user says.
    pub env: &'static [(&'static str, &'static str)],
    /// Names of variables, or prefixes ending in `*`, that the agent understands and the user may set.
    pub env_allowed: &'static [&'static str],
    /// Prefix of the variables that carry the agent's own input, which nobody but us may set.
    pub input_prefix: &'static str,
    /// The agent's variables for the hooks around a job, if it has such.
    pub hooks: Option<HookVariables>,
}

/// The agent's variables that name hook scripts.
#[derive(Debug, Clone, Copy)]
pub struct HookVariables {
    /// Run before a job's first step.
    pub job_started: &'static str,
    /// Run after its last.
    pub job_completed: &'static str,
}

/// One forge and its agent.
pub trait Provider {
    /// The value of `CI_PROVIDER`.
    fn name(&self) -> &'static str;
    /// Where agents are registered, for people.
    fn scope(&self) -> String;
    /// What is fixed about the agent.
    fn agent(&self) -> &'static AgentFacts;
    /// The secrets in use, for guarding and watching their files.
    fn secrets(&self) -> Vec<&SecretSource>;
    /// What this scope's registrations carry in [`Registration::scope`].
    fn registration(&self, name: &str) -> Registration;
    /// Asks for the permission to register.
    fn grant<'a>(&'a self, wanted: Wanted<'a>) -> Answer<'a, Grant>;
    /// The command that turns a token into a registration.
    fn configure(&self, token: &Secret, wanted: Wanted<'_>) -> Step;
    /// What a configure step means that failed with these words.
    fn configure_failed(&self, words: &str) -> Fault;
    /// The id that the configure step was given, read from the agent's root or asked from the forge.
    fn identify<'a>(&'a self, name: &'a str, root: &'a Path) -> Answer<'a, Registration>;
    /// The command that listens for jobs.
    fn run(&self) -> Step;
    /// What the listener's end means; `job_seen` when a worker ran.
    fn read_exit(&self, ended: Ended, job_seen: bool) -> Reading;
    /// How registrations are let go.
    fn releasing(&self) -> Releasing;
    /// Lets a registration go; one that does not exist is gone.
    fn release<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Released>;
    /// Whether the forge still has the registration.
    fn exists<'a>(&'a self, registration: &'a Registration) -> Answer<'a, bool>;
    /// The version of the agent that the forge offers now, for one that it does not accept.
    fn current_version(&self) -> Answer<'_, String>;
    /// Nothing will be asked for a while.
    fn rest(&self);
}
