//! The side channel of the simulation, below `/_sim/agent`: what the stand-in agents are told that no forge would say to the official ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Shared;
use crate::protocol::{Address, Manners};
use crate::scale::Scale;

/// `GET /_sim/agent`: before an agent is anybody's.
pub(super) async fn address(State(shared): State<Arc<Shared>>) -> Response {
    let (default_port, scale) = shared.read(|s| (s.orders.default_port, s.orders.time_scale));
    Json(Address { default_port, scale }).into_response()
}

fn scaled(scale: Scale, ms: u64) -> u64 {
    u64::try_from(scale.ms(ms).as_millis()).unwrap_or(ms)
}

/// Of so many lives one mixes its traces by itself.
const MIXED_EVERY: u64 = 30;
const MIXED_AT: u64 = 17;

/// When an agent asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Moment {
    /// It is about to open a session.
    Session,
    /// A poll gave nothing.
    Poll,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    at: Moment,
}

/// `GET /_sim/agent/{id}`.
pub(super) async fn manners(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    Query(asked): Query<Asked>,
) -> Response {
    shared.change(|s| {
        let Some(runner) = s.runners.get_mut(&id) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        runner.stand_in = true;
        let at_session = asked.at == Moment::Session;
        s.lives += u64::from(at_session);
        let exit = s.take_listener_exit(id, at_session);
        let trouble = if at_session && exit.is_none() { s.take_trouble() } else { None };
        let orders = &s.orders;
        Json(Manners {
            scale: orders.time_scale,
            backoff_ms: orders.agent_backoff_ms,
            conflict_retry_ms: orders.conflict_retry_ms,
            conflict_limit_ms: orders.conflict_limit_ms,
            sigint_ms: orders.sigint_ms,
            sigterm_ms: orders.sigterm_ms,
            renew_ms: (orders.job_lease_ms / 4).max(50),
            silence_ms: scaled(orders.time_scale, 100_000).max(orders.poll_timeout_ms * 2),
            exit,
            trouble,
            mixed_traces: orders.mixed_traces || s.lives % MIXED_EVERY == MIXED_AT,
        })
        .into_response()
    })
}

/// `POST /_sim/agent/jobs/{id}/live`: lines while they come, which the official runner sends over a web socket.
pub(super) async fn live(State(shared): State<Arc<Shared>>, Path(id): Path<u64>, text: String) -> StatusCode {
    shared.change(|s| match s.jobs.get_mut(&id) {
        Some(job) => {
            job.live.push_str(&text);
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    })
}
