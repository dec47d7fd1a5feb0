//! Work that blocks, on a thread of its own, so that signals and the control socket are served meanwhile.

use std::panic::resume_unwind;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

/// Such work that goes on.
pub(super) struct Work<T> {
    result: oneshot::Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Work<T> {
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, result) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = sender.send(work());
        });
        Self { result, thread: Some(thread) }
    }

    /// Waits for its end, at which the thread is gone. Safe to drop and call again, but not once it has resolved.
    pub(super) async fn done(&mut self) -> T {
        let result = (&mut self.result).await;
        let joined = self.thread.take().map_or(Ok(()), JoinHandle::join);
        match (result, joined) {
            (Ok(result), _) => result,
            (Err(_), Err(panic)) => resume_unwind(panic),
            // The sender is dropped unsent only by a panic.
            (Err(_), Ok(())) => unreachable!("the thread ended without a result"),
        }
    }
}

/// Does such work, and waits for it.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    Work::begin(work).done().await
}
