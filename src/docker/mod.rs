//! Docker for jobs: where it is, whether it answers, and what dead jobs left there.
//!
//! The daemon is the host's, one in another container, or one of our own (`engine`). What an agent makes for a job there (job
//! and service containers, their network, images of container actions) carries a label or a name that only this agent has; a
//! [`Label`] finds it again. Nothing else is ever touched, and nothing is pruned.

mod client;
mod endpoint;
pub(crate) mod engine;
mod label;

pub(crate) use client::Docker;
pub(crate) use endpoint::{Endpoint, link};
pub use label::Label;
