//! How broker and run service word what they refuse, and refusals that are ordered.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::orders::Refusals;

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An error of the broker.
pub(super) fn broker(status: u16, kind: &str, text: &str) -> Response {
    let body = json!({
        "source": "actions-broker-listener",
        "errorKind": kind,
        "statusCode": status,
        "errorMessage": text,
    });
    (status_of(status), Json(body)).into_response()
}

/// An error of the run service.
pub(super) fn run(status: u16, text: &str) -> Response {
    let body = json!({"source": "actions-run-service", "statusCode": status, "errorMessage": text});
    (status_of(status), Json(body)).into_response()
}

/// An error that says nothing of what was asked for.
pub(super) fn bare(status: u16) -> Response {
    (status_of(status), Json(json!({"message": "ordered"}))).into_response()
}

/// The status of the next refusal, if one is ordered.
pub(super) fn take(order: &mut Option<Refusals>) -> Option<u16> {
    let refusals = order.as_mut().filter(|refusals| refusals.times != Some(0))?;
    refusals.times = refusals.times.map(|times| times - 1);
    Some(refusals.status)
}

/// Whether the runner passes over a job that is refused so, rather than trying again.
pub(super) fn is_for_good(status: u16) -> bool {
    matches!(status, 404 | 409 | 422)
}
