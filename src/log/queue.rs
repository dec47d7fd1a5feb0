//! Lines on their way to standard output: whoever logs leaves them here, and a thread writes them.
//!
//! A write waits for who reads, and the descriptor is shared with others, so it cannot be told not to. What does not fit is counted, and
//! said once lines are written again. The thread ends when nothing comes: a runner that waits for a job has none of its memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How many bytes wait at most.
const MOST: usize = 1024 * 1024;
/// Once lines were dropped, no other is taken before no more than this waits: so what is missing is missing in one piece, and said
/// once for all of it.
const ROOM: usize = MOST / 2;
/// How long the thread stays when there is nothing to write.
const LINGER: Duration = Duration::from_millis(250);
/// It only writes, and now and then makes a line.
const STACK: usize = 64 * 1024;

/// The queue before one descriptor.
pub(super) struct LineQueue {
    out: File,
    /// Makes the line that says how many are missing.
    notice: fn(u64) -> String,
    state: Mutex<WaitingLines>,
    /// Told when something was added, or written.
    changed: Condvar,
}

#[derive(Default)]
struct WaitingLines {
    lines: VecDeque<Vec<u8>>,
    /// Of the lines, and of the one that is being written.
    bytes: usize,
    /// Whether the thread is there.
    writes: bool,
    /// Whether lines are dropped until there is room again.
    drops: bool,
    /// Lines that nobody was told of yet.
    untold: u64,
    /// The same for who counts.
    uncounted: u64,
    /// A write failed in the middle of a line.
    torn: bool,
}

/// A line that was not written, or only its beginning.
struct Unwritten {
    begun: bool,
}

