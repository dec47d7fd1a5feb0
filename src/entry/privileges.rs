//! What PID 1 keeps of its privileges for the rest of its life.

use std::io;

use crate::os::caps::{self, Capabilities};

/// The capabilities that OSCR needs until its end, and what for. `compose.yml` gives exactly these.
pub(super) const NEEDED: [(&str, &str); 6] = [
    ("CHOWN", "give the agent its directories"),
    ("DAC_OVERRIDE", "wipe what a job locked away with its permissions"),
    ("FOWNER", "wipe in sticky directories such as /tmp"),
    ("KILL", "end what a job left running"),
    ("SETGID", "start the agent with its own groups"),
    ("SETUID", "start the agent as its own user, again for each registration"),
];

/// Kept where the container was given it, and not needed: it lets the wipe remove what is marked immutable.
const USEFUL: [&str; 1] = ["LINUX_IMMUTABLE"];

/// Gives up for good what is not needed from now on. No program can bring anything back either, where we may see to that
/// (SETPCAP, which is given up last), and unless one is meant to do just that: sudo, or an `engine` of Docker. Beside an engine,
/// each child that is to have nothing is still seen to by itself, for which SETPCAP stays.
///
/// # Errors
/// When the kernel refuses, which it has no reason to.
pub(super) fn give_up(sudo: bool, engine: bool) -> io::Result<()> {
    if !sudo
        && !engine
        && let Err(error) = caps::empty_bounding_set()
    {
        // Nothing is lost: the agent starts with no_new_privs, which makes this set useless.
        tracing::debug!("what programs could be given stays as the container has it: {error}");
    }
    let for_children = engine.then_some("SETPCAP");
    let kept: Vec<&str> = NEEDED.iter().map(|(name, _)| *name).chain(USEFUL).chain(for_children).collect();
    let kept = Capabilities::of(&kept);
    let given_up = caps::permitted()?.without(kept);
    caps::limit(kept)?;
    if !given_up.is_empty() {
        tracing::debug!("capabilities that were given up: {given_up}");
    }
    Ok(())
}
