//! How a runner is configured with a token: `RemoteAuth`, on two routes of its own and some of the REST API's.

use axum::Json;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::super::api;
use super::super::scope::Scope;
use super::super::state::{Registration, State, TokenKind};
use super::token::jwt;
use super::{Asked, client_id};

/// The token of a registration or a removal, in the scheme that only the runner uses.
pub(super) fn remote_token(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("RemoteAuth ")
}

#[derive(Deserialize)]
struct Tenant {
    url: String,
    #[serde(default)]
    runner_event: String,
}

#[derive(Deserialize)]
struct Register {
    url: String,
    group_id: u64,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    ephemeral: bool,
    #[serde(default)]
    labels: Vec<Label>,
    /// A runner of this name is to be replaced. Believed of the official runner; no recording has it.
    #[serde(default)]
    replace: bool,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

/// A request whose token is of the scheme `RemoteAuth`, or ought to be.
pub(super) fn answer(asked: &Asked) -> Response {
    let segments: Vec<&str> = asked.path.split('/').filter(|s| !s.is_empty()).collect();
    match (&asked.method, segments.as_slice()) {
        (&Method::POST, ["actions", "runner-registration"]) => tenant(asked),
        (&Method::POST, ["actions", "runners", "register"]) => register(asked),
        (method, segments) => match Scope::split(segments) {
            Some((scope, rest)) => described(asked, method, &scope, rest),
            None => api::not_found(),
        },
    }
}

fn is_good(s: &State, asked: &Asked, kind: TokenKind, scope: &Scope) -> bool {
    remote_token(&asked.headers).is_some_and(|token| s.token_is_good(token, kind, scope))
}

/// Whether the token is one for registrations alone.
fn registers(s: &State, asked: &Asked, scope: &Scope) -> bool {
    is_good(s, asked, TokenKind::Registration, scope)
        && remote_token(&asked.headers).and_then(|t| s.tokens.get(t)).is_some_and(|t| t.kind == TokenKind::Registration)
}

/// The scope that an address of `config.sh --url` means.
fn scope_of(url: &str) -> Option<Scope> {
    let (_, rest) = url.split_once("://")?;
    Scope::from_url_path(rest.split_once('/')?.1)
}

/// `POST /actions/runner-registration`: where the runner's services are.
fn tenant(asked: &Asked) -> Response {
    let Ok(ask) = serde_json::from_slice::<Tenant>(&asked.body) else {
        return api::error(StatusCode::BAD_REQUEST, "Problems parsing JSON");
    };
    let kind = if ask.runner_event == "remove" { TokenKind::Remove } else { TokenKind::Registration };
    asked.shared.read(|s| match scope_of(&ask.url).filter(|scope| is_good(s, asked, kind, scope)) {
        Some(scope) => Json(json!({
            "url": format!("{}/_tenant/", asked.base),
            "token": jwt(s, json!({"scope": scope.to_string()})),
            "token_schema": "OAuthAccessToken",
            "use_v2_flow": true,
        }))
        .into_response(),
        None => api::not_found(),
    })
}

/// What a runner asks of the REST API with its token. Groups of a repository are only answered here.
fn described(asked: &Asked, method: &Method, scope: &Scope, rest: &[&str]) -> Response {
    if !asked.shared.read(|s| is_good(s, asked, TokenKind::Remove, scope)) {
        return api::not_found();
    }
    let Asked { shared, query, base, path, .. } = asked;
    match (method, rest) {
        (&Method::GET, ["actions", "runner-groups"]) => api::list_groups(shared, scope, query, base, path),
        (&Method::GET, ["actions", "runners"]) => api::list_runners(shared, scope, query, base, path),
        (&Method::DELETE, ["actions", "runners", id]) => match id.parse() {
            Ok(id) => api::delete_runner(shared, scope, id),
            Err(_) => api::not_found(),
        },
        _ => api::not_found(),
    }
}

/// `POST /actions/runners/register`: the registration itself.
fn register(asked: &Asked) -> Response {
    let Ok(ask) = serde_json::from_slice::<Register>(&asked.body) else {
        return api::error(StatusCode::BAD_REQUEST, "Problems parsing JSON");
    };
    asked.shared.change(|s| {
        let Some(scope) = scope_of(&ask.url).filter(|scope| registers(s, asked, scope)) else {
            return api::not_found();
        };
        if ask.name.is_empty() || ask.name.len() > 64 {
            return api::error(StatusCode::BAD_REQUEST, "Runner name must have 1 to 64 characters");
        }
        let group = usize::try_from(ask.group_id).ok().and_then(|id| id.checked_sub(1));
        let Some(group) = group.and_then(|at| s.orders.runner_groups.get(at)).cloned() else {
            return api::not_found();
        };
        if let Some(old) = s.named(&scope, &ask.name) {
            if !ask.replace {
                let text = format!("A runner exists with the same name {}.", ask.name);
                return api::error(StatusCode::CONFLICT, &text);
            }
            s.unregister(old, "replaced");
        }
        let mut labels: Vec<String> = Vec::new();
        for Label { name } in &ask.labels {
            if !labels.iter().any(|have| have.eq_ignore_ascii_case(name)) {
                labels.push(name.clone());
            }
        }
        let register = Registration {
            name: ask.name.clone(),
            group: Some(group),
            ephemeral: ask.ephemeral,
            jit: false,
            version: ask.version.clone(),
        };
        let id = s.add_runner(scope, &labels, &register);
        Json(json!({
            "id": id,
            "name": ask.name,
            "authorization": {
                "authorization_url": format!("{}/_oauth/token", asked.base),
                "server_url": format!("{}/_broker/", asked.base),
                "client_id": client_id(id),
            },
        }))
        .into_response()
    })
}
