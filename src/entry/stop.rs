//! Requests to stop, as the life cycle sees them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Nobody asked.
    None,
    /// Take no more jobs; let the running one finish.
    Finish,
    /// End the running job now.
    Cancel,
}

/// All requests so far.
#[derive(Debug, Clone, Copy, Default)]
struct Requests {
    /// Stop signals received.
    signals: u32,
    /// A drain was ordered; whether to leave after it.
    drain: Option<bool>,
    /// When a running job must be over, if signals asked.
    deadline: Option<Instant>,
    now_too_late: bool,
}

/// Collects requests to stop and lets many wait for them.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    requests: watch::Sender<Requests>,
    patience: Duration,
}

impl Stop {
    /// A running job gets `patience` from the first stop signal.
    #[must_use]
    pub(super) fn new(patience: Duration) -> Self {
        Self { requests: watch::Sender::new(Requests::default()), patience }
    }

    /// A stop signal arrived. Returns how many there were.
    pub(super) fn signal(&self) -> u32 {
        let now = Instant::now();
        self.requests.send_modify(|requests| {
            requests.signals += 1;
            requests.deadline.get_or_insert(now + self.patience);
        });
        self.requests.borrow().signals
    }

    /// A drain was ordered.
    pub(super) fn drain(&self, exit: bool) {
        self.requests.send_modify(|requests| requests.drain = Some(exit));
    }

    /// How urgent it is now.
    #[must_use]
    pub(super) fn urgency(&self) -> Urgency {
        let requests = *self.requests.borrow();
        if requests.signals >= 2 || requests.now_too_late {
            Urgency::Cancel
        } else if requests.signals == 1 || requests.drain.is_some() {
            Urgency::Finish
        } else {
            Urgency::None
        }
    }

    /// Whether to stay, without taking jobs, once all is done: a drain was ordered and no signal came.
    #[must_use]
    pub(super) fn parks(&self) -> bool {
        let requests = *self.requests.borrow();
        requests.signals == 0 && requests.drain == Some(false)
    }

    /// Whether a signal asked.
    #[must_use]
    pub(super) fn signalled(&self) -> bool {
        self.requests.borrow().signals > 0
    }

    /// Whether it is as urgent as it is only because the time of the first signal was over.
    #[must_use]
    pub(super) fn timed_out(&self) -> bool {
        let requests = *self.requests.borrow();
        requests.signals < 2 && requests.now_too_late
    }

    /// Waits until it is at least so urgent. The deadline of the first signal makes it a cancel.
    pub(super) async fn reached(&self, urgency: Urgency) {
        let mut watcher = self.requests.subscribe();
        loop {
            if self.urgency() >= urgency {
                return;
            }
            let deadline = watcher.borrow_and_update().deadline;
            tokio::select! {
                // The sender lives in self, so this cannot fail.
                _ = watcher.changed() => {}
                () = until(deadline) => self.requests.send_modify(|requests| requests.now_too_late = true),
            }
        }
    }

    /// Waits for a signal.
    pub(super) async fn signal_came(&self) {
        let mut watcher = self.requests.subscribe();
        let _ = watcher.wait_for(|requests| requests.signals > 0).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_clock_that_waits_for_nobody(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    #[test]
    fn the_second_signal_cancels() {
        let stop = Stop::new(Duration::from_secs(60));
        assert_eq!(stop.urgency(), Urgency::None);
        stop.signal();
        assert_eq!(stop.urgency(), Urgency::Finish);
        stop.signal();
        assert_eq!(stop.urgency(), Urgency::Cancel);
    }

    #[test]
    fn the_deadline_of_the_first_signal_cancels() {
        on_a_clock_that_waits_for_nobody(async {
            let stop = Stop::new(Duration::from_secs(60));
            stop.signal();
            let before = Instant::now();
            stop.reached(Urgency::Cancel).await;
            assert_eq!((Instant::now() - before).as_secs(), 60);
            assert_eq!(stop.urgency(), Urgency::Cancel);
            assert!(stop.timed_out());
            stop.signal();
            assert!(!stop.timed_out());
        });
    }

    #[test]
    fn a_drain_parks_until_a_signal_comes_and_that_one_does_not_cancel() {
        let stop = Stop::new(Duration::from_secs(60));
        stop.drain(false);
        assert!(stop.parks());
        assert_eq!(stop.urgency(), Urgency::Finish);
        stop.signal();
        assert!(!stop.parks());
        assert_eq!(stop.urgency(), Urgency::Finish);
    }
}
