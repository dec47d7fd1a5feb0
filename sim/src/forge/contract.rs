//! Requests and answers held against GitHub's OpenAPI description.
//!
//! The validator knows exactly the keywords that the description uses in the endpoints that matter; a keyword that it
//! does not know is itself reported, so that nothing is passed unchecked.

use std::sync::LazyLock;

use axum::http::{HeaderMap, header};
use serde_json::Value;

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../openapi/github-runners.openapi.json")).expect("the file is JSON")
});

/// Statuses that any GitHub endpoint may answer without listing them. All have the form of `basic-error`.
const COMMON: [u16; 11] = [301, 304, 307, 400, 401, 403, 404, 429, 500, 502, 503];

/// Problems of one request; `path` without `/api/v3`.
#[must_use]
pub fn check_request(method: &str, path: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let at = format!("{method} {path}");
    let Some(operation) = find(method, path) else {
        return vec![format!("{at}: no such operation")];
    };
    let mut problems = Vec::new();
    for key in query.split('&').filter(|p| !p.is_empty()).map(|p| p.split('=').next().unwrap_or_default()) {
        let known = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(resolve)
            .any(|p| p["in"] == "query" && p["name"] == key);
        if !known {
            problems.push(format!("{at}: unknown query parameter {key}"));
        }
    }
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if text("accept") != "application/vnd.github+json" {
        problems.push(format!("{at}: Accept is {:?}, wanted application/vnd.github+json", text("accept")));
    }
    let version = text("x-github-api-version");
    if version.parse::<jiff::civil::Date>().is_err() {
        problems.push(format!("{at}: X-GitHub-Api-Version is {version:?}, wanted a date such as 2022-11-28"));
    }
    if !headers.contains_key(header::USER_AGENT) {
        problems.push(format!("{at}: no User-Agent"));
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    match (schema.is_null(), body.is_empty()) {
        (true, _) | (false, true) if operation["requestBody"]["required"] != true => {}
        _ => match serde_json::from_slice::<Value>(body) {
            Ok(value) => check(schema, &value, &format!("{at}: request"), &mut problems),
            Err(error) => problems.push(format!("{at}: request is not JSON: {error}")),
        },
    }
    problems
}

/// Problems of one answer; `path` without `/api/v3`.
#[must_use]
pub fn check_answer(method: &str, path: &str, status: u16, body: &[u8]) -> Vec<String> {
    let at = format!("{method} {path} {status}");
    let Some(operation) = find(method, path) else {
        return if status == 404 || COMMON.contains(&status) {
            Vec::new()
        } else {
            vec![format!("{at}: no such operation")]
        };
    };
    let described = resolve(&operation["responses"][status.to_string()]);
    let basic_error = serde_json::json!({"$ref": "#/components/schemas/basic-error"});
    let schema = if !described.is_null() {
        &described["content"]["application/json"]["schema"]
    } else if COMMON.contains(&status) {
        &basic_error
    } else {
        return vec![format!("{at}: this status is not described")];
    };
    let mut problems = Vec::new();
    if schema.is_null() || status == 304 {
        if !body.is_empty() {
            problems.push(format!("{at}: a body where none is described"));
        }
        return problems;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => check(schema, &value, &format!("{at}: answer"), &mut problems),
        Err(error) => problems.push(format!("{at}: answer is not JSON: {error}")),
    }
    problems
}

/// The operation that a path belongs to; literal segments win over parameters.
fn find(method: &str, path: &str) -> Option<&'static Value> {
    let given: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let paths = DESCRIPTION["paths"].as_object()?;
    paths
        .iter()
        .filter_map(|(template, item)| {
            let template: Vec<&str> = template.trim_start_matches('/').split('/').collect();
            let fits = template.len() == given.len()
                && template.iter().zip(&given).all(|(t, g)| if t.starts_with('{') { !g.is_empty() } else { t == g });
            let literal = template.iter().filter(|t| !t.starts_with('{')).count();
            fits.then_some((literal, item))
        })
        .max_by_key(|(literal, _)| *literal)
        .and_then(|(_, item)| item.get(method.to_lowercase()))
}

