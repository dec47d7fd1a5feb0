//! `bin/Runner.Worker` of the stand-in agent.

fn main() {
    std::process::exit(oscr_sim::agent::worker_main());
}
