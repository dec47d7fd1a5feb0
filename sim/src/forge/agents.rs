//! The agents' side of the forge, below `/_agent/`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::json;

use super::Shared;
use super::scope::Scope;
use super::state::{DeleteOutcome, Polled, TokenKind};
use crate::protocol::{CompleteRequest, ConflictAnswer, RegisterAnswer, RegisterRequest, RemoveRequest, SessionAnswer};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/register", post(register))
        .route("/remove", post(remove))
        .route("/sessions", post(open_session))
        .route("/sessions/{id}", delete(close_session))
        .route("/sessions/{id}/message", get(poll))
        .route("/jobs/{id}/acquire", post(acquire))
        .route("/jobs/{id}/renew", post(renew))
        .route("/jobs/{id}/log", post(log))
        .route("/jobs/{id}/complete", post(complete))
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"message": message}))).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

async fn register(State(shared): State<Arc<Shared>>, Json(ask): Json<RegisterRequest>) -> Response {
    let Some(scope) = Scope::parse(&ask.scope) else {
        return refuse(StatusCode::NOT_FOUND, "Not Found");
    };
    shared.change(|s| {
        if !s.token_is_good(&ask.token, TokenKind::Registration, &scope)
            || s.tokens.get(&ask.token).is_some_and(|t| t.kind == TokenKind::Remove)
        {
            return refuse(StatusCode::NOT_FOUND, "Not Found");
        }
        if ask.name.is_empty() || ask.name.len() > 64 {
            return refuse(StatusCode::BAD_REQUEST, "Runner name must have 1 to 64 characters");
        }
        if let Some(group) = &ask.group
            && !s.orders.runner_groups.iter().any(|g| g.eq_ignore_ascii_case(group))
        {
            let text = format!("Could not find any self-hosted runner group named \"{group}\".");
            return refuse(StatusCode::UNPROCESSABLE_ENTITY, &text);
        }
        let taken = s.named(&scope, &ask.name);
        if let Some(old) = taken {
            if !ask.replace {
                let text = format!("A runner exists with the same name {}.", ask.name);
                return refuse(StatusCode::CONFLICT, &text);
            }
            s.unregister(old, "replaced");
        }
        let mut labels: Vec<String> = if ask.no_default_labels {
            Vec::new()
        } else {
            let arch = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
            vec!["self-hosted".into(), "Linux".into(), arch.into()]
        };
        for label in &ask.labels {
            if !labels.iter().any(|l| l.eq_ignore_ascii_case(label)) {
                labels.push(label.clone());
            }
        }
        let id = s.add_runner(scope.clone(), &labels, &ask, false);
        let Some(runner) = s.runners.get(&id) else {
            return refuse(StatusCode::NOT_FOUND, "Not Found");
        };
        let answer = RegisterAnswer {
            id,
            name: runner.name.clone(),
            secret: runner.secret.clone(),
            group: ask.group.clone().unwrap_or_else(|| "Default".into()),
            replaced: taken.is_some(),
        };
        Json(answer).into_response()
    })
}

async fn remove(State(shared): State<Arc<Shared>>, Json(ask): Json<RemoveRequest>) -> Response {
    let Some(scope) = Scope::parse(&ask.scope) else {
        return refuse(StatusCode::NOT_FOUND, "Not Found");
    };
    shared.change(|s| {
        if !s.token_is_good(&ask.token, TokenKind::Remove, &scope) {
            return refuse(StatusCode::NOT_FOUND, "Not Found");
        }
        match s.delete_runner(&scope, ask.id) {
            DeleteOutcome::Deleted => StatusCode::NO_CONTENT.into_response(),
            DeleteOutcome::Missing => refuse(StatusCode::NOT_FOUND, "Not Found"),
            DeleteOutcome::Busy(name) => {
                let text = format!("Runner \"{name}\" is running a job for pool \"Default\".");
                refuse(StatusCode::UNPROCESSABLE_ENTITY, &text)
            }
        }
    })
}

async fn open_session(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let secret = bearer(&headers).unwrap_or_default().to_owned();
    let version = headers.get("x-agent-version").and_then(|v| v.to_str().ok()).map(str::to_owned);
    shared.change(|s| {
        let runner = s.runner_by_secret(&secret);
        let Some(runner) = runner.and_then(|id| s.runners.get_mut(&id)).filter(|r| r.registered) else {
            return refuse(StatusCode::NOT_FOUND, "The runner registration was not found.");
        };
        runner.version = version.or(runner.version.take());
        let id = runner.id;
        match new_session(s, id, "runner") {
            Ok(answer) => Json(answer).into_response(),
            Err(conflict) => (StatusCode::CONFLICT, Json(conflict)).into_response(),
        }
    })
}

