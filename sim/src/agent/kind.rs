//! Which official agent the programs stand in for, and all that differs between the two.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::arguments::Arguments;
use super::assignment::{Assignment, Job, StepReport};
use super::client::Refusal;
use super::narrator::Narrator;
use super::proxy::{Target, Variables};
use super::trace::Trace;
use super::{azure, github};
use crate::protocol::{JobResult, Manners};

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
    pub(super) configure: fn(&Path, &Trace, &Arguments) -> i32,
    pub(super) remove: fn(&Path, &Trace, &Arguments) -> i32,
    /// Deletes all that makes an agent configured, and gives the exit code.
    pub(super) forget: fn(&Path, &Trace) -> i32,
    /// What comes before the settings are read.
    pub(super) before_run: fn(&Path, &Arguments) -> Result<(), String>,
    /// The proxy on the way to a target, by the variables that are set.
    pub(super) proxy: fn(&Target, &Variables) -> Option<ureq::Proxy>,
    /// The way to the forge.
    pub(super) connect: fn(Configured) -> Arc<dyn Connection>,
    /// The worker's way to the forge.
    pub(super) reporter: fn(&Assignment) -> Arc<dyn Reporter>,
    /// Traces the message of a job without its secrets.
    pub(super) job_message: fn(&Trace, &Value),
    /// What the listener of a version says when its session is open.
    pub(super) connected: fn(&str) -> Vec<String>,
    /// What the listener makes of a registration that is gone.
    pub(super) gone: Gone,
    /// Folders and variables of a job.
    pub(super) lay_out: fn(&Assignment) -> Layout,
    /// Variables with the milliseconds from SIGINT to SIGTERM, and from there to SIGKILL, of a process of a job.
    pub(super) patience: Option<[&'static str; 2]>,
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
    pub(super) env: Vec<(String, String)>,
    /// Where the event's payload is written, if it is, and the payload.
    pub(super) event: Option<(PathBuf, String)>,
}

/// An agent that was configured, and is about to listen.
pub(super) struct Configured {
    pub(super) root: PathBuf,
    pub(super) settings: Value,
    pub(super) credentials: Value,
    pub(super) trace: Arc<Trace>,
    pub(super) narrator: Arc<Narrator>,
    pub(super) manners: Manners,
}

/// What came of one try for a session.
#[derive(Debug)]
pub(super) enum Opened {
    Yes,
    /// Not yet: another try after this.
    Wait(Duration),
    /// The listener ends with this code.
    End(i32),
}

/// What came of one try for a message.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    /// A job that is this agent's now.
    Job(Box<Job>),
    Cancel {
        /// As [`Job::id`].
        id: String,
        /// How long until its worker is killed.
        limit: Duration,
    },
    Update(Refresh),
    /// Something failed: another try after this.
    Wait(Duration),
    /// The registration is gone.
    Gone,
    /// The job that was offered went elsewhere, and with it this registration.
    Consumed,
    /// The listener ends with this code.
    End(i32),
}

/// Another version that an agent is told to replace itself with.
#[derive(Debug, Clone)]
pub(super) struct Refresh {
    pub(super) version: String,
    /// Empty where the agent has to look for it.
    pub(super) url: String,
    /// Empty where none is given.
    pub(super) sha256: String,
}

/// How a listener speaks with its forge. What people should know of a try that failed it says itself.
pub(super) trait Connection: Send + Sync {
    fn open_session(&self) -> Opened;
    fn close_session(&self) -> Result<(), Refusal>;
    /// One try for the queue's next message, which takes as long as the forge holds it.
    fn next(&self, busy: bool) -> Next;
    /// Keeps a job's lease.
    fn renew(&self, job: &Job) -> Result<(), Refusal>;
    /// Says that a job failed whose worker could not say it.
    fn fail(&self, job: &Job) -> Result<(), Refusal>;
    /// Where the version is that it is told to take, if it has to look for that.
    fn package(&self, refresh: Refresh) -> Result<Refresh, Refusal>;
}

/// How a worker reports.
pub(super) trait Reporter: Send + Sync {
    /// Shows lines while they come. Nobody keeps them.
    fn live(&self, text: &str);
    /// Stores the log of a step that is over.
    fn store(&self, step: &StepReport) -> Result<(), Refusal>;
    /// Stores the whole log.
    fn store_whole(&self, steps: &[StepReport]) -> Result<(), Refusal>;
    /// Says how the job ended.
    fn complete(&self, result: JobResult, steps: &[StepReport]) -> Result<(), Refusal>;
}

/// A listener that leaves must not wait for a dead forge.
pub(super) const CLOSING: Duration = Duration::from_secs(5);

/// The tools folder of a job: the last of `names` that is set, or `_tool` in the work folder.
pub(super) fn tools_folder(work: &Path, names: &[&str]) -> PathBuf {
    let set = names.iter().filter_map(std::env::var_os).next_back();
    set.map_or_else(|| work.join("_tool"), PathBuf::from)
}
