//! A job's message as the worker traces it: in the order of the runner's own types, without what is empty, and with its
//! secrets hidden.

use serde_json::{Map, Value};

use crate::agent::trace::Trace;

/// What a secret is shown as.
const HIDDEN: &str = "***";

/// The order of the members of what stands under a name; the message itself stands under none.
const ORDERS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "fileTable",
            "mask",
            "steps",
            "variables",
            "messageType",
            "plan",
            "timeline",
            "jobId",
            "jobDisplayName",
            "jobName",
            "requestId",
            "lockedUntil",
            "resources",
            "contextData",
            "workspace",
        ],
    ),
    ("steps", &["type", "reference", "displayNameToken", "contextName", "inputs", "condition", "id", "name"]),
    (
        "plan",
        &[
            "scopeIdentifier",
            "planType",
            "version",
            "planId",
            "planGroup",
            "artifactUri",
            "artifactLocation",
            "definition",
            "owner",
        ],
    ),
    ("timeline", &["id", "changeId", "location"]),
    ("endpoints", &["data", "id", "name", "type", "url", "authorization", "isShared", "isReady"]),
    ("data", &["ServerId", "ServerName", "CacheServerUrl", "FeedStreamUrl", "ResultsServiceUrl"]),
    ("contextData", &["github", "needs", "vars", "inputs", "strategy", "matrix"]),
];
/// What comes first anywhere else: the type, the name, then what is of it.
const FIRST: &[&str] = &["t", "k", "type", "key", "value"];
/// What the runner adds, without a value, to what the forge sends.
const ADDED: &[(&str, &[&str])] =
    &[("plan", &["artifactUri", "artifactLocation", "definition", "owner"]), ("timeline", &["location"])];

/// Traces the message of a job as the worker does when it has received it.
pub(in crate::agent) fn job_message(trace: &Trace, message: &Value) {
    trace.info("Worker", &format!("Job message:\n {}", printed(message)));
}

/// The message in many lines.
fn printed(message: &Value) -> String {
    let mut printer = Printer { text: String::new(), contexts: false };
    printer.value("", message, 0);
    let mut secrets = secrets(message);
    // A secret may be a part of another one.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets {
        printer.text = printer.text.replace(inner(&Value::from(secret).to_string()), HIDDEN);
    }
    printer.text
}

/// What stands between the quotes.
fn inner(quoted: &str) -> &str {
    quoted.trim_matches('"')
}

/// The values of secret variables, what the forge wants to be hidden, and what the connection is authorized with.
fn secrets(message: &Value) -> Vec<&str> {
    fn members(value: &Value) -> impl Iterator<Item = &Value> {
        value.as_object().into_iter().flat_map(Map::values)
    }
    fn items(value: &Value) -> impl Iterator<Item = &Value> {
        value.as_array().into_iter().flatten()
    }
    let variables = members(&message["variables"]).filter(|v| v["isSecret"] == true).map(|v| &v["value"]);
    let masks = items(&message["mask"]).map(|mask| &mask["value"]);
    let endpoints = items(&message["resources"]["endpoints"]);
    let keys = endpoints.flat_map(|endpoint| members(&endpoint["authorization"]["parameters"]));
    variables.chain(masks).chain(keys).filter_map(Value::as_str).filter(|secret| !secret.is_empty()).collect()
}

/// Writes JSON in many lines.
#[derive(Debug)]
struct Printer {
    text: String,
    /// In a job's contexts each number has a fraction, but for the types of values.
    contexts: bool,
}

impl Printer {
    /// A value that stands under a name: its own, or that of the list that it is in.
    fn value(&mut self, under: &str, value: &Value, depth: usize) {
        match value {
            Value::Object(members) => {
                let members = in_order(under, members);
                self.many(['{', '}'], &members, depth, |this, (name, value)| {
                    let contexts = this.contexts;
                    this.contexts |= depth == 0 && *name == "contextData";
                    this.text.push_str(&format!("{}: ", Value::from(*name)));
                    this.value(name, value, depth + 1);
                    this.contexts = contexts;
                });
            }
            Value::Array(items) => {
                let items: Vec<&Value> = items.iter().collect();
                self.many(['[', ']'], &items, depth, |this, item| this.value(under, item, depth + 1));
            }
            Value::Number(number) if self.contexts && under != "t" && !number.is_f64() => {
                self.text.push_str(&format!("{number}.0"))
            }
            other => self.text.push_str(&other.to_string()),
        }
    }

    fn many<T>(&mut self, [open, close]: [char; 2], all: &[T], depth: usize, one: impl Fn(&mut Self, &T)) {
        self.text.push(open);
        for (at, item) in all.iter().enumerate() {
            self.text.push_str(if at == 0 { "\n" } else { ",\n" });
            self.text.push_str(&"  ".repeat(depth + 1));
            one(self, item);
        }
        if !all.is_empty() {
            self.text.push('\n');
            self.text.push_str(&"  ".repeat(depth));
        }
        self.text.push(close);
    }
}

