//! What the official runner traces and nobody needs, so much as it does.
//!
//! `chatter.txt` has the texts, from a recorded life. They stand there in phases, between which the programs say what
//! somebody does need: words for people, and the signs that only traces give.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::agent::trace::Trace;

pub(in crate::agent) mod message;
mod names;

const TEXTS: &str = include_str!("chatter.txt");

/// A stretch of a life without anything that somebody needs, in the order of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Phase {
    /// The configure step begins. The banner follows.
    Configure,
    /// It has shown its banner, and looks whether it is configured. The section "Authentication" follows.
    Configuring,
    /// It has asked the forge for a tenant. "Connected to GitHub" follows.
    Authenticating,
    /// It has made its key. The section "Runner Registration" follows.
    Connected,
    /// It has looked for its group and its name, and registered. "Runner successfully added" follows.
    Registering,
    /// It has kept its credentials. The section "Runner settings" follows.
    Registered,
    /// It has kept its settings. "Settings Saved." follows.
    Settings,
    /// It has written `svc.sh`. The return code follows.
    ConfigureEnd,
    /// A listener begins, up to its connection. "Connected to GitHub" follows.
    Start,
    /// It has a session. Its version and "Listening for Jobs" follow.
    Session,
    /// It has said so. A job's acknowledgement follows.
    Listening,
    /// It has acknowledged a job, and got a token for it. It acquires the job then.
    JobOffered,
    /// It has acquired the job. "Running job" follows.
    JobTaken,
    /// It has renewed the job, and starts a worker.
    WorkerStarting,
    /// The worker runs, and gets the job.
    WorkerStarted,
    /// The worker has got the job. The message follows.
    JobReceived,
    /// The worker has set the job up.
    JobSetUp,
    /// A job hook runs. [`Phase::StepEnd`] is its end too.
    HookStart,
    /// A step runs.
    StepStart,
    /// Its process has ended.
    StepEnd,
    /// The worker has stored its logs. It reports the job's result then.
    JobFinalize,
    /// It has reported it, and ends.
    WorkerEnd,
    /// The listener sees that the worker ended. The two traces of how it ended follow.
    WorkerGone,
    /// The listener has the job's result. "Job … completed with result" follows.
    JobReported,
    /// It stops the renewals, and its polls.
    JobDone,
    /// The poll that was under way is cancelled. No level tells that this is as it should be.
    PollCancelled,
    /// It deletes its session then.
    ListenerEnd,
    /// It removes its files then; their names follow.
    CleanUp,
}

/// What the texts are filled with.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Names {
    /// The runner's root.
    pub(in crate::agent) root: String,
    /// The work folder, by its whole path.
    pub(in crate::agent) work: String,
    /// The runner's id.
    pub(in crate::agent) agent: u64,
    /// Its name.
    pub(in crate::agent) name: String,
    /// Its version.
    pub(in crate::agent) version: String,
    /// The forge's address, without a path or a slash at its end.
    pub(in crate::agent) forge: String,
    /// Where the runner is registered: `http://forge/acme/app`.
    pub(in crate::agent) url: String,
    /// Its labels, with commas between them.
    pub(in crate::agent) labels: String,
    /// Whether it was registered by a token. Otherwise it got all of its files with its start, and looks for less.
    pub(in crate::agent) by_token: bool,
    /// Whether it is for one job.
    pub(in crate::agent) once: bool,
    /// The session's id.
    pub(in crate::agent) session: String,
    /// The job; one without an id is none.
    pub(in crate::agent) job: JobNames,
    /// The step or the hook.
    pub(in crate::agent) step: StepNames,
}

/// What the texts about a job are filled with.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct JobNames {
    /// Its id.
    pub(in crate::agent) id: String,
    /// Its plan's id.
    pub(in crate::agent) plan: String,
    /// Its timeline's id.
    pub(in crate::agent) timeline: String,
    /// The number of its request.
    pub(in crate::agent) request: String,
    /// Its repository: `acme/app`.
    pub(in crate::agent) repository: String,
    /// How many steps it has, job hooks included.
    pub(in crate::agent) steps: usize,
    /// The worker's process id.
    pub(in crate::agent) worker: u32,
    /// The length of its message.
    pub(in crate::agent) length: usize,
    /// The message's hash.
    pub(in crate::agent) hash: String,
    /// How it ended: `Succeeded`.
    pub(in crate::agent) result: String,
}

