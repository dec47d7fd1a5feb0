//! Being told when somebody joins a queue, by the kernel and not by a clock.

use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use super::attempt::Held;
use super::directory::LockDirectory;
use super::survey::Occupancy;
use crate::os;

/// Resolves once somebody waits for something that is held here.
pub(super) async fn somebody_waits(directory: &LockDirectory, held: &Held) {
    let waits = || held.ids().iter().any(|id| !Occupancy::of(directory, id).queue.is_empty());
    let Some((inotify, readable)) = watch(directory, held) else {
        // The kernel's limit of watches is reached; without being told, an idle holder keeps what it has.
        tracing::warn!(
            "the queue cannot be watched (fs.inotify.max_user_instances): an idle runner keeps the hardware"
        );
        return pending().await;
    };
    // After the watch began, so that nobody slips in between.
    while !waits() {
        match readable.readable().await {
            Ok(mut ready) => {
                let _ = inotify.read_events();
                ready.clear_ready();
            }
            Err(_) => return pending().await,
        }
    }
}

fn watch(directory: &LockDirectory, held: &Held) -> Option<(Inotify, AsyncFd<OwnedFd>)> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
    for id in held.ids() {
        inotify.add_watch(&directory.queue(id), AddWatchFlags::IN_MOVED_TO).ok()?;
    }
    let readable = os::watch(inotify.as_fd().try_clone_to_owned().ok()?).ok()?;
    Some((inotify, readable))
}
