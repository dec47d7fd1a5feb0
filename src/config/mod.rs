//! The environment becomes one typed configuration, once, before anything else happens.
//!
//! `Reader` collects every problem; `Common` is what all providers share. A provider reads its own settings with the
//! same reader (`src/provider/<name>/settings.rs`).

mod caches;
mod certificates;
mod common;
mod docker;
mod environment;
pub(crate) mod exceptions;
mod hardware;
pub(crate) mod name;
mod network;
mod others;
mod places;
mod policy;
mod problem;
pub(crate) mod proxy;
mod reader;
pub(crate) mod reading;
pub(crate) mod secret;
mod secret_text;
pub mod table;
mod update;
pub(crate) mod values;
mod watch;
pub(crate) mod x509;

pub(crate) use caches::Cache;
pub(crate) use certificates::Certificates;
pub use common::Common;
pub(crate) use common::{Taint, look_at_label};
pub(crate) use environment::Environment;
pub(crate) use hardware::{Hardware, LockScope};
pub(crate) use network::{Direct, Network, Way};
pub(crate) use places::Places;
pub(crate) use problem::Problem;
pub(crate) use reader::Read;
pub use reader::Reader;
pub(crate) use secret::SecretError;
pub use secret::{Secret, SecretSource};
pub(crate) use update::AgentUpdate;
pub(crate) use watch::Watch;
