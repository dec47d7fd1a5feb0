//! The control plane below `/_sim/`: jobs, orders, faults, and everything that the forge saw.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::faults::Fault;
use super::orders::Orders;
use super::side;
use super::state::{JobSpec, JobStatus, RunnerView};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/jobs", get(jobs).post(submit))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/runners", get(runners))
        .route("/runners/{id}", axum::routing::delete(remove))
        .route("/runners/{id}/let-go", post(let_go))
        .route("/requests", get(requests).delete(forget_requests))
        .route("/events", get(events))
        .route("/violations", get(violations))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/orders", get(orders).post(change_orders))
        .route("/wait", get(wait))
        .route("/agent", get(side::address))
        .route("/agent/{id}", get(side::manners))
        .route("/agent/jobs/{id}/live", post(side::live))
}

fn wrong(error: impl std::fmt::Display) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"message": error.to_string()}))).into_response()
}

fn seconds(given: Option<f64>, default: f64) -> Duration {
    Duration::try_from_secs_f64(given.unwrap_or(default)).unwrap_or_default()
}

// Bodies are parsed by hand, so that `curl -d` works without a content type and errors name the field.
async fn submit(State(shared): State<Arc<Shared>>, body: String) -> Response {
    match serde_json::from_str::<JobSpec>(&body) {
        Ok(spec) => (StatusCode::CREATED, Json(json!({"id": shared.change(|s| s.submit(spec))}))).into_response(),
        Err(error) => wrong(error),
    }
}

async fn jobs(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.read(|s| s.jobs.values().cloned().collect::<Vec<_>>())).into_response()
}

#[derive(Deserialize)]
struct JobQuery {
    wait: Option<JobStatus>,
    timeout: Option<f64>,
}

async fn job(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, Query(query): Query<JobQuery>) -> Response {
    if let Some(status) = query.wait {
        let reached = |s: &super::State| s.jobs.get(&id).is_none_or(|j| j.status as u8 >= status as u8).then_some(());
        shared.wait_for(seconds(query.timeout, 60.0), reached).await;
    }
    match shared.read(|s| s.jobs.get(&id).cloned()) {
        Some(job) => Json(job).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn cancel(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    if shared.change(|s| s.cancel(id)) { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND }
}

fn views(s: &super::State) -> Vec<RunnerView> {
    s.runners.values().filter(|r| r.registered).map(|r| s.view(r)).collect()
}

async fn runners(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.read(views)).into_response()
}

async fn remove(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    shared.change(|s| s.unregister(id, "removed by an administrator"));
    StatusCode::NO_CONTENT
}

async fn let_go(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    if shared.change(|s| s.let_go(id)) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

#[derive(Deserialize)]
struct RequestQuery {
    agent: Option<bool>,
    path: Option<String>,
}

async fn requests(State(shared): State<Arc<Shared>>, Query(query): Query<RequestQuery>) -> Response {
    let found: Vec<_> = shared.read(|s| {
        s.requests
            .iter()
            .filter(|r| query.agent.is_none_or(|a| a == r.agent))
            .filter(|r| query.path.as_ref().is_none_or(|p| r.path.contains(p)))
            .cloned()
            .collect()
    });
    Json(found).into_response()
}

async fn forget_requests(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.change(|s| s.requests.clear());
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
struct EventQuery {
    #[serde(default)]
    after: u64,
    timeout: Option<f64>,
}

/// The events after number `after`; waits for one when there is none yet.
async fn events(State(shared): State<Arc<Shared>>, Query(query): Query<EventQuery>) -> Response {
    let newer = |s: &super::State| {
        let newer: Vec<_> = s.events.iter().filter(|e| e.n > query.after).cloned().collect();
        (!newer.is_empty()).then_some(newer)
    };
    Json(shared.wait_for(seconds(query.timeout, 0.0), newer).await.unwrap_or_default()).into_response()
}

async fn violations(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.read(|s| s.violations.clone())).into_response()
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.read(|s| s.faults.clone())).into_response()
}

async fn add_fault(State(shared): State<Arc<Shared>>, body: String) -> Response {
    match serde_json::from_str::<Fault>(&body) {
        Ok(fault) => {
            shared.change(|s| s.faults.push(fault));
            StatusCode::CREATED.into_response()
        }
        Err(error) => wrong(error),
    }
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.change(|s| s.faults.clear());
    StatusCode::NO_CONTENT
}

async fn orders(State(shared): State<Arc<Shared>>) -> Response {
    let mut orders = shared.read(|s| s.orders.clone());
    orders.pats.clear();
    for principal in &mut orders.service_principals {
        principal.client_secret.clear();
    }
    Json(orders).into_response()
}

async fn change_orders(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let changes: Value = match serde_json::from_str(&body) {
        Ok(changes) => changes,
        Err(error) => return wrong(error),
    };
    let Value::Object(changes) = changes else {
        return wrong("an object is wanted");
    };
    let changed = shared.change(|s| {
        let mut all = serde_json::to_value(&s.orders)?;
        for (key, value) in changes {
            all[key] = value;
        }
        s.orders = serde_json::from_value::<Orders>(all)?;
        Ok::<(), serde_json::Error>(())
    });
    match changed {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => wrong(error),
    }
}

/// What to wait for; all that is given must hold at once.
#[derive(Deserialize)]
struct WaitQuery {
    /// Exactly so many registrations that are as the next three say.
    runners: Option<usize>,
    /// At least so many.
    min_runners: Option<usize>,
    online: Option<bool>,
    idle: Option<bool>,
    name: Option<String>,
    /// At least so many requests whose path contains `path`, of `method`, answered with `status`.
    requests: Option<usize>,
    path: Option<String>,
    method: Option<String>,
    status: Option<u16>,
    timeout: Option<f64>,
}

impl WaitQuery {
    fn holds(&self, s: &super::State) -> Option<Vec<RunnerView>> {
        let mut views = views(s);
        views.retain(|r| {
            self.online.is_none_or(|o| o == (r.status == "online"))
                && self.idle.is_none_or(|i| i == (r.status == "online" && !r.busy))
                && self.name.as_ref().is_none_or(|n| r.name.starts_with(n.as_str()))
        });
        let seen = s
            .requests
            .iter()
            .filter(|r| self.path.as_ref().is_none_or(|p| r.path.contains(p)))
            .filter(|r| self.method.as_ref().is_none_or(|m| r.method.eq_ignore_ascii_case(m)))
            .filter(|r| self.status.is_none_or(|wanted| r.status == Some(wanted)))
            .count();
        let holds = self.runners.is_none_or(|n| views.len() == n)
            && self.min_runners.is_none_or(|n| views.len() >= n)
            && self.requests.is_none_or(|n| seen >= n);
        holds.then_some(views)
    }
}

/// 200 with the runners that match, or 408 with all runners.
async fn wait(State(shared): State<Arc<Shared>>, Query(query): Query<WaitQuery>) -> Response {
    match shared.wait_for(seconds(query.timeout, 60.0), |s| query.holds(s)).await {
        Some(found) => Json(found).into_response(),
        None => (StatusCode::REQUEST_TIMEOUT, Json(shared.read(views))).into_response(),
    }
}
