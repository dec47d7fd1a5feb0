//! From an archive to an agent that is proved to run here.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::archive::{Archives, shortage};
use super::halt::Halt;
use crate::entry::children::Starter;
use crate::entry::trial::{Unsaid, version_of};
use crate::entry::work::on_a_thread;
use crate::init::Ended;
use crate::os::Identity;
use crate::os::priority;
use crate::provider::Package;
use crate::workspace::Space;
use crate::workspace::taint::Custody;

/// What an agent may have unpacked, in bytes: GitHub's has some 700 MB.
const LARGEST: u64 = 4 << 30;

/// Why no agent was made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmade {
    /// Something stood in the way.
    #[error("{0}")]
    Fault(String),
    /// It does not run here, or is not what it is called.
    #[error("{0}")]
    Unfit(String),
}

/// Where agents are made, and by whose rights they are tried.
pub(super) struct Bench {
    /// Where fetched agents are kept, each in a directory named by its version.
    pub agents: PathBuf,
    /// Where roots of agents are made.
    pub roots: PathBuf,
    /// The agent's user.
    pub agent: Identity,
    /// How its processes are started.
    pub starter: Starter,
    /// How much must stay free where they are kept.
    pub space: Space,
    /// The custody of all else; new agents are recorded beside it.
    pub custody: Option<Custody>,
}

impl Bench {
    /// Unpacks, tries and records a version whose archive is there, and gives it its place. No job may be there meanwhile: the
    /// archive is what was proved, and what is recorded must be what was unpacked. Given up by being dropped.
    ///
    /// # Errors
    /// Why there is no such agent.
    pub(super) async fn make(self, archives: &Archives, package: &Package, sha256: &str) -> Result<(), Unmade> {
        let fault = |error: io::Error| Unmade::Fault(format!("the archive cannot be unpacked: {error}"));
        let place = self.agents.join(&package.version);
        let half = HalfMade::beside(&place).map_err(fault)?;
        let halt = Halt::default();
        let work = {
            let (archives, version, sha256) = (archives.clone(), package.version.clone(), sha256.to_owned());
            let (half, space, held) = (half.0.clone(), self.space.clone(), halt.held());
            let listener = self.starter.facts.listener;
            move || {
                priority::step_back();
                unpack(archives.take(&version, &sha256, &held)?, &half, listener, &space, &held)
            }
        };
        on_a_thread(work).await.map_err(fault)?;
        let said = self.version_of(&half.0).await;
        let said = said.inspect_err(|why| {
            if matches!(why, Unmade::Unfit(_)) {
                archives.used(&package.version)
            }
        })?;
        if said != package.version {
            archives.used(&package.version);
            return Err(Unmade::Unfit(format!("what is offered as {} says that it is {said}", package.version)));
        }
        let record = self.custody.as_ref().map(|custody| custody.of_tree(&half.0, &package.version));
        let work = move || {
            priority::step_back();
            record.map_or(Ok(()), |mut record| record.establish())?;
            match fs::remove_dir_all(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(&half.0, &place)
        };
        on_a_thread(work).await.map_err(fault)?;
        archives.used(&package.version);
        Ok(())
    }

    /// The version of an agent, in its own words.
    ///
    /// # Errors
    /// Why it did not say it.
    pub(super) async fn version_of(&self, agent: &Path) -> Result<String, Unmade> {
        let said = version_of(agent, &self.roots, &self.agent, &self.starter).await;
        said.map_err(|why| match why {
            Unsaid::Ended { ended: Ended::Code(_), .. } => Unmade::Unfit(why.to_string()),
            // Somebody ended it, or it is not its fault.
            _ => Unmade::Fault(why.to_string()),
        })
    }
}

/// An agent that is being made, removed unless it was given its place.
struct HalfMade(PathBuf);

impl HalfMade {
    fn beside(place: &Path) -> io::Result<Self> {
        let agents = place.parent().unwrap_or(place);
        DirBuilder::new().recursive(true).mode(0o755).create(agents)?;
        let number = getrandom::u32().map_err(io::Error::other)?;
        let half = Self(agents.join(format!("{number:08x}.half")));
        DirBuilder::new().mode(0o755).create(&half.0)?;
        Ok(half)
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if self.0.exists() {
            let half = self.0.clone();
            // It may be large; and a thread that was halted may write its last file.
            let thread = std::thread::Builder::new().spawn(move || {
                priority::step_back();
                let _ = fs::remove_dir_all(half);
            });
            if thread.is_err() {
                let _ = fs::remove_dir_all(&self.0);
            }
        }
    }
}

/// Unpacks a whole archive.
fn unpack(archive: File, half: &Path, listener: &str, space: &Space, held: &Halt) -> io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(BufReader::new(archive)));
    // Root's, whoever packed it; and nobody else may write.
    archive.set_preserve_ownerships(false);
    archive.set_preserve_permissions(false);
    archive.set_mask(0o022);
    let mut bytes = 0u64;
    for entry in archive.entries()? {
        held.check()?;
        let mut entry = entry?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > LARGEST {
            return Err(io::Error::other(format!("it has more than {LARGEST} bytes")));
        }
        if let Some(why) = shortage(space) {
            return Err(io::Error::other(why));
        }
        entry.unpack_in(half)?;
    }
    if !half.join(listener).is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the package holds no {listener}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::os::unix::fs::MetadataExt;

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
        let mut file = gz.finish().unwrap();
        file.rewind().unwrap();
        file
    }

    fn unpacked(names: &[&str], least: u64, held: &Halt) -> io::Result<u32> {
        let half = tempfile::tempdir().unwrap();
        let space = Space::new(Some(least), half.path(), []);
        unpack(archive(names), half.path(), "bin/Agent.Listener", &space, held)?;
        Ok(fs::metadata(half.path().join("bin/Agent.Listener")).unwrap().mode() & 0o777)
    }

    #[test]
    fn a_package_is_unpacked_whole_or_not_at_all() {
        let whole = ["bin/Agent.Listener", "run.sh"];
        assert_eq!(unpacked(&whole, 0, &Halt::default()).unwrap(), 0o755, "others may not write");
        let error = unpacked(&["run.sh"], 0, &Halt::default()).unwrap_err();
        assert!(error.to_string().contains("holds no bin/Agent.Listener"));
        let error = unpacked(&whole, u64::MAX, &Halt::default()).unwrap_err();
        assert!(error.to_string().contains("OSCR_MIN_FREE"), "{error}");
        let held = Halt::default().held();
        assert_eq!(unpacked(&whole, 0, &held).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn what_is_half_made_goes_with_whoever_made_it() {
        let agents = tempfile::tempdir().unwrap();
        let half = HalfMade::beside(&agents.path().join("deep/2.339.0")).unwrap();
        let place = half.0.clone();
        fs::write(place.join("file"), "").unwrap();
        fs::rename(&place, agents.path().join("deep/2.339.0")).unwrap();
        drop(half);
        assert!(agents.path().join("deep/2.339.0/file").exists());
    }
}