/// Follows a `$ref`.
fn resolve(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => pointed(reference),
        None => value,
    }
}

fn pointed(reference: &str) -> &'static Value {
    DESCRIPTION.pointer(reference.trim_start_matches('#')).expect("the description's references resolve")
}

/// Holds a value against a schema of OpenAPI 3.0.
fn check(schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return check(pointed(reference), value, at, problems);
    }
    let Some(rules) = schema.as_object() else {
        problems.push(format!("{at}: the schema is not an object"));
        return;
    };
    if value.is_null() && rules.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    for (rule, wanted) in rules {
        check_rule(rules, rule, wanted, value, at, problems);
    }
}

fn check_rule(
    rules: &serde_json::Map<String, Value>,
    rule: &str,
    wanted: &Value,
    value: &Value,
    at: &str,
    problems: &mut Vec<String>,
) {
    let mut fail = |text: String| problems.push(format!("{at}: {text}"));
    match rule {
        "type" => {
            let fits = match wanted.as_str() {
                Some("object") => value.is_object(),
                Some("array") => value.is_array(),
                Some("string") => value.is_string(),
                Some("integer") => value.is_i64() || value.is_u64(),
                Some("number") => value.is_number(),
                Some("boolean") => value.is_boolean(),
                _ => false,
            };
            if !fits {
                fail(format!("{value} is not of type {wanted}"));
            }
        }
        "required" => {
            for name in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                if value.is_object() && value.get(name).is_none() {
                    fail(format!("{name} is missing"));
                }
            }
        }
        "properties" => {
            for (name, schema) in wanted.as_object().into_iter().flatten() {
                if let Some(part) = value.get(name) {
                    check(schema, part, &format!("{at}.{name}"), problems);
                }
            }
        }
        "additionalProperties" => {
            let known = rules.get("properties").and_then(Value::as_object);
            for (name, part) in value.as_object().into_iter().flatten() {
                if known.is_some_and(|k| k.contains_key(name)) {
                    continue;
                }
                match wanted {
                    Value::Bool(true) => {}
                    Value::Bool(false) => problems.push(format!("{at}: {name} is not allowed")),
                    schema => check(schema, part, &format!("{at}.{name}"), problems),
                }
            }
        }
        "items" => {
            for (index, part) in value.as_array().into_iter().flatten().enumerate() {
                check(wanted, part, &format!("{at}[{index}]"), problems);
            }
        }
        "minItems" | "maxItems" => {
            let (length, bound) = (value.as_array().map_or(0, Vec::len) as u64, wanted.as_u64().unwrap_or(0));
            if value.is_array() && (if rule == "minItems" { length < bound } else { length > bound }) {
                fail(format!("{length} items, but {rule} is {bound}"));
            }
        }
        "enum" => {
            if !wanted.as_array().is_some_and(|all| all.contains(value)) {
                fail(format!("{value} is none of {wanted}"));
            }
        }
        "format" => match (wanted.as_str(), value.as_str()) {
            (Some("date-time"), Some(text)) if text.parse::<jiff::Timestamp>().is_err() => {
                fail(format!("{text} is not a date-time"));
            }
            (Some("date-time" | "uri" | "uri-template" | "email" | "int64" | "float"), _) | (_, None) => {}
            (other, _) => fail(format!("format {other:?} is not known to the validator")),
        },
        "anyOf" | "oneOf" => {
            let fitting = wanted
                .as_array()
                .into_iter()
                .flatten()
                .filter(|schema| {
                    let mut inner = Vec::new();
                    check(schema, value, at, &mut inner);
                    inner.is_empty()
                })
                .count();
            if fitting == 0 || (rule == "oneOf" && fitting > 1) {
                fail(format!("{fitting} of {rule} fit"));
            }
        }
        "allOf" => {
            for schema in wanted.as_array().into_iter().flatten() {
                check(schema, value, at, problems);
            }
        }
        "nullable"
        | "title"
        | "description"
        | "default"
        | "example"
        | "examples"
        | "deprecated"
        | "x-github-breaking-changes" => {}
        other => fail(format!("keyword {other} is not known to the validator")),
    }
}
