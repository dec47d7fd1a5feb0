//! The contract of a forge: all that the life of an incarnation asks of one.

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use serde::{Deserialize, Serialize};

use super::facts::AgentFacts;
use super::fault::Fault;
use super::finding::Finding;
use super::http::Http;
use super::pace::Pace;
use super::registration::{Candidate, Grant, Registration, Released, Releasing, Standing, Step};
use crate::config::table::Setting;
use crate::config::{Common, Reader, SecretSource};
use crate::encode::digest;
use crate::init::Ended;

/// A forge's line in the list of all.
#[derive(Debug)]
pub struct Forge {
    /// The value of `CI_PROVIDER`.
    pub name: &'static str,
    /// What is fixed about its agent.
    pub agent: &'static AgentFacts,
    /// Its settings.
    pub settings: &'static [Setting],
    /// Reads them; `None` when a problem was recorded.
    pub read: fn(&mut Reader<'_>, &Common) -> Option<Box<dyn Provider>>,
}

/// What a forge says, some time later. Everything runs on one thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + 'a>>;

/// What an examination finds, some time later.
pub type Examination<'a> = Pin<Box<dyn Future<Output = Vec<Finding>> + 'a>>;

/// One forge and its agent.
pub trait Provider {
    /// The value of `CI_PROVIDER`.
    fn name(&self) -> &'static str;
    /// Where agents are registered, for people.
    fn scope(&self) -> String;
    /// Whose the agents are, by a name that those who share a machine with them may know: no repository's or project's.
    fn owner(&self) -> Option<String>;
    /// What is fixed about the agent.
    fn agent(&self) -> &'static AgentFacts;
    /// The client that asks for everything.
    fn http(&self) -> &Http;
    /// An address of the API that needs no credential to answer something.
    fn open_url(&self) -> String;
    /// The secrets in use, for guarding and watching their files.
    fn secrets(&self) -> Vec<&SecretSource>;
    /// What containers share through it.
    fn shared_directories(&self) -> Vec<SharedDirectory<'_>> {
        Vec::new()
    }
    /// What this scope's registrations carry in [`Registration::scope`].
    fn registration(&self, name: &str) -> Registration;
    /// Asks for the permission to register.
    fn grant<'a>(&'a self, wanted: Candidate<'a>) -> Answer<'a, Grant>;
    /// Whether the last grant, which failed or was not waited for, may have left a registration all the same.
    fn may_have_registered(&self) -> bool {
        true
    }
    /// The command that makes use of the grant, if the agent needs one before it can run.
    fn configure(&self, grant: &Grant, wanted: Candidate<'_>) -> Option<Step>;
    /// What a configure step means that failed: `what` is that for people, `said` are the agent's last words, oldest first.
    fn configure_failed(&self, what: &str, said: &[String]) -> Fault;
    /// The id that the configure step was given, read from the agent's directory or asked from the forge.
    fn identify<'a>(&'a self, name: &'a str, directory: &'a Path) -> Answer<'a, Registration>;
    /// The command that listens for jobs, and ends after one. `grant` is what the registration was made by; of one that was
    /// made earlier it has the files alone.
    fn run(&self, registration: &Registration, grant: &Grant) -> Step;
    /// What the listener's end means; `job_seen` when a worker ran, `words` are its last ones for people, oldest first.
    fn read_exit(&self, ended: Ended, job_seen: bool, words: &[String]) -> Reading;
    /// Whether the listener tells the forge of a job's end, and not its worker.
    fn listener_reports(&self) -> bool {
        false
    }
    /// How a registration is let go; `job_done` when its one job ran to the end.
    fn releasing(&self, job_done: bool) -> Releasing;
    /// Has the forge give this registration no more jobs, where it knows such a thing: then it is asked to before it is asked
    /// to let it go, each time. A registration that does not exist gets none.
    fn disable<'a>(&'a self, _registration: &'a Registration) -> Option<Answer<'a, ()>> {
        None
    }
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
    /// The version of the agent that the forge offers now, if it offers any.
    fn package(&self) -> Option<Answer<'_, Package>> {
        None
    }
    /// Fetches its archive, and gives the archive's SHA-256 in hexadecimal digits.
    fn download<'a>(&'a self, package: &'a Package, to: &'a mut File) -> Answer<'a, String> {
        Box::pin(self.http().download(&package.url, to))
    }
    /// What to wait for before anything new is begun, as the forge's last answers to this credential have it.
    fn pace(&self) -> Option<Pace> {
        let pace = self.http().pace()?;
        let ours = self.fingerprint();
        pace.holds_for(ours.as_ref()).then(|| Pace { credential: pace.credential.or(ours), ..pace })
    }
    /// Tells the credential from others, and says nothing about it; `None` when it cannot be read.
    fn fingerprint(&self) -> Option<String> {
        let secret = self.secrets().first()?.read().ok()?;
        Some(digest(&["oscr credential", secret.expose()]))
    }
    /// Looks at all that a registration needs from the forge, and changes nothing there: credential, scope, group, labels, and
    /// the agent's version, which is given if it is known. In this order, and only once the forge was reached.
    fn examine<'a>(&'a self, version: Option<&'a str>) -> Examination<'a>;
    /// Nothing will be asked for a while.
    fn rest(&self) {
        self.http().rest();
    }
}

/// A directory that containers share, and that no job may reach.
#[derive(Debug, Clone, Copy)]
pub struct SharedDirectory<'a> {
    /// The setting that names it.
    pub setting: &'static str,
    /// Where it is.
    pub place: &'a Path,
    /// What a job could do there.
    pub threat: &'static str,
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
    /// The forge refuses the listener and does not say why: it may be its version, or something else.
    Refused {
        /// What it did.
        what: String,
        /// What it can mean, and what to do about each, once it does so again and again.
        causes: &'static str,
    },
    /// It cannot work here: somebody must change something.
    Fatal(String),
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

#[cfg(test)]
impl Forge {
    /// What it makes of these variables: where it registers, and what the user is told.
    pub(crate) fn read_settings<const N: usize>(
        &self,
        variables: [(&str, &str); N],
    ) -> Result<(String, Vec<String>), Vec<crate::config::Problem>> {
        let environment = crate::config::Environment::from(variables);
        let mut reader = Reader::new(&environment, vec![crate::config::table::COMMON, self.settings]);
        let common = Common::read(&mut reader);
        let provider = (self.read)(&mut reader, &common);
        let read = reader.finish()?;
        let provider = provider.expect("no problem, so there is a provider");
        Ok((provider.registration("n").scope, read.notes))
    }
}
