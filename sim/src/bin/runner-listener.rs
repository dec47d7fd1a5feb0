//! `bin/Runner.Listener` or `bin/Agent.Listener` of the stand-in agents, by the name under which it is started.

fn main() {
    std::process::exit(oscr_sim::agent::listener_main());
}
