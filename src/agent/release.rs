//! What an image says of its agent: which version it is, and when that was released.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::encode::day_begins;

/// A release of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Release {
    /// Its version, if known.
    pub version: Option<String>,
    /// When it was released, in seconds since 1970, if known.
    pub released: Option<u64>,
}

/// The file that the image's build writes. What it does not know is empty.
#[derive(Deserialize)]
struct Note {
    #[serde(default)]
    version: String,
    #[serde(default)]
    released: String,
}

impl Release {
    /// Reads the image's file. An image without one, or with one that makes no sense, has an agent of unknown age.
    #[must_use]
    pub(crate) fn of_image(file: &Path) -> Self {
        let read = || -> io::Result<Note> { Ok(serde_json::from_slice(&fs::read(file)?)?) };
        match read() {
            Ok(note) => Self {
                version: Some(note.version).filter(|version| !version.is_empty()),
                released: day_begins(&note.released),
            },
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!("{} does not tell the agent's age: {error}", file.display());
                }
                Self::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_is_read_and_what_it_does_not_say_is_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.json");
        let of = |text: &str| {
            fs::write(&file, text).unwrap();
            let release = Release::of_image(&file);
            (release.version, release.released)
        };
        assert_eq!(Release::of_image(&file), Release::default());
        let known = of(r#"{"version":"2.338.0","released":"2026-10-06"}"#);
        assert_eq!(known, (Some("2.338.0".to_owned()), day_begins("2026-10-06")));
        assert!(known.1.is_some());
        assert_eq!(of(r#"{"version":"2.338.0","released":""}"#), (Some("2.338.0".to_owned()), None));
        for nothing in [r#"{"version":"","released":"soon"}"#, "{}", "", "[1]"] {
            assert_eq!(of(nothing), (None, None), "{nothing}");
        }
    }
}
