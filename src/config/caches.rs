//! The settings about directories whose content survives jobs.

use std::path::{Component, PathBuf};

use super::reader::Reader;
use crate::shown::shown;

/// The variables by which agents know of their caches. Whoever sets one wants it to last.
const CACHES_OF_AGENTS: [&str; 3] =
    ["RUNNER_TOOL_CACHE", "AGENT_TOOLSDIRECTORY", "ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE"];

/// A directory whose content survives jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// The setting that names it.
    pub setting: &'static str,
    /// Where it is: absolute, without a slash at the end and the like, so that it can be compared.
    pub place: PathBuf,
}

/// All directories named, by us or by the agents' own variables.
pub(super) fn caches(reader: &mut Reader<'_>) -> Vec<Cache> {
    let mut named: Vec<(&'static str, String)> =
        reader.list("OSCR_CACHE_DIRS").into_iter().flatten().map(|path| ("OSCR_CACHE_DIRS", path)).collect();
    named.extend(CACHES_OF_AGENTS.iter().filter_map(|name| Some((*name, reader.foreign(name)?))));
    let mut caches = Vec::new();
    for (name, path) in named {
        let path = PathBuf::from(path);
        let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
        if path.is_absolute() && plain && path.components().count() > 1 {
            caches.push(Cache { setting: name, place: path.components().collect() });
        } else {
            reader.problem(
                name,
                format!("{} is not an absolute path below /", shown(&path.to_string_lossy())),
                "write /work/_tool, say",
            );
        }
    }
    caches
}
