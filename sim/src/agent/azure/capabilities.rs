//! What the agent tells the server about itself, for everyone in the organisation to read.

use std::collections::BTreeMap;
use std::path::Path;

type Capabilities = BTreeMap<String, String>;

/// A variable of so many characters or more is none.
const TOO_LONG: usize = 1024;

/// The environment but for what `VSO_AGENT_IGNORE` names, the agent's own facts, and the tools that are found.
pub(super) fn system(root: &Path, name: &str, version: &str) -> Capabilities {
    let ignored = std::env::var("VSO_AGENT_IGNORE").unwrap_or_default();
    let ignored: Vec<&str> =
        ignored.split(',').map(str::trim).chain(["VSO_AGENT_IGNORE"]).filter(|name| !name.is_empty()).collect();
    let mut found: Capabilities = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, value)| {
            value.encode_utf16().count() < TOO_LONG && !ignored.iter().any(|i| i.eq_ignore_ascii_case(key))
        })
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for tool in ["bash", "curl", "docker", "git", "make", "sh"] {
        if let Some(place) = std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|p| p.is_file()) {
            found.insert(tool.into(), place.to_string_lossy().into_owned());
        }
    }
    for (key, value) in [
        ("Agent.Name", name),
        ("Agent.Version", version),
        ("Agent.ComputerName", &super::super::host_name()),
        ("Agent.HomeDirectory", &root.to_string_lossy()),
        ("Agent.OS", "Linux"),
        ("Agent.OSArchitecture", crate::agent::ARCH_LABEL),
        ("InteractiveSession", "False"),
    ] {
        found.insert(key.into(), value.into());
    }
    found
}

/// The lines `KEY=VALUE` of `.capabilities` in the root.
pub(super) fn user(root: &Path) -> Capabilities {
    let text = std::fs::read_to_string(root.join(".capabilities")).unwrap_or_default();
    text.trim_start_matches('\u{feff}')
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}
