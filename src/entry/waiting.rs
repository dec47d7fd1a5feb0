//! Waiting for shared hardware: a job's wish for it, and when an idle holder makes room for others.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until, timeout};

use super::hardware::{Guard, HardwareError};
use crate::control::HookAnswer;
use crate::control::server::Hooked;
use crate::resource::{Claim, Held};

/// How long a hook may take to tell its job's log that the job has failed.
const TELL: Duration = Duration::from_secs(2);

/// A job's wish for hardware: the wait, and where its hook hears of it.
pub(super) struct Wish {
    wait: Pin<Box<dyn Future<Output = Result<Held, HardwareError>>>>,
    pub(super) answers: UnboundedSender<HookAnswer>,
    pub(super) told: Rc<Notify>,
    pub(super) since: Instant,
}

impl Wish {
    /// Joins the queue for a hook that asks.
    pub(super) fn new(guard: Rc<Guard>, claim: Claim, hooked: Hooked) -> Self {
        let answers = hooked.answers.clone();
        let (to_say, gone) = (answers.clone(), answers.clone());
        let patience = guard.patience();
        let say = move |why| {
            tracing::info!("the job is {why}");
            let _ = to_say.send(HookAnswer::Wait { why });
        };
        Self {
            wait: Box::pin(guard.acquire(claim, patience, say, async move { gone.closed().await })),
            answers,
            told: hooked.told,
            since: Instant::now(),
        }
    }
}

/// Resolves when the wish is granted, or cannot be.
pub(super) async fn granted(wish: &mut Option<Wish>) -> Result<Held, HardwareError> {
    match wish {
        Some(wish) => wish.wait.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Has a hook say in its job's log why the job may not go on. The hook waits for as long as the result is kept, so that the
/// listener can be interrupted meanwhile.
pub(super) async fn tell_and_hold(
    answers: UnboundedSender<HookAnswer>,
    told: &Notify,
    why: String,
) -> UnboundedSender<HookAnswer> {
    let _ = answers.send(HookAnswer::Failed { why });
    // Its log first: the interruption ends the hook that writes it.
    let _ = timeout(TELL, told.notified()).await;
    answers
}

/// When an idle holder of hardware must make room, in the scope of `listener`.
pub(super) struct Yielding {
    idle: Option<Duration>,
    idle_until: Option<Instant>,
}

impl Yielding {
    /// For a listener that `holds` hardware, or not.
    pub(super) fn of(guard: Option<&Rc<Guard>>, holds: bool) -> Self {
        Self { idle: guard.filter(|_| holds).map(|guard| guard.idle()), idle_until: None }
    }

    /// The listener listens from now on.
    pub(super) fn begin(&mut self) {
        self.idle_until = self.idle_until.or_else(|| self.idle.map(|idle| Instant::now() + idle));
    }

    /// Resolves once the time is over and somebody waits.
    pub(super) async fn due(&self, guard: Option<&Rc<Guard>>, held: Option<&Held>) {
        match (self.idle_until, guard, held) {
            (Some(until), Some(guard), Some(held)) => {
                sleep_until(until).await;
                guard.somebody_waits(held).await;
            }
            _ => std::future::pending().await,
        }
    }
}
