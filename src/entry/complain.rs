//! Telling why a start is refused, on standard error: there may be no log yet.

use std::process::ExitCode;

use crate::config::Problem;
use crate::exit;
use crate::log;

/// Says what is wrong with the configuration, and gives the exit code for it.
pub(super) fn misconfigured(problems: &[Problem]) -> ExitCode {
    let count = problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    eprintln!("oscr-entry: {count} {noun} in the configuration:");
    for problem in problems {
        eprintln!("  - {}", log::redacted(&problem.to_string()));
    }
    eprintln!("See docs/configuration.md; `oscr-entry check` prints what is in force.");
    ExitCode::from(exit::CONFIG)
}

/// Says why nothing can be done, and gives the exit code.
pub(super) fn fatal(message: &str, code: u8) -> ExitCode {
    eprintln!("oscr-entry: {}", log::redacted(message));
    ExitCode::from(code)
}
