//! A job, as its agent and its hooks describe it.

use serde::{Deserialize, Serialize};

use crate::plain::plain;

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
    /// The same with every text cut to a sane length and freed of what disturbs a line.
    #[must_use]
    pub fn sanitised(self) -> Self {
        let clean = |text: Option<String>| text.map(|text| plain(&text)).filter(|text| !text.is_empty());
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
