//! The posture: what stands between a job and everything else, as found here and now.
//!
//! `oscr-entry check` prints it. A start puts what is weaker than it could be into the log and the status.

mod runtime;

use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

pub use runtime::Runtime;

use super::privileges::NEEDED;
use crate::agent::worker::WorkerWatch;
use crate::config::{Common, SecretSource};
use crate::os::Identity;
use crate::os::access::{READ, WRITE, may};
use crate::os::attempt::may_make_user_namespace;
use crate::os::caps::Capabilities;
use crate::os::mounts::{self, Mount};

/// File systems that are gone, or made anew, when the container is started again; and those that are windows to the kernel.
const VOLATILE: &[&str] = &[
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "hugetlbfs",
    "fusectl",
    "configfs",
    "pstore",
    "nsfs",
    "binfmt_misc",
];
/// File systems of others that emulate files of `/proc` and `/sys`.
const EMULATED: &[&str] = &["sysboxfs", "lxcfs"];

/// What stands between a job and everything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// The user that this process runs as.
    pub uid: u32,
    /// Who root in here is outside, where the container has a user namespace of its own (rootless Docker, `userns-remap`).
    pub root_outside: Option<u32>,
    /// What this process may do.
    pub capabilities: Vec<String>,
    /// What OSCR needs of them and lacks.
    pub lacking: Vec<String>,
    /// What a program could be given that brings capabilities with it.
    pub bounding: Vec<String>,
    /// Whether programs can gain nothing at all, by Docker's `no-new-privileges`. The agent cannot in any case, but for sudo.
    pub no_new_privileges: bool,
    /// Whether system calls are filtered.
    pub seccomp: bool,
    /// How the end of a job's worker is noticed.
    pub watch: WorkerWatch,
    /// Whether a job may make user namespaces; `None` when it could not be tried.
    pub user_namespaces: Option<bool>,
    /// The kind of runtime.
    pub runtime: Runtime,
    /// Whether the image's files cannot be changed.
    pub read_only_root: bool,
    /// Writable places that outlive a restart of the container.
    pub lasting: Vec<Lasting>,
    /// The secrets, and who can read them.
    pub secrets: Vec<Guarded>,
    /// Docker's socket.
    pub docker: Option<DockerSocket>,
    /// Whether there is a sudo in the image.
    pub sudo_installed: bool,
    /// Whether jobs may use it (`OSCR_SUDO`).
    pub sudo: bool,
    /// What of this is weaker than it could be, in words.
    pub weaknesses: Vec<String>,
}

/// A writable place that outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting {
    /// Where it is mounted.
    pub place: PathBuf,
    /// Its file system.
    pub file_system: String,
    /// Whether jobs may write in its top directory (or to it, if it is a file).
    pub jobs_may_write: bool,
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// The setting that it comes from.
    pub setting: String,
    /// Its file; none for a plain variable.
    pub file: Option<PathBuf>,
    /// Who can read it, in words.
    pub readers: String,
    /// Whether a job can.
    pub jobs_may_read: bool,
}

/// Docker's socket in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerSocket {
    /// Where it is.
    pub path: PathBuf,
    /// The group that owns it.
    pub gid: u32,
    /// Whether jobs may use it.
    pub jobs_may_use: bool,
}

/// What the kernel tells of this process and its container, as text.
#[derive(Debug, Clone, Default)]
struct Kernel {
    status: String,
    user_map: String,
    mounts: Vec<Mount>,
    version: String,
    command_line: String,
}

impl Kernel {
    fn look() -> Self {
        // A file that is not there says nothing, which is what the empty text says too.
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        Self {
            status: read("/proc/self/status"),
            user_map: read("/proc/self/uid_map"),
            mounts: mounts::list().unwrap_or_default(),
            version: read("/proc/version"),
            command_line: read("/proc/cmdline"),
        }
    }

    /// A line of the status.
    fn line(&self, name: &str) -> &str {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    }

    fn set(&self, name: &str) -> Capabilities {
        Capabilities::parse(self.line(name)).unwrap_or_default()
    }

    /// The effective user: the second of four.
    fn uid(&self) -> u32 {
        self.line("Uid").split_whitespace().nth(1).and_then(|uid| uid.parse().ok()).unwrap_or(u32::MAX)
    }

