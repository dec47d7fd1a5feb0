//! A configuration that the forge has its runner change: what it gets is kept in a file beside the one that it replaces.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::agent::listener::text;
use crate::agent::trace::Trace;

/// Obeys the message. What upstream gets from the address in it is here what it has, marked.
pub(super) fn refresh(root: &Path, trace: &Trace, body: &Value) {
    let kind = text(body, "configType");
    trace.info("Runner", &format!("Received RunnerRefreshConfigMessage for '{kind}' config file"));
    let name = if kind == "runner" { ".runner" } else { ".credentials" };
    let written = fs::read_to_string(root.join(name)).and_then(|old| {
        let text = old.replacen('{', "{\n  \"refreshed\": true,", 1);
        fs::write(root.join(format!("{name}_migrated")), text)
    });
    if let Err(error) = written {
        trace.error("RunnerConfigUpdater", &format!("Failed to update runner '{kind}' config. {error}"));
    }
    let text = match kind {
        "runner" => "Runner configuration was updated. Session restart has been scheduled".to_owned(),
        _ => format!("No session restart needed for config type: {kind}"),
    };
    trace.info("Runner", &text);
}
