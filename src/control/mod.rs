//! The socket between PID 1 and the other commands of the same binary: `hook`, `health`, `status`, `drain`.
//!
//! One request, one answer, each a line of JSON. Anybody in the container may ask for the status and report a hook; only
//! the user that PID 1 runs as may order a drain. A job can send what it likes: a request is bounded in size and time, and
//! nothing that it says once its first step has begun decides anything.

mod age;
mod board;
pub(crate) mod client;
mod health;
mod job;
mod protocol;
pub(crate) mod server;
mod status;

use std::path::PathBuf;

use crate::config::Places;

pub use age::AgentAge;
pub use board::{Board, WaitNotice};
pub use job::Job;
pub(crate) use protocol::{HookAnswer, HookEvent, Request};
pub use status::{Connection, LeftInDocker, Phase, Queue, Runner, Status};

/// Where the socket is.
#[must_use]
pub fn socket(places: &Places) -> PathBuf {
    places.run().join("control.sock")
}