    /// The number that user 0 has outside, if another one.
    fn root_outside(&self) -> Option<u32> {
        let mut maps = self.user_map.lines().map(|line| {
            let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
            (numbers.next(), numbers.next())
        });
        maps.find_map(|map| match map {
            (Some(0), Some(outside)) if outside != 0 => Some(outside),
            _ => None,
        })
    }
}

impl Posture {
    /// Looks around. `agent` is the user of jobs, if it is another one than ours.
    #[must_use]
    pub fn look(common: &Common, secrets: &[&SecretSource], agent: Option<&Identity>) -> Self {
        let kernel = Kernel::look();
        let mut posture = Self::of(&kernel, common, agent);
        posture.user_namespaces = may_make_user_namespace(agent).ok();
        posture.secrets = secrets.iter().map(|source| posture.guarded(source, agent)).collect();
        posture.docker = docker_socket(&common.places.docker_socket(), agent);
        posture.sudo_installed = ["/usr/bin/sudo", "/usr/local/bin/sudo"].iter().any(|sudo| Path::new(sudo).exists());
        posture.weaknesses = posture.weaker(common);
        posture
    }

    /// What the kernel's words mean; the rest is as if there were nothing.
    fn of(kernel: &Kernel, common: &Common, agent: Option<&Identity>) -> Self {
        let capabilities = kernel.set("CapEff");
        let needed: Vec<&str> = NEEDED.iter().map(|(name, _)| *name).collect();
        let root = kernel.mounts.iter().rfind(|mount| mount.point == Path::new("/"));
        let lasting = |mount: &&Mount| {
            mount.writable && !VOLATILE.contains(&mount.kind.as_str()) && !EMULATED.contains(&mount.source.as_str())
        };
        Self {
            uid: kernel.uid(),
            root_outside: kernel.root_outside(),
            capabilities: capabilities.names(),
            lacking: if kernel.uid() == 0 {
                Capabilities::of(&needed).without(capabilities).names()
            } else {
                Vec::new()
            },
            bounding: kernel.set("CapBnd").names(),
            no_new_privileges: kernel.line("NoNewPrivs") == "1",
            seccomp: kernel.line("Seccomp") == "2",
            watch: WorkerWatch::here(),
            user_namespaces: None,
            runtime: Runtime::detect(&kernel.mounts, &kernel.version, &kernel.command_line),
            read_only_root: root.is_some_and(|mount| !mount.writable),
            lasting: kernel
                .mounts
                .iter()
                .filter(lasting)
                .map(|mount| Lasting {
                    place: mount.point.clone(),
                    file_system: mount.kind.clone(),
                    jobs_may_write: jobs_may(agent, &mount.point, WRITE),
                })
                .collect(),
            secrets: Vec::new(),
            docker: None,
            sudo_installed: false,
            sudo: common.sudo,
            weaknesses: Vec::new(),
        }
    }

    fn guarded(&self, source: &SecretSource, agent: Option<&Identity>) -> Guarded {
        let file = source.path().map(Path::to_owned);
        let (readers, jobs_may_read) = match &file {
            None => ("whoever may `docker inspect` this container".to_owned(), false),
            Some(_) if self.sudo => ("root, and with sudo every job".to_owned(), true),
            Some(file) if jobs_may(agent, file, READ) => match agent {
                None => ("every job: they share this container's user".to_owned(), true),
                Some(_) => ("every job, until a start closes it or refuses it".to_owned(), true),
            },
            Some(_) => ("root".to_owned(), false),
        };
        Guarded { setting: source.setting.clone(), file, readers, jobs_may_read }
    }

