//! The message of a job, as the runner reads it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::agent::assignment::{Job, PlannedStep};
use crate::protocol::{Condition, Step};

/// The job that a message describes.
pub(super) fn job(whole: Value) -> Job {
    let owned = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = whole["steps"].as_array().into_iter().flatten();
    let steps = steps.map(|step| PlannedStep { id: owned(&step["id"]), step: planned(step) }).collect();
    Job { id: owned(&whole["jobId"]), name: owned(&whole["jobDisplayName"]), steps, whole }
}

fn planned(step: &Value) -> Step {
    let inputs = plain(&step["inputs"]);
    let condition = match step["condition"].as_str().unwrap_or_default() {
        "always()" => Condition::Always,
        "failure()" => Condition::Failure,
        "cancelled()" => Condition::Cancelled,
        _ => Condition::Success,
    };
    Step {
        name: step["displayNameToken"].as_str().map(str::to_owned),
        id: None,
        run: inputs["script"].as_str().unwrap_or_default().to_owned(),
        condition,
        uses: ["image", "path"].iter().find_map(|place| step["reference"][place].as_str()).map(str::to_owned),
        args: inputs["args"].as_str().map(str::to_owned),
        // The runner's names of inputs have no case.
        entrypoint: ["entrypoint", "entryPoint"].iter().find_map(|name| inputs[name].as_str()).map(str::to_owned),
    }
}

/// A template's value without its types: a text or an expression's, a list, or a map by `Key` and `Value`.
pub(super) fn plain(token: &Value) -> Value {
    if let Some(pairs) = token["map"].as_array() {
        let pair = |pair: &Value| Some((plain(&pair["Key"]).as_str()?.to_owned(), plain(&pair["Value"])));
        return Value::Object(pairs.iter().filter_map(pair).collect());
    }
    match (&token["seq"], &token["lit"], &token["expr"]) {
        (Value::Array(items), _, _) => items.iter().map(plain).collect(),
        (_, Value::Null, Value::Null) => token.clone(),
        (_, Value::Null, expression) => expression.clone(),
        (_, literal, _) => literal.clone(),
    }
}

/// A context's value without its types.
pub(super) fn untyped(value: &Value) -> Value {
    if let Some(pairs) = value["d"].as_array() {
        let pair = |pair: &Value| Some((pair["k"].as_str()?.to_owned(), untyped(&pair["v"])));
        return Value::Object(pairs.iter().filter_map(pair).collect());
    }
    match (value["t"].as_u64(), value["a"].as_array()) {
        (_, Some(items)) => items.iter().map(untyped).collect(),
        (Some(1), None) => json!([]),
        (Some(2), None) => json!({}),
        _ => value.clone(),
    }
}

/// The context `github`.
pub(super) fn github(whole: &Value) -> Map<String, Value> {
    match untyped(&whole["contextData"]["github"]) {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// A time span as .NET writes it: `00:05:00`, with a fraction behind the seconds.
pub(super) fn span(text: &str) -> Duration {
    let parts = text.rsplit(':').map(|part| part.parse::<f64>().unwrap_or_default());
    let seconds = parts.zip([1.0, 60.0, 3600.0]).map(|(number, unit)| number * unit).sum();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(span("00:05:00"), Duration::from_secs(300));
        assert_eq!(span("01:00:15.250"), Duration::from_millis(3_615_250));
    }

    #[test]
    fn contexts_and_templates_lose_their_types() {
        let context = json!({"t": 2, "d": [{"k": "a", "v": {"t": 1, "a": ["x", 1]}}, {"k": "b", "v": {"t": 2}}]});
        assert_eq!(untyped(&context), json!({"a": ["x", 1], "b": {}}));
        let token = json!({"type": 2, "map": [{"Key": "script", "Value": {"type": 0, "lit": "true"}}]});
        assert_eq!(plain(&token), json!({"script": "true"}));
    }
}
