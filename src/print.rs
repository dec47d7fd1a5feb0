//! Standard output and error of the commands that people and scripts call, who may stop reading when they have seen enough.

use std::io::{self, Write};

/// Standard output. Once nobody reads it any more, what is written is dropped, and the command ends as if it had been read: its
/// exit code says what it found, not who wanted to know.
pub(crate) fn out() -> Out<io::StdoutLock<'static>> {
    Out::to(io::stdout().lock())
}

/// Tells the user something in one line, on standard error. Unlike `eprintln!`, it survives one that cannot be written to.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().write_all(format!("oscr-entry: {text}\n").as_bytes());
}

/// See [`out`].
pub(crate) struct Out<W> {
    to: W,
    unread: bool,
}

impl<W: Write> Out<W> {
    fn to(to: W) -> Self {
        Self { to, unread: false }
    }

    fn unless_unread<T>(&mut self, instead: T, write: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.unread {
            return Ok(instead);
        }
        match write(&mut self.to) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(instead)
            }
            other => other,
        }
    }
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_unread(bytes.len(), |to| to.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_unread((), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_leaves_is_no_fault_and_a_full_disk_is() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut out = Out::to(writer);
        assert!(writeln!(out, "one").and_then(|()| writeln!(out, "two")).and_then(|()| out.flush()).is_ok());
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert!(writeln!(Out::to(full), "one").is_err());
    }
}