    /// What is weaker than it could be.
    fn weaker(&self, common: &Common) -> Vec<String> {
        let mut words = Vec::new();
        let mut say = |text: &str| words.push(text.to_owned());
        if self.uid != 0 {
            say(
                "this container does not run as root: jobs share the user that holds the secrets' files, and files of \
                 other users cannot be wiped",
            );
            if common.hardware.is_some() {
                say("jobs share the user that holds the hardware's lock, and could take or free it");
            }
        }
        for (name, purpose) in NEEDED.iter().filter(|(name, _)| self.lacking.iter().any(|lacking| lacking == name)) {
            say(&format!("the capability {name} is missing, which is needed to {purpose}: cap_add it"));
        }
        for secret in self.secrets.iter().filter(|secret| secret.file.is_none()) {
            say(&format!(
                "{0} is a plain variable: `docker inspect` shows it to whoever reaches the Docker socket; use {0}_FILE",
                secret.setting
            ));
        }
        if self.sudo {
            say(
                "OSCR_SUDO is on: a job is root in this container when it wants to be, and can then read the secrets' \
                 files and change what is not wiped",
            );
            if self.no_new_privileges {
                say("sudo cannot work: this container was started with no-new-privileges");
            }
        }
        if common.docker.engine.is_some() {
            say(
                "OSCR_DOCKERD is on: a job is root in this container by way of its Docker, and on the machine too unless the \
                 runtime is a sandbox",
            );
        } else if let Some(endpoint) = &common.docker.host {
            say(&format!(
                "jobs may use Docker at {endpoint}: what it makes for one is in reach of all, and they are whoever it runs as, \
                 root unless it was started without"
            ));
        } else if self.docker.is_some() {
            say("Docker's socket is mounted: a job that can use it is root on the host");
        }
        words
    }
}

/// Whether jobs may: as the agent's user, or as ourselves where there is no other.
fn jobs_may(agent: Option<&Identity>, path: &Path, bits: u32) -> bool {
    match agent {
        Some(agent) => may(agent, path, bits),
        None if Uid::effective().is_root() => false,
        None => {
            let groups = nix::unistd::getgroups().unwrap_or_default();
            may(&Identity { uid: Uid::effective(), gid: nix::unistd::Gid::effective(), groups }, path, bits)
        }
    }
}

fn docker_socket(path: &Path, agent: Option<&Identity>) -> Option<DockerSocket> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.file_type().is_socket())?;
    Some(DockerSocket { path: path.to_owned(), gid: meta.gid(), jobs_may_use: jobs_may(agent, path, WRITE) })
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

