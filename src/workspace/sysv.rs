//! System V objects that a job left in the kernel: shared memory, semaphores, message queues.
//!
//! They belong to no process and no file, and live as long as the IPC namespace: of a container that is the time between its
//! start and its end. The kernel lets their owner remove them, or a power that PID 1 does without, so a child does it
//! that has become the agent's user. Nobody else's are touched: with `--ipc=host` the namespace is the host's.

use std::fs;

use nix::unistd::Uid;

use crate::os::sysv::{SysvKind, remove};
use crate::print::say;

/// The hidden command of the process that removes its own user's objects.
pub(crate) const COMMAND: &str = "wipe-sysv";

const KINDS: [(SysvKind, &str); 3] =
    [(SysvKind::Memory, "shm"), (SysvKind::Semaphores, "sem"), (SysvKind::Messages, "msg")];

/// The objects of `owner`. Empty where the kernel has none, or does not list them.
#[must_use]
pub(crate) fn of(owner: Uid) -> Vec<(SysvKind, i32)> {
    let read = |name| fs::read_to_string(format!("/proc/sysvipc/{name}")).unwrap_or_default();
    KINDS.iter().flat_map(|(kind, name)| parse(&read(name), owner).into_iter().map(|id| (*kind, id))).collect()
}

/// The first line names the columns, which differ between the three.
fn parse(table: &str, owner: Uid) -> Vec<i32> {
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let Some(names) = lines.next() else { return Vec::new() };
    let column = |wanted: &str| names.iter().position(|name| *name == wanted);
    let Some(id) = names.iter().position(|name| name.ends_with("id") && name.len() == 5) else { return Vec::new() };
    let owners = [column("uid"), column("cuid")];
    lines
        .filter(|fields| {
            let of = |column: &Option<usize>| fields.get((*column)?)?.parse::<u32>().ok();
            owners.iter().filter_map(of).any(|uid| uid == owner.as_raw())
        })
        .filter_map(|fields| fields.get(id)?.parse().ok())
        .collect()
}

/// Removes all objects of this process' user, and gives the exit code: 0 when none is left.
#[must_use]
pub(crate) fn run() -> u8 {
    let owner = Uid::effective();
    for (kind, id) in of(owner) {
        if let Err(error) = remove(kind, id) {
            say(&format!("the {kind} {id} cannot be removed: {error}"));
        }
    }
    u8::from(!of(owner).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_kernel_are_read_by_their_headings() {
        let shm = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
                   \x20        0         65   600                  4096  3456  3456      0  1001  1001  1001  1001\n\
                   \x20        0         66   600                  4096  3456  3456      0     0     0     0     0\n";
        assert_eq!(parse(shm, Uid::from_raw(1001)), [65]);
        let given_away = "       key      semid perms      nsems   uid   gid  cuid  cgid\n 1 7 600 1 33 33 1001 1001\n";
        assert_eq!(parse(given_away, Uid::from_raw(1001)), [7], "its maker may remove it");
        assert!(parse("", Uid::from_raw(0)).is_empty() && parse("nonsense\n1 2 3\n", Uid::from_raw(0)).is_empty());
    }
}
