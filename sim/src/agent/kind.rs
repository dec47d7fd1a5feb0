//! Which official agent the programs stand in for, and all that differs between the two.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::arguments::Arguments;
use super::client::Refusal;
use super::job::Assignment;
use super::trace::Trace;
use super::{azure, github};
use crate::protocol::{JobMessage, JobResult, Message, SessionAnswer};

/// An official agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `actions/runner`.
    GitHub,
    /// `microsoft/azure-pipelines-agent`.
    Azure,
}

/// Both.
pub(super) const KINDS: [Kind; 2] = [Kind::GitHub, Kind::Azure];

impl Kind {
    /// The kind whose listener or worker the running program is, by the name under which it was started; under another name, by
    /// the worker beside it.
    #[must_use]
    pub(super) fn of_this_program() -> Self {
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        let named =
            |kind: &Self| [kind.facts().listener, kind.facts().worker].iter().any(|path| program.ends_with(path));
        let root = super::root();
        let beside = |kind: &Self| root.join(kind.facts().worker).exists();
        KINDS.into_iter().find(named).or_else(|| KINDS.into_iter().find(beside)).unwrap_or(Self::GitHub)
    }

    pub(super) fn facts(self) -> &'static Facts {
        match self {
            Self::GitHub => &github::FACTS,
            Self::Azure => &azure::FACTS,
        }
    }

    /// The listener, relative to the agent's root.
    #[must_use]
    pub fn listener(self) -> &'static str {
        self.facts().listener
    }

    /// The version that the stand-in claims to be when its root says no other.
    #[must_use]
    pub fn version(self) -> &'static str {
        self.facts().version
    }
}

/// What is fixed about one agent.
pub(super) struct Facts {
    /// As its own texts call it.
    pub(super) title: &'static str,
    /// The same within a sentence.
    pub(super) noun: &'static str,
    pub(super) version: &'static str,
    /// Relative to the root.
    pub(super) listener: &'static str,
    pub(super) worker: &'static str,
    /// Files beside the programs: name, mode, content.
    pub(super) files: &'static [(&'static str, u32, &'static str)],
    /// Commands, flags without and flags with a value.
    pub(super) commands: &'static [&'static str],
    pub(super) flags: &'static [&'static str],
    pub(super) values: &'static [&'static str],
    /// Any flag may come as a variable of this prefix.
    pub(super) input_prefix: &'static str,
    /// Variables that move the listener's and the worker's logs.
    pub(super) log_folders: [Option<&'static str>; 2],
    /// The variable that puts the log on standard output as well.
    pub(super) log_on_stdout: Option<&'static str>,
    /// The file of settings.
    pub(super) settings: &'static str,
    /// All that makes an agent configured, in the order of their removal.
    pub(super) config_files: [&'static str; 3],
    pub(super) configure: fn(&Path, &Trace, &Arguments) -> i32,
    pub(super) remove: fn(&Path, &Trace, &Arguments) -> i32,
    /// What comes before the settings are read.
    pub(super) before_run: fn(&Path, &Arguments) -> Result<(), String>,
    /// The way to the forge, from the settings and the agent's own credential.
    pub(super) connect: fn(&Path, &Value, &str) -> Arc<dyn Connection>,
    /// The worker's way to the forge, from its base address and the job's token.
    pub(super) report: fn(&str, &str) -> Arc<dyn Connection>,
    /// What the listener of a version says when its session is open.
    pub(super) connected: fn(&str) -> Vec<String>,
    /// Whether it says so when its polls work again.
    pub(super) says_reconnected: bool,
    /// What the listener makes of a registration that is gone.
    pub(super) gone: Gone,
    /// The exit code of a session that another listener has.
    pub(super) conflict_code: i32,
    /// Folders and variables of a job.
    pub(super) lay_out: fn(&Assignment) -> Layout,
    /// Variables that name hook scripts, before the first and after the last step.
    pub(super) hooks: Option<[&'static str; 2]>,
    /// The variable by which processes of a job are found, and how its value begins.
    pub(super) tracking: (&'static str, &'static str),
    /// Files by which a step sets what follows: the variable that names it, and the file's name.
    pub(super) command_files: &'static [(&'static str, &'static str)],
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title)
    }
}

/// What a listener makes of a registration that is gone.
#[derive(Debug)]
pub(super) struct Gone {
    /// What it tells people, if anything.
    pub(super) text: Option<&'static str>,
    /// Whether it deletes its configuration.
    pub(super) clean_up: bool,
}

/// Where a job works.
#[derive(Debug)]
pub(super) struct Layout {
    /// Where steps start.
    pub(super) workspace: PathBuf,
    pub(super) temp: PathBuf,
    /// Made anew for each job.
    pub(super) fresh: Vec<PathBuf>,
    /// Made where they are missing.
    pub(super) folders: Vec<PathBuf>,
    /// What steps find in their environment besides the worker's own.
    pub(super) env: Vec<(&'static str, String)>,
    /// Where the event's payload is written, if it is.
    pub(super) event: Option<PathBuf>,
}

/// How an agent speaks with its forge once it is configured. Jobs have the same ids everywhere.
pub(super) trait Connection: Send + Sync {
    fn open_session(&self) -> Result<SessionAnswer, Refusal>;
    fn close_session(&self, session: u64) -> Result<(), Refusal>;
    /// The queue's next message; none when the poll's time is over.
    fn next_message(&self, session: u64) -> Result<Option<Message>, Refusal>;
    /// Takes a job that was offered; `offered` is the job where the offer has all of it.
    fn acquire(&self, id: u64, offered: Option<JobMessage>) -> Result<JobMessage, Refusal>;
    /// Keeps a job's lease.
    fn renew(&self, id: u64) -> Result<(), Refusal>;
    /// Adds to a job's log.
    fn log(&self, id: u64, text: String) -> Result<(), Refusal>;
    /// Says how a job ended.
    fn complete(&self, id: u64, result: JobResult) -> Result<(), Refusal>;
    /// Asks for the package of a version, as an agent does that is told to take another.
    fn look_for_package(&self) -> Result<(), Refusal>;
}

/// A listener that leaves must not wait for a dead forge.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

/// The tools folder of a job: the last of `names` that is set, or `_tool` in the work folder.
pub(super) fn tools_folder(work: &Path, names: &[&str]) -> PathBuf {
    let set = names.iter().filter_map(std::env::var_os).next_back();
    set.map_or_else(|| work.join("_tool"), PathBuf::from)
}
