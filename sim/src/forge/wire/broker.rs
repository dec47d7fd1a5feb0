//! The broker: a runner's session, its held polls, and its word that it saw the job.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::agents::{held, new_session};
use super::super::orders::Refresh;
use super::super::packages;
use super::super::state::{JobStatus, State};
use super::ids::{self, Id};
use super::refusal::{self, is_for_good};
use super::{Asked, token, unknown};
use crate::agent::Kind;
use crate::protocol::Message;

/// The worker of a cancelled job is killed this long before the time that the runner is given.
const LESS: u64 = 15_000;

/// A request, the path being what follows the broker's address.
pub(super) async fn answer(asked: &Asked, path: &str) -> Response {
    let runner = token::runner(&asked.headers).unwrap_or(0);
    match (&asked.method, path) {
        (&Method::POST, "/session") => open(asked, runner),
        (&Method::DELETE, "/session") => close(asked, runner),
        (&Method::GET, "/message") => poll(asked, runner).await,
        (&Method::POST, "/acknowledge") => acknowledge(asked, runner),
        _ => unknown(),
    }
}

fn not_found() -> Response {
    refusal::broker(404, "RunnerNotFound", "Runner not found")
}

fn open(asked: &Asked, runner: u64) -> Response {
    let mut body = asked.json();
    asked.shared.change(|s| {
        let Some(r) = s.runners.get_mut(&runner).filter(|r| r.registered) else {
            return not_found();
        };
        if let Some(version) = body["agent"]["version"].as_str() {
            r.version = Some(version.into());
        }
        let Some(session) = new_session(s, runner) else {
            return refusal::broker(409, "TaskAgentSessionConflict", "A session for this runner already exists.");
        };
        body["sessionId"] = json!(ids::uuid(Id::Session, session));
        Json(body).into_response()
    })
}

fn close(asked: &Asked, runner: u64) -> Response {
    asked.shared.change(|s| {
        if let Some(session) = s.runners.get(&runner).and_then(|r| r.session) {
            s.close_session(session);
        }
    });
    StatusCode::NO_CONTENT.into_response()
}

fn acknowledge(asked: &Asked, runner: u64) -> Response {
    let job = asked.json()["runnerRequestId"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0);
    asked.shared.change(|s| {
        let ordered = refusal::take(&mut s.orders.refuse_acknowledge);
        let offered = s.jobs.get(&job).is_some_and(|j| j.status == JobStatus::Assigned && j.runner_id == Some(runner));
        let Some(status) = ordered.or((!offered).then_some(404)) else {
            return Json(json!({})).into_response();
        };
        if is_for_good(status) {
            s.refuse(job, runner);
        }
        refusal::broker(status, "AcknowledgeJobNotFound", &format!("Job '{job}' was not found."))
    })
}

/// What a poll finds.
enum Found {
    Message(Message),
    Refresh(Refresh),
    /// Of this kind of configuration.
    Reconfigure(String),
    NoRunner,
    NoSession,
    /// The poll ends without a message.
    Ended,
}

async fn poll(asked: &Asked, runner: u64) -> Response {
    let given = |name: &str| asked.query.get(name).map(String::as_str).unwrap_or_default();
    let session = ids::number(Id::Session, given("sessionId")).unwrap_or(0);
    let busy = given("status") == "Busy";
    let refused = asked.shared.change(|s| {
        let refused = refuse_poll(s, given("runnerVersion"));
        if refused.is_none()
            && let Some(session) = s.sessions.get_mut(&session)
        {
            session.busy = busy;
        }
        refused
    });
    if let Some(refused) = refused {
        return refused;
    }
    match held(&asked.shared, session, |s, first, last| look(s, runner, session, busy, first || last)).await {
        Some(Found::Message(message)) => envelope(asked, &message),
        Some(Found::Refresh(refresh)) => refresh_message(asked, &refresh).await,
        Some(Found::Reconfigure(kind)) => message(asked, "RunnerRefreshConfig", &reconfigure(asked, runner, &kind)),
        Some(Found::NoRunner) => not_found(),
        Some(Found::Ended) => StatusCode::ACCEPTED.into_response(),
        Some(Found::NoSession) => refusal::broker(404, "RunnerSessionInvalid", "no such session"),
        None => StatusCode::ACCEPTED.into_response(),
    }
}

