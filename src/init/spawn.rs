//! Starting a child in a well-defined state.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, Pid, access, faccessat};

use crate::os::child::{Setup, prepare, start};
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
    // Of two variables with one name the later one counts.
    let unique = |env: &Vec<_>| env.iter().cloned().collect::<BTreeMap<OsString, _>>().into_iter().collect::<Vec<_>>();
    let variables = what.env.as_ref().map(unique);
    let candidates = candidates(&what.program, variables.as_deref());
    let other = |error| SpawnError::Other(PathBuf::from(&what.program), error);
    let program =
        Program::new(&candidates, &what.program, &what.args, variables.as_deref(), setup.own_id).map_err(other)?;
    if let Some(directory) = &what.directory {
        // Tried here because the standard library's error would not say whether the directory or the program is at fault.
        enterable(directory).map_err(|error| SpawnError::Directory(directory.clone(), error))?;
    }
    let begins = setup.directory.clone();
    make(what, setup, program).map_err(|error| {
        let exists = |path: &PathBuf| match (&begins, &what.directory) {
            (Some(begins), _) => faccessat(begins, path.as_path(), AccessFlags::F_OK, AtFlags::empty()).is_ok(),
            (None, Some(directory)) => directory.join(path).exists(),
            (None, None) => path.exists(),
        };
        classify(&what.program, error, || candidates.iter().any(&exists))
    })
}

/// Makes the process, which executes the program.
fn make(what: &Spawn, setup: Setup, mut program: Program) -> io::Result<Started> {
    if !what.captured && what.directory.is_none() && setup.identity.is_none() {
        return Ok(Started { pid: start(&setup, &mut program)?, output: None });
    }
    // The standard library's command forks, and makes the pipes; the program is ours to execute.
    let mut command = Command::new(&what.program);
    if let Some(directory) = &what.directory {
        command.current_dir(directory);
    }
    if what.captured {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    prepare(&mut command, setup, program);
    let mut child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let output = child.stdout.take().zip(child.stderr.take());
    Ok(Started { pid, output })
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
fn candidates(program: &OsStr, variables: Option<&[(OsString, OsString)]>) -> Vec<PathBuf> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.as_encoded_bytes().contains(&b'/') {
        return vec![PathBuf::from(program)];
    }
    let path = match variables {
        Some(variables) => variables.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone()),
        None => std::env::var_os("PATH"),
    };
    std::env::split_paths(path.as_deref().unwrap_or(USUAL_PATH.as_ref()))
        .map(|directory| directory.join(program))
        .collect()
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
