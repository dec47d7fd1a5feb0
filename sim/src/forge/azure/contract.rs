//! Requests held against what Azure DevOps' reference describes: operations, their parameters, the version asked for.

use axum::http::{HeaderMap, Method, header};

/// An operation that is not an agent's: method, path below `_apis`, parameters. `*` is any one segment.
const OPERATIONS: [(Method, &str, &[&str]); 7] = [
    (Method::GET, "connectionData", &["connectOptions", "lastChangeId", "lastChangeId64"]),
    (Method::GET, "distributedtask/pools", &["poolName", "actionFilter", "poolType", "properties"]),
    (Method::GET, "distributedtask/pools/*", &["actionFilter", "properties"]),
    (
        Method::GET,
        "distributedtask/pools/*/agents",
        &[
            "agentName",
            "includeCapabilities",
            "includeAssignedRequest",
            "includeLastCompletedRequest",
            "propertyFilters",
            "demands",
        ],
    ),
    (
        Method::GET,
        "distributedtask/pools/*/agents/*",
        &["includeCapabilities", "includeAssignedRequest", "includeLastCompletedRequest", "propertyFilters"],
    ),
    (Method::DELETE, "distributedtask/pools/*/agents/*", &[]),
    (Method::GET, "distributedtask/packages/agent/*", &["$top", "includeToken"]),
];

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(p, s)| *p == "*" || p == s)
}

/// `5.1`, `5.1-preview`, `5.1-preview.1`.
fn is_version(text: &str) -> bool {
    let (number, preview) = text.split_once('-').unwrap_or((text, "preview"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    number.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
        && (preview == "preview" || preview.strip_prefix("preview.").is_some_and(digits))
}

/// Problems of one request; none of an agent's own, nor of those to the directory.
pub(crate) fn check(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Vec<String> {
    let Some((organization, rest)) = path.split_once("/_apis/") else {
        return Vec::new();
    };
    let at = format!("{method} {path}");
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut problems = Vec::new();
    if organization.trim_matches('/').is_empty() {
        problems.push(format!("{at}: no organisation in the address"));
    }
    if text(header::USER_AGENT).is_empty() {
        problems.push(format!("{at}: no User-Agent"));
    }
    let pairs: Vec<(&str, &str)> =
        query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, ""))).collect();
    let accepted = text(header::ACCEPT);
    let version = pairs.iter().find(|(name, _)| *name == "api-version").map(|(_, value)| *value);
    let version = version.or_else(|| accepted.split_once("api-version=").map(|(_, value)| value));
    if !version.is_some_and(is_version) {
        problems.push(format!("{at}: api-version is {version:?}, wanted a version such as 5.1"));
    }
    if !accepted.contains("application/json") {
        problems.push(format!("{at}: Accept is {accepted:?}, wanted application/json"));
    }
    let Some((_, _, parameters)) = OPERATIONS.iter().find(|(known, pattern, _)| known == method && fits(pattern, rest))
    else {
        problems.push(format!("{at}: no such operation"));
        return problems;
    };
    for (name, _) in pairs.iter().filter(|(name, _)| *name != "api-version") {
        let plain = name.replace("%24", "$");
        if !parameters.contains(&plain.as_str()) {
            problems.push(format!("{at}: unknown query parameter {name}"));
        }
    }
    problems
}
