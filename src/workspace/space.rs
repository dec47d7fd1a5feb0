//! Free disk space: a job that begins on a nearly full disk fails in the middle, in ways that look like its own fault.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

/// What must be free when nobody says otherwise: less rarely holds a checkout and what is built from it.
const USUAL: u64 = 1 << 30;
/// ... but never more than this part of a file system, or a small one (a tmpfs, say) would never do.
const PART: u64 = 10;

/// Where jobs need space, and how much must be free there before one is taken.
#[derive(Debug, Clone, Default)]
pub struct Space {
    /// `OSCR_MIN_FREE` in bytes; `None` for the usual.
    least: Option<u64>,
    /// The first is where jobs work.
    places: Vec<PathBuf>,
}

/// One of the file systems that jobs write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// A directory on it.
    pub place: PathBuf,
    /// Bytes that the agent's user could still write.
    pub free: u64,
    /// Below so many free bytes no job is taken.
    pub least: u64,
}

impl Space {
    /// The space of jobs that work in `work` and also write to `others`.
    #[must_use]
    pub fn new(least: Option<u64>, work: &Path, others: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { least, places: std::iter::once(work.to_owned()).chain(others).collect() }
    }

    /// The same, with the next directory above for each place that does not exist yet.
    #[must_use]
    pub(crate) fn or_above(mut self) -> Self {
        for place in &mut self.places {
            while !place.exists() && place.pop() {}
        }
        self
    }

    /// How much is free now: one entry for each file system, with the first place on it. What cannot be looked at is left out.
    #[must_use]
    pub(crate) fn look(&self) -> Vec<Room> {
        let mut seen = Vec::new();
        let mut rooms = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            let Ok(stat) = statvfs(place) else { continue };
            let Ok(device) = nix::sys::stat::stat(place).map(|stat| stat.st_dev) else { continue };
            if seen.contains(&device) {
                continue;
            }
            seen.push(device);
            // These are narrower on other architectures.
            #[allow(clippy::useless_conversion, reason = "not useless everywhere")]
            let bytes = |blocks| u64::from(stat.fragment_size()).saturating_mul(u64::from(blocks));
            let part = bytes(stat.blocks()) / PART;
            let least = match self.least {
                // What somebody asked for is what they get, where jobs work.
                Some(least) if number == 0 => least,
                Some(least) => least.min(part),
                None => USUAL.min(part),
            };
            rooms.push(Room { place: place.clone(), free: bytes(stat.blocks_available()), least });
        }
        rooms
    }

    /// Why no job may be taken now, with the cure, if there is too little space.
    #[must_use]
    pub(crate) fn shortage(&self) -> Option<String> {
        shortage(&self.look())
    }
}

/// What is too full, with the cure.
#[must_use]
pub(crate) fn shortage(rooms: &[Room]) -> Option<String> {
    let full = rooms.iter().find(|room| room.free < room.least)?;
    Some(format!(
        "{} has {} free, and a job is only taken with {}: free some space, or lower OSCR_MIN_FREE",
        full.place.display(),
        shown(full.free),
        shown(full.least)
    ))
}

/// Bytes for people.
#[must_use]
pub(crate) fn shown(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = "bytes";
    let mut whole = bytes;
    let mut rest = 0;
    for next in units {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    if unit == "bytes" || whole >= 100 { format!("{whole} {unit}") } else { format!("{whole}.{rest} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_system_is_looked_at_once_and_a_missing_place_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let others = [directory.path().join("absent"), directory.path().to_owned()];
        let rooms = Space::new(None, directory.path(), others).look();
        assert_eq!(rooms.len(), 1);
        assert_eq!(rooms[0].place, directory.path());
        assert!(rooms[0].free > 0 && rooms[0].least <= USUAL);
    }

    #[test]
    fn what_is_asked_for_counts_where_jobs_work_and_a_part_elsewhere() {
        // Two file systems that every Linux has.
        let space = Space::new(Some(u64::MAX), Path::new("/"), [PathBuf::from("/dev")]);
        let rooms = space.look();
        assert_eq!(rooms[0].least, u64::MAX);
        assert!(rooms.iter().skip(1).all(|room| room.least < u64::MAX / 2));
        let why = space.shortage().unwrap();
        assert!(why.starts_with("/ has ") && why.contains("OSCR_MIN_FREE"), "{why}");
        assert_eq!(Space::new(Some(0), Path::new("/"), []).shortage(), None);
    }

    #[test]
    fn bytes_are_shown_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (USUAL, "1.0 GiB"),
            (500 << 20, "500 MiB"),
            (u64::MAX, "16777215 TiB"),
        ] {
            assert_eq!(shown(bytes), text);
        }
    }
}
