//! What differs between forges.
//!
//! A [`Provider`] knows one forge and its agent: how a registration is granted, which commands configure and run the
//! agent, what the agent's exit codes mean, and how a registration is let go. It knows [`http`] and the configuration, and
//! nothing of the life cycle that uses it. Adding a forge is a folder here, an image, and a line in [`PROVIDERS`].

pub mod azure_devops;
pub mod finding;
pub mod github;
pub mod http;
pub mod pace;
pub mod token_cache;

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::finding::Finding;
use self::http::Http;
use self::pace::Pace;
use crate::config::table::{COMMON, Kind, Setting};
use crate::config::{Common, Reader, Secret, SecretError, SecretSource};
#[cfg(test)]
use crate::config::{Environment, Problem};
use crate::encode::digest;
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
pub const PROVIDERS: &[Entry] = &[github::ENTRY, azure_devops::ENTRY];

/// Whether a variable of this name is itself a secret, for whatever provider and under whatever name.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let settings = PROVIDERS.iter().map(|provider| provider.settings).chain([COMMON]).flatten();
    settings
        .filter(|setting| setting.kind == Kind::Secret)
        .any(|setting| setting.name == name || setting.aliases.contains(&name))
}

/// What a forge says, some time later. Everything runs on one thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + 'a>>;

/// What an examination finds, some time later.
pub type Findings<'a> = Pin<Box<dyn Future<Output = Vec<Finding>> + 'a>>;

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

impl Fault {
    /// It refused this, until somebody changes that.
    pub fn denied(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Denied { what: what.into(), cure: cure.into() }
    }
}

/// A secret that cannot be read now: somebody must mount or fill the file.
impl From<SecretError> for Fault {
    fn from(error: SecretError) -> Self {
        Self::denied(error.to_string(), "put the secret there; it is read anew as soon as the file changes")
    }
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

/// The forge's permission to be an agent. Forges differ in what they give: a token that the configure step turns into a
/// registration, a registration with the files that configure the agent for it, or an id with a credential.
#[derive(Debug, Default)]
pub struct Grant {
    /// The record, if the forge has made it already; else the configure step makes it.
    pub registration: Option<Registration>,
    /// Files for the agent's root, written before the configure step.
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
    /// By the forge itself: nothing is left to do.
    ByForge,
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
    /// It sees the agent.
    Online,
    /// It sees the agent, and has given it a job.
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

/// How the listener is told to end.
#[derive(Debug, Clone, Copy)]
pub struct StopPlan {
    /// Makes it finish its running job and end, if it knows such a signal. Without one, the job is simply waited for.
    pub finish: Option<Signal>,
    /// Makes it cancel a running job, say so to the forge, and end.
    pub abort: Signal,
}

/// A version of the agent as the forge offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Such as `2.338.0`.
    pub version: String,
    /// Where its archive (tar, gzip) is.
    pub url: String,
    /// The SHA-256 of the archive in hexadecimal digits, if the forge names it.
    pub sha256: Option<String>,
}

/// A sign of how a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It was offered a job and is about to take it.
    Acquiring,
    /// It passed a job over.
    Skipped,
    /// The forge took back the job that it was offered, and it is about to end.
    Refused,
    /// Its registration is not known.
    Unknown,
    /// There is another session under its name.
    Conflict,
    /// It has lost its connection and tries to get it back.
    Disconnected,
    /// It has got it back.
    Reconnected,
}

/// Words of an agent for people: all of a line, but for what varies in it.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Whether a time always stands before it. Before others one may.
    pub timed: bool,
    /// How it begins.
    pub start: &'static str,
    /// How it ends.
    pub end: &'static str,
    /// What it says.
    pub meaning: Meaning,
}

impl Line {
    /// With a time.
    pub const fn timed(start: &'static str, meaning: Meaning) -> Self {
        Self { timed: true, start, end: "", meaning }
    }

    /// With or without a time.
    pub const fn new(start: &'static str, end: &'static str, meaning: Meaning) -> Self {
        Self { timed: false, start, end, meaning }
    }
}

/// What words of an agent say.
#[derive(Debug, Clone, Copy)]
pub enum Meaning {
    /// The listener is connected.
    Listening,
    /// It begins a job, whose name is what varies.
    Running,
    /// A job is over: its name, this, and its result.
    Completed(&'static str),
    /// It is of the version that stands there.
    Version,
    /// How it is.
    Sign(Sign),
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
    /// What its words for people mean, each taken by its whole.
    pub words: &'static [Line],
    /// What its traces mean, where it has them on its output: the part of it that traces, how the text begins, and what it says.
    pub traces: &'static [(&'static str, &'static str, Sign)],
    /// The files in the root that make up a configuration, for a registration that is kept.
    pub configuration: &'static [&'static str],
    /// Variables of ours that the agent gets whatever the user says.
    pub env: &'static [(&'static str, &'static str)],
    /// Names of variables, or prefixes ending in `*`, that the agent understands and the user may set.
    pub env_allowed: &'static [&'static str],
    /// Prefix of the variables that carry the agent's own input, which nobody but us may set.
    pub input_prefix: &'static str,
    /// The variable that names the variables which the agent must keep to itself, if it publishes its environment.
    pub unpublished: Option<&'static str>,
    /// The variable that names the proxy, if the agent does not heed the usual ones.
    pub proxy: Option<&'static str>,
    /// The agent's variables for the hooks around a job, if it has such.
    pub hooks: Option<HookVariables>,
    /// What it marks its objects in Docker with.
    pub docker_label: LabelledBy,
    /// How the listener is told to end.
    pub stop: StopPlan,
}

