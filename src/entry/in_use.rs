//! The agent that runs: the image's, or one that was fetched in its place.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::agent::release::Release;
use crate::config::Places;
use crate::provider::finding::is_newer;

/// What was fetched, as the state file remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fetched {
    pub version: String,
    /// When it was first seen offered, in seconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
    /// What the image's listener was like then.
    pub replaces: BuildStamp,
}

/// Tells one build of a file from another: inode, size, time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BuildStamp(u64, u64, i64);

impl BuildStamp {
    /// What it is like now.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        let meta = fs::metadata(file)?;
        Ok(Self(meta.ino(), meta.size(), meta.mtime()))
    }
}

/// The agent that runs: the image's, or one that was fetched in its place.
pub(super) struct InUse {
    /// Where it is.
    pub place: PathBuf,
    /// What is known of it.
    pub release: Release,
}

impl InUse {
    /// What a container uses. A fetched agent is used as long as the image's own stays the same; a new image comes with
    /// a newer one.
    pub(super) fn of(places: &Places, listener: &str, fetched: Option<&Fetched>) -> Self {
        let image = Self { place: places.agent(), release: Release::of_image(&places.agent_release()) };
        let Some(fetched) = fetched else { return image };
        let place = places.fetched_agents().join(&fetched.version);
        let same = BuildStamp::of(&image.place.join(listener)).is_ok_and(|stamp| stamp == fetched.replaces);
        let older = image.release.version.as_ref().is_some_and(|image| !is_newer(&fetched.version, image));
        if !same || older || !place.join(listener).exists() {
            return image;
        }
        Self { place, release: Release { version: Some(fetched.version.clone()), released: fetched.since } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path().to_owned());
        for agent in [places.agent(), places.fetched_agents().join("2.339.0")] {
            fs::create_dir_all(agent.join("bin")).unwrap();
            fs::write(agent.join("bin/Listener"), "").unwrap();
        }
        fs::write(places.agent_release(), r#"{"version":"2.338.0","released":"2026-10-06"}"#).unwrap();
        (root, places)
    }

    fn version(places: &Places, fetched: Option<&Fetched>) -> String {
        InUse::of(places, "bin/Listener", fetched).release.version.unwrap_or_default()
    }

    #[test]
    fn a_fetched_agent_is_used_until_the_image_changes() {
        let (_root, places) = container();
        let listener = places.agent().join("bin/Listener");
        assert_eq!(version(&places, None), "2.338.0");
        let fetched = |version: &str| {
            let replaces = BuildStamp::of(&listener).unwrap();
            Fetched { version: version.to_owned(), since: Some(7), replaces }
        };
        let kept = fetched("2.339.0");
        let in_use = InUse::of(&places, "bin/Listener", Some(&kept));
        assert_eq!((in_use.release.version.as_deref(), in_use.release.released), (Some("2.339.0"), Some(7)));
        assert_eq!(version(&places, Some(&fetched("2.340.0"))), "2.338.0", "it is not there");
        fs::write(places.agent_release(), r#"{"version":"2.340.0"}"#).unwrap();
        assert_eq!(version(&places, Some(&kept)), "2.340.0", "the image's is newer");
        fs::remove_file(places.agent_release()).unwrap();
        assert_eq!(version(&places, Some(&kept)), "2.339.0", "the image does not say what it is");
        fs::write(&listener, "another").unwrap();
        assert_eq!(version(&places, Some(&kept)), "", "the image's is another one");
    }
}
