//! What can be wrong with a configuration.

use std::fmt;

/// One thing that is wrong with the configuration, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting at fault.
    pub setting: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

impl Problem {
    /// What is wrong with `setting`, and what to do.
    #[must_use]
    pub(crate) fn of(setting: &str, what: impl fmt::Display, cure: impl fmt::Display) -> Self {
        Self::written(setting, &what, &cure)
    }

    /// One function for all kinds of text, or the program would have one for each.
    fn written(setting: &str, what: &dyn fmt::Display, cure: &dyn fmt::Display) -> Self {
        Self { setting: setting.to_owned(), what: what.to_string(), cure: cure.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.setting, self.what, self.cure)
    }
}
