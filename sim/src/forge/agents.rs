//! What both agents' sides of the forge have in common: sessions, and polls that are held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::state::{Polled, State};

/// A session for a runner, unless it has one or an order refuses it.
pub(crate) fn new_session(s: &mut State, runner: u64) -> Option<u64> {
    let taken = s.runners.get(&runner).is_some_and(|r| r.session.is_some());
    if taken || s.orders.session_conflicts > 0 {
        s.orders.session_conflicts = s.orders.session_conflicts.saturating_sub(1);
        return None;
    }
    Some(s.open_session(runner))
}

/// Counts a poll in flight; the connection's end ends it too.
struct PollGuard {
    shared: Arc<Shared>,
    session: u64,
}

impl PollGuard {
    fn enter(shared: &Arc<Shared>, session: u64) -> Self {
        shared.change(|s| {
            if let Some(session) = s.sessions.get_mut(&session) {
                session.polls += 1;
                session.last_poll = Instant::now();
            }
        });
        Self { shared: Arc::clone(shared), session }
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        self.shared.change(|s| {
            if let Some(session) = s.sessions.get_mut(&self.session) {
                session.polls = session.polls.saturating_sub(1);
                session.last_poll = Instant::now();
            }
        });
    }
}

/// A session's next message, waited for as long as a poll lasts.
pub(crate) async fn next_message(shared: &Arc<Shared>, session: u64) -> Polled {
    let look = |s: &mut State, first, last| match s.poll(session, first, last) {
        Polled::Nothing => None,
        found => Some(found),
    };
    held(shared, session, look).await.unwrap_or(Polled::Nothing)
}

/// Holds a session's poll until `look` finds something, for as long as a poll lasts. It is told whether this is the first look,
/// or the last.
pub(crate) async fn held<T>(
    shared: &Arc<Shared>,
    session: u64,
    mut look: impl FnMut(&mut State, bool, bool) -> Option<T>,
) -> Option<T> {
    let timeout = Duration::from_millis(shared.read(|s| s.orders.poll_timeout_ms));
    let deadline = tokio::time::Instant::now() + timeout;
    let mut changes = shared.subscribe();
    let _guard = PollGuard::enter(shared, session);
    let (mut first, mut last) = (true, false);
    loop {
        changes.borrow_and_update();
        // Not `change`: looking must not wake the other polls.
        let found = look(&mut shared.lock(), first, last);
        if found.is_some() || last {
            return found;
        }
        first = false;
        last = tokio::time::timeout_at(deadline, changes.changed()).await.is_err();
    }
}
