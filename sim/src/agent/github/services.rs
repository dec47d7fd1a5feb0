//! The run service and the results service: a job's lease, its end, its steps and their logs.

use std::sync::Mutex;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::identity::client;
use super::message;
use crate::agent::assignment::{Assignment, StepReport};
use crate::agent::client::Refusal;
use crate::agent::kind::{Kind, Reporter};
use crate::agent::side;
use crate::protocol::JobResult;

/// Where a job reports, and with what.
#[derive(Debug)]
pub(super) struct Service {
    url: String,
    token: String,
    results: String,
    plan: String,
    job: String,
    /// The job's outputs: names and expressions.
    outputs: Value,
    /// The names of its steps, by their ids.
    contexts: Vec<(String, String)>,
}

impl Service {
    /// From the job's message.
    pub(super) fn of(whole: &Value) -> Self {
        let endpoint = &whole["resources"]["endpoints"][0];
        let owned = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            url: owned(&endpoint["url"]),
            token: owned(&endpoint["authorization"]["parameters"]["AccessToken"]),
            results: owned(&whole["variables"]["system.github.results_endpoint"]["value"]),
            plan: owned(&whole["plan"]["planId"]),
            job: owned(&whole["jobId"]),
            outputs: message::plain(&whole["jobOutputs"]),
            contexts: whole["steps"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|step| (owned(&step["id"]), owned(&step["contextName"])))
                .collect(),
        }
    }

    fn ids(&self) -> Value {
        json!({"planId": self.plan, "jobId": self.job})
    }

    pub(super) fn renew(&self) -> Result<(), Refusal> {
        client(&self.url, "Bearer", &self.token).post_raw("renewjob", Some(&self.ids())).map(drop)
    }

    pub(super) fn complete(&self, result: JobResult, steps: &[StepReport]) -> Result<(), Refusal> {
        let results = steps.iter().filter_map(|step| {
            Some(json!({
                "external_id": step.id,
                "number": step.number,
                "name": step.name,
                "type": "run",
                "status": "completed",
                "conclusion": step.result?.on_the_wire(),
                "started_at": step.began.to_string(),
                "completed_at": step.ended.to_string(),
                "annotations": annotations(step),
            }))
        });
        let mut ask = self.ids();
        ask["conclusion"] = json!(result.on_the_wire());
        ask["outputs"] = self.outputs_of(steps);
        ask["stepResults"] = results.collect();
        client(&self.url, "Bearer", &self.token).post_raw("completejob", Some(&ask)).map(drop)
    }

    /// The job's outputs. Of all expressions it knows `steps.ID.outputs.NAME`.
    fn outputs_of(&self, steps: &[StepReport]) -> Value {
        let value = |expression: &str| {
            let (context, name) = expression.strip_prefix("steps.")?.split_once(".outputs.")?;
            let (id, _) = self.contexts.iter().find(|(_, own)| own == context)?;
            let step = steps.iter().find(|step| step.id == *id)?;
            step.outputs.iter().rfind(|(own, _)| own == name).map(|(_, value)| value.clone())
        };
        let wanted = self.outputs.as_object().into_iter().flatten();
        let known = wanted.filter_map(|(name, text)| Some((name.clone(), value(text.as_str()?)?)));
        known.map(|(name, value)| (name, json!({"value": value, "isSecret": false}))).collect()
    }

    /// What a step wrote for people.
    fn store_summary(&self, step: &StepReport) -> Result<(), Refusal> {
        const RECEIVER: &str = "results.services.receiver.Receiver";
        let mut ask = json!({"step_backend_id": step.id});
        let place = self.call(&format!("{RECEIVER}/GetStepSummarySignedBlobURL"), ask.clone())?;
        let url = place["summary_url"].as_str().unwrap_or_default();
        client(url, "", "").put_text("", step.summary.clone())?;
        ask["uploaded_at"] = json!(Timestamp::now().to_string());
        ask["size"] = json!(step.summary.len());
        self.call(&format!("{RECEIVER}/CreateStepSummaryMetadata"), ask).map(drop)
    }

    /// A call of the results service, with a job's two ids in it.
    fn call(&self, call: &str, mut ask: Value) -> Result<Value, Refusal> {
        ask["workflow_job_run_backend_id"] = json!(self.job);
        ask["workflow_run_backend_id"] = json!(self.plan);
        client(&self.results, "Bearer", &self.token).post(&format!("twirp/{call}"), Some(&ask))
    }

    fn store(&self, what: &str, mut ask: Value, text: &str) -> Result<(), Refusal> {
        const RECEIVER: &str = "results.services.receiver.Receiver";
        let place = self.call(&format!("{RECEIVER}/Get{what}LogsSignedBlobURL"), ask.clone())?;
        let url = place["logs_url"].as_str().unwrap_or_default();
        client(url, "", "").put_text("", format!("\u{feff}{text}"))?;
        ask["uploaded_at"] = json!(Timestamp::now().to_string());
        ask["line_count"] = json!(text.lines().count());
        self.call(&format!("{RECEIVER}/Create{what}LogsMetadata"), ask).map(drop)
    }
}

