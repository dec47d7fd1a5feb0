//! What an init promises, tested from outside, as processes in namespaces and below terminals.
//!
//! The same cases run against `oscr-entry exec` and against other inits: `INIT_UNDER_TEST=oscr|tini|dumb-init|catatonit|all`.
//! A case passes when the init does what [`known`] says of it, so the table in docs/init.md can be wrong in neither
//! direction. `--table` prints that table. Stress takes 20 times 1.5 s; `STRESS_SECONDS=30` makes each of them longer.

#![expect(clippy::unwrap_used, reason = "a case fails by a panic")]

mod accounts;
mod exit;
#[path = "../life/filter.rs"]
mod filter;
mod forwarding;
mod harness;
mod helper;
mod inits;
mod known;
mod leftovers;
mod places;
mod reaping;
mod state;
mod stress;
mod terminal;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Cases start this program anew as the child of the init under test.
    if arguments.next().is_some_and(|first| first == helper::FLAG) {
        return helper::main(arguments.collect());
    }
    // `nohup` and a shell's `&` leave these ignored, and so they would be in all that the cases start.
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        oscr::os::signal::ignore(number, false).unwrap();
    }
    harness::main(&[
        ("Reaping", reaping::CASES),
        ("Forwarding", forwarding::CASES),
        ("Job control", terminal::CASES),
        ("Exit", exit::CASES),
        ("What is left", leftovers::CASES),
        ("The child's state", state::CASES),
        ("Accounts", accounts::CASES),
        ("Places", places::CASES),
        ("Stress", stress::CASES),
    ])
}
