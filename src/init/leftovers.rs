//! Ending what remains of a process tree, so that nothing outlives its owner.

use std::collections::{HashMap, HashSet};
use std::fs;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid};

use crate::os::signal::kill;

/// Every descendant of this process that is not in `spared` (nor below nothing but spared ones: a spared process' own
/// children are not spared).
#[must_use]
pub fn descendants(spared: &[Pid]) -> Vec<Pid> {
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
pub fn signal_all(signal: i32, spared: &[Pid]) {
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
pub fn any_child() -> bool {
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
        if let Some(stat) = Stat::read(Pid::from_raw(pid)) {
            children.entry(stat.parent).or_default().push(Pid::from_raw(pid));
        }
    }
    children
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The name of its program, cut at 15 bytes by the kernel.
    pub name: String,
    /// One letter: `R`, `S`, `D`, `T`, `Z`, …
    pub state: char,
    /// Its parent.
    pub parent: Pid,
    /// When it began, in the kernel's ticks since the machine did. With its number, this is one process and never another.
    pub started: u64,
}

impl Stat {
    /// Reads it, unless the process is gone.
    #[must_use]
    pub fn read(pid: Pid) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Whether it has not ended: a zombie has.
    #[must_use]
    pub fn lives(&self) -> bool {
        !['Z', 'X'].contains(&self.state)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name may hold spaces and parentheses; the last parenthesis ends it.
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut fields = tail.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // The 22nd of all fields; two of those behind the name have been read.
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { name: name.to_owned(), state, parent: Pid::from_raw(parent), started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_hold_anything() {
        let stat =
            Stat::parse("12 (a) (b c) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 36453 18812928 3614").unwrap();
        let parent = Pid::from_raw(7);
        assert_eq!(stat, Stat { name: "a) (b c".to_owned(), state: 'S', parent, started: 36453 });
        assert_eq!(Stat::parse("12 no name"), None);
        assert_eq!(Stat::parse("12 (cut short) S 7 12 12 0"), None);
    }

    #[test]
    fn our_own_process_is_readable_and_has_our_parent() {
        let stat = Stat::read(getpid()).unwrap();
        assert_eq!(stat.parent, Pid::parent());
        assert!(stat.started > 0 && stat.lives());
    }

    #[test]
    fn fuzz_proc_stat() {
        crate::fuzz::run("proc-stat", |bytes| {
            let stat = Stat::parse(&String::from_utf8_lossy(bytes));
            stat.map(|stat| (stat.state, stat.parent.as_raw() > 0, stat.started > 0))
        });
    }
}
