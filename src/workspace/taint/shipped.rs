//! What came with the image, as its baseline has it.

use std::fs;
use std::path::Path;

use super::BASELINE;
use super::record::Record;

/// What of a place is in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shipped {
    /// Nothing.
    Nothing,
    /// The directory, and no file in it.
    Directory,
    /// Files in it.
    Files,
}

/// What of the directory `place`, from the root on, is in the baseline of the image below `root`, `but` for these. `None` where there is none that this
/// process may read.
#[must_use]
pub(crate) fn shipped(root: &Path, place: &Path, but: &[&Path]) -> Option<Shipped> {
    let baseline = fs::read(root.join(BASELINE)).ok()?;
    let mut found = Shipped::Nothing;
    for line in baseline.split(|byte| *byte == b'\n') {
        let Some((kind, path)) = Record::kind_and_path(line) else { continue };
        if path.starts_with(place) && !but.iter().any(|but| path.starts_with(but)) {
            match kind {
                b'd' => found = Shipped::Directory,
                _ => return Some(Shipped::Files),
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::super::write_baseline;
    use super::*;

    #[test]
    fn what_came_with_an_image_is_told_from_what_came_later() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(shipped(root.path(), Path::new("work"), &[]), None);
        for directory in ["work/empty", "srv/site", "srv/sites"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("srv/site/index"), "").unwrap();
        write_baseline(root.path()).unwrap();
        fs::write(root.path().join("work/later"), "").unwrap();
        let of = |place: &str| shipped(root.path(), Path::new(place), &[]).unwrap();
        assert_eq!(
            [of("work"), of("srv/sites"), of("later")],
            [Shipped::Directory, Shipped::Directory, Shipped::Nothing]
        );
        assert_eq!([of("srv"), of("srv/site")], [Shipped::Files; 2]);
        assert_eq!(shipped(root.path(), Path::new("srv"), &[Path::new("srv/site")]), Some(Shipped::Directory));
    }
}
