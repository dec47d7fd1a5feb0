//! A job, as GitHub's runner describes it to the hooks around it.

use crate::control::Job;
use crate::policy::Facts;
use crate::provider::facts::Variable;

/// What the hook's environment says: for people, and for the policy.
pub(super) fn describe(variable: Variable<'_>) -> (Job, Facts) {
    let repository = variable("GITHUB_REPOSITORY");
    let facts = Facts {
        event: variable("GITHUB_EVENT_NAME"),
        repository: repository.clone(),
        reference: variable("GITHUB_REF"),
    };
    let run_url = match (variable("GITHUB_SERVER_URL"), &repository, variable("GITHUB_RUN_ID")) {
        (Some(server), Some(repository), Some(run)) => Some(format!("{server}/{repository}/actions/runs/{run}")),
        _ => None,
    };
    let job = Job {
        name: variable("GITHUB_JOB"),
        repository,
        run_url,
        workflow: variable("GITHUB_WORKFLOW"),
        run: variable("GITHUB_RUN_ID"),
        attempt: variable("GITHUB_RUN_ATTEMPT"),
    };
    (job, facts)
}
