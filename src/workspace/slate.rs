//! The places that make up a slate.

use std::path::{Component, Path, PathBuf};

use nix::unistd::Uid;

use super::origin::FirstMarks;
use super::roots::RootsLock;
use super::trash::Trash;
use crate::os::Identity;

/// The places that make up a slate.
#[derive(Debug, Clone)]
pub(crate) struct Slate {
    /// Where jobs work.
    pub work: PathBuf,
    /// Where the agents' roots are made, one per incarnation.
    pub agent_directories: PathBuf,
    /// By what nobody uses one of them while they are emptied.
    pub roots: RootsLock,
    /// Directories for temporary files.
    pub temporary: Vec<PathBuf>,
    /// The agent's home and the pristine copy that it is restored from.
    pub home: PathBuf,
    /// The pristine copy.
    pub pristine_home: PathBuf,
    /// The agent's user.
    pub agent: Identity,
    /// Directories that the user names: they survive, in the places above and elsewhere.
    pub kept: Vec<PathBuf>,
    /// Where what takes long to remove is moved, so that nobody need wait for it. `None` where no place is out of a job's reach.
    pub trash: Option<Trash>,
    /// What the places themselves were like before the first job.
    pub origin: FirstMarks,
}

/// The first IPC namespace that the kernel makes, which is the machine's (`PROC_IPC_INIT_INO` in its sources).
const MACHINES_SYSV: &str = "ipc:[4026531839]";

impl Slate {
    /// All places that are emptied.
    pub(crate) fn places(&self) -> impl Iterator<Item = PathBuf> {
        self.temporary.iter().chain([&self.agent_directories, &self.work]).chain(self.own_home()).cloned()
    }

    /// The home, where the agent's user has one.
    pub(crate) fn own_home(&self) -> Option<&PathBuf> {
        (self.home != Path::new("/")).then_some(&self.home)
    }

    /// Whether what a job leaves in a directory is gone before the next one begins.
    pub(crate) fn is_emptied(&self, directory: &Path) -> bool {
        let plain = directory.components().all(|part| !matches!(part, Component::ParentDir));
        let within = |place: &PathBuf| directory.starts_with(place);
        plain && self.places().any(|place| within(&place)) && !self.kept.iter().any(within)
    }

    /// Whose entries alone may be removed from a place, if not everybody's.
    pub(super) fn only_of(&self, place: &Path) -> Option<Uid> {
        if !Uid::effective().is_root() {
            // Others' files in shared directories are neither ours to remove nor a job's doing.
            return Some(Uid::effective());
        }
        // With `--ipc=host` these are the host's, and others there rely on what is theirs.
        let shared = place.ends_with("dev/shm") || place.ends_with("dev/mqueue");
        let machines = || std::fs::read_link("/proc/self/ns/ipc").is_ok_and(|link| link == Path::new(MACHINES_SYSV));
        (shared && machines()).then_some(self.agent.uid)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A slate below `root` whose agent is ourselves.
    pub(in crate::workspace) fn slate_in(root: &Path) -> Slate {
        Slate {
            work: root.join("work"),
            agent_directories: root.join("runner"),
            roots: RootsLock::below(root),
            temporary: vec![root.join("tmp"), root.join("dev/shm")],
            home: root.join("home/runner"),
            pristine_home: root.join("pristine"),
            agent: Identity { uid: nix::unistd::getuid(), gid: nix::unistd::getgid(), groups: vec![] },
            kept: Vec::new(),
            trash: Some(Trash::at(root.join("trash"))),
            origin: FirstMarks::at(root.join("marks.json")),
        }
    }

    #[test]
    fn a_directory_is_emptied_if_it_lies_in_a_place_and_is_not_kept() {
        let mut slate = slate_in(Path::new("/r"));
        slate.kept = vec!["/r/work/_tool".into()];
        for emptied in ["/r/work", "/r/work/_temp", "/r/tmp", "/r/tmp/", "/r/home/runner/tmp", "/r/work/_tools"] {
            assert!(slate.is_emptied(Path::new(emptied)), "{emptied}");
        }
        let lasting =
            ["/data", "/r", "/r/workshop", "/r/work/_tool", "/r/work/_tool/tmp", "/r/work/../../data", "tmp", "work"];
        for lasting in lasting {
            assert!(!slate.is_emptied(Path::new(lasting)), "{lasting}");
        }
    }
}