/// The members that are printed, in the order in which they are.
fn in_order<'a>(under: &str, members: &'a Map<String, Value>) -> Vec<(&'a str, &'a Value)> {
    let of = |table: &'static [(&str, &[&'static str])]| table.iter().find(|(name, _)| *name == under);
    let order = of(ORDERS).map_or(FIRST, |(_, order)| *order);
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty) || *value == Value::Bool(false);
    let mut all: Vec<(&str, &Value)> = members
        .iter()
        .filter(|(name, value)| {
            !(empty(value) && (under.is_empty() || ["d", "a", "isSecret"].contains(&name.as_str())))
        })
        // The forge may begin the names of a step's inputs with capitals.
        .map(|(name, value)| match name.as_str() {
            "Key" => ("key", value),
            "Value" => ("value", value),
            name => (name, value),
        })
        .collect();
    for added in of(ADDED).map_or(&[][..], |(_, added)| *added) {
        if !members.contains_key(*added) {
            all.push((added, &Value::Null));
        }
    }
    let rank = |name: &str| order.iter().position(|known| *known == name).unwrap_or(order.len());
    all.sort_by_key(|(name, _)| rank(name));
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::github::chatter::tests::{recorded, traced};

    /// The recorded message as the runner traced it, line by line.
    fn recorded_lines() -> Vec<String> {
        let lines = recorded().into_iter().skip_while(|line| !line.ends_with("] Job message:"));
        let mut ended = false;
        lines.take_while(|line| !std::mem::replace(&mut ended, line.ends_with("Worker] }"))).collect()
    }

    fn message() -> Value {
        let lines = recorded_lines();
        let texts: Vec<&str> = lines[1..].iter().map(|line| line.split_once("] ").unwrap().1).collect();
        serde_json::from_str(&texts.join("\n")).unwrap()
    }

    /// Without the variables, of which no order is known: they are a dictionary.
    fn ordered(lines: &[String]) -> Vec<&String> {
        let begin = lines.iter().position(|line| line.ends_with("\"variables\": {")).unwrap();
        let end = lines.iter().position(|line| line.contains("\"messageType\"")).unwrap();
        lines[..begin].iter().chain(&lines[end..]).collect()
    }

    #[test]
    fn the_recorded_message_is_traced_as_the_runner_traced_it() {
        let recorded = recorded_lines();
        assert_eq!(recorded.len(), 318);
        let lines = traced(true, |trace| job_message(trace, &message()));
        assert_eq!(ordered(&lines), ordered(&recorded));
        // In a dictionary only the last member has no comma behind it.
        let sorted = |lines: &[String]| {
            let mut lines: Vec<String> = lines.iter().map(|line| line.trim_end_matches(',').to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&lines), sorted(&recorded));
    }

    #[test]
    fn a_message_of_the_forge_is_brought_into_the_form_of_the_runners_own_types() {
        let sent = json!({
            "plan": {"version": 9, "planId": "p"},
            "timeline": {"changeId": 1, "id": "t"},
            "mask": [],
            "defaults": [],
            "steps": [
                {"name": "s", "inputs": {"type": 2, "map": [{"Key": "script", "Value": "true"}]}, "type": "action"},
            ],
            "variables": {"a": {"isSecret": false, "value": "b"}},
            "contextData": {"vars": {"t": 2, "d": []}, "github": {"t": 2, "d": [{"k": "n", "v": 7}]}},
        });
        let expected = r#"{
            "steps": [ { "type": "action", "inputs": { "type": 2, "map": [ { "key": "script", "value": "true" } ] },
                "name": "s" } ],
            "variables": { "a": { "value": "b" } },
            "plan": { "version": 9, "planId": "p",
                "artifactUri": null, "artifactLocation": null, "definition": null, "owner": null },
            "timeline": { "id": "t", "changeId": 1, "location": null },
            "contextData": { "github": { "t": 2, "d": [ { "k": "n", "v": 7.0 } ] }, "vars": { "t": 2 } }
        }"#;
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = printed(&sent);
        assert_eq!(words(&text), words(expected));
    }

    #[test]
    fn the_values_of_secrets_are_hidden_wherever_they_stand() {
        let text = printed(&json!({
            "variables": {"KEY": {"isSecret": true, "value": "pass\"word"}, "open": {"value": "seen pass\"word"}},
            "mask": [{"type": "regex", "value": "masked"}],
            "resources": {"endpoints": [{"authorization": {"parameters": {"AccessToken": "masked-token"}}}]},
            "jobName": "masked",
        }));
        assert!(!text.contains("word") && !text.contains("masked") && !text.contains("token\""), "{text}");
        assert!(
            text.contains("\"KEY\"") && text.contains("\"seen ***\"") && text.contains("\"jobName\": \"***\""),
            "{text}"
        );
    }

    /// As of a push with many commits: most of its values are addresses.
    #[test]
    fn an_event_of_46_kilobytes_and_40_variables_make_thousands_of_lines() {
        let pairs = |count: usize, value: &str| -> Vec<Value> {
            (0..count).map(|at| json!({"k": format!("name_{at}"), "v": value})).collect()
        };
        let event = pairs(1150, "http://forge/acme/app/0000");
        let plain: usize = event.iter().map(|pair| pair["k"].to_string().len() + pair["v"].to_string().len() + 2).sum();
        assert!((41_000..51_000).contains(&plain), "{plain}");
        let mut whole = message();
        let before = printed(&whole).lines().count();
        whole["contextData"]["vars"] = json!({"t": 2, "d": pairs(40, "value")});
        let github = whole["contextData"]["github"]["d"].as_array_mut().unwrap();
        github.push(json!({"k": "event", "v": {"t": 2, "d": event}}));
        let more = printed(&whole).lines().count() - before;
        assert!((4311..5269).contains(&more), "{more} of 4790");
    }
}