/// A session for a runner, unless it has one.
pub(crate) fn new_session(s: &mut super::State, runner: u64, noun: &str) -> Result<SessionAnswer, ConflictAnswer> {
    let taken = s.runners.get(&runner).is_some_and(|r| r.session.is_some());
    if taken || s.orders.session_conflicts > 0 {
        s.orders.session_conflicts = s.orders.session_conflicts.saturating_sub(1);
        return Err(ConflictAnswer {
            message: format!("A session for this {noun} already exists."),
            retry_ms: s.orders.conflict_retry_ms,
            limit_ms: s.orders.conflict_limit_ms,
        });
    }
    let exit = s.take_listener_exit(runner, true);
    let session = if exit.is_some() { 0 } else { s.open_session(runner) };
    let trouble = if exit.is_some() { None } else { s.take_trouble() };
    Ok(SessionAnswer { session, backoff_ms: s.orders.agent_backoff_ms, exit, trouble })
}

async fn close_session(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    shared.change(|s| s.close_session(id));
    StatusCode::NO_CONTENT
}

/// Counts a poll in flight; the connection's end ends it too.
struct PollGuard {
    shared: Arc<Shared>,
    session: u64,
}

impl PollGuard {
    fn enter(shared: &Arc<Shared>, session: u64) -> Self {
        shared.change(|s| {
            if let Some(session) = s.sessions.get_mut(&session) {
                session.polls += 1;
                session.last_poll = Instant::now();
            }
        });
        Self { shared: Arc::clone(shared), session }
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        self.shared.change(|s| {
            if let Some(session) = s.sessions.get_mut(&self.session) {
                session.polls = session.polls.saturating_sub(1);
                session.last_poll = Instant::now();
            }
        });
    }
}

async fn poll(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> Response {
    match next_message(&shared, id).await {
        Polled::Message(message) => Json(message).into_response(),
        Polled::Gone => refuse(StatusCode::NOT_FOUND, "The runner no longer exists on the server."),
        Polled::Nothing => StatusCode::ACCEPTED.into_response(),
    }
}

/// A session's next message, waited for as long as a poll lasts.
pub(crate) async fn next_message(shared: &Arc<Shared>, session: u64) -> Polled {
    let look = |s: &mut super::State, first, last| match s.poll(session, first, last) {
        Polled::Nothing => None,
        found => Some(found),
    };
    held(shared, session, look).await.unwrap_or(Polled::Nothing)
}

/// Holds a session's poll until `look` finds something, for as long as a poll lasts. It is told whether this is the first look,
/// or the last.
pub(crate) async fn held<T>(
    shared: &Arc<Shared>,
    session: u64,
    mut look: impl FnMut(&mut super::State, bool, bool) -> Option<T>,
) -> Option<T> {
    let timeout = Duration::from_millis(shared.read(|s| s.orders.poll_timeout_ms));
    let deadline = tokio::time::Instant::now() + timeout;
    let mut changes = shared.subscribe();
    let _guard = PollGuard::enter(shared, session);
    let (mut first, mut last) = (true, false);
    loop {
        changes.borrow_and_update();
        // Not `change`: looking must not wake the other polls.
        let found = look(&mut shared.lock(), first, last);
        if found.is_some() || last {
            return found;
        }
        first = false;
        last = tokio::time::timeout_at(deadline, changes.changed()).await.is_err();
    }
}

async fn acquire(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let secret = bearer(&headers).unwrap_or_default().to_owned();
    shared.change(|s| {
        let runner = s.runner_by_secret(&secret);
        match s.acquire(id, runner) {
            Ok(()) => Json(s.job_message(id)).into_response(),
            Err(status) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
                refuse(status, &format!("Job message not found '{id}'."))
            }
        }
    })
}

async fn renew(State(shared): State<Arc<Shared>>, Path(id): Path<u64>) -> StatusCode {
    if shared.change(|s| s.renew(id)) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn log(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, headers: HeaderMap, text: String) -> StatusCode {
    let token = bearer(&headers).unwrap_or_default();
    shared.change(|s| match s.jobs.get_mut(&id).filter(|j| j.token == token) {
        Some(job) => {
            job.log.push_str(&text);
            StatusCode::OK
        }
        None => StatusCode::NOT_FOUND,
    })
}

async fn complete(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Json(ask): Json<CompleteRequest>,
) -> StatusCode {
    let token = bearer(&headers).unwrap_or_default();
    shared.change(|s| {
        if s.jobs.get(&id).is_none_or(|j| j.token != token) {
            return StatusCode::NOT_FOUND;
        }
        s.complete(id, ask.result);
        StatusCode::OK
    })
}
