//! By what an agent's objects are known.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::encode::hex;

/// What an agent marks its objects with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(pub(super) String);

impl Label {
    /// The first six hexadecimal digits of the SHA-256 of a text in lower case. GitHub's agent takes the text of its configuration
    /// file, Azure's the path of its root.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_lowercase();
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        Self(hex(&digest.as_ref()[..3]))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_the_agents_make_of_it() {
        // printf %s /runner/oscr-a-1 | sha256sum
        assert_eq!(Label::of("/Runner/OSCR-a-1"), Label::of("/runner/oscr-a-1"));
        assert_eq!(Label::of("\u{feff}{}").to_string(), "44136f");
        assert_eq!(Label::of("").to_string(), "e3b0c4");
    }
}
