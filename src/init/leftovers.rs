//! Ending what remains of a process tree, so that nothing outlives its owner.

use std::collections::{HashMap, HashSet};
use std::fs;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid};

use super::process::Stat;
use crate::os::signal::kill;

/// Every descendant of this process that has not ended and is not in `spared` (nor below nothing but spared ones: a spared process' own
/// children are not spared).
#[must_use]
pub(crate) fn descendants(spared: &[Pid]) -> Vec<Pid> {
    let children = children_by_parent();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut queue = vec![getpid()];
    while let Some(parent) = queue.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(*child) {
                queue.push(*child);
                if !spared.contains(child) {
                    found.push(*child);
                }
            }
        }
    }
    found
}

/// Sends `signal` to everything that descends from this process, but for `spared`.
///
/// PID 1 that spares nobody signals its whole namespace in one call, which no fork can outrun and which needs no `/proc`;
/// otherwise each descendant is signalled by itself, because the processes around us are then not ours.
pub(crate) fn signal_all(signal: i32, spared: &[Pid]) {
    // A process that is gone, or may not be signalled, is no concern here: the caller looks at what remains.
    if spared.is_empty() && getpid() == Pid::from_raw(1) {
        let _ = kill(-1, signal);
        return;
    }
    for pid in descendants(spared) {
        let _ = kill(pid.as_raw(), signal);
    }
}

/// Whether this process still has a child, be it a zombie. Nothing is reaped.
#[must_use]
pub(crate) fn any_child() -> bool {
    !matches!(waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT), Err(Errno::ECHILD))
}

fn children_by_parent() -> HashMap<Pid, Vec<Pid>> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return children;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // What has ended and waits to be reaped has no children, holds no file, and cannot be killed again.
        if let Some(stat) = Stat::read(Pid::from_raw(pid)).filter(Stat::lives) {
            children.entry(stat.parent).or_default().push(Pid::from_raw(pid));
        }
    }
    children
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_has_ended_and_is_not_reaped_is_no_leftover() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(descendants(&[]).contains(&pid));
        child.kill().unwrap();
        // Its end, without reaping it.
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(Stat::read(pid).is_some_and(|stat| stat.state == 'Z'));
        assert!(!descendants(&[]).contains(&pid));
        child.wait().unwrap();
    }
}