/// What an order makes of a poll that begins.
fn refuse_poll(s: &mut State, version: &str) -> Option<Response> {
    if let Some(status) = refusal::take(&mut s.orders.refuse_polls) {
        return Some(refusal::bare(status));
    }
    let text = format!("Runner version v{version} is deprecated and cannot receive messages.");
    s.orders.deprecated.then(|| refusal::broker(403, "RunnerVersionTooOld", &text))
}

/// `at_an_end`: this is the first look, or the last.
fn look(s: &mut State, runner: u64, session: u64, busy: bool, at_an_end: bool) -> Option<Found> {
    if s.orders.forget_polls > 0 {
        s.orders.forget_polls -= 1;
        return Some(Found::NoRunner);
    }
    let known = s.runners.get(&runner).is_some_and(super::super::state::Runner::is_known);
    if !known && !busy && (at_an_end || s.orders.end_polls_on_delete) {
        return Some(Found::NoRunner);
    }
    if !s.sessions.contains_key(&session) {
        return Some(Found::NoSession);
    }
    if s.side_waits(runner) {
        return Some(Found::Ended);
    }
    if let Some(refresh) = s.orders.refresh.take() {
        return Some(Found::Refresh(refresh));
    }
    if let Some(kind) = s.orders.reconfigure.take() {
        return Some(Found::Reconfigure(kind));
    }
    // A poll of a listener that was busy may still be in flight when its next one is offered a job.
    let takes = |message: &mut Message| !(busy && matches!(message, Message::Job { .. }));
    s.sessions.get_mut(&session)?.messages.pop_front_if(takes).map(Found::Message)
}

fn message(asked: &Asked, kind: &str, body: &Value) -> Response {
    let number = asked.shared.lock().next_request();
    Json(json!({"messageId": number, "messageType": kind, "body": body.to_string()})).into_response()
}

fn envelope(asked: &Asked, found: &Message) -> Response {
    match found {
        Message::Job { id, .. } => {
            let body = json!({
                "id": id.to_string(),
                "runner_request_id": id.to_string(),
                "should_acknowledge": true,
                "run_service_url": format!("{}/_run/", asked.base),
                "billing_owner_id": "o",
            });
            message(asked, "RunnerJobRequest", &body)
        }
        Message::Cancel { id, limit_ms } => {
            let left = span(limit_ms + LESS);
            message(asked, "JobCancellation", &json!({"jobId": ids::uuid(Id::Job, *id), "timeout": left}))
        }
        // Only Azure's queue has these.
        Message::Refresh { .. } => StatusCode::ACCEPTED.into_response(),
    }
}

/// Milliseconds as .NET writes a time span.
fn span(ms: u64) -> String {
    let (seconds, rest) = (ms / 1000, ms % 1000);
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if rest == 0 { whole } else { format!("{whole}.{rest:03}") }
}

fn reconfigure(asked: &Asked, runner: u64, kind: &str) -> Value {
    json!({
        "runnerQualifiedId": format!("repository/o/r/{runner}"),
        "configType": kind,
        "serviceType": "pipelines",
        "configRefreshUrl": asked.base,
    })
}

async fn refresh_message(asked: &Asked, refresh: &Refresh) -> Response {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let version = &refresh.version;
    let (url, offered) = match &refresh.url {
        Some(url) => (url.clone(), None),
        None => {
            let file = format!("actions-runner-linux-{arch}-{version}.tar.gz");
            let url = format!("{}/actions/runner/releases/download/v{version}/{file}", asked.base);
            (url, packages::offer(&asked.shared, Kind::GitHub, version).await)
        }
    };
    let sum = Some(refresh.sha256.clone()).filter(|sum| !sum.is_empty()).or(offered);
    let body = json!({
        "target_version": version,
        "download_url": url,
        "sha256_checksum": sum.unwrap_or_default(),
        "os": format!("linux-{arch}"),
    });
    message(asked, "RunnerRefresh", &body)
}
