//! PID 1 of a runner container; everything is in the library.

fn main() -> std::process::ExitCode {
    oscr::cli::main()
}
