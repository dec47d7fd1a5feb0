//! Another version of the agent, when the forge accepts the image's no more: fetched, proved, and kept beside the image's.
//!
//! Only PID 1 writes there, and only as root: what a job could change would run under the next job's secrets. What was fetched
//! is used as long as the image's own agent stays the same; a new image comes with a newer one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::incarnation::{Incarnation, on_a_thread};
use crate::provider::{Fault, Package};

/// What was fetched, as the state file remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Its version.
    pub version: String,
    /// What the image's listener was like then.
    replaces: Stamp,
}

/// Tells one build of a file from another: inode, size, time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u64, i64);

impl Incarnation {
    /// The agent to run: the image's, or the one fetched in its place.
    pub(super) fn pristine_agent(&self) -> PathBuf {
        let image = self.common.places.agent();
        let listener = self.provider.agent().listener;
        if let Some(fetched) = &self.state.state.agent
            && Stamp::of(&image.join(listener)).is_ok_and(|stamp| stamp == fetched.replaces)
        {
            let place = self.common.places.fetched_agents().join(&fetched.version);
            if place.join(listener).exists() {
                return place;
            }
        }
        image
    }

    /// Fetches the version that the forge offers. The error says why there is none, for people.
    pub(super) async fn fetch_agent(&mut self) -> Result<String, String> {
        let package = self.provider.package().await.map_err(|fault| fault.to_string())?;
        if self.state.state.agent.as_ref().is_some_and(|fetched| fetched.version == package.version) {
            return Err(format!("it offers nothing newer than {}, which was fetched already", package.version));
        }
        if !Uid::effective().is_root() {
            return Err(
                "OSCR_AGENT_UPDATE needs a container that runs as root: a job could change what is fetched".to_owned()
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if package.version.starts_with('.') || !package.version.chars().all(plain) {
            return Err(format!("{:?} is no version", package.version));
        }
        let Some(expected) = package.sha256.clone() else {
            return Err(format!("it names no checksum for version {}", package.version));
        };
        let cache = self.common.places.fetched_agents();
        let place = cache.join(&package.version);
        let on_disk = |error: io::Error| format!("{} cannot be written: {error}", cache.display());
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&cache).map_err(on_disk)?;
        let archive = nameless(&cache).map_err(on_disk)?;
        tracing::info!("fetching version {} of the agent", package.version);
        let fetched = self.prove(&package, &expected, archive).await;
        // What was downloaded has no name, so it is gone whatever happens next.
        let archive = fetched?;
        let (unpacked, listener) = (place.clone(), self.provider.agent().listener);
        on_a_thread(move || unpack(archive, &unpacked, listener)).await.map_err(|error| error.to_string())?;
        let replaces = Stamp::of(&self.common.places.agent().join(listener)).map_err(|error| error.to_string())?;
        self.state.state.agent = Some(Fetched { version: package.version.clone(), replaces });
        self.state.save().map_err(|error| error.to_string())?;
        forget_others(&cache, &package.version);
        Ok(package.version)
    }

    async fn prove(&self, package: &Package, expected: &str, mut archive: File) -> Result<File, String> {
        let found = match self.provider.download(package, &mut archive).await {
            Ok(found) => found,
            Err(Fault::Unreachable(why)) => return Err(why),
            Err(fault) => return Err(fault.to_string()),
        };
        self.provider.rest();
        if !found.eq_ignore_ascii_case(expected.trim()) {
            return Err(format!("{} has the SHA-256 {found} instead of {expected}, and is not used", package.url));
        }
        Ok(archive)
    }
}

impl Stamp {
    fn of(file: &Path) -> io::Result<Self> {
        let meta = fs::metadata(file)?;
        Ok(Self(meta.ino(), meta.size(), meta.mtime()))
    }
}

/// A file that has lost its name. Not O_TMPFILE, which overlay file systems have not known for long.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join("download");
    let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Unpacks beside the place and moves the whole there, so that half of an agent is never found.
fn unpack(mut archive: File, place: &Path, listener: &str) -> io::Result<()> {
    use std::io::Seek;
    archive.rewind()?;
    let half = place.with_extension("half");
    for old in [&half, &place.to_owned()] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::DirBuilder::new().mode(0o755).create(&half)?;
    let mut entries = tar::Archive::new(flate2::read::GzDecoder::new(io::BufReader::new(archive)));
    // Root's, whoever packed it; and nobody else may write.
    entries.set_preserve_ownerships(false);
    entries.set_preserve_permissions(false);
    entries.set_mask(0o022);
    entries.unpack(&half)?;
    if !half.join(listener).is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the package holds no {listener}")));
    }
    fs::rename(&half, place)
}

/// Earlier versions, and halves of them.
fn forget_others(cache: &Path, version: &str) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name() != version
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!("{} cannot be removed: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn archive(names: &[&str]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        {
            let mut tar = tar::Builder::new(&mut gz);
            for name in names {
                let mut header = tar::Header::new_gnu();
                header.set_size(2);
                header.set_mode(0o777);
                header.set_cksum();
                tar.append_data(&mut header, name, &b"#!"[..]).unwrap();
            }
            tar.finish().unwrap();
        }
        gz.flush().unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn a_package_is_unpacked_whole_or_not_at_all() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("4.1.0");
        unpack(archive(&["bin/Agent.Listener", "run.sh"]), &place, "bin/Agent.Listener").unwrap();
        let mode = fs::metadata(place.join("bin/Agent.Listener")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o755, "others may not write");
        let error = unpack(archive(&["run.sh"]), &cache.path().join("4.2.0"), "bin/Agent.Listener").unwrap_err();
        assert!(error.to_string().contains("holds no bin/Agent.Listener"));
        assert!(!cache.path().join("4.2.0").exists());
        forget_others(cache.path(), "4.1.0");
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["4.1.0"]);
    }
}
