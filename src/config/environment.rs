//! The environment that settings are read from, none of which is printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use super::reading::{is_quoted, list, meant};
use super::table::{Setting, SettingKind};

/// The environment as text, by name. Empty values are absent: Compose passes an unset variable as an empty one, and one of which its
/// `env_file` keeps the quotes as two of them.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, Value>,
    pub(super) unreadable: Vec<String>,
}

#[derive(Clone)]
struct Value(String);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Environment {
    /// Takes the variables in.
    pub(crate) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => {
                    if !value.is_empty() {
                        environment.values.insert(name, Value(value));
                    }
                }
                (Ok(name), Err(_)) => environment.unreadable.push(name),
                (Err(_), _) => {}
            }
        }
        environment
    }

    /// The value of one variable, as it is meant.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| meant(&value.0)).filter(|value| !value.is_empty())
    }

    /// Whether its value stands in quotes, which [`Self::get`] takes off.
    #[must_use]
    pub(super) fn is_quoted(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| is_quoted(&value.0))
    }

    /// The places that these settings name, each behind the variable that does.
    pub(crate) fn places(&self, settings: impl Iterator<Item = &'static Setting>) -> Vec<(String, &Path)> {
        let mut places = Vec::new();
        for (kind, name) in settings.flat_map(|setting| setting.names().map(|name| (setting.kind, name))) {
            let name = if kind == SettingKind::Secret { format!("{name}_FILE") } else { name.to_owned() };
            let Some(value) = self.get(&name) else { continue };
            match kind {
                SettingKind::Path | SettingKind::Secret => places.push((name, Path::new(value))),
                SettingKind::Paths => {
                    places.extend(list(value).0.into_iter().map(|path| (name.clone(), Path::new(path))))
                }
                _ => {}
            }
        }
        places
    }

    /// All variables, as they are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.0.as_str()))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self::new(variables.map(|(name, value)| (name.into(), value.into())))
    }
}
