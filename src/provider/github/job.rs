//! A job, as GitHub's runner describes it to the hooks around it, and how they speak to its page.

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

/// The command that makes an error on the job's page. A line that is one is shown in the job's log too.
pub(super) fn annotation(text: &str) -> String {
    let on_one_line = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::error title=OSCR::{on_one_line}")
}

#[cfg(test)]
mod tests {
    use super::annotation;

    #[test]
    fn an_annotation_is_one_line_and_what_looks_escaped_stays_what_it_is() {
        assert_eq!(annotation("100%\r\n%0A::x"), "::error title=OSCR::100%25%0D%0A%250A::x");
    }
}
