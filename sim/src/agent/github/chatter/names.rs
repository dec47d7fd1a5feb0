//! Where the names come from that the texts are filled with.

use std::path::Path;

use serde_json::Value;

use super::{JobNames, Names, Sort, StepNames};
use crate::agent::github::message;
use crate::agent::kind::Kind;
use crate::agent::listener::text;
use crate::agent::version;

impl Names {
    /// What every program of a runner knows.
    pub(in crate::agent) fn of(root: &Path, work: &Path) -> Self {
        Self {
            root: root.display().to_string(),
            work: work.display().to_string(),
            version: version(Kind::GitHub, root),
            ..Self::default()
        }
    }
}

impl JobNames {
    /// What a job's message says. Its length and its hash are those of the message in one line.
    pub(in crate::agent) fn of(whole: &Value) -> Self {
        let steps = whole["steps"].as_array().map_or(0, Vec::len);
        let hooks = super::super::FACTS.hooks.into_iter().flatten();
        let hooks = hooks.filter(|hook| std::env::var_os(hook).is_some_and(|path| !path.is_empty())).count();
        let context = message::github(whole);
        let repository = context.get("repository").and_then(Value::as_str).unwrap_or_default();
        let mut names = Self {
            id: text(whole, "jobId").to_owned(),
            plan: text(&whole["plan"], "planId").to_owned(),
            timeline: text(&whole["timeline"], "id").to_owned(),
            request: whole["requestId"].to_string(),
            repository: repository.to_owned(),
            steps: steps + hooks,
            ..Self::default()
        };
        names.measure(whole.to_string().as_bytes());
        names
    }
}

impl StepNames {
    /// A step of a job's message, of which this script is run.
    pub(in crate::agent) fn of_step(whole: &Value, id: &str, title: &str, script: &Path) -> Self {
        let all = whole["steps"].as_array().into_iter().flatten();
        let step = all.clone().find(|step| step["id"] == id).unwrap_or(&Value::Null);
        Self {
            condition: text(step, "condition").to_owned(),
            context: text(step, "contextName").to_owned(),
            ..Self::of(Sort::Step, id, title, script)
        }
    }

    /// A job hook, which is this script. Only what runs before the steps has a name in their context.
    pub(in crate::agent) fn of_hook(sort: Sort, id: &str, title: &str, script: &Path) -> Self {
        let context = if sort == Sort::Started { id.replace('-', "") } else { String::new() };
        Self { condition: "always()".to_owned(), context, ..Self::of(sort, id, title, script) }
    }

    fn of(sort: Sort, id: &str, title: &str, script: &Path) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            arguments: format!("-e {}", script.display()),
            sort,
            ..Self::default()
        }
    }
}
