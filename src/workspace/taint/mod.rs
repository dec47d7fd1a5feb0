//! Whether the file system outside the wiped places is still what it was before any job ran.
//!
//! The image keeps a **baseline**: every file with its metadata and a digest, written when it was built. When a container
//! starts for the first time, before any job, it writes a **reference** of its own beside it: the baseline's lines where they
//! still hold, new ones for what the runtime or a later build step added. After each job and at each start the files are
//! compared with the reference. Reading all content would take seconds; a look at the metadata takes a fraction of one. So content is
//! only read where the time of the last change of the inode (ctime), which nobody can set, is later than the last look
//! that found all well.
//!
//! What appears in a directory that the agent's user could write is an ordinary leftover and is removed. Everything else, only
//! somebody with root's powers can have done, or it cannot be undone: the container is tainted.
//!
//! Reference, mark and verdict lie on the very file system that they describe, so they live exactly as long.

mod lines;
mod record;
mod shipped;
mod survey;

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, lstat};

use super::wipe::{Spare, Wiped, wipe};
use crate::os::{Identity, directory, mounts};
use lines::{Digesting, RecordReader, write_new};
use record::{Attributes, Record, digest};
pub(crate) use shipped::{Shipped, shipped};
pub(crate) use survey::{Skip, Skips};
use survey::{is_skipped, walk};

/// Where the image keeps its baseline, from the root on.
const BASELINE: &str = "opt/oscr/baseline";
/// Where the container keeps what it knows of itself.
const OWN: &str = "opt/oscr/container";
/// Files of ours are read even where the baseline does not know them: PID 1 links to them, which changes their ctime.
const OURS: &str = "opt/oscr";
/// What the runtime that gives a container GPUs writes anew at each start, with the same content.
const OF_THE_RUNTIME: &str = "etc/ld.so.cache";
/// How many changes are described; the rest is counted only.
const DESCRIBED: usize = 20;

/// A container's file system, as it should be.
#[derive(Debug, Clone)]
pub(crate) struct Custody {
    root: PathBuf,
    /// Where it keeps what it knows.
    own: PathBuf,
    /// Where the root is, from the main root on: what is not there is described without.
    shown: PathBuf,
    /// Whether all content is read when all is taken for what it should be.
    reads_all: bool,
    /// A tree that is skipped above and came later, such as an agent that was fetched.
    beside: Option<Box<Custody>>,
    agent: Identity,
    skips: Skips,
    /// When all was well. What changed since is read.
    since: Option<(i64, i64)>,
    /// The digest of the reference, kept where no job can change it.
    reference: Option<[u8; 32]>,
}

/// What a look found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// What differs, in words; the first few.
    pub changes: Vec<String>,
    /// How much differs.
    pub changed: u64,
    /// What was removed from places that the agent's user can write.
    pub removed: Wiped,
    /// Files looked at.
    pub files: u64,
    /// Files whose content was read.
    pub read: u64,
    /// How long it took.
    pub took: Duration,
}

impl Findings {
    /// What differs, for people.
    #[must_use]
    pub(crate) fn summary(&self) -> String {
        let more = self.changed - u64::try_from(self.changes.len()).unwrap_or(0);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{more}", self.changes.join(", "))
    }

    /// Adds what was found in another tree.
    fn take(&mut self, other: Self) {
        self.changed += other.changed;
        let room = DESCRIBED.saturating_sub(self.changes.len());
        self.changes.extend(other.changes.into_iter().take(room));
        self.removed += other.removed;
        self.files += other.files;
        self.read += other.read;
    }

    fn differs(&mut self, path: &Path, how: &str) {
        self.changed += 1;
        if self.changes.len() < DESCRIBED {
            self.changes.push(format!("/{} ({how})", path.display()));
        }
    }
}

/// Writes the baseline of the file system below `root`: the last step of building an image. The number of files.
///
/// # Errors
/// When something cannot be read, or the baseline not be written.
pub(crate) fn write_baseline(root: &Path) -> io::Result<u64> {
    let skips = [(BASELINE.into(), Skip::All), (OWN.into(), Skip::All)].into_iter().chain(mounted(root)).collect();
    let mut count = 0;
    DirBuilder::new().recursive(true).create(root.join(OURS))?;
    write_new(&root.join(BASELINE), |out| {
        walk(root, &skips, |survey| {
            while let Some(stat) = survey.next() {
                let mut record = Record::of(survey.path(), &stat);
                record.digest = digest(&root.join(&record.path), record.seen.kind)?;
                record.write(out)?;
                count += 1;
                if record.seen.kind == 'd' {
                    survey.enter()?;
                }
            }
            Ok(())
        })
    })?;
    Ok(count)
}

