//! What `/proc` says of one process, and whose child it is.

use std::fs;

use nix::unistd::Pid;

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The name of its program, cut at 15 bytes by the kernel.
    pub name: String,
    /// One letter: `R`, `S`, `D`, `T`, `Z`, …
    pub state: char,
    /// Its parent.
    pub parent: Pid,
    /// How many threads it has; one that has ended counts as one until it is reaped.
    pub threads: u32,
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

    /// Whether it has not ended: a zombie has. One whose first thread alone has ended looks like a zombie, and lives.
    #[must_use]
    pub(crate) fn lives(&self) -> bool {
        !['Z', 'X'].contains(&self.state) || self.threads > 1
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name may hold spaces and parentheses; the last parenthesis ends it.
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let mut fields = tail.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // The 20th of all fields, and the 22nd; two of those behind the name have been read.
        let threads = fields.nth(15)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self { name: name.to_owned(), state, parent: Pid::from_raw(parent), threads, started })
    }
}

/// Whether `process` is `ancestor` or descends from it.
#[must_use]
pub(crate) fn descends(process: Pid, ancestor: Pid) -> bool {
    let mut current = process;
    // A chain of processes longer than this is not a hook of the agent.
    for _ in 0..64 {
        if current == ancestor {
            return true;
        }
        match Stat::read(current) {
            Some(stat) if stat.parent.as_raw() > 0 => current = stat.parent,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::getpid;

    #[test]
    fn a_program_name_may_hold_anything() {
        let stat =
            Stat::parse("12 (a) (b c) S 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 36453 18812928 3614").unwrap();
        let parent = Pid::from_raw(7);
        assert_eq!(stat, Stat { name: "a) (b c".to_owned(), state: 'S', parent, threads: 1, started: 36453 });
        assert_eq!(Stat::parse("12 no name"), None);
        assert_eq!(Stat::parse("12 (cut short) S 7 12 12 0"), None);
    }

    #[test]
    fn a_zombie_has_ended_unless_another_thread_of_it_lives() {
        let stat = |state, threads| {
            let line = format!("12 (a) {state} 7 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 36453 18812928");
            Stat::parse(&line).unwrap()
        };
        assert!(!stat('Z', 1).lives() && !stat('X', 1).lives());
        assert!(stat('Z', 2).lives() && stat('S', 1).lives() && stat('T', 1).lives());
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
