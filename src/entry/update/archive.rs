//! Archives of agents: where they lie, alone or shared by the containers of a host, and how one is fetched for all.
//!
//! Nobody is trusted for having put one there: its checksum is proved by each container, before each use.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use tokio::time::sleep;

use super::halt::Halt;
use crate::encode::hex;
use crate::entry::work::on_a_thread;
use crate::os::priority;
use crate::provider::finding::is_newer;
use crate::provider::{Fault, Package, Provider, architecture};
use crate::workspace::Space;
use crate::workspace::space::shown;

/// How often the lock is tried while another container fetches, and the disk looked at while we do.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AT_DISK: Duration = Duration::from_millis(250);

/// Where they lie.
#[derive(Debug, Clone)]
pub(super) struct Archives {
    directory: PathBuf,
    /// Whether other containers may write there.
    shared: bool,
    /// What the names of ours begin with.
    prefix: String,
    /// How much must stay free on that disk.
    space: Space,
}

impl Archives {
    /// Those of a forge's agent in a directory for root alone.
    pub(super) fn of(provider: &str, directory: PathBuf, shared: bool, least: Option<u64>) -> Self {
        let space = Space::new(least, &directory, []);
        Self { directory, shared, prefix: format!("{provider}-{}-", architecture()), space }
    }

    fn path(&self, version: &str) -> PathBuf {
        self.directory.join(format!("{}{version}.tar.gz", self.prefix))
    }

    /// Has the archive of a version there, with the checksum that the forge names: one container fetches it, others wait. Given
    /// up by being dropped.
    ///
    /// # Errors
    /// Why it is not there, for people.
    pub(super) async fn obtain(
        &self,
        provider: &Rc<dyn Provider>,
        package: &Package,
        sha256: &str,
    ) -> Result<(), String> {
        let on_disk = |error: io::Error| format!("{} cannot be written: {error}", self.directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(on_disk)?;
        let path = self.path(&package.version);
        if self.has(&path, sha256).await {
            return Ok(());
        }
        let _lock = if self.shared { Some(self.lock().await.map_err(on_disk)?) } else { None };
        // Whoever had the lock before us may have fetched it.
        if self.has(&path, sha256).await {
            return Ok(());
        }
        tracing::info!("fetching version {} of the agent", package.version);
        let part = Part(path.with_extension("part"));
        let mut file = open(&part.0, OpenOptions::new().write(true).create(true).truncate(true)).map_err(on_disk)?;
        let fetched = tokio::select! {
            fetched = provider.download(package, &mut file) => fetched,
            why = self.full() => return Err(format!("it cannot be written: {why}")),
        };
        provider.rest();
        let found = fetched.map_err(|fault| match fault {
            Fault::Unreachable(why) => why,
            fault => fault.to_string(),
        })?;
        if !found.eq_ignore_ascii_case(sha256) {
            return Err(format!("{} has the SHA-256 {found} instead of {sha256}, and is not used", package.url));
        }
        fs::rename(&part.0, &path).map_err(on_disk)?;
        self.forget(|version| is_newer(&package.version, version));
        Ok(())
    }

    /// Whether it is there, and what it should be.
    async fn has(&self, path: &Path, sha256: &str) -> bool {
        let Ok(mut file) = open(path, OpenOptions::new().read(true)) else { return false };
        let expected = sha256.to_owned();
        let halt = Halt::default();
        let held = halt.held();
        on_a_thread(move || {
            priority::step_back();
            proves(&mut file, &mut io::sink(), &expected, &held).is_ok()
        })
        .await
    }

    /// The archive of a version, proved, in a file that nobody else can change. Takes as long as reading it.
    ///
    /// # Errors
    /// When it is not there, or not what the forge says.
    pub(super) fn take(&self, version: &str, sha256: &str, held: &Halt) -> io::Result<File> {
        let mut file = open(&self.path(version), OpenOptions::new().read(true))?;
        if self.shared {
            let mut own = nameless(&self.directory)?;
            proves(&mut file, &mut own, sha256, held)?;
            file = own;
        } else {
            proves(&mut file, &mut io::sink(), sha256, held)?;
        }
        file.rewind()?;
        Ok(file)
    }

    /// An agent was made of this version's: one of our own is not needed any more.
    pub(super) fn used(&self, version: &str) {
        if !self.shared {
            self.forget(|other| other == version || is_newer(version, other));
        }
    }

    /// Removes archives of ours by their version, and what is left of some that were never whole.
    fn forget(&self, goes: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let version = name
                .strip_prefix(&self.prefix)
                .and_then(|rest| rest.strip_suffix(".tar.gz").or_else(|| rest.strip_suffix(".tar.part")));
            if version.is_some_and(&goes)
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!("{} cannot be removed: {error}", entry.path().display());
            }
        }
    }

    /// The right to fetch. It is tried rather than waited for, so that whoever waits can be stopped.
    async fn lock(&self) -> io::Result<File> {
        let directory = File::open(&self.directory)?;
        let mut told = false;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(directory),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::debug!("another container fetches a newer agent for all that share the archives");
                    }
                    sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    /// Resolves once the disk is too full to go on.
    async fn full(&self) -> String {
        loop {
            if let Some(why) = shortage(&self.space) {
                return why;
            }
            sleep(LOOK_AT_DISK).await;
        }
    }
}

