//! Whether this process' user can work in a directory: only trying tells, since permissions are not all that can be in the way (access
//! lists, quotas, inodes, a file system that went read-only).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The hidden command of the process that tries, as the user whom it is about.
pub(crate) const COMMAND: &str = "try-places";
/// What it ends with where something cannot be made or removed.
pub(crate) const FAILED: u8 = 1;

/// Tries each directory, says what fails, and gives the exit code.
#[must_use]
pub(crate) fn run(places: &[PathBuf]) -> u8 {
    let mut code = 0;
    for place in places {
        if let Err(error) = attempt(place) {
            eprintln!("{}: {error}", place.display());
            code = FAILED;
        }
    }
    code
}

/// Makes a file and a directory in `place`, and removes them. It is made for that where it is not there, and goes again.
fn attempt(place: &Path) -> io::Result<()> {
    let made = match fs::create_dir(place) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        made => made.map(|()| true)?,
    };
    let tried = inside(place);
    let gone = if made { fs::remove_dir(place) } else { Ok(()) };
    tried.and(gone)
}

/// Whether this process can write in `place`, or make it where it is missing. What is made for that goes again, and `place` with
/// what is above it stays missing.
///
/// # Errors
/// Why it cannot.
pub(crate) fn could_write(place: &Path) -> io::Result<()> {
    let there = place.ancestors().find(|above| fs::symlink_metadata(above).is_ok()).unwrap_or(Path::new("/"));
    if fs::metadata(there)?.is_dir() { inside(there) } else { Err(ErrorKind::NotADirectory.into()) }
}

fn inside(place: &Path) -> io::Result<()> {
    // By chance, because containers that share the place try it in the same moment, and each of them is process 1.
    let number = getrandom::u64().map_err(io::Error::other)?;
    let directory = place.join(format!(".oscr-trial-{number:016x}"));
    fs::create_dir(&directory)?;
    let file = directory.join("file");
    // A directory can take what its own entries do not.
    let written = fs::write(&file, "tried").and_then(|()| fs::remove_file(&file));
    // What was made before something failed goes all the same.
    let _ = fs::remove_file(&file);
    written.and(fs::remove_dir(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_usable_place_is_left_as_it_was_found() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent");
        assert_eq!(run(&[directory.path().to_owned(), absent.clone()]), 0);
        assert!(!absent.exists() && fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn many_try_a_place_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let tried = || (0..50).try_for_each(|_| could_write(directory.path()));
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(tried)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_could_be_made_stays_missing() {
        let directory = tempfile::tempdir().unwrap();
        could_write(directory.path()).unwrap();
        could_write(&directory.path().join("above/below")).unwrap();
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
        fs::write(directory.path().join("file"), "").unwrap();
        let below = directory.path().join("file/below");
        assert_eq!(could_write(&below).unwrap_err().kind(), ErrorKind::NotADirectory);
        symlink("nowhere", directory.path().join("link")).unwrap();
        assert!(could_write(&directory.path().join("link")).is_err());
    }

    #[test]
    fn a_place_that_takes_nothing_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("above/below");
        assert_eq!(attempt(&nowhere).unwrap_err().kind(), ErrorKind::NotFound);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(attempt(&file).unwrap_err().kind(), ErrorKind::NotADirectory);
        let full = directory.path().join("nothing-is-made-here");
        symlink("/proc/self/net", &full).unwrap();
        assert!(attempt(&full).is_err());
        assert_eq!(run(&[directory.path().to_owned(), file]), FAILED, "one of them is enough");
    }
}
