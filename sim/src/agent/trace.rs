//! The terminal and the log in `_diag`.
//!
//! Where a variable asks for it the log is on standard output too, each line behind a prefix. There prefix and text
//! are two writes, as of the official runner, of which about once in thirty lives two traces mix. Here a lock keeps
//! them whole, and [`Trace::set_traps`] makes them mix for certain.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::kind::Facts;
use super::permissions::words;

/// The part of a program that writes for people.
const TERMINAL: &str = "Terminal";
const INFO: &str = "INFO";
const WARN: &str = "WARN";
const ERROR: &str = "ERR ";

/// What the listener's and the worker's other threads trace when a trap needs something foreign.
const FOREIGN: [(&str, &str); 2] = [
    ("GitHubActionsService", "AAD Correlation ID for this token request: Unknown"),
    ("JobServerQueue", "All queue process task stopped."),
];

/// Writes `_diag/<prefix>_<time>-utc.log`, and the terminal.
#[derive(Debug)]
pub(super) struct Trace {
    streams: Mutex<Streams>,
    on_stdout: bool,
    /// Whether it is the worker's.
    worker: bool,
}

/// Where it is written, and what is still to go wrong there. Neither of the two pipes has a buffer.
#[derive(Debug)]
struct Streams {
    file: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    /// Two prefixes come before a text, whose own text then stands on a line without any.
    tangle: bool,
    /// Words for people come behind the prefix of a trace, whose text then stands on a line without any.
    intrude: bool,
}

impl Streams {
    /// In one write. A closed pipe changes nothing: the agent goes on.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(stdout) = &mut self.stdout {
            let _ = stdout.write_all(bytes);
        }
    }
}

