//! What is fixed about an agent: its programs, its words, its variables, and how it is told to end.

use nix::sys::signal::Signal;

use crate::control::Job;
use crate::policy::{Facts, ReadOrigin};

/// What is fixed about an agent.
#[derive(Debug)]
pub struct AgentFacts {
    /// What people call it.
    pub title: &'static str,
    /// The listener, relative to the agent's directory.
    pub listener: &'static str,
    /// How it is known whether a job runs.
    pub job: JobSign,
    /// What its words for people mean, each taken by its whole.
    pub words: &'static [Line],
    /// What its traces mean, where it has them on its output: the part of it that traces, how the text begins, and what it says.
    pub traces: &'static [(&'static str, &'static str, Sign)],
    /// Its trace of the end of a process that it started, where it has them on its output.
    pub process_end: Option<ProcessEnd>,
    /// What the worker's exit codes say of its job: what the forge was told, in the words for results.
    pub worker_codes: &'static [(i32, &'static str)],
    /// The codes with which the listener ends by itself. A job that was over by then stands, whichever of them it is.
    pub own_codes: &'static [i32],
    /// The files in the root that make up a configuration, for a registration that is kept.
    pub configuration: &'static [&'static str],
    /// Variables of ours that the agent gets whatever the user says.
    pub env: &'static [(&'static str, &'static str)],
    /// Names of variables, or prefixes ending in `*`, that the agent understands and the user may set.
    pub env_allowed: &'static [&'static str],
    /// Variables that the agent understands and must not have: its end would mean something else with them.
    pub env_kept_back: &'static [&'static str],
    /// Prefix of the variables that carry the agent's own input, which nobody but us may set.
    pub input_prefix: &'static str,
    /// The variable that names the variables which the agent must keep to itself, if it publishes its environment.
    pub unpublished: Option<&'static str>,
    /// The variables of its proxy, if the agent does not heed the usual ones.
    pub proxy: Option<ProxyVariables>,
    /// The hooks around a job, if it has such.
    pub hooks: Option<JobHooks>,
    /// What it marks its objects in Docker with.
    pub docker_label: LabelledBy,
    /// How the listener is told to end.
    pub stop: StopPlan,
}

/// The names of the variables that tell an agent of its proxy.
#[derive(Debug)]
pub struct ProxyVariables {
    /// Where it is. What an address says besides is passed over.
    pub address: &'static str,
    /// Who asks.
    pub user: &'static str,
    /// That user's password.
    pub password: &'static str,
    /// Whether these two are sent as they are.
    pub basic: &'static str,
}

impl AgentFacts {
    /// Knows the payloads that its hooks bring.
    #[must_use]
    pub fn read_origin(&self) -> ReadOrigin {
        self.hooks.as_ref().map_or(|_, _| Err("it is of no known form".to_owned()), |hooks| hooks.origin)
    }
}

/// A trace of a process' end: its number and its exit code stand between these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessEnd {
    /// The part of the agent that traces it.
    pub source: &'static str,
    /// What stands before the number.
    pub before: &'static str,
    /// What stands between the number and the code.
    pub between: &'static str,
}

impl ProcessEnd {
    /// The number and the code in a text of this source.
    pub(crate) fn read(self, source: &str, text: &str) -> Option<(i32, i32)> {
        let (number, rest) =
            text.strip_prefix(self.before).filter(|_| source == self.source)?.split_once(self.between)?;
        let code = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((number.parse().ok()?, code.parse().ok()?))
    }
}

/// How it is known whether a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobSign {
    /// By a child of the listener's with this process name: a job runs exactly while it lives. What the listener says is a hint
    /// then, because a job may be able to write the same.
    Worker(&'static str),
    /// By the listener's words, where there is no such process: from its line that it begins a job until its next one that it
    /// listens, or its end. A job that can write to the listener's output can end itself early by it, and nobody else.
    Words,
}

/// What an agent derives the label from that it puts on containers and networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelledBy {
    /// The text of a file in its root.
    File(&'static str),
    /// The path of its root.
    Root,
}

/// The scripts that the agent runs around a job, and what it tells them.
#[derive(Debug)]
pub struct JobHooks {
    /// The variable of the agent's that names the script to run before a job's first step.
    pub job_started: &'static str,
    /// The one to run after its last.
    pub job_completed: &'static str,
    /// What a script's environment says of the job.
    pub describe: fn(Variable<'_>) -> (Job, Facts),
    /// The variable that names the file with the payload of the job's event.
    pub payload: &'static str,
    /// What such a payload says.
    pub origin: ReadOrigin,
    /// The variable that names the file by which a script gives variables to the job's steps, a line `NAME=value` each.
    pub step_variables: &'static str,
    /// The one line by which a script puts this text on the job's page, as an error of ours.
    pub annotation: fn(&str) -> String,
}

/// Looks a variable up.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How the listener is told to end.
#[derive(Debug, Clone, Copy)]
pub struct StopPlan {
    /// Makes it finish its running job and end, if it knows such a signal. Without one, the job is simply waited for.
    pub finish: Option<Signal>,
    /// Makes it cancel a running job, say so to the forge, and end.
    pub abort: Signal,
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
    /// The forge told it to become a newer version.
    Updating,
    /// The forge had it change its configuration, which it has written.
    Reconfigured,
    /// The forge told it that its job is cancelled.
    Cancelled,
}

impl Sign {
    /// Whether it tells what keeps a listener that starts from listening.
    pub(crate) fn is_trouble(self) -> bool {
        matches!(self, Self::Unknown | Self::Conflict | Self::Disconnected)
    }
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
