//! The agent's output: relayed to the log line by line, and watched for the lines that say what it is doing.
//!
//! A job can write to the same pipe, by way of its worker. So a marker only makes us look; what counts is the worker process.
//! [`super::words`] knows what lines are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tracing::Level;

use super::words::{LineReader, Marker};
use crate::plain::disturbs;

/// The longest line that is relayed whole, in bytes. The rest of a longer one follows as lines of their own.
const LONGEST: u64 = 8 * 1024;
/// What is read at once. A runner that waits for a job has one for each pipe of its listener.
const BUFFER: usize = 2 * 1024;
/// How long the pipes of a process that has ended may take to be read to their end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Passes what one pipe of a process brings on: each line to the log, as far as it is worth it, and what it says to whoever acts
/// upon it.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Stands before each line in the log.
    pub speaker: &'static str,
    /// Knows what lines are.
    pub reader: LineReader,
    /// Whether a worker lives.
    pub working: Rc<Cell<bool>>,
    /// Where markers go.
    pub markers: UnboundedSender<Marker>,
    /// Keeps the last words for people.
    pub tail: Tail,
}

impl Relay {
    /// Reads `pipe` to its end.
    pub(crate) async fn run(mut self, pipe: OwnedFd) {
        let Ok(receiver) = Receiver::from_owned_fd(pipe) else {
            return;
        };
        let mut reader = BufReader::with_capacity(BUFFER, receiver);
        let mut line = Vec::new();
        // The level of a line whose rest is still to come. It is no line of its own, whatever it looks like.
        let mut unfinished: Option<Option<Level>> = None;
        loop {
            line.clear();
            match (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = plain(text.trim_end());
            let level = match unfinished.take() {
                Some(level) => level,
                None => self.hear(&text),
            };
            if line.last() != Some(&b'\n') {
                unfinished = Some(level);
            }
            self.log(level, &text);
        }
    }

    fn hear(&mut self, text: &str) -> Option<Level> {
        let heard = self.reader.read(text, self.working.get());
        if let Some(marker) = heard.marker {
            if matches!(marker, Marker::Running(_)) {
                // The rest of its name may be what comes next, on lines of their own.
                self.working.set(true);
            }
            let _ = self.markers.send(marker);
        }
        if heard.for_people && !text.is_empty() {
            self.tail.push(text.to_owned());
        }
        heard.level
    }

    fn log(&self, level: Option<Level>, text: &str) {
        match level {
            Some(Level::DEBUG) if !text.is_empty() => tracing::debug!("{}: {text}", self.speaker),
            Some(_) if !text.is_empty() => tracing::info!("{}: {text}", self.speaker),
            _ => {}
        }
    }
}

/// The text without what disturbs and without terminal colours, which an agent writes for people.
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
            c if disturbs(c) => {}
            c => plain.push(c),
        }
    }
    plain
}

/// The last words for people in an output, for an error's text. Each copy but one belongs to a [`Relay`] that still adds to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Rc<LastLines>);

#[derive(Debug, Default)]
struct LastLines {
    last: RefCell<VecDeque<String>>,
    /// Who wants each of them at once.
    follower: RefCell<Option<UnboundedSender<String>>>,
    /// Told when a copy is dropped.
    dropped: Notify,
}

impl Tail {
    const LINES: usize = 20;

    fn push(&self, line: String) {
        if let Some(follower) = &*self.0.follower.borrow() {
            let _ = follower.send(line.clone());
        }
        let mut lines = self.0.last.borrow_mut();
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Each line from now on, as it comes.
    pub(crate) fn follow(&self) -> UnboundedReceiver<String> {
        let (follower, lines) = unbounded_channel();
        self.0.follower.replace(Some(follower));
        lines
    }

    /// The lines of a process that has ended, oldest first. Its end is known before its last words have been read; a child of
    /// its own that keeps the pipe open is not waited for.
    pub(crate) async fn last_words(&self) -> Vec<String> {
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

/// Why a step failed: the agent's last words, and what the forge had to say, which the agent shows as it came.
pub(crate) fn reason(said: &[String]) -> String {
    let message = |line: &String| {
        let answer: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(answer.get("message")?.as_str()?.to_owned())
    };
    let last = said.iter().rfind(|line| message(line).is_none()).cloned().unwrap_or_default();
    match said.iter().rev().find_map(message) {
        Some(message) => format!("{last} ({message})"),
        None => last,
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

    #[test]
    fn fuzz_output() {
        use crate::agent::words::Voice;
        let facts = &crate::provider::github::AGENT;
        crate::fuzz::run("output", |bytes| {
            let [mut reader, _] = LineReader::pair(facts, Voice::Listener);
            let mut kinds = Vec::new();
            for line in bytes.split(|byte| *byte == b'\n') {
                let text = plain(String::from_utf8_lossy(line).trim_end());
                crate::fuzz::assert_plain(&text);
                let heard = reader.read(&text, kinds.len() % 2 == 1);
                match &heard.marker {
                    Some(Marker::Completed(job, result)) => {
                        crate::fuzz::assert_plain(job);
                        crate::fuzz::assert_plain(result);
                    }
                    Some(Marker::Running(text) | Marker::Version(text) | Marker::Sign(_, text)) => {
                        crate::fuzz::assert_plain(text)
                    }
                    Some(Marker::Listening | Marker::Finished(..)) | None => {}
                }
                kinds.push((heard.level, heard.marker.map(|marker| std::mem::discriminant(&marker))));
            }
            kinds.dedup();
            kinds
        });
    }
}
