//! The forge's control plane, as a client sees it.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::forge::{Event, Job, JobSpec, RunnerView};

/// A client of one forge.
#[derive(Debug)]
pub(super) struct Control {
    agent: ureq::Agent,
    base: String,
}

impl Control {
    pub(super) fn new(base: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(90)))
            // The forge is on this machine; a proxy of the user's would not find it.
            .proxy(None)
            .build()
            .new_agent();
        Self { agent, base: format!("{}/_sim", base.trim_end_matches('/')) }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let url = format!("{}{path}", self.base);
        let text = self.agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        text.map_err(|e| format!("{url}: {e}"))
            .and_then(|t| serde_json::from_str(&t).map_err(|e| format!("{url}: {e}")))
    }

    pub(super) fn submit(&self, job: &JobSpec) -> Result<u64, String> {
        let url = format!("{}/jobs", self.base);
        let body = serde_json::to_string(job).map_err(|e| e.to_string())?;
        let text = self.agent.post(&url).send(body).and_then(|mut answer| answer.body_mut().read_to_string());
        let answer: Value =
            serde_json::from_str(&text.map_err(|e| format!("{url}: {e}"))?).map_err(|e| e.to_string())?;
        answer["id"].as_u64().ok_or_else(|| format!("{url}: no id in {answer}"))
    }

    pub(super) fn runners(&self) -> Result<Vec<RunnerView>, String> {
        self.get("/runners")
    }

    pub(super) fn jobs(&self) -> Result<Vec<Job>, String> {
        self.get("/jobs")
    }

    /// The events after number `after`; waits a moment for one.
    pub(super) fn events(&self, after: u64, wait: Duration) -> Result<Vec<Event>, String> {
        self.get(&format!("/events?after={after}&timeout={}", wait.as_secs_f64()))
    }

    /// Waits until no registration is left; the names of those that are.
    pub(super) fn registrations_left(&self, wait: Duration) -> Result<Vec<String>, String> {
        let gone: Result<Vec<RunnerView>, String> =
            self.get(&format!("/wait?runners=0&timeout={}", wait.as_secs_f64()));
        match gone {
            Ok(_) => Ok(Vec::new()),
            // 408: some are left.
            Err(_) => Ok(self.runners()?.into_iter().map(|r| r.name).collect()),
        }
    }
}
