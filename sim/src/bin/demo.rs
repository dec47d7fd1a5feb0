//! The driver of `make demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    oscr_sim::demo::main()
}
