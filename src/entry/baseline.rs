//! `oscr-entry baseline`: what an image's files should be like, written down as the last step of its build.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::complain::fatal;
use crate::exit;
use crate::print;
use crate::workspace::taint;

/// Writes it for the image below `root`.
#[must_use]
pub fn baseline(root: &Path) -> ExitCode {
    match taint::write_baseline(root) {
        Ok(files) => {
            let _ = writeln!(print::out(), "{files} files are what they should be");
            ExitCode::SUCCESS
        }
        Err(error) => fatal(&format!("the baseline cannot be written: {error}"), exit::SOFTWARE),
    }
}
