//! What an agent tells of its own work beside all that somebody needs.
//!
//! GitHub's runner tells a lot, in the [`Phase`]s of a life. Of Azure's agent nobody sees any of it, and so it tells nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::assignment::{Assignment, Job};
use super::github::chatter::{JobNames, Names, Phase, Sort, StepNames, chatter, finished};
use super::kind::Kind;
use super::listener::{field, number, text, truth};
use super::process::Outcome;
use super::side::origin;
use super::trace::Trace;
use crate::protocol::JobResult;

/// Tells of the phases of a life, and keeps what their texts are filled with.
pub(super) struct Narrator {
    trace: Arc<Trace>,
    /// None for an agent that tells nothing.
    names: Option<Mutex<Names>>,
}

impl Narrator {
    /// A listener's.
    pub(super) fn of_listener(kind: Kind, trace: &Arc<Trace>, root: &Path, work: &Path, settings: &Value) -> Self {
        Self::new(kind, trace, || Names {
            agent: number(settings, "agentId"),
            name: text(settings, "agentName").to_owned(),
            forge: origin(text(settings, "serverUrl")).to_owned(),
            url: text(settings, "gitHubUrl").to_owned(),
            by_token: truth(field(settings, "useRunnerAdminFlow")),
            once: truth(field(settings, "ephemeral")),
            ..Names::of(root, work)
        })
    }

    /// A worker's, with its job.
    pub(super) fn of_worker(trace: &Arc<Trace>, assignment: &Assignment) -> Self {
        let Assignment { kind, root, work, job, .. } = assignment;
        let narrator = Self::new(*kind, trace, || Names::of(root, work));
        narrator.take(job);
        narrator
    }

    fn new(kind: Kind, trace: &Arc<Trace>, names: impl FnOnce() -> Names) -> Self {
        Self { trace: Arc::clone(trace), names: (kind == Kind::GitHub).then(|| Mutex::new(names())) }
    }

    /// Tells of a phase.
    pub(super) fn tell(&self, phase: Phase) {
        if let Some(names) = &self.names {
            // Whoever takes note of something meanwhile does not wait for a slow pipe.
            let names = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
            chatter(&self.trace, phase, &names);
        }
    }

    /// Tells of a phase. An agent that tells nothing has a single trace in its place.
    pub(super) fn tell_or(&self, phase: Phase, source: &str, text: &str) {
        match self.names {
            Some(_) => self.tell(phase),
            None => self.trace.info(source, text),
        }
    }

    fn note(&self, change: impl FnOnce(&mut Names)) {
        if let Some(names) = &self.names {
            change(&mut names.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Takes note of the session.
    pub(super) fn session(&self, id: &str) {
        self.note(|names| id.clone_into(&mut names.session));
    }

    /// Takes note of a job.
    pub(super) fn take(&self, job: &Job) {
        self.note(|names| names.job = JobNames::of(&job.whole));
    }

    /// Takes note of the job's worker.
    pub(super) fn worker(&self, pid: u32) {
        self.note(|names| names.job.worker = pid);
    }

    /// Takes note of how the job ended, after the last of its steps.
    pub(super) fn result(&self, result: JobResult) {
        self.note(|names| {
            names.step = StepNames::default();
            result.word().clone_into(&mut names.job.result);
        });
    }

    /// Tells that the process of a step or a hook runs.
    pub(super) fn began(&self, step: StepNames, pid: u32) {
        let phase = if step.sort == Sort::Step { Phase::StepStart } else { Phase::HookStart };
        self.note(|names| names.step = StepNames { pid, ..step });
        self.tell(phase);
    }

    /// Tells that it has ended.
    pub(super) fn ended(&self, outcome: &Outcome) {
        let Outcome { pid, code, took } = *outcome;
        self.note(|names| {
            let result = if code == 0 { JobResult::Succeeded } else { JobResult::Failed };
            (names.step.code, names.step.ran, names.step.result) = (code, took, result.word().to_owned());
        });
        self.tell_or(Phase::StepEnd, "ProcessInvokerWrapper", &finished(pid, code, took));
    }
}