impl Trace {
    /// Opens the log.
    ///
    /// # Errors
    ///
    /// The words of the runtime, where `_diag` cannot be made or written. Nothing runs without.
    pub(super) fn open(root: &Path, facts: &Facts, component: &'static str) -> Result<Self, String> {
        let worker = component == "Worker";
        let moved = facts.log_folders[usize::from(worker)].and_then(std::env::var_os).filter(|path| !path.is_empty());
        let folder = moved.map_or_else(|| root.join("_diag"), PathBuf::from);
        let time = Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let path = folder.join(format!("{component}_{time}-utc.log"));
        create_dir_all(&folder).map_err(|error| words(&folder, &error))?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| words(&path, &error))?;
        let streams = Streams {
            file: Some(file),
            stdout: unbuffered(&std::io::stdout()),
            stderr: unbuffered(&std::io::stderr()),
            tangle: false,
            intrude: false,
        };
        Ok(Self { streams: Mutex::new(streams), on_stdout: facts.log_on_stdout.is_some_and(super::flag), worker })
    }

    /// Traces to these pipes, and to no log.
    #[cfg(test)]
    pub(super) fn to(stdout: File, stderr: File, worker: bool) -> Self {
        let streams = Streams { file: None, stdout: Some(stdout), stderr: Some(stderr), tangle: false, intrude: false };
        Self { streams: Mutex::new(streams), on_stdout: true, worker }
    }

    /// Whether two traces mix, in each of the two ways once from here on: at the next words for people that have a text
    /// (or at a worker's next trace), and at the plain form of the words after that. A worker has no words for people,
    /// and so only the first way.
    pub(super) fn set_traps(&self, set: bool) {
        let mut to = self.streams();
        (to.tangle, to.intrude) = (set, set);
    }

    /// What a part of the program has to say, for the log, also on standard output where a variable asks for that.
    pub(super) fn info(&self, source: &str, text: &str) {
        self.write(&mut self.streams(), INFO, source, text);
    }

    /// What may matter, for the log.
    pub(super) fn warn(&self, source: &str, text: &str) {
        self.write(&mut self.streams(), WARN, source, text);
    }

    /// An error for the log.
    pub(super) fn error(&self, source: &str, text: &str) {
        self.write(&mut self.streams(), ERROR, source, text);
    }

    /// A line for people.
    pub(super) fn say(&self, text: &str) {
        let mut to = self.streams();
        let tangled = self.write(&mut to, INFO, TERMINAL, &format!("WRITE LINE: {text}"));
        if self.on_stdout && !tangled && !text.trim().is_empty() && std::mem::take(&mut to.intrude) {
            let (prefix, foreign) = self.foreign();
            to.put(prefix.as_bytes());
            to.put(format!("{text}\n").as_bytes());
            to.put(format!("{foreign}\n").as_bytes());
        } else {
            to.put(format!("{text}\n").as_bytes());
        }
    }

    /// A line for people with the time before it, as the listener's markers have it.
    pub(super) fn say_timed(&self, text: &str) {
        self.say(&format!("{}: {text}", now()));
    }

    /// Words for people of which no trace tells.
    pub(super) fn say_untraced(&self, text: &str) {
        self.streams().put(format!("{text}\n").as_bytes());
    }

    /// Words for people without an end of their line, so that what is traced next stands in the middle of it.
    pub(super) fn prompt(&self, text: &str) {
        let mut to = self.streams();
        self.write(&mut to, INFO, TERMINAL, &format!("WRITE: {text}"));
        to.put(text.as_bytes());
    }

    /// An error for people with the time before it.
    pub(super) fn complain_timed(&self, text: &str) {
        self.complain(&format!("{}: {text}", now()));
    }

    /// An error for people.
    pub(super) fn complain(&self, text: &str) {
        let mut to = self.streams();
        self.write(&mut to, ERROR, TERMINAL, &format!("WRITE ERROR: {text}"));
        if let Some(stderr) = &mut to.stderr {
            // Standard error may be closed; the agent goes on.
            let _ = stderr.write_all(format!("{text}\n").as_bytes());
        }
    }

    /// A line that another program wrote, with its end or without.
    pub(super) fn copy_line(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.streams().put(&[line, b"\n"].concat());
    }

    /// What is written under it comes in one piece.
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each line of it has the prefix. Tells whether its first line lost it.
    fn write(&self, to: &mut Streams, level: &str, source: &str, text: &str) -> bool {
        let time = now();
        let mut tangled = false;
        if self.on_stdout {
            let prefix = self.prefix(&time, level, source);
            let for_people =
                source == TERMINAL && text.split_once(": ").is_some_and(|(_, text)| !text.trim().is_empty());
            tangled = (self.worker || for_people) && std::mem::take(&mut to.tangle);
            let (foreign_prefix, foreign) = self.foreign();
            for (at, line) in text.split('\n').enumerate() {
                if tangled && at == 0 {
                    to.put(foreign_prefix.as_bytes());
                    to.put(prefix.as_bytes());
                    to.put(format!("{foreign}\n").as_bytes());
                } else {
                    to.put(prefix.as_bytes());
                }
                to.put(format!("{line}\n").as_bytes());
            }
        }
        if let Some(file) = &mut to.file {
            let lines: String = text.split('\n').map(|line| format!("[{time} {level} {source}] {line}\n")).collect();
            // A full disk must not end the agent.
            let _ = file.write_all(lines.as_bytes());
        }
        tangled
    }

    /// `[RUNNER 2026-11-20 15:30:00Z INFO Terminal] `.
    fn prefix(&self, time: &str, level: &str, source: &str) -> String {
        let program = if self.worker { "WORKER" } else { "RUNNER" };
        format!("[{program} {time} {level} {source}] ")
    }

    /// The prefix and the text of a trace of another thread.
    fn foreign(&self) -> (String, &'static str) {
        let (source, text) = FOREIGN[usize::from(self.worker)];
        (self.prefix(&now(), INFO, source), text)
    }
}

/// Another handle to a pipe. None where there is no pipe.
fn unbuffered(pipe: &impl AsFd) -> Option<File> {
    pipe.as_fd().try_clone_to_owned().ok().map(File::from)
}

