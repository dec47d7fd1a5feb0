//! What has another name by now. GitHub leads from a repository's or organisation's old name on to its number, Azure DevOps from an
//! organisation's old address to its new one.

use axum::Json;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Shared;
use super::scope::Scope;

/// The first number.
const FIRST: usize = 1000;

/// How an address by number begins.
fn prefix(scope: &Scope) -> Option<&'static str> {
    match scope {
        Scope::Repository(..) => Some("repositories"),
        Scope::Organization(..) => Some("organizations"),
        Scope::Enterprise(_) | Scope::Pool(..) => None,
    }
}

/// What a request for an old name is answered with. `path` is what follows the name, its query included.
pub(super) fn lead(shared: &Shared, method: &Method, scope: &Scope, base: &str, path: &str) -> Option<Response> {
    let name = scope.to_string();
    let number = shared.read(|s| s.orders.renamed.keys().position(|old| *old == name))? + FIRST;
    let location = format!("{base}/{}/{number}/{path}", prefix(scope)?);
    Some(answer(method, &location))
}

/// What a request to an organisation's old address is answered with. `path` is what follows it, its query included.
pub(super) fn lead_organization(
    shared: &Shared,
    method: &Method,
    old: &str,
    root: &str,
    path: &str,
) -> Option<Response> {
    let new = shared.read(|s| s.orders.renamed.get(old).cloned())?;
    Some(answer(method, &format!("{root}/{new}/_apis/{path}")))
}

fn answer(method: &Method, location: &str) -> Response {
    let (status, message) = match *method {
        Method::POST => (StatusCode::TEMPORARY_REDIRECT, "Temporary Redirect"),
        _ => (StatusCode::MOVED_PERMANENTLY, "Moved Permanently"),
    };
    let body = json!({"message": message, "url": location, "documentation_url": "https://docs.github.com/rest"});
    (status, [(header::LOCATION, location)], Json(body)).into_response()
}

/// The scope that an address by number means, and what follows it.
pub(super) fn by_number<'a>(shared: &Shared, segments: &'a [&'a str]) -> Option<(Scope, &'a [&'a str])> {
    let [kind @ ("repositories" | "organizations"), number, rest @ ..] = segments else { return None };
    let at = number.parse::<usize>().ok()?.checked_sub(FIRST)?;
    let name = shared.read(|s| s.orders.renamed.values().nth(at).cloned())?;
    let scope = Scope::parse(&name).filter(|scope| prefix(scope) == Some(*kind))?;
    Some((scope, rest))
}

/// What GitHub says of a repository or an organisation.
pub(super) fn described(scope: &Scope) -> Response {
    Json(match scope {
        Scope::Repository(owner, name) => json!({"name": name, "full_name": format!("{owner}/{name}")}),
        other => json!({"login": other.to_string().trim_start_matches("orgs/")}),
    })
    .into_response()
}

/// The path that GitHub's description has for an address by number; nothing where it has none.
pub(super) fn described_path(path: &str) -> Option<String> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        ["repositories", _, rest @ ..] if !rest.is_empty() => Some(format!("/repos/o/r/{}", rest.join("/"))),
        ["organizations", _, rest @ ..] if !rest.is_empty() => Some(format!("/orgs/o/{}", rest.join("/"))),
        ["repositories" | "organizations", _] => None,
        _ => Some(path.to_owned()),
    }
}
