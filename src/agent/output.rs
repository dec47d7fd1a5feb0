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

use crate::provider::{AgentFacts, Sign};

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
    /// Its job is over, with this result in its own word.
    Completed(String),
    /// It is of this version.
    Version(String),
    /// How it is.
    Sign(Sign),
}

/// Reads `pipe` to its end. Every line is logged, as `speaker`'s; markers go to `markers`; the last lines are kept in `tail`.
pub async fn relay(
    pipe: OwnedFd,
    speaker: &'static str,
    facts: &'static AgentFacts,
    markers: UnboundedSender<Marker>,
    tail: Tail,
) {
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
        // What it traces for those who look into it is asked for because of the signs in it.
        match is_trace(&text) {
            true => tracing::debug!("{speaker}: {text}"),
            false => tracing::info!("{speaker}: {text}"),
        }
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

/// `[2026-11-20 15:30:00Z INFO MessageListener] …`.
fn is_trace(line: &str) -> bool {
    let digit = |at: usize| line.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    line.starts_with('[') && digit(1) && digit(4) && line.as_bytes().get(20) == Some(&b'Z')
}

fn read_marker(line: &str, facts: &AgentFacts) -> Option<Marker> {
    if let Some((_, job)) = line.split_once(facts.running_marker) {
        return Some(Marker::Running(job.trim().to_owned()));
    }
    let says = |words: &[&str]| words.iter().all(|word| line.contains(word));
    if let Some((_, sign)) = facts.signs.iter().find(|(words, _)| says(words)) {
        return Some(Marker::Sign(*sign));
    }
    if let Some((_, result)) = line.rsplit_once(facts.completed_marker) {
        return Some(Marker::Completed(result.trim().to_owned()));
    }
    if line.contains(facts.listening_marker) {
        return Some(Marker::Listening);
    }
    let (_, version) = line.split_once(facts.version_marker)?;
    let version: String = version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(32).collect();
    (!version.is_empty()).then_some(Marker::Version(version))
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
    fn the_listeners_lines_are_read() {
        let facts = crate::provider::github::AGENT;
        for (line, marker) in [
            ("√ Connected to GitHub", None),
            ("Current runner version: '2.336.0'", Some(Marker::Version("2.336.0".to_owned()))),
            ("Current runner version: 'x'", None),
            ("2026-01-01 00:00:00Z: Listening for Jobs", Some(Marker::Listening)),
            ("2026-01-01 00:00:00Z: Running job: a b", Some(Marker::Running("a b".to_owned()))),
            (
                "2026-01-01 00:00:00Z: Job a b completed with result: Failed",
                Some(Marker::Completed("Failed".to_owned())),
            ),
            ("Running job: x completed with result: y", Some(Marker::Running("x completed with result: y".to_owned()))),
        ] {
            assert_eq!(read_marker(line, &facts), marker, "{line}");
        }
    }

    #[test]
    fn the_agents_traces_are_told_from_what_it_says() {
        assert!(is_trace("[2026-11-20 15:30:00Z INFO Runner] Skipping message Job. Gone."));
        assert!(!is_trace("2026-11-20 15:30:00Z: Listening for Jobs"));
        assert!(!is_trace("[command]/usr/bin/git"));
    }

    #[test]
    fn colours_and_controls_are_dropped() {
        assert_eq!(plain("\u{1b}[1;32m√ Connected\u{1b}[0m\u{7}"), "√ Connected");
        assert_eq!(plain("\u{1b}"), "");
    }

    #[test]
    fn fuzz_output() {
        let facts = crate::provider::github::AGENT;
        crate::fuzz::run("output", |bytes| {
            let mut kinds = Vec::new();
            for line in bytes.split(|byte| *byte == b'\n') {
                let text = plain(String::from_utf8_lossy(line).trim_end());
                crate::fuzz::assert_plain(&text);
                let marker = read_marker(&text, &facts);
                match &marker {
                    Some(Marker::Running(text) | Marker::Completed(text) | Marker::Version(text)) => {
                        crate::fuzz::assert_plain(text);
                    }
                    Some(Marker::Listening | Marker::Sign(_)) | None => {}
                }
                kinds.push(marker.map(|marker| std::mem::discriminant(&marker)));
            }
            kinds.dedup();
            kinds
        });
    }
}
