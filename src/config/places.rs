//! Where everything lies in a container.

use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// Where OSCR's own directories and the image's parts lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// Places below `root`, which is `/` but in tests.
    #[must_use]
    pub(crate) fn below(root: PathBuf) -> Self {
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The root itself.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the runtime that gives this container NVIDIA's GPUs, if one does, writes at each start: where libraries are looked for, and
    /// what ldconfig keeps of its last look.
    #[must_use]
    pub(crate) fn of_gpus(&self) -> Vec<PathBuf> {
        if !self.at("dev/nvidiactl").exists() {
            return Vec::new();
        }
        vec![self.at("etc/ld.so.conf.d"), self.at("var/cache/ldconfig")]
    }

    /// A place where a container engine writes.
    #[must_use]
    pub(crate) fn of_engine(&self, path: &str) -> PathBuf {
        self.at(path)
    }

    /// Docker's socket by both of its paths: one is usually a link to the other.
    #[must_use]
    pub(crate) fn docker_sockets(&self) -> [PathBuf; 2] {
        ["run/docker.sock", "var/run/docker.sock"].map(|path| self.at(path))
    }

    /// The pristine agent of the image.
    #[must_use]
    pub(crate) fn agent(&self) -> PathBuf {
        self.at("opt/oscr/agent")
    }

    /// What the image says of its agent.
    #[must_use]
    pub(crate) fn agent_release(&self) -> PathBuf {
        self.at("opt/oscr/agent.json")
    }

    /// What was fetched and can be fetched again. Root's alone.
    #[must_use]
    pub(crate) fn cache(&self) -> PathBuf {
        self.at("var/cache/oscr")
    }

    /// Agents that were fetched in place of the image's.
    #[must_use]
    pub(crate) fn fetched_agents(&self) -> PathBuf {
        self.cache().join("agents")
    }

    /// Archives of such agents, where containers do not share them.
    #[must_use]
    pub(crate) fn agent_archives(&self) -> PathBuf {
        self.cache().join("archives")
    }

    /// The pristine home of the image.
    #[must_use]
    pub(crate) fn pristine_home(&self) -> PathBuf {
        self.at("opt/oscr/home")
    }

    /// Homes of our own, for an account that has none: the first where something can be made is used. The last is where we write anyway.
    #[must_use]
    pub(crate) fn spare_homes(&self) -> [PathBuf; 2] {
        [self.at("home/oscr"), self.run().join("home")]
    }

    /// Where each incarnation's agent directory is made.
    #[must_use]
    pub(crate) fn agent_directories(&self) -> PathBuf {
        self.at("runner")
    }

    /// What survives a restart, for root alone.
    #[must_use]
    pub(crate) fn state(&self) -> PathBuf {
        self.at("var/lib/oscr")
    }

    /// What was moved out of a job's reach and is yet to be removed. Beside the state, and like it root's alone.
    #[must_use]
    pub(crate) fn trash(&self) -> PathBuf {
        self.state().join("trash")
    }

    /// What the wiped places were like before the first job. Beside the state, and like it root's alone.
    #[must_use]
    pub(crate) fn marks(&self) -> PathBuf {
        self.state().join("marks.json")
    }

    /// The control socket and the hook shims.
    #[must_use]
    pub(crate) fn run(&self) -> PathBuf {
        self.at("run/oscr")
    }

    /// The user's hooks.
    #[must_use]
    pub(crate) fn hooks(&self) -> PathBuf {
        self.at("etc/oscr/hooks.d")
    }

    /// What the image sets for everybody who logs in.
    #[must_use]
    pub(crate) fn system_environment(&self) -> PathBuf {
        self.at("etc/environment")
    }

    /// The directories for temporary files that any user can write.
    #[must_use]
    pub(crate) fn temporary(&self) -> [PathBuf; 5] {
        ["tmp", "var/tmp", "dev/shm", "dev/mqueue", "run/lock"].map(|place| self.at(place))
    }

    /// Where a session of this user would keep its sockets and the like.
    #[must_use]
    pub(crate) fn session(&self, user: Uid) -> PathBuf {
        self.at("run/user").join(user.to_string())
    }

    /// What the kernel says about the container's limits.
    #[must_use]
    pub(crate) fn cgroup(&self) -> PathBuf {
        self.at("sys/fs/cgroup")
    }

    /// What the kernel says of the control groups of PID 1.
    #[must_use]
    pub(crate) fn groups_of_init(&self) -> PathBuf {
        self.at("proc/1/cgroup")
    }

    /// Docker's socket, if mounted.
    #[must_use]
    pub(crate) fn docker_socket(&self) -> PathBuf {
        self.at("var/run/docker.sock")
    }
}