impl JobNames {
    /// Takes note of the message as the listener hands it to the worker.
    pub(in crate::agent) fn measure(&mut self, message: &[u8]) {
        self.length = message.len();
        self.hash = Sha256::digest(message).iter().map(|byte| format!("{byte:02x}")).collect();
    }
}

/// What the texts about a step or a job hook are filled with.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct StepNames {
    /// Its id.
    pub(in crate::agent) id: String,
    /// How it is shown: `Run make`, `Set up runner`.
    pub(in crate::agent) title: String,
    /// `success()`, `always()`.
    pub(in crate::agent) condition: String,
    /// What bash is called with.
    pub(in crate::agent) arguments: String,
    /// Which kind of thing it is.
    pub(in crate::agent) sort: Sort,
    /// Its name in the context `steps`, if it has one: `__run_0`.
    pub(in crate::agent) context: String,
    /// Its process id.
    pub(in crate::agent) pid: u32,
    /// Its exit code.
    pub(in crate::agent) code: i32,
    /// How long it ran.
    pub(in crate::agent) ran: Duration,
    /// How it ended: `Succeeded`.
    pub(in crate::agent) result: String,
    /// Whether it is the worker's first process.
    pub(in crate::agent) first: bool,
}

/// What kind of thing a worker runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::agent) enum Sort {
    /// A step of the workflow.
    #[default]
    Step,
    /// The hook at the job's start.
    Started,
    /// The hook at its end.
    Completed,
}

impl Sort {
    /// Action, type and stage.
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Step => ["sh", "run", "Main"],
            Self::Started => ["Pre Job Hook", "runner", "Pre"],
            Self::Completed => ["Post Job Hook", "runner", "Post"],
        }
    }
}

impl Names {
    /// What stands for a name in braces.
    fn value(&self, name: &str) -> Option<String> {
        let Self { job, step, .. } = self;
        let [action, kind, stage] = step.sort.words();
        let text = match name {
            "root" => &self.root,
            "work" => &self.work,
            "name" => &self.name,
            "version" => &self.version,
            "forge" => &self.forge,
            "url" => &self.url,
            "labels" => &self.labels,
            "session" => &self.session,
            "job" => &job.id,
            "plan" => &job.plan,
            "timeline" => &job.timeline,
            "request" => &job.request,
            "repository" => &job.repository,
            "hash" => &job.hash,
            "result" if step.result.is_empty() => &job.result,
            "result" => &step.result,
            "step" => &step.id,
            "title" => &step.title,
            "condition" => &step.condition,
            "arguments" => &step.arguments,
            "context" => &step.context,
            "action" => action,
            "kind" => kind,
            "stage" => stage,
            "status" if job.id.is_empty() => "Online",
            "status" => "Busy",
            _ => return self.computed(name),
        };
        Some(text.to_owned())
    }

    fn computed(&self, name: &str) -> Option<String> {
        let Self { job, step, .. } = self;
        let repository = job.repository.rsplit('/').next().unwrap_or_default();
        Some(match name {
            "api" => self.api(),
            "commit" => "0".repeat(40),
            "workspace" => format!("{}/{repository}/{repository}", self.work),
            "steps" => job.steps.to_string(),
            "agent" => self.agent.to_string(),
            "worker" => job.worker.to_string(),
            "length" => job.length.to_string(),
            "outcome" => self.value("result")?.to_lowercase(),
            "pid" => step.pid.to_string(),
            "code" => step.code.to_string(),
            "elapsed" => elapsed(step.ran),
            // A short life in between, of which nobody has taken note.
            "child" => std::process::id().wrapping_add(1).to_string(),
            "now" => Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            "until" => {
                let until = Timestamp::now().saturating_add(SignedDuration::from_mins(10)).unwrap_or(Timestamp::MAX);
                until.strftime("%m/%d/%Y %H:%M:%S").to_string()
            }
            _ => return None,
        })
    }

