//! The run service: a runner takes its job, keeps it, and says how it ended.

use std::time::Duration;

use axum::Json;
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::ids::{self, Id};
use super::refusal::{self, is_for_good};
use super::{Asked, message, token, unknown};
use crate::protocol::JobResult;

/// A request below `/_run/`.
pub(super) fn answer(asked: &Asked) -> Response {
    if asked.method != Method::POST {
        return unknown();
    }
    let body = asked.json();
    let job = ids::number(Id::Job, body["jobId"].as_str().unwrap_or_default()).unwrap_or(0);
    match asked.path.as_str() {
        "/_run/acquirejob" => acquire(asked, body["jobMessageId"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0)),
        "/_run/renewjob" => renew(asked, job),
        "/_run/completejob" => complete(asked, job, &body),
        _ => unknown(),
    }
}

fn no_job(job: u64) -> Response {
    refusal::run(404, &format!("Job '{job}' was not found."))
}

fn acquire(asked: &Asked, job: u64) -> Response {
    let runner = token::runner(&asked.headers).unwrap_or(0);
    asked.shared.change(|s| {
        if let Some(status) = refusal::take(&mut s.orders.refuse_acquire) {
            if is_for_good(status) {
                s.refuse(job, runner);
            }
            return refusal::run(status, "ordered");
        }
        match s.acquire(job, Some(runner)) {
            Ok(()) => message::job(s, job, &asked.base).map_or_else(|| no_job(job), |m| Json(m).into_response()),
            Err(404) => no_job(job),
            Err(status) => refusal::run(status, "ordered"),
        }
    })
}

fn renew(asked: &Asked, job: u64) -> Response {
    asked.shared.change(|s| {
        if let Some(status) = refusal::take(&mut s.orders.refuse_renew) {
            return refusal::run(status, "ordered");
        }
        if !s.renew(job) {
            return no_job(job);
        }
        let until = s.now().checked_add(Duration::from_millis(s.orders.job_lease_ms));
        let until = until.unwrap_or(jiff::Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%SZ");
        Json(json!({"lockedUntil": until.to_string()})).into_response()
    })
}

fn complete(asked: &Asked, job: u64, body: &Value) -> Response {
    let result = match body["conclusion"].as_str().unwrap_or_default() {
        "succeeded" => JobResult::Succeeded,
        "canceled" => JobResult::Canceled,
        "abandoned" => JobResult::Abandoned,
        _ => JobResult::Failed,
    };
    asked.shared.change(|s| {
        if !s.jobs.contains_key(&job) {
            return no_job(job);
        }
        let steps = body["stepResults"].as_array().into_iter().flatten();
        let annotations = steps.flat_map(|step| step["annotations"].as_array().into_iter().flatten());
        let messages = annotations.filter_map(|annotation| annotation["message"].as_str()).map(str::to_owned);
        if let Some(job) = s.jobs.get_mut(&job) {
            job.annotations.extend(messages);
            let outputs = body["outputs"].as_object().into_iter().flatten();
            let value = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
            job.outputs.extend(outputs.map(|(name, output)| (name.clone(), value(output))));
        }
        s.complete(job, result);
        Json(json!({})).into_response()
    })
}