/// What an agent derives the label from that it puts on containers and networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelledBy {
    /// The text of a file in its root.
    File(&'static str),
    /// The path of its root.
    Root,
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
    /// The client that asks for everything.
    fn http(&self) -> &Http;
    /// An address of the API that needs no credential to answer something.
    fn open_url(&self) -> String;
    /// The secrets in use, for guarding and watching their files.
    fn secrets(&self) -> Vec<&SecretSource>;
    /// What this scope's registrations carry in [`Registration::scope`].
    fn registration(&self, name: &str) -> Registration;
    /// Asks for the permission to register.
    fn grant<'a>(&'a self, wanted: Wanted<'a>) -> Answer<'a, Grant>;
    /// The command that makes use of the grant, if the agent needs one before it can run.
    fn configure(&self, grant: &Grant, wanted: Wanted<'_>) -> Option<Step>;
    /// What a configure step means that failed with these words.
    fn configure_failed(&self, words: &str) -> Fault;
    /// The id that the configure step was given, read from the agent's root or asked from the forge.
    fn identify<'a>(&'a self, name: &'a str, root: &'a Path) -> Answer<'a, Registration>;
    /// The command that listens for jobs.
    fn run(&self) -> Step;
    /// What the listener's end means; `job_seen` when a worker ran.
    fn read_exit(&self, ended: Ended, job_seen: bool) -> Reading;
    /// How a registration is let go; `job_done` when its one job ran to the end.
    fn releasing(&self, job_done: bool) -> Releasing;
    /// Lets a registration go; one that does not exist is gone.
    fn release<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Released>;
    /// What the forge thinks of a registration.
    fn standing<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Standing>;
    /// Registrations of ours that nobody will come back to, if the user wants them removed.
    fn stale(&self) -> Answer<'_, Vec<Registration>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    /// Whether the forge gives jobs only to agents that are replaced soon after the next release. A registration is not refused,
    /// and nothing tells an agent that it is too old.
    fn starves_old_agents(&self) -> bool {
        false
    }
    /// The version of the agent that the forge offers now.
    fn package(&self) -> Answer<'_, Package>;
    /// Fetches its archive, and gives the archive's SHA-256 in hexadecimal digits.
    fn download<'a>(&'a self, package: &'a Package, to: &'a mut File) -> Answer<'a, String> {
        Box::pin(self.http().download(&package.url, to))
    }
    /// What to wait for before anything new is begun, as the forge's last answers have it.
    fn pace(&self) -> Option<Pace> {
        self.http().pace().map(|pace| Pace { credential: self.fingerprint(), ..pace })
    }
    /// Tells the credential from others, and says nothing about it; `None` when it cannot be read.
    fn fingerprint(&self) -> Option<String> {
        let secret = self.secrets().first()?.read().ok()?;
        Some(digest(&["oscr credential", secret.expose()]))
    }
    /// Looks at all that a registration needs from the forge, and changes nothing there: credential, scope, group, labels, and
    /// the agent's version, which is given if it is known. In this order, and only once the forge was reached.
    fn examine<'a>(&'a self, version: Option<&'a str>) -> Findings<'a>;
    /// Nothing will be asked for a while.
    fn rest(&self) {
        self.http().rest();
    }
}

/// Reads what an agent wrote as JSON: with a byte order mark.
fn read_agents_json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

/// This machine's architecture, as agents call it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a provider makes of these variables: where it registers, and what the user is told.
#[cfg(test)]
fn read_settings<const N: usize>(
    entry: &Entry,
    variables: [(&str, &str); N],
) -> Result<(String, Vec<String>), Vec<Problem>> {
    let environment = Environment::from(variables);
    let mut reader = Reader::new(&environment, vec![COMMON, entry.settings]);
    let common = Common::read(&mut reader);
    let provider = (entry.read)(&mut reader, &common);
    let read = reader.finish()?;
    let provider = provider.expect("no problem, so there is a provider");
    Ok((provider.registration("n").scope, read.notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_setting_is_known_under_all_its_names() {
        for name in [
            "GITHUB_PAT",
            "ACCESS_TOKEN",
            "GH_PAT",
            "RUNNER_TOKEN",
            "GITHUB_APP_PRIVATE_KEY",
            "APP_PRIVATE_KEY",
            "ACTIONS_RUNNER_INPUT_JITCONFIG",
            "ADO_PAT",
            "AZP_TOKEN",
            "ADO_CLIENT_SECRET",
        ] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("GITHUB_PAT_FILE") && !is_secret("GITHUB_OWNER"));
    }
}
