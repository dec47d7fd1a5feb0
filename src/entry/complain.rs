//! Telling why a start is refused, on standard error: there may be no log yet.

use std::process::ExitCode;

use crate::config::Problem;
use crate::exit;
use crate::log;
use crate::print::say;

/// Says what is wrong with the configuration, and gives the exit code for it.
pub(super) fn misconfigured(problems: &[Problem]) -> ExitCode {
    let count = problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    let list: String =
        problems.iter().map(|problem| format!("  - {}\n", log::redacted(&problem.to_string()))).collect();
    say(&format!(
        "{count} {noun} in the configuration:\n{list}See docs/configuration.md; `oscr-entry check` prints what is in force."
    ));
    ExitCode::from(exit::CONFIG)
}

/// Says why nothing can be done, and gives the exit code.
pub(super) fn fatal(message: &str, code: u8) -> ExitCode {
    say(&log::redacted(message));
    ExitCode::from(code)
}
