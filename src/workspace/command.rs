//! Emptying a directory by command: what tests and benches hold against `rm -rf`.

use std::path::Path;

use super::wipe::{Spare, wipe};

/// The hidden command.
pub(crate) const COMMAND: &str = "wipe";

/// Empties `directory`, and gives the exit code: 0 when it is empty.
#[must_use]
pub(crate) fn run(directory: &Path) -> u8 {
    match wipe(directory, &Spare::default()) {
        Ok(wiped) if wiped.failed == 0 => {
            println!("{} entries, {} bytes, {} ms", wiped.entries, wiped.bytes, wiped.took.as_millis());
            0
        }
        Ok(wiped) => {
            for failure in &wiped.failures {
                eprintln!("oscr-entry: {failure}");
            }
            1
        }
        Err(error) => {
            eprintln!("oscr-entry: {}: {error}", directory.display());
            1
        }
    }
}
