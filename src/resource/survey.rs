//! Who holds a resource and who waits, for people. Looking disturbs nobody: it takes shared locks without waiting.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use super::claim::Claim;
use super::directory::LockDirectory;
use super::queue::{is_locked, numbers};
use super::wanted::ResourceId;
use crate::plain::plain;

/// The state of one resource at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// The resource.
    pub resource: String,
    /// Whether somebody has it.
    pub held: bool,
    /// Who has it; `None` while it is free, or when it is held by something that leaves no record, such as `flock(1)`.
    pub holder: Option<Claim>,
    /// Those who wait, first in line first.
    pub queue: Vec<Waiting>,
}

/// One who waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The number drawn.
    pub number: u64,
    /// Who it is.
    pub claim: Claim,
    #[serde(skip)]
    inode: u64,
}

impl Occupancy {
    /// Looks at a resource.
    pub(super) fn of(directory: &LockDirectory, id: &ResourceId) -> Self {
        let holder_file = directory.holder(id);
        let holder = is_locked(&holder_file).then(|| read(&holder_file)).flatten();
        // Only without a living record is the lock itself tried, so that a holder never meets us there.
        let held = holder.is_some()
            || File::open(directory.lock(id))
                .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)));
        let queue_directory = directory.queue(id);
        let queue = numbers(&queue_directory)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|number| {
                let path = queue_directory.join(format!("{number:020}"));
                let inode = fs::metadata(&path).ok()?.ino();
                is_locked(&path).then(|| Waiting { number, claim: read(&path).unwrap_or_default(), inode })
            })
            .collect();
        Self { resource: id.to_string(), held, holder, queue }
    }

    /// How many wait before the ticket with this inode, and so before us.
    pub(super) fn ahead_of(&self, inode: u64) -> usize {
        self.queue.iter().take_while(|waiting| waiting.inode != inode).count()
    }

    /// One line about the holder.
    #[must_use]
    pub(crate) fn holder_line(&self) -> String {
        match (&self.holder, self.held) {
            (Some(holder), _) => format!("held by {holder}"),
            (None, true) => "held by something that leaves no record, such as flock(1)".to_owned(),
            (None, false) => "free".to_owned(),
        }
    }
}

fn read(path: &Path) -> Option<Claim> {
    let claim: Claim = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // Whoever may use the lock wrote it, and it is shown on others' terminals and in their jobs' logs.
    Some(Claim {
        who: plain(&claim.who),
        scope: claim.scope.as_deref().map(plain),
        run_url: claim.run_url.as_deref().map(plain),
        since: plain(&claim.since),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holder");
        crate::fuzz::run("holder", |bytes| {
            fs::write(&path, bytes).unwrap();
            read(&path).map(|claim| {
                crate::fuzz::assert_plain(&claim.to_string());
                (claim.scope.is_some(), claim.run_url.is_some())
            })
        });
    }
}
