//! Work that blocks, on a thread of its own, so that signals and the control socket are served meanwhile.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Such work that goes on.
pub(super) struct Work<T> {
    result: oneshot::Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

/// What a thread is made of.
type Errand = Box<dyn FnOnce() + Send>;

fn spawn(body: Errand) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().spawn(body)
}

impl<T: Send + 'static> Work<T> {
    /// Where no thread can be had, because a job has made all the processes that this container is allowed, it is done at once, and
    /// nothing is served meanwhile.
    pub(super) fn begin(work: impl FnOnce() -> T + Send + 'static) -> Self {
        Self::begin_by(spawn, work)
    }

    fn begin_by(
        spawn: impl FnOnce(Errand) -> io::Result<JoinHandle<()>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Self {
        let (sender, result) = oneshot::channel();
        let thread = beside(spawn, move || {
            let _ = sender.send(work());
        });
        Self { result, thread }
    }

    /// The same for what can wait.
    ///
    /// # Errors
    /// When there is no room for a thread.
    pub(super) fn try_begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, result) = oneshot::channel();
        let thread = spawn(Box::new(move || {
            let _ = sender.send(work());
        }))?;
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

/// Begins it on a thread; where none can be had, does it.
fn beside(
    spawn: impl FnOnce(Errand) -> io::Result<JoinHandle<()>>,
    body: impl FnOnce() + Send + 'static,
) -> Option<JoinHandle<()>> {
    // A thread that is not made drops what it should have done.
    let kept = Arc::new(Mutex::new(Some(body)));
    let of_thread = Arc::clone(&kept);
    match spawn(Box::new(move || run(&of_thread))) {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::warn!("no thread can be had ({error}): nothing else is done until this is");
            run(&kept);
            None
        }
    }
}

fn run(kept: &Mutex<Option<impl FnOnce()>>) {
    let body = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    body.into_iter().for_each(|body| body());
}

/// Does such work, and waits for it.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    Work::begin(work).done().await
}

/// Does such work where nothing is served yet. `None` when it takes longer than `patience`: it goes on then, for as long as we live.
pub(super) fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    each_within(patience, [work]).pop().flatten()
}

/// The same for several at once, which share the time.
pub(super) fn each_within<T: Send + 'static>(
    patience: Duration,
    works: impl IntoIterator<Item = impl FnOnce() -> T + Send + 'static>,
) -> Vec<Option<T>> {
    let begin = |work: Box<dyn FnOnce() -> T + Send>| {
        let (sender, result) = channel();
        let thread = beside(spawn, move || {
            let _ = sender.send(work());
        });
        (result, thread)
    };
    let begun: Vec<_> = works.into_iter().map(|work| begin(Box::new(work))).collect();
    let until = Instant::now() + patience;
    let ended = begun.into_iter().map(|(result, thread)| {
        let result = result.recv_timeout(until.saturating_duration_since(Instant::now()));
        if matches!(result, Err(RecvTimeoutError::Timeout)) {
            return None;
        }
        // It began with privileges that are given up soon.
        match (result, thread.map_or(Ok(()), JoinHandle::join)) {
            (Ok(result), _) => Some(result),
            (Err(_), Err(panic)) => resume_unwind(panic),
            (Err(_), Ok(())) => unreachable!("the thread ended without a result"),
        }
    });
    ended.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_told_apart_and_takes_nobody_elses_time() {
        let (hold, held) = channel::<()>();
        let held = Mutex::new(held);
        let slow = move || drop(held.lock().map(|held| held.recv()));
        let works: Vec<Box<dyn FnOnce() -> u8 + Send>> = vec![
            Box::new(|| 1),
            Box::new(move || {
                slow();
                2
            }),
            Box::new(|| 3),
        ];
        assert_eq!(each_within(Duration::from_millis(50), works), [Some(1), None, Some(3)]);
        drop(hold);
    }

    #[tokio::test]
    async fn work_is_done_once_with_a_thread_and_without_one() {
        let here = thread::current().id();
        let work = || thread::current().id();
        assert_ne!(Work::begin(work).done().await, here);
        let none = |_: Errand| Err(io::Error::from_raw_os_error(libc::EAGAIN));
        assert_eq!(Work::begin_by(none, work).done().await, here);
    }
}
