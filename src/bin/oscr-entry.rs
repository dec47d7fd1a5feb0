//! PID 1 of a runner container; everything is in the library.

#[global_allocator]
static MEMORY: oscr::os::memory::Wiping = oscr::os::memory::Wiping;

fn main() -> std::process::ExitCode {
    oscr::cli::main()
}
