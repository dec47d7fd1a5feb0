//! One process of a job: its output goes to the job's log, and it can be interrupted.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::log::Log;
use super::worker::Happening;

/// How the job was asked to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Interruption {
    /// Nobody asked.
    None,
    /// A user cancelled.
    Cancelled,
    /// The runner shuts down.
    Shutdown,
}

/// Pauses between SIGINT, SIGTERM and SIGKILL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) after_int: Duration,
    pub(super) after_term: Duration,
    /// What a background child costs that keeps the output open.
    pub(super) output: Duration,
}

/// What came of a process.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The code, 128 + n for a signal.
    pub(super) code: i32,
    pub(super) pid: u32,
    pub(super) took: Duration,
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    began: Instant,
}

/// Starts a process, whose lines go to the log.
pub(super) fn start(mut command: Command, log: &Log, sender: &Sender<Happening>) -> std::io::Result<Process> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let began = Instant::now();
    let mut child = command.spawn()?;
    // The command holds the writing end: output ends only when it is gone.
    drop(command);
    let pid = Pid::from_raw(child.id().cast_signed());
    protect_from_oom_killer(child.id());

    let (lines, done) = (log.clone(), sender.clone());
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            lines.line(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
        // Nobody waits any more when the grace is over.
        let _ = done.send(Happening::OutputEnded(pid.as_raw()));
    });
    let done = sender.clone();
    thread::spawn(move || {
        let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0xff00));
        // The worker waits for this for as long as it lives.
        let _ = done.send(Happening::Exited(pid.as_raw(), status));
    });
    Ok(Process { pid, began })
}

impl Process {
    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits for its end. `interruption` is kept up to date; the process is interrupted once it reaches `yields_to`.
    pub(super) fn end(
        self,
        happenings: &Receiver<Happening>,
        interruption: &mut Interruption,
        yields_to: Interruption,
        patience: Patience,
    ) -> Outcome {
        let Self { pid, began } = self;
        let mut next = Some(Signal::SIGINT).filter(|_| *interruption >= yields_to);
        let mut deadline = next.map(|_| Instant::now());
        let mut interrupted = next.is_some();
        let (mut status, mut output_ended) = (None, false);
        loop {
            if status.is_some() && output_ended {
                break;
            }
            let event = match deadline {
                Some(at) => happenings.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => happenings.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Happening::Interrupt(asked)) => {
                    *interruption = (*interruption).max(asked);
                    if *interruption >= yields_to && !interrupted && status.is_none() {
                        interrupted = true;
                        next = Some(Signal::SIGINT);
                        deadline = Some(Instant::now());
                    }
                }
                Ok(Happening::OutputEnded(of)) if of == pid.as_raw() => output_ended = true,
                Ok(Happening::Exited(of, how)) if of == pid.as_raw() => {
                    status = Some(how);
                    next = None;
                    deadline = Some(Instant::now() + patience.output);
                }
                // The end of a process whose time was over long ago.
                Ok(Happening::OutputEnded(_) | Happening::Exited(..)) => {}
                Err(RecvTimeoutError::Timeout) => match (status, next) {
                    (Some(_), _) | (_, None) => {
                        if status.is_some() {
                            break;
                        }
                        deadline = None;
                    }
                    (None, Some(signal)) => {
                        // Only this process, as upstream; it may have ended just now.
                        let _ = kill(pid, signal);
                        (next, deadline) = match signal {
                            Signal::SIGINT => (Some(Signal::SIGTERM), Some(Instant::now() + patience.after_int)),
                            Signal::SIGTERM => (Some(Signal::SIGKILL), Some(Instant::now() + patience.after_term)),
                            _ => (None, None),
                        };
                    }
                },
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let code = status.and_then(exit_code).unwrap_or(-1);
        Outcome { code, pid: pid.as_raw().unsigned_abs(), took: began.elapsed() }
    }
}

/// The code of a process that has ended, 128 + n for a signal.
pub(super) fn exit_code(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// Upstream makes jobs the first to go when memory is short.
fn protect_from_oom_killer(pid: u32) {
    let score = std::env::var("PIPELINE_JOB_OOMSCOREADJ").unwrap_or_else(|_| "500".into());
    // Not permitted in some sandboxes; the job runs all the same.
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score);
}
