//! The environment becomes one typed configuration, once, before anything else happens.
//!
//! [`Reader`] collects every problem; [`Common`] is what all providers share. A provider reads its own settings with the
//! same reader (`src/provider/<name>/settings.rs`).

mod caches;
mod common;
mod docker;
mod environment;
mod hardware;
pub mod name;
mod network;
mod places;
mod policy;
mod problem;
mod reader;
pub mod secret;
pub mod table;
mod update;
pub mod values;
mod watch;

pub use common::{Common, Taint};
pub use docker::DockerForJobs;
pub use environment::Environment;
pub use hardware::{Hardware, LockScope};
pub use network::Network;
pub use places::Places;
pub use problem::Problem;
pub use reader::{Read, Reader};
pub use secret::{Secret, SecretError, SecretSource};
pub use update::AgentUpdate;
pub use watch::Watch;