    /// Where the forge answers for what the runner is registered with.
    fn api(&self) -> String {
        let path = self.url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let kind = match path.split_once('/') {
            Some(("enterprises", _)) => "",
            Some(_) => "repos/",
            None => "orgs/",
        };
        format!("{}/api/v3/{kind}{path}", self.forge)
    }

    /// Whether a mark of an entry holds.
    fn holds(&self, mark: &str) -> bool {
        match mark {
            "first" => self.step.first,
            "context" => !self.step.context.is_empty(),
            "once" => self.once,
            "token" => self.by_token,
            "job" => !self.job.id.is_empty(),
            _ => false,
        }
    }

    /// A text with every name in braces filled in. Other braces stay.
    fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let value = after.split_once('}').and_then(|(name, left)| Some((self.value(name)?, left)));
            let (value, left) = value.unwrap_or_else(|| ("{".to_owned(), after));
            filled.push_str(&value);
            rest = left;
        }
        filled + rest
    }
}

/// All that stands under a heading.
fn section(heading: &str) -> impl Iterator<Item = &'static str> + use<> {
    let heading = format!("[{heading}]");
    let lines = TEXTS.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty())
}

/// Traces a phase.
pub(in crate::agent) fn chatter(trace: &Trace, phase: Phase, names: &Names) {
    entries(trace, &format!("{phase:?}"), names);
}

fn entries(trace: &Trace, heading: &str, names: &Names) {
    for line in section(heading) {
        let marked = line.strip_prefix('@').and_then(|rest| rest.split_once(' '));
        let entry = match marked {
            Some((mark, _)) if !names.holds(mark) => continue,
            Some((_, entry)) => entry,
            None => line,
        };
        if let Some(block) = entry.strip_prefix('+') {
            entries(trace, &format!(".{block}"), names);
            continue;
        }
        let (level, text) = entry.split_once(' ').unwrap_or((entry, ""));
        let (source, text) = text.split_once('|').unwrap_or((text, ""));
        let text = names.fill(text.strip_prefix(' ').unwrap_or(text));
        match level {
            "SAY" => trace.say(""),
            "WARN" => trace.warn(source, &text),
            "ERR" => trace.error(source, &text),
            _ => trace.info(source, &text),
        }
    }
}

/// The picture with which the configure step begins, a trace in the middle of one of its lines.
pub(in crate::agent) fn banner(trace: &Trace) {
    const WIDTH: usize = 78;
    let line = |text: &str| trace.say(&format!("|{text:<WIDTH$}|"));
    let rule = "-".repeat(WIDTH + 2);
    trace.say("");
    trace.say(&rule);
    line(r"        ____ _ _   _   _       _          _        _   _                      ");
    line(r"       / ___(_) |_| | | |_   _| |__      / \   ___| |_(_) ___  _ __  ___      ");
    line(r"      | |  _| | __| |_| | | | | '_ \    / _ \ / __| __| |/ _ \| '_ \/ __|     ");
    line(r"      | |_| | | |_|  _  | |_| | |_) |  / ___ \ (__| |_| | (_) | | | \__ \     ");
    line(r"       \____|_|\__|_| |_|\__,_|_.__/  /_/   \_\___|\__|_|\___/|_| |_|___/     ");
    line("");
    trace.prompt(&format!("|{:23}", ""));
    trace.prompt("Self-hosted runner registration");
    trace.say(&format!("{:24}|", ""));
    line("");
    trace.say(&rule);
}

/// The heading of a part of the configure step. No trace tells of it.
pub(in crate::agent) fn heading(trace: &Trace, title: &str) {
    trace.say_untraced(&format!("\n# {title}\n"));
}

/// What went well in the configure step, or with the files that it wrote. No trace tells of it.
pub(in crate::agent) fn success(trace: &Trace, what: &str) {
    trace.say_untraced(&format!("√ {what}"));
}

/// How a process ended, as `ProcessInvokerWrapper` says it.
pub(in crate::agent) fn finished(pid: u32, code: i32, ran: Duration) -> String {
    format!("Finished process {pid} with exit code {code}, and elapsed time {}.", elapsed(ran))
}

/// `00:00:34.9948199`.
fn elapsed(ran: Duration) -> String {
    let seconds = ran.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:07}", seconds % 60, ran.subsec_nanos() / 100)
}

#[cfg(test)]
mod tests;
