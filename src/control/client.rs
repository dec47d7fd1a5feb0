//! Asking PID 1.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::PassCred;

use super::job::Job;
use super::protocol::{HookAnswer, HookEvent, HookRequest, PayloadHead, Request};
use super::status::Status;
use crate::policy::Evidence;

/// How long PID 1 may take to answer anything but a drain.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("no oscr-entry answers at {}: {} (is it running in this container?)", .0.display(), .1)]
    Nobody(PathBuf, io::Error),
    /// PID 1 ended before it answered.
    #[error("the runner ended")]
    Ended,
    /// It took too long.
    #[error("the runner did not answer in {} s", PATIENCE.as_secs())]
    Silent,
    #[error("refused: {0}")]
    Refused(String),
    /// Its answer makes no sense.
    #[error("the answer cannot be read: {0}")]
    Garbled(#[from] serde_json::Error),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
}

/// Connects so that all that is sent says who sent it: some kernels cannot tell the other end otherwise.
fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let stream = UnixStream::connect(socket).map_err(|error| ClientError::Nobody(socket.to_owned(), error))?;
    // Where that is not to be had, PID 1 is told by other means.
    let _ = setsockopt(&stream, PassCred, &true);
    Ok(stream)
}

/// Sends one request and returns the answer.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn ask(socket: &Path, request: &Request) -> Result<serde_json::Value, ClientError> {
    let mut stream = connect(socket)?;
    if !matches!(request, Request::Drain { .. }) {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer) {
        Ok(0) => return Err(ClientError::Ended),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(ClientError::Silent),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(ClientError::Ended);
        }
        Err(error) => return Err(error.into()),
    }
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    match answer["error"].as_str() {
        Some(refusal) => Err(ClientError::Refused(refusal.to_owned())),
        None => Ok(answer),
    }
}

/// Reports a hook, hands on to `told` what PID 1 says until its last word, and returns that.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn hook(
    socket: &Path,
    event: HookEvent,
    job: Job,
    evidence: &Evidence,
    mut told: impl FnMut(&HookAnswer),
) -> Result<HookAnswer, ClientError> {
    let mut stream = connect(socket)?;
    let (payload, bytes) = match &evidence.payload {
        None => (PayloadHead::None, &[][..]),
        Some(Ok(bytes)) => (PayloadHead::Bytes(bytes.len() as u64), bytes.as_slice()),
        Some(Err(why)) => (PayloadHead::Unreadable(why.clone()), &[][..]),
    };
    let request = HookRequest { event, job, facts: evidence.facts.clone(), failed: false, payload };
    let mut line = serde_json::to_vec(&Request::Hook(Box::new(request)))?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.write_all(bytes)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut answer = String::new();
        if reader.read_line(&mut answer)? == 0 {
            return Err(ClientError::Ended);
        }
        let answer: HookAnswer = serde_json::from_str(&answer)?;
        match answer {
            HookAnswer::Wait { .. } => told(&answer),
            HookAnswer::Failed { .. } => {
                told(&answer);
                reader.get_mut().write_all(b"\n")?;
            }
            HookAnswer::Go { .. } | HookAnswer::Refused { .. } => return Ok(answer),
        }
    }
}

/// Tells that a hook failed, and with it the job. Whether anybody hears it changes nothing for the job.
pub(crate) fn hook_failed(socket: &Path, event: HookEvent) {
    let (job, facts, payload) = Default::default();
    let _ = ask(socket, &Request::Hook(Box::new(HookRequest { event, job, facts, failed: true, payload })));
}

/// Asks for the status.
///
/// # Errors
/// See [`ClientError`].
pub(crate) fn status(socket: &Path) -> Result<Status, ClientError> {
    Ok(serde_json::from_value(ask(socket, &Request::Status)?)?)
}
