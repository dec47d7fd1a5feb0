//! The worker: a job runs exactly while this process lives.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use crate::init::leftovers::Stat;
use crate::os;

/// A living worker, held by a descriptor that cannot come to mean another process.
#[derive(Debug)]
pub struct Worker {
    /// Its process id when it was found.
    pub pid: Pid,
    fd: AsyncFd<OwnedFd>,
}

/// Looks for a child of `listener` whose program is called `name`. A job cannot make itself one: its processes are children
/// of the worker or orphans, never children of the listener.
///
/// # Errors
/// When a process was found but the kernel gives no descriptor for it.
pub fn find(listener: Pid, name: &str) -> io::Result<Option<Worker>> {
    let is_worker = |pid: Pid| {
        Stat::read(pid).is_some_and(|stat| stat.parent == listener && stat.name == name && stat.state != 'Z')
    };
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
            continue;
        };
        if !is_worker(pid) {
            continue;
        }
        let fd = match os::pidfd_open(pid) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => continue,
            Err(error) => return Err(error),
        };
        // The number may have passed to another process before the descriptor was made.
        if is_worker(pid) {
            return Ok(Some(Worker { pid, fd: os::watch(fd)? }));
        }
    }
    Ok(None)
}

impl Worker {
    /// Waits until the worker is gone.
    pub async fn gone(&self) {
        // An error means that the reactor is shutting down, and with it whoever waits here.
        let _ = self.fd.readable().await;
    }
}
