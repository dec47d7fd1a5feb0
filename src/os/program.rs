//! Executing a program as `execvp(3)` does, from what was made ready before the fork.
//!
//! musl's own `execvp` is none that POSIX describes: it leaves a script without `#!` to its caller.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use libc::c_char;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::read;

/// What runs a script that does not say what runs it.
const SHELL: &CStr = c"/bin/sh";

/// Digits that a process id may have.
const DIGITS: usize = 10;

unsafe extern "C" {
    /// The C library's list of our variables.
    static environ: *const *const c_char;
}

/// A program with its arguments and its environment, ready to be executed without any allocation.
pub(crate) struct Program {
    /// Where it may be, in the order in which that is tried.
    candidates: Vec<CString>,
    /// The shell, the program's name, its arguments, and the end: from the second on it is the program's own list.
    words: Vec<*const c_char>,
    /// `None` is the environment that we have.
    variables: Option<Vec<*const c_char>>,
    /// What the lists point to.
    _texts: Vec<CString>,
    own_id: Option<OwnId>,
}

/// A variable that is to hold the process id of the program.
struct OwnId {
    /// `NAME=` and room for the number.
    text: Vec<u8>,
    name_ends: usize,
    place: usize,
}

// SAFETY: the pointers lead to strings on the heap that this value owns and never changes; `OwnId::text` is changed by `execute`
// alone, which has the value to itself.
unsafe impl Send for Program {}
// SAFETY: the same; a shared reference lets nobody change anything.
unsafe impl Sync for Program {}

impl Program {
    /// A program that is at one of these places, with these variables or else with ours. If one of them has the name `own_id`, it is given
    /// the process id.
    ///
    /// # Errors
    /// `InvalidInput` when one of the texts has a NUL.
    pub(crate) fn new(
        candidates: &[PathBuf],
        name: &OsStr,
        arguments: &[OsString],
        variables: Option<&[(OsString, OsString)]>,
        own_id: Option<&str>,
    ) -> io::Result<Self> {
        let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
        let mut texts = Vec::with_capacity(1 + arguments.len() + variables.map_or(0, <[_]>::len));
        texts.push(text(name)?);
        for argument in arguments {
            texts.push(text(argument)?);
        }
        let first_variable = texts.len();
        let mut id = None;
        for (at, (name, value)) in variables.unwrap_or_default().iter().enumerate() {
            let mut pair = name.clone().into_vec();
            pair.push(b'=');
            if own_id.is_some_and(|own| name == own) {
                let name_ends = pair.len();
                pair.resize(name_ends + DIGITS + 1, 0);
                id = Some(OwnId { text: pair, name_ends, place: at });
                // Holds the place in the list.
                texts.push(CString::default());
                continue;
            }
            pair.extend(value.as_bytes());
            texts.push(text(OsStr::from_bytes(&pair))?);
        }
        let end = [std::ptr::null()];
        let list = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).chain(end).collect::<Vec<_>>();
        let mut words = vec![SHELL.as_ptr()];
        words.extend(list(&texts[..first_variable]));
        Ok(Self {
            candidates: candidates.iter().map(|path| text(path.as_os_str())).collect::<io::Result<_>>()?,
            words,
            variables: variables.map(|_| list(&texts[first_variable..])),
            _texts: texts,
            own_id: id,
        })
    }

    /// Makes this process the program; returns only if that fails. Async-signal-safe, and allocates nothing.
    ///
    /// Like `execvp(3)` it goes on behind what is not there or not ours to execute, and hands a script that has no `#!` line to the
    /// shell. A program for another kind of machine is no script, and stays an error (`ENOEXEC`) here.
    pub(crate) fn execute(&mut self) -> io::Error {
        if let (Some(id), Some(variables)) = (&mut self.own_id, &mut self.variables) {
            id.write(std::process::id());
            variables[id.place] = id.text.as_ptr().cast();
        }
        let mut failed = libc::ENOENT;
        for candidate in &self.candidates {
            match self.replace(candidate, &self.words[1..]) {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => failed = libc::EACCES,
                libc::ENOEXEC if is_text(candidate) => {
                    self.words[1] = candidate.as_ptr();
                    self.replace(SHELL, &self.words);
                    failed = libc::ENOEXEC;
                    break;
                }
                other => {
                    failed = other;
                    break;
                }
            }
        }
        io::Error::from_raw_os_error(failed)
    }

    /// One try, and the number of its error.
    fn replace(&self, path: &CStr, words: &[*const c_char]) -> i32 {
        // SAFETY: it is read, and nothing in this program ever changes the environment.
        let variables = self.variables.as_ref().map_or_else(|| unsafe { environ }, |list| list.as_ptr());
        // SAFETY: the path is a string, all lists end with a null pointer, and what they point to lives as long as `self` or for ever.
        unsafe { libc::execve(path.as_ptr(), words.as_ptr(), variables) };
        io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
    }
}

