//! What the payload of an event says of where its work comes from.

use serde::Deserialize;

/// The parts of a payload that matter. A field that is there twice is an error.
#[derive(Debug, Deserialize)]
pub(super) struct Payload {
    pub(super) repository: Option<Repository>,
    pub(super) pull_request: Option<PullRequest>,
    pub(super) workflow_run: Option<WorkflowRun>,
    pub(super) issue: Option<Issue>,
    pub(super) comment: Option<Comment>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Repository {
    pub(super) full_name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct PullRequest {
    pub(super) head: Side,
    pub(super) base: Side,
}

#[derive(Debug, Deserialize)]
pub(super) struct Side {
    /// Null once the repository has been deleted.
    pub(super) repo: Option<Repository>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WorkflowRun {
    pub(super) head_repository: Option<Repository>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Issue {
    /// There if the issue is a pull request.
    pub(super) pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Comment {
    #[serde(default)]
    pub(super) author_association: String,
}
