//! A job, as the listener hands it to its worker, and what the worker makes of it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::Kind;
use crate::protocol::{JobResult, Manners, Step};

/// A job that the listener took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    /// As the forge calls it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) steps: Vec<PlannedStep>,
    /// The forge's own message.
    pub(super) whole: Value,
}

/// A step, and what the forge calls it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PlannedStep {
    pub(super) id: String,
    pub(super) step: Step,
}

/// What the listener writes to the worker's standard input, one line each, the first being the job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum WorkerMessage {
    /// Run this.
    Job {
        /// The forge's address.
        server: String,
        /// The runner's name.
        runner: String,
        /// The work folder, absolute.
        work: String,
        /// How to be.
        manners: Box<Manners>,
        /// The job.
        job: Box<Job>,
    },
    /// The user cancelled the job.
    Cancel,
    /// The runner is shutting down.
    Shutdown,
}

/// A job, and who runs it where.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) kind: Kind,
    pub(super) server: String,
    pub(super) runner: String,
    pub(super) root: PathBuf,
    pub(super) work: PathBuf,
    pub(super) manners: Manners,
    pub(super) job: Job,
}

/// A step that is over, or runs.
#[derive(Debug, Clone)]
pub(super) struct StepReport {
    pub(super) id: String,
    /// From 1.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) lines: Vec<(Timestamp, String)>,
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
    /// None where it was skipped.
    pub(super) result: Option<JobResult>,
    /// What it set, and what it wrote for people, by files.
    pub(super) outputs: Vec<(String, String)>,
    pub(super) summary: String,
}

impl StepReport {
    /// Its log as it is stored, each line with its time.
    pub(super) fn text(&self) -> String {
        self.lines.iter().map(|(at, line)| format!("{} {line}\n", at.strftime("%Y-%m-%dT%H:%M:%S%.7fZ"))).collect()
    }
}
