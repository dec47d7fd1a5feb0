//! The job message: all that a runner is told of the job that it took.

use serde_json::{Value, json};

use super::super::state::{Job, State};
use super::containers;
use super::context::{github, typed};
use super::ids::{self, Id};
use super::token::jwt;
use crate::protocol::{Condition, Step};

/// The message of a job.
pub(super) fn job(s: &State, id: u64, base: &str) -> Option<Value> {
    let job = s.jobs.get(&id)?;
    let group = job
        .runner_id
        .and_then(|id| s.runners.get(&id))
        .and_then(|r| s.orders.runner_groups.get(usize::try_from(r.group_id).ok()?.checked_sub(1)?))
        .map_or("Default", String::as_str);
    let steps: Vec<Value> = job.spec.steps.iter().enumerate().map(|(at, one)| step(id, at, one)).collect();
    let mut message = json!({
        "messageType": "RunnerJobRequest",
        "plan": {
            "scopeIdentifier": ids::uuid(Id::Scope, id),
            "planType": "actions",
            "version": 9,
            "planId": ids::uuid(Id::Plan, id),
            "planGroup": "actions",
        },
        "timeline": {"id": ids::uuid(Id::Timeline, id), "changeId": 1},
        "jobId": ids::uuid(Id::Job, id),
        "jobDisplayName": job.name,
        "jobName": job.name,
        "requestId": id,
        "lockedUntil": "0001-01-01T00:00:00",
        "resources": {"endpoints": [connection(s, id, base)]},
        "contextData": {
            "github": typed(&github(job, base)),
            "needs": typed(&json!({})),
            "vars": typed(&json!({})),
            "inputs": null,
            "strategy": typed(&json!({"fail-fast": true, "job-index": 0, "job-total": 1, "max-parallel": 1})),
            "matrix": null,
        },
        "variables": variables(job, base, group),
        "mask": [],
        "steps": steps,
        "fileTable": [".github/workflows/ci.yml"],
        "environmentVariables": [],
        "defaults": [],
        "workspace": {},
        "actionsDependencies": [],
        "billingOwnerId": "o",
    });
    if !job.spec.outputs.is_empty() {
        let expression = |text: &String| json!({"type": 3, "expr": text});
        message["jobOutputs"] = containers::map(job.spec.outputs.iter().map(|(name, text)| (name, expression(text))));
    }
    containers::add(&mut message, &job.spec);
    Some(message)
}

/// Where the runner reports, and with what.
fn connection(s: &State, id: u64, base: &str) -> Value {
    let token = jwt(s, json!({"job": ids::uuid(Id::Job, id), "orch_id": ids::uuid(Id::Plan, id)}));
    json!({
        "id": ids::uuid(Id::Endpoint, id),
        "name": "SystemVssConnection",
        "type": "Generic",
        "url": format!("{base}/_run/"),
        "isShared": false,
        "isReady": true,
        "authorization": {"scheme": "OAuth", "parameters": {"AccessToken": token}},
        "data": {
            "ServerId": ids::uuid(Id::Server, 1),
            "ServerName": "forge",
            "CacheServerUrl": "",
            "FeedStreamUrl": "",
            "ResultsServiceUrl": format!("{base}/"),
        },
    })
}

/// Without the address of the results the runner drops its logs, and says nothing of it.
fn variables(job: &Job, base: &str, group: &str) -> Value {
    let open = |value: &str| json!({"value": value, "isSecret": false});
    let secret = json!({"value": format!("ghs_{}", job.token), "isSecret": true});
    json!({
        "system.github.token": secret,
        "github_token": secret,
        "system.github.job": open(&job.name),
        "system.runnerGroupName": open(group),
        "system.github.results_endpoint": open(&format!("{base}/")),
        "system.orchestrationId": open(&ids::uuid(Id::Plan, job.id)),
        "system.runner.lowdiskspacethreshold": open("100"),
        "system.runnerEnvironment": open("self-hosted"),
        // Docker actions see the folder for temporary files, as on github.com.
        "actions_container_action_runner_temp": open("true"),
    })
}

fn step(job: u64, at: usize, step: &Step) -> Value {
    let condition = match step.condition {
        Condition::Success => "success()",
        Condition::Always => "always()",
        Condition::Failure => "failure()",
        Condition::Cancelled => "cancelled()",
    };
    let name = format!("__run_{at}");
    let (reference, inputs) = containers::reference_and_inputs(step);
    let mut all = json!({
        "type": "action",
        "reference": reference,
        "id": ids::nth(Id::Step, at, job),
        "name": name,
        "contextName": step.id.as_ref().unwrap_or(&name),
        "condition": condition,
        "inputs": inputs,
    });
    if let Some(shown) = &step.name {
        all["displayNameToken"] = json!(shown);
    }
    all
}
