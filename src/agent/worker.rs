//! The worker: a job runs exactly while this process lives.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::init::process::Stat;
use crate::os;
use crate::os::Identity;
use crate::os::child::look_at_a_child;

/// How often `/proc` is asked about a worker whose end the kernel does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A living worker, held by what cannot come to mean another process.
#[derive(Debug)]
pub struct Worker {
    /// Its process id when it was found.
    pub pid: Pid,
    /// When it began.
    started: u64,
    /// What tells its end; `None` where the kernel, or a filter of system calls, gives no such descriptor.
    end: Option<AsyncFd<OwnedFd>>,
}

/// Looks for a child of `listener` whose program is called `name`. A job cannot make itself one: its processes are children
/// of the worker or orphans, never children of the listener.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn find(listener: Pid, name: &str) -> io::Result<Option<Worker>> {
    let is_worker = |stat: &Stat| stat.parent == listener && stat.name == name && stat.lives();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
            continue;
        };
        let Some(stat) = Stat::read(pid).filter(is_worker) else {
            continue;
        };
        let end = match os::pidfd_open(pid).and_then(os::watch) {
            Ok(end) => Some(end),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
            Err(_) => None,
        };
        let worker = Worker { pid, started: stat.started, end };
        // The number may have passed to another process before the descriptor was made.
        if worker.lives() {
            return Ok(Some(worker));
        }
    }
    Ok(None)
}

impl Worker {
    /// Whether it lives, by its number and its start: both are another process' never.
    #[must_use]
    pub(crate) fn lives(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.lives())
    }

    /// Waits until the worker is gone.
    pub(crate) async fn gone(&self) {
        match &self.end {
            // An error means that the reactor is shutting down, and with it whoever waits here.
            Some(end) => drop(end.readable().await),
            None => {
                while self.lives() {
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }
}

/// How a worker's end is noticed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerWatch {
    /// The kernel tells (`pidfd_open`).
    Told,
    /// By looking at `/proc` again and again.
    Looked,
}

impl WorkerWatch {
    /// Tries it with this very process.
    #[must_use]
    pub(crate) fn here() -> Self {
        if os::pidfd_open(getpid()).is_ok() { Self::Told } else { Self::Looked }
    }
}

impl fmt::Display for WorkerWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Told => "the kernel tells when one ends (pidfd_open)",
            Self::Looked => "by number and start time in /proc, each 100 ms: pidfd_open is not to be had here",
        })
    }
}

/// Why no worker can be found here.
#[derive(Debug, thiserror::Error)]
pub enum Blind {
    /// Nothing is mounted there, or not what it should be.
    #[error("cannot be read ({0}), and without it nobody can tell when a job runs")]
    Unreadable(io::Error),
    /// It shows other processes under the numbers of ours.
    #[error("shows the processes of another container or of the machine, and not this container's")]
    Foreign,
    /// It shows ours and hides the agent's.
    #[error("hides the processes of the agent's user from this one, so nobody can tell when a job runs")]
    Hidden,
}

impl Blind {
    /// How to mend it.
    #[must_use]
    pub(crate) fn cure(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "let the engine mount /proc, as all do by default, and mount nothing over it",
            Self::Foreign => "mount nothing over /proc: it must be the one of this container's own processes",
            Self::Hidden => "mount /proc without hidepid=",
        }
    }
}

/// Proves that `/proc` is that of this process.
///
/// # Errors
/// When it is not, or there is none.
pub(crate) fn prove_mounted() -> Result<(), Blind> {
    let ourselves = fs::read_link("/proc/self").map_err(Blind::Unreadable)?;
    if ourselves.as_os_str() == getpid().to_string().as_str() { Ok(()) } else { Err(Blind::Foreign) }
}

/// Proves that `/proc` shows processes of the agent's user to this one, with one that is made for it. `agent` is that user, if
/// it is another one than ours.
///
/// # Errors
/// When it does not.
pub(crate) fn prove_visible(agent: Option<&Identity>) -> Result<(), Blind> {
    prove_mounted()?;
    let seen = look_at_a_child(agent, |child| Stat::read(child).is_some_and(|stat| stat.parent == getpid()));
    match seen {
        Ok(false) => Err(Blind::Hidden),
        // Without room for a process nothing is proved, and no agent will start either.
        Ok(true) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn child() -> (Child, Pid) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        (child, pid)
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_worker_is_watched_by_its_start_where_there_is_no_descriptor() {
        let (mut child, pid) = child();
        block_on(async {
            let mut worker = find(getpid(), "sleep").unwrap().unwrap();
            assert!(worker.end.is_some());
            worker = Worker { pid, started: Stat::read(pid).unwrap().started, end: None };
            let early = tokio::time::timeout(LOOK_EVERY * 3, worker.gone()).await;
            assert!(early.is_err(), "it lives");
            child.kill().unwrap();
            // A zombie: nobody has waited for it yet.
            worker.gone().await;
            assert!(Stat::read(pid).is_some() && !worker.lives());
        });
        child.wait().unwrap();
    }

    #[test]
    fn another_process_with_the_workers_number_is_not_the_worker() {
        let (mut child, pid) = child();
        let Stat { started, .. } = Stat::read(pid).unwrap();
        assert!(Worker { pid, started, end: None }.lives());
        for other in [started - 1, started + 1] {
            let worker = Worker { pid, started: other, end: None };
            assert!(!worker.lives());
            block_on(worker.gone());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn processes_of_the_agents_user_are_seen_here() {
        assert!(prove_visible(None).is_ok());
        if nix::unistd::Uid::effective().is_root() {
            let (uid, gid) = (nix::unistd::Uid::from_raw(54321), nix::unistd::Gid::from_raw(54321));
            assert!(prove_visible(Some(&Identity { uid, gid, groups: Vec::new() })).is_ok());
        }
    }
}