impl fmt::Display for Posture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &str| writeln!(f, "  {name:<26} {value}");
        let user = match self.root_outside {
            Some(outside) => format!("{}, in a user namespace whose root is {outside} outside", self.uid),
            None => self.uid.to_string(),
        };
        row("user", &user)?;
        row("capabilities", &listed(&self.capabilities))?;
        row("... that programs could get", &listed(&self.bounding))?;
        row("no new privileges", yes(self.no_new_privileges))?;
        row("system calls filtered", yes(self.seccomp))?;
        row("workers are watched", &self.watch.to_string())?;
        row("user namespaces for jobs", self.user_namespaces.map_or("unknown", yes))?;
        row("runtime", &self.runtime.to_string())?;
        row("read-only root", yes(self.read_only_root))?;
        for place in &self.lasting {
            let jobs = if place.jobs_may_write { "jobs may write in it" } else { "not for jobs" };
            row("outlives a restart", &format!("{} ({}; {jobs})", place.place.display(), place.file_system))?;
        }
        for secret in &self.secrets {
            let file = secret.file.as_ref().map_or("plain variable".to_owned(), |file| file.display().to_string());
            row("secret", &format!("{} ({file}), readable for {}", secret.setting, secret.readers))?;
        }
        match &self.docker {
            None => row("Docker's socket", "no")?,
            Some(socket) => {
                let jobs = if socket.jobs_may_use { "jobs may use it" } else { "not for jobs" };
                row("Docker's socket", &format!("{} (group {}; {jobs})", socket.path.display(), socket.gid))?;
            }
        }
        let sudo = match (self.sudo_installed, self.sudo) {
            (false, _) => "no",
            (true, false) => "installed, but of no use to jobs",
            (true, true) => "yes: jobs can be root in this container",
        };
        row("sudo", sudo)?;
        for weakness in &self.weaknesses {
            row("weaker", weakness)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Reader, Secret};
    use nix::unistd::Gid;

    fn common<const N: usize>(variables: [(&str, &str); N]) -> Common {
        let environment = Environment::from(variables);
        Common::read(&mut Reader::new(&environment, vec![crate::config::table::COMMON]))
    }

    fn kernel(status: &str, user_map: &str) -> Kernel {
        Kernel {
            status: status.to_owned(),
            user_map: user_map.to_owned(),
            mounts: mounts::parse(include_bytes!("fixtures/mountinfo-docker")),
            ..Kernel::default()
        }
    }

    fn agent() -> Identity {
        Identity { uid: Uid::from_raw(54321), gid: Gid::from_raw(54321), groups: Vec::new() }
    }

    #[test]
    fn root_in_a_container_of_compose() {
        let kernel = kernel(include_str!("fixtures/status-root"), "         0          0 4294967295\n");
        let posture = Posture::of(&kernel, &common([]), Some(&agent()));
        assert_eq!((posture.uid, posture.root_outside), (0, None));
        assert_eq!(posture.capabilities.join(" "), "CHOWN DAC_OVERRIDE FOWNER KILL SETGID SETUID");
        assert!(posture.lacking.is_empty() && posture.no_new_privileges && posture.seccomp && !posture.read_only_root);
        assert_eq!(posture.runtime, Runtime::Runc);
        let places: Vec<_> = posture.lasting.iter().map(|lasting| lasting.place.to_str().unwrap()).collect();
        assert_eq!(places, ["/", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/cache"]);
        let words = posture.weaker(&common([("RUNNER_RESOURCE_ID", "board-1")]));
        assert!(words.is_empty(), "{words:?}");
    }

    #[test]
    fn an_ordinary_user_and_what_that_weakens() {
        let posture = Posture::of(&kernel(include_str!("fixtures/status-user"), "0 0 4294967295"), &common([]), None);
        assert_eq!(posture.uid, 1001);
        assert!(posture.capabilities.is_empty() && posture.lacking.is_empty() && !posture.seccomp);
        assert_eq!(posture.bounding.len(), 14);
        let words = posture.weaker(&common([("RUNNER_RESOURCE_ID", "board-1")])).join("\n");
        assert!(words.contains("does not run as root") && words.contains("the hardware's lock"), "{words}");
    }

    #[test]
    fn a_user_namespace_is_told_by_its_map() {
        let status = include_str!("fixtures/status-root");
        assert_eq!(kernel(status, "0 1000 1\n1 100000 65536\n").root_outside(), Some(1000));
        assert_eq!(kernel(status, "0 231072 65536\n").root_outside(), Some(231_072));
        assert_eq!(kernel(status, "").root_outside(), None);
    }

    #[test]
    fn what_is_missing_or_given_too_freely_is_named() {
        let status = include_str!("fixtures/status-root").replace("00000000000000eb", "00000000000000ea");
        let mut posture = Posture::of(&kernel(&status, ""), &common([("OSCR_SUDO", "true")]), Some(&agent()));
        assert_eq!(posture.lacking, ["CHOWN"]);
        let value = SecretSource::environment("GITHUB_PAT", Secret::new("posture-secret".to_owned()));
        posture.secrets = vec![posture.guarded(&value, Some(&agent()))];
        posture.docker = Some(DockerSocket { path: "/var/run/docker.sock".into(), gid: 999, jobs_may_use: true });
        let words = posture.weaker(&common([])).join("\n");
        for part in ["CHOWN is missing", "GITHUB_PAT_FILE", "OSCR_SUDO is on", "sudo cannot work", "root on the host"] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
        for (variables, part) in [
            (("DOCKER_HOST", "unix:///run/other.sock"), "jobs may use Docker at unix:///run/other.sock"),
            (("OSCR_DOCKERD", "true"), "root in this container by way of its Docker"),
        ] {
            let words = posture.weaker(&common([variables])).join("\n");
            assert!(words.contains(part) && !words.contains("socket is mounted"), "{words}");
        }
        let text = posture.to_string();
        assert!(text.contains("999") && !text.contains("posture-secret"), "{text}");
    }

    #[test]
    fn the_posture_of_this_process_survives_json() {
        let posture = Posture::look(&common([]), &[], Some(&agent()));
        assert!(posture.user_namespaces.is_some());
        let json = serde_json::to_string(&posture).unwrap();
        assert_eq!(serde_json::from_str::<Posture>(&json).unwrap(), posture);
    }
}
