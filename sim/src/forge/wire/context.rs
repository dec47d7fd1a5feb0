//! A job's contexts, in the form in which the runner gets them.

use serde_json::{Map, Value, json};

use super::super::state::Job;

/// A value as the runner's messages write values: `t` is the type, `d` a dictionary, `a` a list.
pub(super) fn typed(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let pairs: Vec<Value> = members.iter().map(|(k, v)| json!({"k": k, "v": typed(v)})).collect();
            json!({"t": 2, "d": pairs})
        }
        Value::Array(items) => json!({"t": 1, "a": items.iter().map(typed).collect::<Vec<_>>()}),
        other => other.clone(),
    }
}

/// The merge of a pull request, what was pushed, else the default branch.
fn reference(event: &str, payload: &Value) -> String {
    match (event, &payload["number"], &payload["ref"]) {
        ("pull_request", Value::Number(number), _) => format!("refs/pull/{number}/merge"),
        ("push", _, Value::String(pushed)) => pushed.clone(),
        _ => "refs/heads/main".into(),
    }
}

/// The context `github` of a job.
pub(super) fn github(job: &Job, base: &str) -> Value {
    let repository = job.repository.clone().unwrap_or_else(|| "acme/app".into());
    let owner = repository.split('/').next().unwrap_or_default();
    let event = job.spec.event.as_deref().unwrap_or("push");
    let default = json!({
        "repository": {"full_name": repository, "fork": false},
        "ref": "refs/heads/main",
        "sender": {"login": "octocat"},
    });
    let payload = if job.spec.payload.is_null() { &default } else { &job.spec.payload };
    let reference = reference(event, payload);
    let run = job.id.to_string();
    let texts = [
        ("repository", repository.as_str()),
        ("repository_owner", owner),
        ("repository_id", "1"),
        ("event_name", event),
        ("ref", &reference),
        ("ref_name", reference.splitn(3, '/').last().unwrap_or_default()),
        ("ref_type", "branch"),
        ("sha", "0000000000000000000000000000000000000000"),
        ("actor", "octocat"),
        ("triggering_actor", "octocat"),
        ("workflow", "simulated"),
        ("workflow_ref", &format!("{repository}/.github/workflows/ci.yml@refs/heads/main")),
        ("run_id", &run),
        ("run_number", &run),
        ("run_attempt", "1"),
        ("head_ref", ""),
        ("base_ref", ""),
        ("server_url", base),
        ("api_url", &format!("{base}/api/v3")),
        ("graphql_url", &format!("{base}/api/graphql")),
        ("retention_days", "90"),
        ("secret_source", "Actions"),
        ("action", ""),
        ("action_path", ""),
        ("workspace", ""),
        ("job", &job.name),
    ];
    let mut all: Map<String, Value> = texts.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    all.insert("event".into(), payload.clone());
    Value::Object(all)
}
