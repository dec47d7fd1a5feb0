//! Emptying a directory by command: what tests and benches hold against `rm -rf`.

use std::io::Write;
use std::path::Path;

use super::wipe::{Spare, wipe};
use crate::print;

/// The hidden command.
pub(crate) const COMMAND: &str = "wipe";

/// Empties `directory`, and gives the exit code: 0 when it is empty.
#[must_use]
pub(crate) fn run(directory: &Path) -> u8 {
    match wipe(directory, &Spare::default()) {
        Ok(wiped) if wiped.failed == 0 => {
            let took = wiped.took.as_millis();
            let _ = writeln!(print::out(), "{} entries, {} bytes, {took} ms", wiped.entries, wiped.bytes);
            0
        }
        Ok(wiped) => {
            for failure in &wiped.failures {
                print::say(&failure.to_string());
            }
            1
        }
        Err(error) => {
            print::say(&format!("{}: {error}", directory.display()));
            1
        }
    }
}