/// What of a step's lines stands on the job's page: errors that it printed as commands, and those of the runner itself.
fn annotations(step: &StepReport) -> Value {
    let message = |line: &str| {
        let command =
            line.trim_start().strip_prefix("::error").and_then(|rest| Some(unescaped(rest.split_once("::")?.1)));
        // The runner looks for these anywhere in a line, but not in the titles that it prints itself.
        let older =
            || Some(line.split_once("##[error]").filter(|(before, _)| !before.starts_with("##["))?.1.to_owned());
        command.or_else(older)
    };
    let of = |(at, (_, line)): (usize, &(Timestamp, String))| {
        let message = message(line)?;
        Some(
            json!({"level": "failure", "message": message, "startLine": at + 1, "endLine": at + 1, "stepNumber": step.number}),
        )
    };
    step.lines.iter().enumerate().filter_map(of).collect()
}

/// A command's text as it was before it was put on one line.
fn unescaped(text: &str) -> String {
    text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
}

/// GitHub's worker's way to report.
#[derive(Debug)]
pub(super) struct Results {
    service: Service,
    server: String,
    request: u64,
    /// How often the steps' states were sent.
    order: Mutex<u64>,
}

impl Results {
    pub(super) fn new(assignment: &Assignment) -> Self {
        let whole = &assignment.job.whole;
        Self {
            service: Service::of(whole),
            server: assignment.server.clone(),
            request: whole["requestId"].as_u64().unwrap_or_default(),
            order: Mutex::new(0),
        }
    }

    fn tell_steps(&self, steps: &[StepReport]) -> Result<(), Refusal> {
        let order = {
            let mut order = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *order += 1;
            *order
        };
        let of = |step: &StepReport| {
            let conclusion = match step.result {
                None => 7,
                Some(JobResult::Succeeded) => 2,
                Some(JobResult::Failed | JobResult::Abandoned) => 3,
                Some(JobResult::Canceled) => 4,
            };
            json!({
                "external_id": step.id,
                "number": step.number,
                "name": step.name,
                "status": 6,
                "started_at": step.began.to_string(),
                "completed_at": step.ended.to_string(),
                "conclusion": conclusion,
            })
        };
        let ask = json!({"steps": steps.iter().map(of).collect::<Value>(), "change_order": order});
        self.service.call("github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate", ask).map(drop)
    }
}

impl Reporter for Results {
    fn live(&self, text: &str) {
        side::live(Kind::GitHub, &self.server, self.request, text.to_owned());
    }

    fn store(&self, step: &StepReport) -> Result<(), Refusal> {
        self.tell_steps(std::slice::from_ref(step))?;
        if !step.summary.is_empty() {
            self.service.store_summary(step)?;
        }
        self.service.store("Step", json!({"step_backend_id": step.id}), &step.text())
    }

    fn store_whole(&self, steps: &[StepReport]) -> Result<(), Refusal> {
        let text: String = steps.iter().map(StepReport::text).collect();
        self.service.store("Job", json!({}), &text)?;
        self.tell_steps(steps)
    }

    fn complete(&self, result: JobResult, steps: &[StepReport]) -> Result<(), Refusal> {
        self.service.complete(result, steps)
    }
}
