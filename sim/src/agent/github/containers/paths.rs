//! The runner's paths in the terms of its containers.

use super::Places;

/// Where a container has its home folder, and an action its workspace.
pub(super) const HOME: &str = "/github/home";
pub(super) const WORKSPACE: &str = "/github/workspace";

/// Pairs of a folder of the runner's and where a container has it. The first that fits is taken.
#[derive(Debug)]
pub(super) struct Paths(Vec<(String, &'static str)>);

impl Paths {
    /// In the job's own container. Tools below the work folder, where they are unless they were moved, are so there too.
    pub(super) fn of_job(places: &Places) -> Self {
        let Places { root, work, temp, tools, .. } = places;
        let pairs = [
            (temp.join("_github_workflow"), "/github/workflow"),
            (temp.join("_github_home"), HOME),
            (work.clone(), "/__w"),
            (tools.clone(), "/__t"),
            (root.join("externals"), "/__e"),
        ];
        Self(pairs.map(|(ours, theirs)| (ours.to_string_lossy().into_owned(), theirs)).to_vec())
    }

    /// In an action, which has none but these; other paths mean nothing there, and are left as they are.
    pub(super) fn of_action(places: &Places, with_temp: bool) -> Self {
        let Places { temp, workspace, .. } = places;
        let pairs = [
            (workspace.clone(), WORKSPACE),
            (temp.join("_runner_file_commands"), "/github/file_commands"),
            (temp.join("_github_workflow"), "/github/workflow"),
            (temp.join("_github_home"), HOME),
        ];
        let temp = with_temp.then(|| (temp.clone(), "/github/runner_temp"));
        let pairs = pairs.into_iter().chain(temp);
        Self(pairs.map(|(ours, theirs)| (ours.to_string_lossy().into_owned(), theirs)).collect())
    }

    /// A value as a container needs it: as a whole, a path.
    pub(super) fn translate(&self, value: &str) -> String {
        let fits = |(ours, theirs): &(String, &str)| {
            let rest = value.strip_prefix(ours.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{theirs}{rest}"))
        };
        self.0.iter().find_map(fits).unwrap_or_else(|| value.to_owned())
    }

    /// The pairs in the order of an action's mounts, the widest first.
    pub(super) fn mounts(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.0.iter().rev().map(|(ours, theirs)| (ours.as_str(), *theirs))
    }
}