/// `2026-11-20 15:30:00Z`.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// What standard output and standard error got. Times are `TIME`.
    fn written(worker: bool, work: impl FnOnce(&Trace)) -> [String; 2] {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["out", "err"].map(|name| folder.path().join(name));
        let [out, err] = paths.each_ref().map(|path| File::create(path).unwrap());
        work(&Trace::to(out, err, worker));
        paths.map(|path| untimed(&fs::read_to_string(path).unwrap()))
    }

    /// A text with `TIME` for each time in it.
    pub(in crate::agent) fn untimed(text: &str) -> String {
        let mut text = text.to_owned();
        let time = |text: &str| {
            let found = text.char_indices().find(|(at, _)| {
                let form = b"0000-00-00 00:00:00Z";
                text.as_bytes().get(*at..at + form.len()).is_some_and(|bytes| {
                    bytes.iter().zip(form).all(|(b, f)| if *f == b'0' { b.is_ascii_digit() } else { b == f })
                })
            });
            found.map(|(at, _)| at)
        };
        while let Some(at) = time(&text) {
            text.replace_range(at..at + 20, "TIME");
        }
        text
    }

    #[test]
    fn each_line_has_the_prefix_and_levels_are_of_one_width() {
        let [out, err] = written(false, |trace| {
            trace.info("Runner", "one\n two");
            trace.warn("Runner", "three");
            trace.error("Runner", "");
        });
        let expected = "[RUNNER TIME INFO Runner] one\n[RUNNER TIME INFO Runner]  two\n\
                        [RUNNER TIME WARN Runner] three\n[RUNNER TIME ERR  Runner] \n";
        assert_eq!((out.as_str(), err.as_str()), (expected, ""));
        let [out, _] = written(true, |trace| trace.info("Worker", "one"));
        assert_eq!(out, "[WORKER TIME INFO Worker] one\n");
    }

    #[test]
    fn words_for_people_come_twice_and_errors_plain_on_standard_error() {
        let [out, err] = written(false, |trace| {
            trace.say("");
            trace.say_timed("Listening for Jobs");
            trace.complain("first\nsecond");
            trace.complain_timed("Runner connect error");
            trace.say_untraced("√ Connected to GitHub");
            trace.prompt("|   ");
            trace.say("|");
            trace.copy_line(b"a");
            trace.copy_line(b"b\n");
        });
        let expected = "[RUNNER TIME INFO Terminal] WRITE LINE: \n\n\
                        [RUNNER TIME INFO Terminal] WRITE LINE: TIME: Listening for Jobs\nTIME: Listening for Jobs\n\
                        [RUNNER TIME ERR  Terminal] WRITE ERROR: first\n[RUNNER TIME ERR  Terminal] second\n\
                        [RUNNER TIME ERR  Terminal] WRITE ERROR: TIME: Runner connect error\n\
                        √ Connected to GitHub\n\
                        [RUNNER TIME INFO Terminal] WRITE: |   \n|   \
                        [RUNNER TIME INFO Terminal] WRITE LINE: |\n|\na\nb\n";
        assert_eq!(out, expected);
        assert_eq!(err, "first\nsecond\nTIME: Runner connect error\n");
    }

    #[test]
    fn a_prefix_and_its_text_are_two_writes() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let err = File::from(OwnedFd::from(ours.try_clone().unwrap()));
        let trace = Trace::to(File::from(OwnedFd::from(ours)), err, false);
        trace.say("Exiting...");
        let mut buffer = [0; 200];
        let mut next = || {
            let length = theirs.recv(&mut buffer).unwrap();
            untimed(std::str::from_utf8(&buffer[..length]).unwrap())
        };
        assert_eq!(next(), "[RUNNER TIME INFO Terminal] ");
        assert_eq!(next(), "WRITE LINE: Exiting...\n");
        assert_eq!(next(), "Exiting...\n");
    }

    #[test]
    fn the_two_traps_of_a_listener_are_sprung_once_at_its_words_for_people() {
        let [out, _] = written(false, |trace| {
            trace.set_traps(true);
            trace.info("Runner", "RunAsync");
            trace.say("");
            trace.say("one");
            trace.say("two");
            trace.say("three");
        });
        let foreign = "[RUNNER TIME INFO GitHubActionsService] ";
        let own = "[RUNNER TIME INFO Terminal] ";
        let text = FOREIGN[0].1;
        let expected = [
            "[RUNNER TIME INFO Runner] RunAsync\n".to_owned(),
            format!("{own}WRITE LINE: \n\n"),
            format!("{foreign}{own}{text}\nWRITE LINE: one\none\n"),
            format!("{own}WRITE LINE: two\n{foreign}two\n{text}\n"),
            format!("{own}WRITE LINE: three\nthree\n"),
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn the_trap_of_a_worker_is_sprung_at_its_next_trace() {
        let [out, _] = written(true, |trace| {
            trace.set_traps(true);
            trace.info("Worker", "Job message:\n {");
            trace.info("Worker", "Job completed.");
        });
        let own = "[WORKER TIME INFO Worker] ";
        let (source, text) = FOREIGN[1];
        let foreign = format!("[WORKER TIME INFO {source}] ");
        assert_eq!(out, format!("{foreign}{own}{text}\nJob message:\n{own} {{\n{own}Job completed.\n"));
        let [out, _] = written(true, |trace| {
            trace.set_traps(true);
            trace.set_traps(false);
            trace.info("Worker", "whole");
        });
        assert_eq!(out, format!("{own}whole\n"));
    }
}