impl OwnId {
    fn write(&mut self, id: u32) {
        let mut digits = [0; DIGITS];
        let (mut rest, mut first) = (id, DIGITS);
        loop {
            first -= 1;
            digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let number = &digits[first..];
        self.text[self.name_ends..self.name_ends + number.len()].copy_from_slice(number);
    }
}

/// Whether the file that the kernel does not know how to execute may be a script: as shells see it, there is no NUL in the first
/// line. What cannot be read is for the shell to complain about. Async-signal-safe, and allocates nothing.
fn is_text(path: &CStr) -> bool {
    let Ok(file) = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty()) else {
        return true;
    };
    let mut head = [0; 128];
    let count = read(&file, &mut head).unwrap_or(0);
    !head[..count].iter().take_while(|byte| **byte != b'\n').any(|byte| *byte == 0)
}

/// What runs a script that does not say what runs it.
#[must_use]
pub(crate) fn shell() -> &'static OsStr {
    OsStr::from_bytes(SHELL.to_bytes())
}

/// Whether it is the shell that must run this file, which an attempt to execute it ended with `error`.
#[must_use]
pub(crate) fn is_for_the_shell(file: &Path, error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOEXEC)
        && CString::new(file.as_os_str().as_bytes()).is_ok_and(|file| is_text(&file))
}

/// Whether a descriptor is open and was so when this program was executed: all that we open ourselves end with an `exec`.
#[must_use]
pub(crate) fn was_inherited(fd: RawFd) -> bool {
    // SAFETY: F_GETFD asks about a number; one that is not open fails with EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_any_length_is_written_behind_the_name() {
        for (id, text) in [(0, "A=0"), (7, "A=7"), (4_194_304, "A=4194304"), (u32::MAX, "A=4294967295")] {
            let mut own = OwnId { text: [b"A=".to_vec(), vec![0; DIGITS + 1]].concat(), name_ends: 2, place: 0 };
            own.write(id);
            assert_eq!(CStr::from_bytes_until_nul(&own.text).unwrap().to_str(), Ok(text));
        }
    }

    #[test]
    fn a_program_of_another_machine_is_no_script() {
        let folder = tempfile::tempdir().unwrap();
        let text = |content: &[u8]| {
            let file = folder.path().join("file");
            std::fs::write(&file, content).unwrap();
            is_for_the_shell(&file, &io::Error::from_raw_os_error(libc::ENOEXEC))
        };
        assert!(text(b"echo x\n") && text(b"") && text(b"tail -n +3 \"$0\" | tar x\n\0\0"));
        assert!(!text(b"\x7fELF\x02\x01\x01\0\0\0"));
        assert!(!is_for_the_shell(&folder.path().join("file"), &io::Error::from_raw_os_error(libc::EACCES)));
        assert!(Program::new(&[], "a\0b".as_ref(), &[], None, None).is_err());
    }
}