/// Why no more may be written: a job that comes must find its space.
pub(super) fn shortage(space: &Space) -> Option<String> {
    let full = space.look().into_iter().find(|room| room.free < room.least)?;
    let (place, free, least) = (full.place.display(), shown(full.free), shown(full.least));
    Some(format!("{place} has {free} free, and {least} are kept for jobs (OSCR_MIN_FREE)"))
}

/// What is being fetched, removed unless it was given its name.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens a file of ours, never through a link.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK).open(path)
}

/// A file that has lost its name. Not O_TMPFILE, which overlay file systems have not known for long.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("{:016x}.part", getrandom::u64().map_err(io::Error::other)?));
    let file = open(&path, OpenOptions::new().read(true).write(true).create_new(true))?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Copies all of a file, and proves its SHA-256.
fn proves(from: &mut File, to: &mut impl Write, sha256: &str, held: &Halt) -> io::Result<()> {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        held.check()?;
        let length = from.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        digest.update(&buffer[..length]);
        to.write_all(&buffer[..length])?;
    }
    let found = hex(digest.finish().as_ref());
    if found.eq_ignore_ascii_case(sha256) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has the SHA-256 {found} instead of {sha256}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(content: &[u8]) -> String {
        hex(ring::digest::digest(&SHA256, content).as_ref())
    }

    fn archives(directory: &Path, shared: bool) -> Archives {
        Archives::of("github", directory.to_owned(), shared, Some(0))
    }

    #[test]
    fn what_another_container_left_is_proved_and_then_out_of_its_reach() {
        let directory = tempfile::tempdir().unwrap();
        for shared in [true, false] {
            let archives = archives(directory.path(), shared);
            let path = archives.path("2.339.0");
            fs::write(&path, "an archive").unwrap();
            let take = |sha256: &str| archives.take("2.339.0", sha256, &Halt::default());
            assert!(take(&sum(b"another")).unwrap_err().to_string().contains("instead of"));
            let mut taken = take(&sum(b"an archive").to_uppercase()).unwrap();
            if shared {
                fs::write(&path, "EVIL").unwrap();
            }
            let mut text = String::new();
            taken.read_to_string(&mut text).unwrap();
            assert_eq!(text, "an archive");
            fs::remove_file(&path).unwrap();
            assert_eq!(take("").unwrap_err().kind(), io::ErrorKind::NotFound);
            std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
            assert!(take("").is_err(), "no link is followed");
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn older_archives_go_and_those_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let shared = archives(directory.path(), true);
        let older = shared.path("2.99.0");
        let names = [
            older.clone(),
            older.with_extension("part"),
            shared.path("2.339.0"),
            shared.path("2.340.0"),
            directory.path().join("azure-devops-x64-1.0.0.tar.gz"),
            directory.path().join("somebody's"),
        ];
        for name in &names {
            fs::write(name, "").unwrap();
        }
        shared.forget(|version| is_newer("2.339.0", version));
        let left: Vec<bool> = names.iter().map(|name| name.exists()).collect();
        assert_eq!(left, [false, false, true, true, true, true]);
        shared.used("2.339.0");
        assert!(names[2].exists(), "others may still need it");
        archives(directory.path(), false).used("2.339.0");
        assert!(!names[2].exists() && names[3].exists());
    }

    #[test]
    fn a_full_disk_is_said_to_be_one() {
        let directory = tempfile::tempdir().unwrap();
        let full = Archives::of("github", directory.path().to_owned(), false, Some(u64::MAX));
        assert!(shortage(&full.space).is_some_and(|why| why.contains("OSCR_MIN_FREE")));
        assert_eq!(shortage(&archives(directory.path(), false).space), None);
    }
}
