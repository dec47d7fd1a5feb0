//! Baselines and references as files: written in one step, read line by line, each with a digest of its own.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::digest::{Context, SHA256};

use super::record::Record;

/// What is written, and the digest of it.
pub(super) struct Digesting<W> {
    out: W,
    context: Context,
}

impl<W> Digesting<W> {
    pub(super) fn of(out: W) -> Self {
        Self { out, context: Context::new(&SHA256) }
    }

    pub(super) fn digest(self) -> [u8; 32] {
        finish(self.context)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.context.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn finish(context: Context) -> [u8; 32] {
    context.finish().as_ref().try_into().unwrap_or_default()
}

/// Writes a file for root alone, in one step.
pub(super) fn write_new(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&new, path)
}

/// As `Path` orders them, of which neither has more slashes than it needs: without taking each apart for every comparison.
fn order(a: &Path, b: &Path) -> Ordering {
    let [a, b] = [a, b].map(|path| path.as_os_str().as_bytes());
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    // What ends comes first, and then what leads on: no name has a zero.
    let next = |path: &[u8]| path.get(same).map(|byte| if *byte == b'/' { 0 } else { *byte });
    next(a).cmp(&next(b))
}

/// Reads a baseline or a reference line by line, and knows its digest at the end.
pub(super) struct RecordReader {
    reader: Option<BufReader<File>>,
    context: Context,
    line: Vec<u8>,
    next: Option<Record>,
}

impl RecordReader {
    /// A missing file has no lines.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let reader = match File::open(path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut lines = Self { reader, context: Context::new(&SHA256), line: Vec::new(), next: None };
        lines.advance()?;
        Ok(lines)
    }

    pub(super) fn advance(&mut self) -> io::Result<Option<Record>> {
        self.line.clear();
        if let Some(reader) = &mut self.reader {
            // A path has 4096 bytes at most, each written as four.
            reader.by_ref().take(1 << 15).read_until(b'\n', &mut self.line)?;
        }
        self.context.update(&self.line);
        let next = match self.line.strip_suffix(b"\n") {
            None => None,
            Some(line) => Some(Record::parse(line).ok_or(io::ErrorKind::InvalidData)?),
        };
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// The record of `path`, after handing all before it to `passed`.
    pub(super) fn find(&mut self, path: &Path, mut passed: impl FnMut(Record)) -> io::Result<Option<Record>> {
        loop {
            match self.next.as_ref().map(|record| order(&record.path, path)) {
                Some(Ordering::Less) => self.advance()?.into_iter().for_each(&mut passed),
                Some(Ordering::Equal) => return self.advance(),
                Some(Ordering::Greater) | None => return Ok(None),
            }
        }
    }

    pub(super) fn digest(self) -> [u8; 32] {
        finish(self.context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_paths() {
        let paths = ["", "a", "a/b", "a/b/c", "a/b.c", "a b", "a-", "a.b", "a0", "ab", "b"].map(Path::new);
        for a in paths {
            for b in paths {
                assert_eq!(order(a, b), a.cmp(b), "{} {}", a.display(), b.display());
            }
        }
    }
}
