//! The environment that settings are read from, none of which is printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// The environment as text, by name. Empty values are absent: Compose passes an unset variable as an empty one.
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

    /// The value of one variable.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.0.as_str())
    }

    /// All variables.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.0.as_str()))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self::new(variables.map(|(name, value)| (name.into(), value.into())))
    }
}
