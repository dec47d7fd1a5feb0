//! The agent's output: relayed to the log line by line, and watched for the lines that say what it is doing.
//!
//! A job runs as the agent's user and could write to the same pipe. So a marker only makes us look; what counts is the
//! worker process.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use crate::provider::AgentFacts;

/// The longest line that is relayed whole, in bytes. The rest of a longer one follows as lines of their own.
const LONGEST: u64 = 8 * 1024;
/// How long the pipes of a process that has ended may take to be read to their end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a line said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    /// The listener is connected.
    Listening,
    /// It begins a job of this name.
    Running(String),
}

/// Reads `pipe` to its end. Every line is logged; markers go to `markers`; the last lines are kept in `tail`.
pub async fn relay(pipe: OwnedFd, facts: &'static AgentFacts, markers: UnboundedSender<Marker>, tail: Tail) {
    let Ok(receiver) = Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut reader = BufReader::new(receiver);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = plain(text.trim_end());
        if text.is_empty() {
            continue;
        }
        tracing::info!("agent: {text}");
        if let Some(marker) = read_marker(&text, facts) {
            let _ = markers.send(marker);
        }
        tail.push(text);
    }
}

/// The text without control characters and terminal colours, which an agent writes for people.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\u{1b}' => {
                // CSI … letter; anything else is one character long.
                if characters.next() == Some('[') {
                    let _ = characters.by_ref().find(|c| c.is_ascii_alphabetic());
                }
            }
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

fn read_marker(line: &str, facts: &AgentFacts) -> Option<Marker> {
    if let Some((_, job)) = line.split_once(facts.running_marker) {
        return Some(Marker::Running(job.trim().to_owned()));
    }
    line.contains(facts.listening_marker).then_some(Marker::Listening)
}

/// The last lines of an output, for an error's text. Each copy but one belongs to a [`relay`] that still adds to it.
#[derive(Debug, Clone, Default)]
pub struct Tail(Rc<Lines>);

#[derive(Debug, Default)]
struct Lines {
    last: RefCell<VecDeque<String>>,
    /// Told when a copy is dropped.
    dropped: Notify,
}

impl Tail {
    const LINES: usize = 20;

    fn push(&self, line: String) {
        let mut lines = self.0.last.borrow_mut();
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines of a process that has ended, oldest first. Its end is known before its last words have been read; a child of
    /// its own that keeps the pipe open is not waited for.
    pub async fn last_words(&self) -> Vec<String> {
        let complete = async {
            while Rc::strong_count(&self.0) > 1 {
                self.0.dropped.notified().await;
            }
        };
        let _ = timeout(LAST_WORDS, complete).await;
        self.0.last.borrow().iter().cloned().collect()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // Whoever waits looks again once this copy is gone: it runs on this thread, after us.
        self.0.dropped.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_controls_are_dropped() {
        assert_eq!(plain("\u{1b}[1;32m√ Connected\u{1b}[0m\u{7}"), "√ Connected");
        assert_eq!(plain("\u{1b}"), "");
    }
}