impl LineQueue {
    pub(super) fn new(out: File, notice: fn(u64) -> String) -> Self {
        Self { out, notice, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingLines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a line to be written. Never waits for that.
    pub(super) fn push(self: &Arc<Self>, line: String) {
        let mut state = self.lock();
        if state.drops || (state.bytes > 0 && state.bytes + line.len() > MOST) {
            state.drops = true;
            state.miss();
        } else {
            state.add(line);
        }
        self.have_written(&mut state);
    }

    /// Waits until everything is written, for so long at most.
    pub(super) fn finish(self: &Arc<Self>, patience: Duration) {
        let mut state = self.lock();
        if state.bytes > 0 {
            self.have_written(&mut state);
        }
        let _ = self.changed.wait_timeout_while(state, patience, |state| state.bytes > 0);
    }

    /// Whether somebody has it, and for longer than a line takes.
    pub(super) fn is_held(&self) -> bool {
        is_held(&self.state)
    }

    /// How many lines were lost since this was last asked.
    pub(super) fn lost(&self) -> u64 {
        std::mem::take(&mut self.lock().uncounted)
    }

    fn have_written(self: &Arc<Self>, state: &mut WaitingLines) {
        if state.writes {
            self.changed.notify_all();
            return;
        }
        let queue = Arc::clone(self);
        match thread::Builder::new().name("log".to_owned()).stack_size(STACK).spawn(move || queue.write()) {
            Ok(_) => state.writes = true,
            // A job may have made all the processes that this container is allowed. The next line tries again.
            Err(_) => self.write_what_is_taken(state),
        }
    }

    /// The thread.
    fn write(&self) {
        let mut state = self.lock();
        loop {
            while let Some((line, length)) = state.next() {
                drop(state);
                let written = self.put(&line);
                state = self.lock();
                state.done(length, written, self.notice);
                self.changed.notify_all();
            }
            let waited = self.changed.wait_timeout_while(state, LINGER, |state| state.lines.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.lines.is_empty() {
                state.lines = VecDeque::new();
                state.writes = false;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Without a thread: as long as a line is taken in one piece, and at once.
    fn write_what_is_taken(&self, state: &mut WaitingLines) {
        while state.lines.front().is_some_and(|line| line.len() < libc::PIPE_BUF) && self.wait(PollTimeout::ZERO) {
            let Some((line, length)) = state.next() else { return };
            let written = self.put(&line);
            state.done(length, written, self.notice);
        }
    }

    /// Whether something can be written, as soon as it can.
    fn wait(&self, patience: PollTimeout) -> bool {
        let mut looked = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
        matches!(poll(&mut looked, patience), Ok(1..))
    }

    fn put(&self, line: &[u8]) -> Result<(), Unwritten> {
        let mut rest = line;
        while !rest.is_empty() {
            match (&self.out).write(rest) {
                Ok(written @ 1..) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody else who has this descriptor has told it not to wait.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.wait(PollTimeout::NONE) => {}
                Ok(0) | Err(_) => return Err(Unwritten { begun: rest.len() < line.len() }),
            }
        }
        Ok(())
    }
}

/// Whether somebody has it, and for longer than a line takes.
pub(super) fn is_held<T>(mutex: &Mutex<T>) -> bool {
    (0..10).all(|_| {
        let held = matches!(mutex.try_lock(), Err(TryLockError::WouldBlock));
        if held {
            thread::sleep(Duration::from_millis(10));
        }
        held
    })
}

impl WaitingLines {
    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line.into_bytes());
    }

    fn miss(&mut self) {
        self.untold = self.untold.saturating_add(1);
        self.uncounted = self.uncounted.saturating_add(1);
    }

    /// The next line as it is to be written, and how much it counts.
    fn next(&mut self) -> Option<(Vec<u8>, usize)> {
        let mut line = self.lines.pop_front()?;
        let length = line.len();
        if self.torn {
            line.insert(0, b'\n');
        }
        Some((line, length))
    }

    /// A line of this length was written, or was not.
    fn done(&mut self, length: usize, written: Result<(), Unwritten>, notice: fn(u64) -> String) {
        self.bytes = self.bytes.saturating_sub(length);
        self.drops &= self.bytes > ROOM;
        match written {
            Ok(()) => {
                self.torn = false;
                if self.untold > 0 && !self.drops {
                    let line = notice(std::mem::take(&mut self.untold));
                    self.add(line);
                }
            }
            Err(Unwritten { begun }) => {
                self.torn |= begun;
                self.miss();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};
    use std::os::fd::OwnedFd;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    /// How long a test waits for what should be there at once.
    const LIMIT: Duration = Duration::from_secs(60);

    fn notice(lost: u64) -> String {
        format!("{lost} are missing\n")
    }

    /// A queue before a pipe, and the pipe's other end.
    fn before_a_pipe() -> (Arc<LineQueue>, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Arc::new(LineQueue::new(OwnedFd::from(writer).into(), notice)), reader)
    }

    fn line(number: usize) -> String {
        format!("{number:05} {}\n", "x".repeat(93))
    }

    #[test]
    fn while_nobody_reads_nobody_waits_and_what_does_not_fit_is_counted_and_said_once() {
        let (queue, reader) = before_a_pipe();
        // More than pipe and queue hold.
        let all = 3 * MOST / line(0).len();
        (0..all).for_each(|number| queue.push(line(number)));
        let lost = queue.lost();
        assert!(lost > 0 && queue.lock().bytes <= MOST);
        let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
        let before: Vec<String> = lines.by_ref().take(all - lost as usize).collect();
        let expected = (0..before.len()).map(|number| line(number).trim_end().to_owned());
        assert!(before.iter().eq(&expected.collect::<Vec<_>>()), "whole and in their order");
        assert_eq!(lines.next().as_deref(), Some(notice(lost).trim_end()));
        queue.push("more\n".to_owned());
        assert_eq!(lines.next().as_deref(), Some("more"));
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn the_end_waits_for_who_reads_and_not_for_who_does_not() {
        let (queue, mut reader) = before_a_pipe();
        (0..2000).for_each(|number| queue.push(line(number)));
        queue.finish(Duration::from_millis(50));
        assert!(queue.lock().bytes > 0, "nobody read");
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        queue.finish(LIMIT);
        assert_eq!(queue.lock().bytes, 0);
        // The thread's own hold on the pipe ends with it.
        drop(queue);
        assert_eq!(reading.join().unwrap().unwrap().lines().count(), 2000);
    }

    #[test]
    fn without_anything_to_write_there_is_no_thread_and_the_next_line_makes_one() {
        let (queue, reader) = before_a_pipe();
        let mut lines = BufReader::new(reader).lines();
        for text in ["one", "two"] {
            queue.push(format!("{text}\n"));
            assert_eq!(lines.next().unwrap().unwrap(), text);
            let waited = queue.changed.wait_timeout_while(queue.lock(), LIMIT, |state| state.writes);
            assert!(!waited.unwrap().1.timed_out());
        }
    }

    #[test]
    fn a_descriptor_that_somebody_told_not_to_wait_loses_nothing() {
        let (queue, reader) = before_a_pipe();
        fcntl(&queue.out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (0..2000).for_each(|number| queue.push(line(number)));
        let lines = BufReader::new(reader).lines().map_while(Result::ok);
        assert_eq!(lines.take(2000).count(), 2000);
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_said_on_a_line_of_its_own_once_it_does() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let queue = LineQueue::new(OwnedFd::from(writer).into(), notice);
        let mut state = WaitingLines::default();
        for (text, written) in
            [("first\n", Err(Unwritten { begun: true })), ("second\n", Err(Unwritten { begun: false }))]
        {
            state.add(text.to_owned());
            let (_, length) = state.next().unwrap();
            state.done(length, written, notice);
        }
        state.add("third\n".to_owned());
        queue.write_what_is_taken(&mut state);
        assert_eq!((state.bytes, state.uncounted), (0, 2));
        drop(queue);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\nthird\n2 are missing\n");
    }

    #[test]
    fn a_line_that_is_longer_than_the_queue_is_written_when_nothing_waits() {
        let (queue, reader) = before_a_pipe();
        queue.push("x".repeat(2 * MOST) + "\n");
        queue.push("after\n".to_owned());
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert_eq!(lines.next().map(|line| line.len()), Some(2 * MOST));
        assert_eq!(lines.next().as_deref(), Some("1 are missing"));
    }
}