/// What is mounted below the root: files of the host, of volumes, of the kernel.
fn mounted(root: &Path) -> impl Iterator<Item = (PathBuf, Skip)> {
    let inside = |mount: mounts::Mount| Some(mount.point.strip_prefix(root).ok()?.to_owned());
    let points: Vec<PathBuf> = mounts::list().unwrap_or_default().into_iter().filter_map(inside).collect();
    points.into_iter().filter(|point| !point.as_os_str().is_empty()).map(|point| (point, Skip::All))
}

impl Custody {
    /// Of the file system below `root`, but for what is mounted there and `skips`, which are absolute. `None` where no job can
    /// change anything: when the file system is read-only.
    #[must_use]
    pub(crate) fn of(root: &Path, agent: &Identity, skips: impl IntoIterator<Item = (PathBuf, Skip)>) -> Option<Self> {
        use nix::sys::statvfs::{FsFlags, statvfs};
        if statvfs(root).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY)) {
            return None;
        }
        let below = |(path, skip): (PathBuf, Skip)| Some((path.strip_prefix(root).ok()?.to_owned(), skip));
        let own = [(PathBuf::from(OWN), Skip::All)];
        let skips = skips.into_iter().filter_map(below).chain(own).chain(mounted(root)).collect();
        Some(Self {
            root: root.to_owned(),
            own: root.join(OWN),
            shown: PathBuf::new(),
            reads_all: false,
            beside: None,
            agent: agent.clone(),
            skips,
            since: None,
            reference: None,
        })
    }

    /// Of a tree below the same root that is skipped and that nobody but this program may write, called `name`.
    #[must_use]
    pub(crate) fn of_tree(&self, tree: &Path, name: &str) -> Self {
        Self {
            root: tree.to_owned(),
            own: self.root.join(OWN).join(name),
            shown: tree.strip_prefix(&self.root).unwrap_or(tree).to_owned(),
            reads_all: true,
            beside: None,
            agent: self.agent.clone(),
            skips: Skips::new(),
            since: None,
            reference: None,
        }
    }

    /// Looks at such a tree too from now on, in the place of an earlier one. Its reference must be there: `false` if it is not.
    pub(crate) fn watch(&mut self, tree: Self) -> bool {
        let known = tree.own("reference").exists();
        self.beside = known.then(|| Box::new(tree));
        known
    }

    /// Forgets what such trees were like, but for the one called `name`.
    pub(crate) fn forget_trees(&self, name: &OsStr) {
        for entry in fs::read_dir(&self.own).into_iter().flatten().flatten() {
            if entry.file_name() != name && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn own(&self, name: &str) -> PathBuf {
        self.own.join(name)
    }

    /// What was found in an earlier life of this container, if it is tainted.
    #[must_use]
    pub(crate) fn condemned(&self) -> Option<String> {
        fs::read(self.own("tainted")).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// Has every later life of this container know.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub(crate) fn condemn(&self, why: &str) -> io::Result<()> {
        write_new(&self.own("tainted"), |out| out.write_all(why.as_bytes()))
    }

    /// Whether nothing is known yet of what the container should be like: no job can have run in it.
    #[must_use]
    pub(crate) fn is_new(&self) -> bool {
        self.reference.is_none() && !self.own("reference").exists()
    }

    /// Knows from now on what `other`, of the same file system, found when it [took all for what it should be](Self::establish).
    pub(crate) fn learn(&mut self, other: &Self) {
        (self.since, self.reference) = (other.since, other.reference);
    }

    /// Compares; in the first life of a container, writes the reference. `None` then.
    ///
    /// # Errors
    /// When something cannot be read, or removed, or written.
    pub(crate) fn look(&mut self) -> io::Result<Option<Findings>> {
        let started = Instant::now();
        if self.is_new() {
            self.establish()?;
            return Ok(None);
        }
        self.recall();
        let mut findings = self.compare()?;
        if let Some(beside) = &mut self.beside {
            beside.recall();
            findings.take(beside.compare()?);
        }
        findings.took = started.elapsed();
        Ok(Some(findings))
    }

    /// When all was well, by the mark of an earlier life.
    fn recall(&mut self) {
        if self.since.is_none() {
            self.since = written(&self.own("mark")).ok();
        }
    }

    /// All is well now: what changed earlier need not be read again. To be called after changes of our own.
    ///
    /// # Errors
    /// When the mark cannot be made.
    pub(crate) fn mark(&mut self) -> io::Result<()> {
        if let Some(beside) = &mut self.beside {
            beside.mark()?;
        }
        let mark = self.own("mark");
        // By the clock that makes the ctimes, whichever that is.
        fs::write(&mark, "all was well when this was written\n")?;
        self.since = Some(written(&mark)?);
        Ok(())
    }

    /// Takes the file system as it is for what it should be.
    ///
    /// # Errors
    /// When it cannot be read, or the reference not be written.
    pub(crate) fn establish(&mut self) -> io::Result<()> {
        if let Some(beside) = &mut self.beside {
            beside.establish()?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.own)?;
        let mut baseline = RecordReader::of(&self.root.join(BASELINE))?;
        let mut written = None;
        write_new(&self.own("reference"), |out| {
            let mut out = BufWriter::new(Digesting::of(out));
            walk(&self.root, &self.skips, |survey| {
                while let Some(stat) = survey.next() {
                    let mut record = Record::of(survey.path(), &stat);
                    let looked = match baseline.find(&record.path, drop)? {
                        Some(known) if known.holds_for(&record) => {
                            record = known;
                            Ok(())
                        }
                        _ if record.seen.kind != 'f' || self.reads_all || is_always_read(&record.path) => {
                            digest(&self.root.join(&record.path), record.seen.kind).map(|digest| record.digest = digest)
                        }
                        _ => Ok(()),
                    };
                    let entered = looked.and_then(|()| if record.seen.kind == 'd' { survey.enter() } else { Ok(()) });
                    match entered {
                        Ok(()) => record.write(&mut out)?,
                        // Others go on meanwhile, and may take away what was listed.
                        Err(_) if is_gone(&self.root.join(&record.path)) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            })?;
            written = Some(out.into_inner().map_err(io::IntoInnerError::into_error)?.digest());
            Ok(())
        })?;
        self.reference = written;
        self.mark()
    }

    fn compare(&mut self) -> io::Result<Findings> {
        let mut findings = Findings::default();
        let mut reference = RecordReader::of(&self.own("reference"))?;
        // Of the directories that lead to the current one: whether the agent's user could write there.
        let mut above: Vec<Reach> = Vec::new();
        // What is missing or something else now: all that was in it is missing too, and is said once.
        let mut gone: Option<PathBuf> = None;
        walk(&self.root, &self.skips, |survey| {
            while let Some(stat) = survey.next() {
                let path = survey.path();
                findings.files += 1;
                let known = reference.find(path, |record| self.missing(record, &mut gone, &mut findings))?;
                above.truncate(survey.depth());
                let reach = above.last().copied().unwrap_or(Reach::ROOT);
                let Some(known) = known else {
                    if self.since.is_some_and(|since| changed(&stat) < since) {
                        // It was there when all was well: a listing left it out.
                        tracing::debug!("/{} is not in the reference, and older", path.display());
                    } else if reach.writes {
                        findings.removed += remove(&self.root.join(path), &stat)?;
                    } else {
                        findings.differs(path, "new");
                    }
                    continue;
                };
                if let Some(how) = self.difference(&known, &stat, &mut findings.read)? {
                    findings.differs(path, how);
                }
                if known.seen.kind == 'd' && directory::is_one(&stat) {
                    survey.enter()?;
                    above.push(reach.into(&known.seen, &self.agent));
                } else if known.seen.kind == 'd' {
                    gone = Some(known.path);
                }
            }
            Ok(())
        })?;
        while let Some(record) = reference.advance()? {
            self.missing(record, &mut gone, &mut findings);
        }
        let digest = reference.digest();
        if *self.reference.get_or_insert(digest) != digest {
            findings.differs(&Path::new(OWN).join("reference"), "content");
        }
        if !self.shown.as_os_str().is_empty() {
            for change in &mut findings.changes {
                // The root of the tree itself has no path.
                let change_there = if change.starts_with("/ (") { &change[1..] } else { change.as_str() };
                *change = format!("/{}{change_there}", self.shown.display());
            }
        }
        Ok(findings)
    }

    fn missing(&self, record: Record, gone: &mut Option<PathBuf>, findings: &mut Findings) {
        // Something may have been mounted over it since.
        if is_skipped(&self.skips, &record.path) || gone.as_ref().is_some_and(|gone| record.path.starts_with(gone)) {
            return;
        }
        let how = match lstat(&self.root.join(&record.path)) {
            // A listing left it out. What is in it is compared by the next look.
            Ok(stat) => match self.difference(&record, &stat, &mut findings.read) {
                Ok(how) => how,
                Err(_) => Some("unreadable"),
            },
            Err(_) => Some("missing"),
        };
        if let Some(how) = how {
            findings.differs(&record.path, how);
        }
        *gone = Some(record.path);
    }

    /// How a file differs from its record.
    fn difference(&self, known: &Record, stat: &FileStat, read: &mut u64) -> io::Result<Option<&'static str>> {
        let (now, then) = (Attributes::of(stat), &known.seen);
        if now.kind != then.kind {
            return Ok(Some("another kind of file"));
        }
        if now.mode != then.mode {
            return Ok(Some("mode"));
        }
        if (now.uid, now.gid) != (then.uid, then.gid) {
            return Ok(Some("owner"));
        }
        if now.size != then.size {
            return Ok(Some("content"));
        }
        let touched = self.since.is_some_and(|since| changed(stat) >= since);
        if !touched && now.modified == then.modified {
            return Ok(None);
        }
        if then.kind == 'f' && known.digest.is_none() {
            // It was there when the container was made, and nobody read it then.
            return Ok(Some("changed"));
        }
        *read += 1;
        let same = digest(&self.root.join(&known.path), then.kind)? == known.digest;
        Ok((!same).then_some(if then.kind == 'd' { "rights" } else { "content" }))
    }
}

fn is_always_read(path: &Path) -> bool {
    path.starts_with(OURS) || path == Path::new(OF_THE_RUNTIME)
}

fn is_gone(path: &Path) -> bool {
    lstat(path) == Err(Errno::ENOENT)
}

/// The time of the last change of an inode.
fn changed(stat: &FileStat) -> (i64, i64) {
    (stat.st_ctime, stat.st_ctime_nsec)
}

/// The same of a mark.
fn written(mark: &Path) -> io::Result<(i64, i64)> {
    Ok(changed(&lstat(mark)?))
}

/// What the agent's user can do in a directory.
#[derive(Debug, Clone, Copy)]
struct Reach {
    enters: bool,
    writes: bool,
}

impl Reach {
    const ROOT: Self = Self { enters: true, writes: false };

    /// In a directory inside this one, as its permissions were before any job. Lists of access rights (ACLs) are not looked
    /// at: what somebody writes by their grace alone counts as root's doing.
    fn into(self, directory: &Attributes, agent: &Identity) -> Self {
        let digit = if directory.uid == agent.uid.as_raw() {
            directory.mode >> 6
        } else if agent.groups.iter().chain([&agent.gid]).any(|gid| gid.as_raw() == directory.gid) {
            directory.mode >> 3
        } else {
            directory.mode
        };
        let enters = self.enters && digit & 1 != 0;
        Self { enters, writes: enters && digit & 2 != 0 }
    }
}

fn remove(path: &Path, stat: &FileStat) -> io::Result<Wiped> {
    let mut wiped = Wiped::default();
    if directory::is_one(stat) {
        wiped = wipe(path, &Spare::default())?;
        if let Some(failure) = wiped.failures.first() {
            return Err(io::Error::other(failure.clone()));
        }
        fs::remove_dir(path)?;
    } else {
        fs::remove_file(path)?;
        wiped.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    }
    wiped.entries += 1;
    Ok(wiped)
}

#[cfg(test)]
mod tests;
