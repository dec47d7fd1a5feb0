//! Trying an agent: whoever can say its version has all its libraries.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::children::{Running, Starter};
use super::in_use::BuildStamp;
use super::registrar::{Registrar, cannot_start};
use super::work::on_a_thread;
use crate::agent::directory::{self, AgentDirectoryError};
use crate::agent::words::Voice;
use crate::init::{Ended, SpawnError};
use crate::os::Identity;
use crate::provider::{Fault, Step};
use crate::workspace::{Spare, wipe};

/// How long it may take to say its version.
const SAY: Duration = Duration::from_secs(30);
/// How many were tried: a root that is still being made for one that was given up is in nobody's way.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// Why an agent did not say its version.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsaid {
    /// It got no root.
    #[error("it cannot be tried: {0}")]
    Root(AgentDirectoryError),
    /// It was not started.
    #[error("it cannot be tried: {0}")]
    Start(SpawnError),
    /// It went on without it.
    #[error("it did not say its version within {} s", SAY.as_secs())]
    Silent,
    /// It ended without it.
    #[error("asked for its version it ended with {ended} and said {said:?}")]
    Ended {
        /// How.
        ended: Ended,
        /// Its last words.
        said: String,
    },
}

/// The version of an agent, in its own words, said in a root of its own below `roots`. Given up by being dropped.
///
/// # Errors
/// Why it did not say it.
pub(super) async fn version_of(
    agent: &Path,
    roots: &Path,
    user: &Identity,
    starter: &Starter,
) -> Result<String, Unsaid> {
    let mut starter = starter.clone();
    // With what a listener is told about its words, they would be more than the version.
    starter.env.retain(|(name, _)| !starter.facts.env.iter().any(|(told, _)| name == told));
    let name = format!("its-version-{}", TRIED.fetch_add(1, Ordering::Relaxed));
    let directory = roots.join(&name);
    let mut trial = Trial { running: None, directory: directory.clone() };
    // One of an earlier life.
    trial.clean_up();
    // Where links cannot be made, files are copied.
    let (from, roots, user) = (agent.to_owned(), roots.to_owned(), user.clone());
    on_a_thread(move || directory::make(&from, &roots, &name, &user)).await.map_err(Unsaid::Root)?;
    let step = Step { program: starter.facts.listener, args: vec!["--version".to_owned()], secrets: Vec::new() };
    let (running, _) = starter.start(&directory, &step, Voice::Step).map_err(Unsaid::Start)?;
    let running = trial.running.insert(running);
    let ended = timeout(SAY, running.ended()).await.map_err(|_| Unsaid::Silent)?;
    let words = running.tail.last_words().await;
    trial.running = None;
    let plain = |line: &&str| !line.is_empty() && line.chars().all(|c| c.is_ascii_digit() || c == '.');
    let version = words.iter().map(|line| line.trim()).find(plain);
    match (ended, version) {
        (Ended::Code(0), Some(version)) => Ok(version.to_owned()),
        _ => Err(Unsaid::Ended { ended, said: without_trace(&words) }),
    }
}

/// What was said without the calls that .NET lists when a program of its own fails: the reason stands before them.
fn without_trace(words: &[String]) -> String {
    let said: Vec<&str> = words.iter().map(|line| line.trim()).filter(|line| !line.starts_with("at ")).collect();
    said.join(" ")
}

/// An agent that is asked for its version. Given up, it is ended, and its root goes.
struct Trial {
    running: Option<Running>,
    directory: PathBuf,
}

impl Trial {
    fn clean_up(&self) {
        if self.directory.exists() && wipe(&self.directory, &Spare::default()).is_ok() {
            let _ = std::fs::remove_dir(&self.directory);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.signal(Signal::SIGKILL);
        }
        // What it still writes goes with the slate.
        self.clean_up();
    }
}

impl Registrar {
    /// Tries the agent, unless that was done in this container; gives its stamp if it was done now. One that was fetched has
    /// been tried already.
    ///
    /// # Errors
    /// Why nothing is to be registered with it.
    pub(super) async fn try_agent(&self) -> Result<Option<BuildStamp>, Fault> {
        let places = &self.means.common.places;
        let (agent, facts) = (places.agent(), self.means.provider.agent());
        let listener = agent.join(facts.listener);
        let tried = BuildStamp::of(&listener).is_ok_and(|stamp| self.state.content.tried == Some(stamp));
        if tried || self.means.in_use(&self.state).place != agent {
            return Ok(None);
        }
        let roots = places.agent_directories();
        match version_of(&agent, &roots, &self.means.agent, &self.means.starter).await {
            Ok(version) => {
                tracing::debug!("the {} runs here: it says that it is {version}", facts.title);
                // As it is with one more link.
                Ok(BuildStamp::of(&listener).ok())
            }
            Err(Unsaid::Root(error)) => {
                Err(Fault::denied(error.to_string(), "check the disk and the permissions of that place"))
            }
            Err(Unsaid::Start(error)) => Err(cannot_start(&error)),
            Err(why @ Unsaid::Silent) => Err(Fault::Unreachable(format!("the {} cannot be tried: {why}", facts.title))),
            Err(why @ Unsaid::Ended { .. }) => Err(Fault::denied(
                format!("the {} cannot run in this image: {why}", facts.title),
                "check that the image holds the libraries that the agent needs, such as ICU",
            )),
        }
    }

    /// Remembers what came of a trial.
    ///
    /// # Errors
    /// Why nothing is to be registered.
    pub(super) fn agent_was_tried(&mut self, tried: Result<Option<BuildStamp>, Fault>) -> Result<(), Fault> {
        self.agent_failed = tried.is_err();
        if let Some(stamp) = tried? {
            self.state.content.tried = Some(stamp);
            self.state.save_or_warn();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_stands_before_the_calls() {
        let words = ["Process terminated. No ICU.", "   at System.Environment.FailFast(System.String)", "   at A.B()"];
        assert_eq!(without_trace(&words.map(str::to_owned)), "Process terminated. No ICU.");
    }
}
