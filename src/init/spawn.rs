//! Starting a child in a well-defined state.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, Pid, access, faccessat};

use crate::os::child::{Setup, prepare};
use crate::os::program::Program;

/// Where programs are looked for if no `PATH` says it, as musl does.
const USUAL_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Spawn {
    /// A path, or a name looked up in the child's `PATH`.
    pub program: OsString,
    /// Arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The child's whole environment; `None` hands on ours.
    pub env: Option<Vec<(OsString, OsString)>>,
    /// The child's working directory; `None` keeps ours.
    pub directory: Option<PathBuf>,
    /// Whether standard output and error come back to us through pipes, with standard input empty.
    pub captured: bool,
}

/// A child that was started. It is waited for by [`super::reap`], like everything else.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its process id, valid until [`super::reap`] has reported its end.
    pub pid: Pid,
    /// Its standard output and error, when captured.
    pub output: Option<(ChildStdout, ChildStderr)>,
}

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// No such program.
    #[error("{} cannot be found", .0.display())]
    NotFound(PathBuf),
    /// The program is there but may not or cannot be executed.
    #[error("{} cannot be executed: {}", .0.display(), .1)]
    NotExecutable(PathBuf, io::Error),
    /// The working directory cannot be entered.
    #[error("the working directory {} cannot be entered: {}", .0.display(), .1)]
    Directory(PathBuf, io::Error),
    /// The kernel refused something else on the way.
    #[error("{} cannot be started: {}{}", .0.display(), .1, hint(.1))]
    Other(PathBuf, io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (becoming another user needs the capabilities SETUID and SETGID)",
        Some(libc::EINVAL) => " (does this user namespace know the user and the group?)",
        Some(libc::EAGAIN) => " (the limit of processes is reached: see pids_limit and ulimit -u)",
        _ => "",
    }
}

impl SpawnError {
    /// The code that a shell would exit with: 127 not found, 126 not executable.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(..) => 126,
            Self::Directory(..) | Self::Other(..) => 125,
        }
    }
}

/// Starts the child.
///
/// # Errors
/// See [`SpawnError`]; nothing was started then, and nothing is left to be reaped.
pub(crate) fn spawn(what: &Spawn, setup: Setup) -> Result<Started, SpawnError> {
    let variables = match &what.env {
        // Of two variables with one name the later one counts.
        Some(env) => env.iter().cloned().collect::<BTreeMap<_, _>>().into_iter().collect(),
        None => std::env::vars_os().collect::<Vec<_>>(),
    };
    let candidates = candidates(&what.program, &variables);
    let other = |error| SpawnError::Other(PathBuf::from(&what.program), error);
    let program = Program::new(&candidates, &what.program, &what.args, &variables, setup.own_id).map_err(other)?;
    // It makes the process and its pipes; the program is ours to execute.
    let mut command = Command::new(&what.program);
    if let Some(directory) = &what.directory {
        // Tried here because the standard library's error would not say whether the directory or the program is at fault.
        if let Err(error) = enterable(directory) {
            return Err(SpawnError::Directory(directory.clone(), error));
        }
        command.current_dir(directory);
    }
    if what.captured {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let start = setup.directory.clone();
    prepare(&mut command, setup, program);
    match command.spawn() {
        Ok(mut child) => {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
            let output = child.stdout.take().zip(child.stderr.take());
            Ok(Started { pid, output })
        }
        Err(error) => {
            let exists = |path: &PathBuf| match (&start, &what.directory) {
                (Some(start), _) => faccessat(start, path.as_path(), AccessFlags::F_OK, AtFlags::empty()).is_ok(),
                (None, Some(directory)) => directory.join(path).exists(),
                (None, None) => path.exists(),
            };
            Err(classify(&what.program, error, || candidates.iter().any(&exists)))
        }
    }
}

/// Whether a directory is one, and may be entered.
///
/// # Errors
/// Why it cannot be.
pub(super) fn enterable(directory: &Path) -> io::Result<()> {
    if !std::fs::metadata(directory)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(directory, AccessFlags::X_OK)?)
}

/// Where a program may be: the path that it is named by, else in the directories of the child's `PATH`.
fn candidates(program: &OsStr, variables: &[(OsString, OsString)]) -> Vec<PathBuf> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.as_encoded_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    let path = variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    std::env::split_paths(path.unwrap_or(USUAL_PATH.as_ref())).map(|directory| directory.join(program)).collect()
}

fn classify(program: &OsStr, error: io::Error, exists: impl Fn() -> bool) -> SpawnError {
    let path = PathBuf::from(program);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            if exists() {
                // The file is there; what is missing is its interpreter or loader.
                let error =
                    io::Error::new(error.kind(), "its interpreter (the #! line or the dynamic loader) is missing");
                SpawnError::NotExecutable(path, error)
            } else {
                SpawnError::NotFound(path)
            }
        }
        Some(libc::ENOEXEC) => {
            let why = "it is no program for this machine, and no script that a /bin/sh here could run";
            SpawnError::NotExecutable(path, io::Error::new(error.kind(), why))
        }
        Some(libc::EACCES | libc::EISDIR | libc::ETXTBSY | libc::ELIBBAD) => SpawnError::NotExecutable(path, error),
        _ => SpawnError::Other(path, error),
    }
}
