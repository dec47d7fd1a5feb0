//! Work that blocks, on a thread of its own, so that signals and the control socket are served meanwhile.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

/// Such work that goes on.
pub(super) struct Work<T> {
    result: oneshot::Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Work<T> {
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self::try_begin(work).expect("a thread")
    }

    /// The same while a job may have made all the processes that this container is allowed.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(super) fn try_begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, result) = oneshot::channel();
        let thread = thread::Builder::new().spawn(move || {
            let _ = sender.send(work());
        })?;
        Ok(Self { result, thread: Some(thread) })
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

/// Does such work where nothing is served yet. `None` when it takes longer than `patience`: it goes on then, for as long as we live.
pub(super) fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, result) = channel();
    let thread = thread::spawn(move || {
        let _ = sender.send(work());
    });
    match (result.recv_timeout(patience), thread) {
        (Ok(result), thread) => {
            // It began with privileges that are given up soon.
            let _ = thread.join();
            Some(result)
        }
        (Err(RecvTimeoutError::Timeout), _) => None,
        (Err(RecvTimeoutError::Disconnected), thread) => match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => unreachable!("the thread ended without a result"),
        },
    }
}
