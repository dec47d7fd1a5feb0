//! The results service: which steps there are, and their logs, which are stored when a step is over.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::log::untimed;
use super::ids::{self, Id};
use super::{Asked, unknown};

/// What a runner may store, by the call that asks where; the words are the call's own.
const KINDS: [(&str, &str); 4] = [
    ("GetStepLogsSignedBlobURL", "step"),
    ("GetJobLogsSignedBlobURL", "job"),
    ("GetStepSummarySignedBlobURL", "summary"),
    ("GetJobDiagLogsSignedBlobURL", "diagnostics"),
];

/// Calls that only tell.
const TOLD: [&str; 5] = [
    "WorkflowStepsUpdate",
    "CreateStepLogsMetadata",
    "CreateJobLogsMetadata",
    "CreateStepSummaryMetadata",
    "CreateJobDiagLogsMetadata",
];

/// A call below `/twirp/`.
pub(super) fn call(asked: &Asked) -> Response {
    let call = asked.path.rsplit('/').next().unwrap_or_default();
    if asked.method == Method::POST && TOLD.contains(&call) {
        return Json(json!({"ok": true})).into_response();
    }
    let kind = KINDS.iter().find(|(name, _)| asked.method == Method::POST && *name == call);
    let Some((_, kind)) = kind else {
        return unknown();
    };
    let body = asked.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let (job, step) = (text("workflow_job_run_backend_id"), text("step_backend_id"));
    let url = format!("{}/_blob/{kind}/{job}/{step}?sig=x", asked.base);
    Json(json!({
        "logs_url": url,
        "summary_url": url,
        "diag_logs_url": url,
        "blob_storage_type": "BLOB_STORAGE_TYPE_AZURE",
        "soft_size_limit": "1073741824",
    }))
    .into_response()
}

/// `PUT /_blob/KIND/JOB/STEP`. The log of a job is what its steps stored so far, until the whole log takes its place.
pub(super) fn store(asked: &Asked) -> Response {
    let segments: Vec<&str> = asked.path.split('/').collect();
    let ["", "_blob", kind, job, _] = segments.as_slice() else {
        return unknown();
    };
    if asked.method != Method::PUT {
        return unknown();
    }
    let more = asked.query.get("comp").is_some_and(|comp| comp == "appendblock");
    let text = untimed(&String::from_utf8_lossy(&asked.body));
    let job = ids::number(Id::Job, job).unwrap_or(0);
    asked.shared.change(|s| {
        if let Some(job) = s.jobs.get_mut(&job) {
            match *kind {
                "step" => job.log.push_str(&text),
                "job" if more => job.log.push_str(&text),
                "job" => job.log = text,
                "summary" => job.summary.push_str(&String::from_utf8_lossy(&asked.body)),
                _ => {}
            }
        }
    });
    let headers = [("etag", "\"0x1\""), ("last-modified", "Mon, 01 Jan 2024 00:00:00 GMT"), ("x-ms-request-id", "x")];
    (StatusCode::CREATED, headers).into_response()
}
