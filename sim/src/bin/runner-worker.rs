//! `bin/Runner.Worker` or `bin/Agent.Worker` of the stand-in agents, by the name under which it is started.

fn main() {
    std::process::exit(oscr_sim::agent::worker_main());
}
