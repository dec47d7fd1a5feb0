//! An image of the runner, with the official agent or its stand-in, through a table of scenarios.

use std::process::ExitCode;

fn main() -> ExitCode {
    oscr_sim::official::main()
}
