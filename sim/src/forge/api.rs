//! GitHub's REST endpoints for self-hosted runners.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use jiff::tz::{self, TimeZone};
use serde_json::{Value, json};

use super::orders::PackageFault;
use super::packages;
use super::scope::Scope;
use super::state::{DeleteOutcome, Registration, Runner, TokenKind};
use super::{Shared, app, renamed, state, wire};
use crate::agent::Kind;

/// An error as GitHub words it.
pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    let body = json!({
        "message": message,
        "documentation_url": "https://docs.github.com/rest",
        "status": status.as_u16().to_string(),
    });
    (status, Json(body)).into_response()
}

pub(super) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "Not Found")
}

/// The one entry: decides by path segments, since three scopes share most endpoints.
pub(crate) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let path = path.strip_prefix("/api/v3").unwrap_or(&path);
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    if let Some(answer) = app::answer(&shared, &parts.method, &parts.headers, &segments, &body) {
        return answer;
    }
    if let Some(refusal) = refuse_credentials(&shared, &parts.headers) {
        return refusal;
    }
    if segments == ["rate_limit"] {
        return rate_limit(&shared);
    }
    let base = format!("http://{}", parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("forge"));
    let named = Scope::split(&segments).or_else(|| renamed::by_number(&shared, &segments));
    let Some((scope, rest)) = named else {
        return not_found();
    };
    if (&parts.method, rest) == (&Method::GET, &[]) {
        return renamed::described(&scope);
    }
    let prefix = if parts.uri.path().starts_with("/api/v3/") { "/api/v3" } else { "" };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let tail = format!("{}{query}", rest.join("/"));
    if let Some(leads_on) = renamed::lead(&shared, &parts.method, &scope, &format!("{base}{prefix}"), &tail) {
        return leads_on;
    }
    let refusal = refuse_scope(&shared, &scope).or_else(|| app::refuse(&shared, &parts.headers, &scope));
    if let Some(refusal) = refusal {
        return refusal;
    }
    let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri).map(|q| q.0).unwrap_or_default();
    match (&parts.method, rest) {
        (&Method::POST, ["actions", "runners", "registration-token"]) => {
            new_token(&shared, TokenKind::Registration, scope)
        }
        (&Method::POST, ["actions", "runners", "remove-token"]) => new_token(&shared, TokenKind::Remove, scope),
        (&Method::POST, ["actions", "runners", "generate-jitconfig"]) => match serde_json::from_slice(&body) {
            Ok(ask) => jit_config(&shared, scope, &base, &ask),
            Err(_) => error(StatusCode::BAD_REQUEST, "Problems parsing JSON"),
        },
        (&Method::GET, ["actions", "runners"]) => list_runners(&shared, &scope, &query, &base, path),
        (&Method::GET, ["actions", "runners", "downloads"]) => downloads(&shared, &base).await,
        (&Method::GET, ["actions", "runner-groups"]) if !matches!(scope, Scope::Repository(..)) => {
            list_groups(&shared, &scope, &query, &base, path)
        }
        (method, ["actions", "runners", id]) => match (method, id.parse::<u64>()) {
            (&Method::GET, Ok(id)) => get_runner(&shared, &scope, id),
            (&Method::DELETE, Ok(id)) => delete_runner(&shared, &scope, id),
            _ => not_found(),
        },
        _ => not_found(),
    }
}

fn refuse_credentials(shared: &Shared, headers: &HeaderMap) -> Option<Response> {
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
        return Some(error(StatusCode::UNAUTHORIZED, "Requires authentication"));
    };
    let token = match given.split_once(' ') {
        Some((kind, token)) if kind.eq_ignore_ascii_case("bearer") || kind.eq_ignore_ascii_case("token") => {
            Some(token.trim().to_owned())
        }
        Some((kind, pair)) if kind.eq_ignore_ascii_case("basic") => BASE64
            .decode(pair.trim())
            .ok()
            .and_then(|pair| String::from_utf8(pair).ok())
            .and_then(|pair| pair.split_once(':').map(|(_, password)| password.to_owned())),
        _ => None,
    };
    let good = token.is_some_and(|token| shared.read(|s| s.orders.pats.contains(&token) || app::knows(s, &token)));
    (!good).then(|| error(StatusCode::UNAUTHORIZED, "Bad credentials"))
}

fn refuse_scope(shared: &Shared, scope: &Scope) -> Option<Response> {
    let name = scope.to_string();
    let status = shared.read(|s| {
        let unknown = !s.orders.only_scopes.is_empty() && !s.orders.only_scopes.contains(&name);
        s.orders.deny.get(&name).copied().or(unknown.then_some(404))
    })?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    Some(match status {
        StatusCode::FORBIDDEN => error(status, "Resource not accessible by personal access token"),
        _ => error(status, status.canonical_reason().unwrap_or("Not Found")),
    })
}

