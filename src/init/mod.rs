//! What PID 1 owes the kernel, in one place for `run` and `exec`: start a child in a well-defined state, read signals in
//! order, reap everything, and turn a wait status into an exit code.
//!
//! All signals are blocked from the first moment and taken one by one, so none is lost, whenever it arrives, and nothing
//! ever runs inside a signal handler. Children are waited for in one place only ([`reap`]), so nobody can wait
//! for the wrong child.

pub(crate) mod account;
pub(crate) mod exec;
pub(crate) mod leftovers;
mod orphans;
pub mod process;
mod reap;
pub(crate) mod signals;
mod sockets;
pub(crate) mod spawn;

pub(crate) use orphans::{Role, adopt_orphans};
pub use reap::{Change, Ended, reap};
pub use signals::Signals;
pub(crate) use spawn::{Spawn, SpawnError};
