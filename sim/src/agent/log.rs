//! The log of a job: lines that go to whoever looks on while they come, and are stored by steps.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;

use super::assignment::StepReport;
use super::client::Refusal;
use super::kind::Reporter;
use crate::scale::Scale;

/// So many bytes of lines that are shown go into one request, and the rest of the last line.
const MOST_AT_ONCE: usize = 256 << 10;

/// The log of the step that runs.
#[derive(Debug, Clone)]
pub(super) struct Log {
    lines: Arc<Mutex<Vec<(Timestamp, String)>>>,
    live: Sender<String>,
}

impl Log {
    pub(super) fn line(&self, text: &str) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((Timestamp::now(), text.to_owned()));
        // Whoever looks on is shown less, and no more.
        let _ = self.live.send(format!("{text}\n"));
    }

    /// The lines since the last time.
    pub(super) fn take(&self) -> Vec<(Timestamp, String)> {
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Shows lines in as few requests as their pace allows.
pub(super) fn shown(reporter: Arc<dyn Reporter>) -> Log {
    let (live, lines): (Sender<String>, Receiver<String>) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(mut text) = lines.recv() {
            // One request of a whole flood is more than a forge takes, and all of it would be lost.
            while text.len() < MOST_AT_ONCE
                && let Ok(line) = lines.try_recv()
            {
                text.push_str(&line);
            }
            reporter.live(&text);
        }
    });
    Log { lines: Arc::default(), live }
}

/// Stores the logs of steps that are over, one after the other, beside the steps that follow.
pub(super) struct Store {
    steps: Sender<StepReport>,
    thread: JoinHandle<()>,
}

impl Store {
    pub(super) fn start(reporter: Arc<dyn Reporter>, scale: Scale) -> Self {
        let (steps, received) = mpsc::channel::<StepReport>();
        let thread = thread::spawn(move || {
            for step in received {
                tried(5, scale.ms(2_000), || reporter.store(&step));
                // Three hundred steps keep the official worker 25 s.
                thread::sleep(scale.ms(80));
            }
        });
        Self { steps, thread }
    }

    pub(super) fn add(&self, step: StepReport) {
        // The thread lives as long as this.
        let _ = self.steps.send(step);
    }

    /// Waits until all of it is stored, or was tried.
    pub(super) fn finish(self) {
        drop(self.steps);
        // A panic there has been printed already.
        let _ = self.thread.join();
    }
}

/// Tries so often, unless the forge says that another try changes nothing. False when none was good.
pub(super) fn tried(times: u32, pause: Duration, mut request: impl FnMut() -> Result<(), Refusal>) -> bool {
    for left in (0..times).rev() {
        match request() {
            Ok(()) => return true,
            Err(refusal) if refusal.status().is_some_and(|status| status < 500) => return false,
            Err(_) if left > 0 => thread::sleep(pause),
            Err(_) => {}
        }
    }
    false
}