/// As GitHub writes it: milliseconds, and the offset of a place on the Pacific rather than `Z`.
fn github_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::fixed(tz::offset(-8))).strftime("%Y-%m-%dT%H:%M:%S.000%:z").to_string()
}

fn new_token(shared: &Shared, kind: TokenKind, scope: Scope) -> Response {
    let (token, expires) = shared.change(|s| s.new_token(kind, scope));
    let body = json!({"token": token, "expires_at": github_time(expires)});
    (StatusCode::CREATED, Json(body)).into_response()
}

fn runner_json(runner: &Runner) -> Value {
    json!({
        "id": runner.id,
        "name": runner.name,
        "runner_group_id": runner.group_id,
        "os": if runner.jit && runner.version.is_none() { "unknown" } else { "Linux" },
        "status": if runner.session.is_some() { "online" } else { "offline" },
        "busy": runner.is_busy(),
        "ephemeral": runner.ephemeral,
        "version": runner.version,
        "labels": runner.labels,
    })
}

/// One page of a list, and the `Link` header that leads to the others.
fn page<T>(all: Vec<T>, query: &HashMap<String, String>, base: &str, path: &str) -> (Vec<T>, usize, HeaderMap) {
    let number = |key: &str, default: usize| query.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let per_page = number("per_page", 30).clamp(1, 100);
    let at = number("page", 1).max(1);
    let total = all.len();
    let last = total.div_ceil(per_page).max(1);
    let others: String = query.iter().filter(|(k, _)| *k == "name").map(|(k, v)| format!("&{k}={v}")).collect();
    let link = |to: usize, rel: &str| format!("<{base}{path}?per_page={per_page}&page={to}{others}>; rel=\"{rel}\"");
    let mut links = Vec::new();
    if at > 1 {
        links.push(link(at - 1, "prev"));
        links.push(link(1, "first"));
    }
    if at < last {
        links.push(link(at + 1, "next"));
        links.push(link(last, "last"));
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = links.join(", ").parse()
        && !links.is_empty()
    {
        headers.insert(header::LINK, value);
    }
    (all.into_iter().skip((at - 1) * per_page).take(per_page).collect(), total, headers)
}

pub(super) fn list_runners(
    shared: &Shared,
    scope: &Scope,
    query: &HashMap<String, String>,
    base: &str,
    path: &str,
) -> Response {
    let all: Vec<Value> = shared.read(|s| {
        s.registered(scope)
            .filter(|r| query.get("name").is_none_or(|n| r.name.eq_ignore_ascii_case(n)))
            .map(runner_json)
            .collect()
    });
    let (runners, total_count, headers) = page(all, query, base, path);
    (headers, Json(json!({"total_count": total_count, "runners": runners}))).into_response()
}

fn get_runner(shared: &Shared, scope: &Scope, id: u64) -> Response {
    shared
        .read(|s| s.registered(scope).find(|r| r.id == id).map(runner_json))
        .map_or_else(not_found, |runner| Json(runner).into_response())
}

pub(super) fn delete_runner(shared: &Shared, scope: &Scope, id: u64) -> Response {
    match shared.change(|s| s.delete_runner(scope, id)) {
        DeleteOutcome::Deleted => StatusCode::NO_CONTENT.into_response(),
        DeleteOutcome::Missing => not_found(),
        DeleteOutcome::Busy(name) => {
            error(StatusCode::UNPROCESSABLE_ENTITY, &format!("Bad request - Runner \"{name}\" is still running a job"))
        }
    }
}

fn jit_config(shared: &Shared, scope: Scope, base: &str, ask: &Value) -> Response {
    let invalid = |what: &str| error(StatusCode::UNPROCESSABLE_ENTITY, &format!("Validation Failed: {what}"));
    let Some(name) = ask["name"].as_str().filter(|n| !n.is_empty() && n.len() <= 64) else {
        return invalid("name");
    };
    let Some(group) = ask["runner_group_id"].as_u64() else {
        return invalid("runner_group_id");
    };
    let labels: Vec<String> =
        ask["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if labels.is_empty() || labels.len() > 100 {
        return invalid("labels must have between 1 and 100 entries");
    }
    let work = ask["work_folder"].as_str().unwrap_or("_work");
    shared.change(|s| {
        let group_name = match (&scope, usize::try_from(group).unwrap_or(0)) {
            (_, 1) => s.orders.runner_groups.first().cloned(),
            (Scope::Repository(..), _) | (_, 0) => None,
            (_, id) => s.orders.runner_groups.get(id - 1).cloned(),
        };
        let Some(group_name) = group_name else {
            return not_found();
        };
        if s.named(&scope, name).is_some() {
            let text = format!("Already exists - A runner with the name {name} already exists.");
            return error(StatusCode::CONFLICT, &text);
        }
        let register =
            Registration { name: name.into(), group: Some(group_name.clone()), jit: true, ..Registration::default() };
        let id = s.add_runner(scope.clone(), &labels, &register);
        let Some(runner) = s.runners.get(&id) else {
            return not_found();
        };
        let config = encoded_jit(runner, &group_name, base, work);
        let body = json!({"runner": runner_json(runner), "encoded_jit_config": config});
        (StatusCode::CREATED, Json(body)).into_response()
    })
}

/// Base64 of a JSON map from file name to base64 of the file; `.runner` has no address for `config.sh remove`.
fn encoded_jit(runner: &Runner, group: &str, base: &str, work: &str) -> String {
    let settings = json!({
        "AgentId": runner.id.to_string(),
        "AgentName": runner.name,
        "PoolId": "1",
        "PoolName": group,
        "ServerUrl": format!("{base}/_tenant/"),
        "ServerUrlV2": format!("{base}/_broker/"),
        "WorkFolder": work,
        "Ephemeral": "True",
        "UseV2Flow": "True",
    });
    let credentials = json!({
        "Scheme": "OAuth",
        "Data": {
            "ClientId": wire::client_id(runner.id),
            "AuthorizationUrl": format!("{base}/_oauth/token"),
            "requireFipsCryptography": "True",
        },
    });
    let encode = |value: &Value| BASE64.encode(value.to_string());
    let map = json!({
        ".runner": encode(&settings),
        ".credentials": encode(&credentials),
        ".credentials_rsaparams": encode(&wire::runner_key()),
    });
    BASE64.encode(map.to_string())
}

async fn downloads(shared: &Arc<Shared>, base: &str) -> Response {
    let version = shared.read(|s| s.orders.latest_version.clone());
    // Only the one that this machine can run is real, and only where the stand-in's programs are at hand.
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let offer = packages::offer(shared, Kind::GitHub, &version).await;
    let one = |os: &str, arch: &str, ending: &str| {
        let filename = format!("actions-runner-{os}-{arch}-{version}.{ending}");
        let offered = offer.as_ref().filter(|_| os == "linux" && arch == own);
        let place = if offered.is_some() { base } else { "https://github.com" };
        json!({
            "os": os,
            "architecture": arch,
            "download_url": format!("{place}/actions/runner/releases/download/v{version}/{filename}"),
            "filename": filename,
            "sha256_checksum": offered.map_or_else(|| "0".repeat(64), Clone::clone),
        })
    };
    let all = [
        one("osx", "x64", "tar.gz"),
        one("linux", "x64", "tar.gz"),
        one("linux", "arm64", "tar.gz"),
        one("linux", "arm", "tar.gz"),
        one("win", "x64", "zip"),
    ];
    let nothing = shared.read(|s| s.orders.package_fault == Some(PackageFault::None));
    Json(if nothing { json!([]) } else { json!(all) }).into_response()
}

pub(super) fn list_groups(
    shared: &Shared,
    scope: &Scope,
    query: &HashMap<String, String>,
    base: &str,
    path: &str,
) -> Response {
    let names = shared.read(|s| s.orders.runner_groups.clone());
    let all: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let mut group = json!({
                "id": at + 1,
                "name": name,
                "visibility": "all",
                "default": at == 0,
                "runners_url": format!("{base}{path}/{}/runners", at + 1),
                "allows_public_repositories": false,
                "restricted_to_workflows": false,
                "selected_workflows": [],
                "workflow_restrictions_read_only": false,
            });
            if matches!(scope, Scope::Organization(_)) {
                group["inherited"] = json!(false);
            }
            group
        })
        .collect();
    let (groups, total_count, headers) = page(all, query, base, path);
    (headers, Json(json!({"total_count": total_count, "runner_groups": groups}))).into_response()
}

fn rate_limit(shared: &Shared) -> Response {
    let core = shared.read(|s: &state::State| {
        let used = s.orders.rate_used.min(s.orders.rate_limit);
        json!({
            "limit": s.orders.rate_limit,
            "used": used,
            "remaining": s.orders.rate_limit - used,
            "reset": s.now().as_second() + s.orders.rate_reset_s,
        })
    });
    Json(json!({"resources": {"core": core, "search": core}, "rate": core})).into_response()
}
