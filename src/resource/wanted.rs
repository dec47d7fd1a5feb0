//! Which resources a job needs: `a`, `a,b` (all of them), `a|b` (any one of them).

use std::fmt;
use std::str::FromStr;

use crate::shown::quoted;

/// The most resources that can be wanted at once: an exit code must tell them apart.
pub(crate) const MOST: usize = 64;

/// How the names of turns begin.
const TURN: &str = "turn-";
/// How many digits of a digest make a key.
pub(super) const KEY: usize = 16;

/// The name of a resource: letters, digits, dots, dashes and underscores, beginning with a letter or digit, at most 64. No
/// path can be made of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(String);

/// What resources a job needs before it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of these, in the order of their names.
    All(Vec<ResourceId>),
    /// Any one of these, first free.
    Any(Vec<ResourceId>),
}

/// Why a text names no resources.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WantedError {
    /// One of the names is none.
    #[error(
        "{} is no resource id: use letters, digits, dots, dashes and underscores, at most 64, beginning with a letter or digit",
        quoted(.0)
    )]
    Id(String),
    /// `a,b|c`.
    #[error("\",\" (all of them) and \"|\" (any one of them) cannot be mixed")]
    Mixed,
    /// A name twice.
    #[error("{0} is named twice")]
    Twice(ResourceId),
}

impl ResourceId {
    /// The name.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The lock that is no resource, but the turn to try one that is set aside; the key stands for which.
    pub(super) fn turn(key: &str) -> Self {
        Self(format!("{TURN}{key}"))
    }

    /// Whether it is such a lock.
    pub(super) fn is_turn(&self) -> bool {
        self.0.strip_prefix(TURN).is_some_and(is_key)
    }
}

/// Whether a text can be the key of what was set aside.
pub(super) fn is_key(text: &str) -> bool {
    text.len() == KEY && text.chars().all(|c| c.is_ascii_hexdigit())
}

impl FromStr for ResourceId {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let begins = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if begins && text.len() <= 64 && text.chars().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(WantedError::Id(text.to_owned()))
        }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Wanted {
    /// All ids named.
    #[must_use]
    pub(crate) fn ids(&self) -> &[ResourceId] {
        match self {
            Self::All(ids) | Self::Any(ids) => ids,
        }
    }
}

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let any = text.contains('|');
        if any && text.contains(',') {
            return Err(WantedError::Mixed);
        }
        let separator = if any { '|' } else { ',' };
        let mut ids = text.split(separator).map(|id| id.trim().parse()).collect::<Result<Vec<ResourceId>, _>>()?;
        // In the order of their names: whoever takes several takes them in the same order as everybody else.
        ids.sort();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(WantedError::Twice(pair[0].clone()));
        }
        Ok(if any { Self::Any(ids) } else { Self::All(ids) })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ids, separator) = match self {
            Self::All(ids) => (ids, ","),
            Self::Any(ids) => (ids, "|"),
        };
        let names: Vec<&str> = ids.iter().map(ResourceId::as_str).collect();
        f.write_str(&names.join(separator))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_any_are_read_in_the_order_of_names() {
        assert_eq!("b, a".parse::<Wanted>().unwrap().to_string(), "a,b");
        assert_eq!("board-2|board-1".parse::<Wanted>().unwrap().to_string(), "board-1|board-2");
        assert!(matches!("a".parse::<Wanted>().unwrap(), Wanted::All(ids) if ids.len() == 1));
    }

    #[test]
    fn no_path_can_be_made_of_an_id() {
        for wrong in ["", ".", "..", ".hidden", "a/b", "../a", "a\0", "a b", "-a", &"x".repeat(65), "ä"] {
            assert!(wrong.parse::<ResourceId>().is_err(), "{wrong:?}");
        }
        assert_eq!("a,b|c".parse::<Wanted>(), Err(WantedError::Mixed));
        assert!(matches!("a,a".parse::<Wanted>(), Err(WantedError::Twice(_))));
        assert!("a,".parse::<Wanted>().is_err());
    }
}
