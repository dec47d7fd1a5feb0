//! What GitHub's own runner speaks beside the REST API, its second protocol: registration, token, broker, run service, results.
//!
//! No signature is checked; tokens are well formed, because the runner reads them. A runner here is the same registration that
//! the REST API and the control plane show, and its jobs are theirs.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

mod broker;
mod containers;
mod context;
mod ids;
mod key;
mod location;
mod message;
mod refusal;
mod register;
mod results;
mod run;
mod token;

pub(crate) use key::runner_key;
pub(crate) use token::{grant, runner};

use super::Shared;
use ids::Id;

/// A request, taken apart.
struct Asked {
    shared: Arc<Shared>,
    method: Method,
    headers: HeaderMap,
    /// Without `/api/v3`.
    path: String,
    /// The forge's own address.
    base: String,
    query: HashMap<String, String>,
    body: Bytes,
}

impl Asked {
    /// The body's JSON, null where it is none.
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What a runner calls itself when it asks for a token.
pub(crate) fn client_id(runner: u64) -> String {
    ids::uuid(Id::Client, runner)
}

/// Whether a request is the runner's; the path comes without `/api/v3`.
pub(crate) fn is_mine(headers: &HeaderMap, path: &str) -> bool {
    const PLACES: [&str; 6] = ["/_oauth/", "/_tenant/", "/_broker/", "/_run/", "/_blob/", "/twirp/"];
    PLACES.iter().any(|place| path.starts_with(place))
        || ["/actions/runner-registration", "/actions/runners/register"].contains(&path)
        || register::remote_token(headers).is_some()
}

/// The one entry: decides by the path.
pub(crate) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("forge");
    let asked = Asked {
        shared,
        path: path.strip_prefix("/api/v3").unwrap_or(path).to_owned(),
        base: format!("http://{host}"),
        query: Query::try_from_uri(&parts.uri).map(|q| q.0).unwrap_or_default(),
        method: parts.method,
        headers: parts.headers,
        body: to_bytes(body, super::gate::BODY_LIMIT).await.unwrap_or_default(),
    };
    match asked.path.split('/').nth(1).unwrap_or_default() {
        "_oauth" => token::grant(&asked.shared, &asked.body),
        "_tenant" => location::connection_data(&asked),
        "_broker" => broker::answer(&asked, &asked.path["/_broker".len()..]).await,
        "_run" => run::answer(&asked),
        "_blob" => results::store(&asked),
        "twirp" => results::call(&asked),
        _ => register::answer(&asked),
    }
}

fn unknown() -> Response {
    StatusCode::NOT_FOUND.into_response()
}
