//! A job, as its agent and its hooks describe it.

use serde::{Deserialize, Serialize};

/// What is known of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// The repository that it belongs to.
    #[serde(default)]
    pub repository: Option<String>,
    /// The page of its run.
    #[serde(default)]
    pub run_url: Option<String>,
    /// The workflow's name.
    #[serde(default)]
    pub workflow: Option<String>,
    /// The run's number at the forge.
    #[serde(default)]
    pub run: Option<String>,
    /// Which attempt at the run this is.
    #[serde(default)]
    pub attempt: Option<String>,
}

impl Job {
    /// Reads the variables that the agent gives a hook.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let repository = variable("GITHUB_REPOSITORY");
        let run_url = match (variable("GITHUB_SERVER_URL"), &repository, variable("GITHUB_RUN_ID")) {
            (Some(server), Some(repository), Some(run)) => Some(format!("{server}/{repository}/actions/runs/{run}")),
            _ => None,
        };
        Self {
            name: variable("GITHUB_JOB"),
            repository,
            run_url,
            workflow: variable("GITHUB_WORKFLOW"),
            run: variable("GITHUB_RUN_ID"),
            attempt: variable("GITHUB_RUN_ATTEMPT"),
        }
    }

    /// The same with every text cut to a sane length and freed of control characters.
    #[must_use]
    pub fn sanitised(self) -> Self {
        let clean = |text: Option<String>| {
            text.map(|text| text.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
                .filter(|text| !text.is_empty())
        };
        Self {
            name: clean(self.name),
            repository: clean(self.repository),
            run_url: clean(self.run_url),
            workflow: clean(self.workflow),
            run: clean(self.run),
            attempt: clean(self.attempt),
        }
    }
}
