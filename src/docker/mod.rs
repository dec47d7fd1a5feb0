//! Docker for jobs: where it is, whether it answers, and what dead jobs left there.
//!
//! The daemon is the host's, one in another container, or one of our own (`engine`). What an agent makes for a job there (job
//! and service containers, their network, images of container actions) carries a label or a name that only this agent has; a
//! [`Label`] finds it again. Anonymous volumes carry none, and are noted while their containers are there. Nothing else is ever
//! touched, and nothing is pruned.

mod client;
mod endpoint;
pub(crate) mod engine;
#[cfg(test)]
mod fake;
mod groups;
mod label;
mod sight;
mod sweep;
mod volumes;

pub(crate) use client::{Docker, DockerError};
pub(crate) use endpoint::{DEFAULT_SOCKET, Endpoint, link};
pub(crate) use groups::in_group_of_docker;
pub use label::Label;
pub(crate) use sight::{Interface, interface};
pub(crate) use sweep::Swept;
