//! The command line, and the variables that stand for it.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::kind::Facts;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) command: Option<String>,
    given: BTreeMap<String, String>,
    pub(super) unknown: Vec<String>,
}

impl Arguments {
    pub(super) fn parse(facts: &Facts, arguments: impl Iterator<Item = OsString>) -> Self {
        let mut parsed = Self::default();
        let mut wants: Option<String> = None;
        for argument in arguments {
            let argument = argument.to_string_lossy().into_owned();
            if let Some(name) = argument.strip_prefix("--").map(str::to_lowercase) {
                wants = None;
                if facts.values.contains(&name.as_str()) {
                    parsed.given.insert(name.clone(), String::new());
                    wants = Some(name);
                } else if facts.flags.contains(&name.as_str()) {
                    parsed.given.insert(name, "true".into());
                } else {
                    parsed.unknown.push(argument);
                }
            } else if let Some(name) = wants.take() {
                parsed.given.insert(name, argument);
            } else if parsed.command.is_none() && facts.commands.contains(&argument.to_lowercase().as_str()) {
                parsed.command = Some(argument.to_lowercase());
            } else {
                parsed.unknown.push(argument);
            }
        }
        parsed
    }

    /// Adds the input variables, and takes them out of the environment: the worker must not have them.
    pub(super) fn add_environment(&mut self, prefix: &str) {
        let inputs: Vec<(OsString, String, OsString)> = std::env::vars_os()
            .filter_map(|(key, value)| {
                let name = key.to_str()?.to_uppercase().strip_prefix(prefix)?.to_lowercase();
                Some((key, name, value))
            })
            .collect();
        for (key, name, value) in inputs {
            // SAFETY: the listener has no other thread yet.
            unsafe { std::env::remove_var(&key) };
            let value = value.to_string_lossy().into_owned();
            if !value.is_empty() {
                self.given.entry(name.replace('_', "-")).or_insert(value);
            }
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.given.get(name).filter(|v| !v.is_empty()).cloned()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|v| matches!(v.to_lowercase().as_str(), "true" | "1" | "t" | "yes" | "y"))
    }

    /// A value without which nobody can be configured unattended.
    pub(super) fn required(&self, name: &str) -> Result<String, String> {
        self.value(name)
            .ok_or_else(|| format!("Invalid configuration provided for {name}. Terminating unattended configuration."))
    }
}
