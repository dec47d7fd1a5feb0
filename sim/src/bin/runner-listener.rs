//! `bin/Runner.Listener` of the stand-in agent.

fn main() {
    std::process::exit(oscr_sim::agent::listener_main());
}
