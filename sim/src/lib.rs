//! A simulated forge and stand-in agents.
//!
//! - [`forge`]: GitHub's endpoints, the agents' queue, a control plane, faults; in process or as the binary `forge`.
//! - [`demo`]: the driver of `make demo`.
//! - [`markers`]: words by which the agents are understood, for jobs that use them.
//! - [`official`]: an image of the runner through a table of scenarios, with the official agent or its stand-in.
//! - [`patience`]: how long tests wait.
//! - [`protocol`]: what the forge and the stand-in agent say to each other.
//! - [`registry`]: a registry of images, for what fetches one without Docker.
//! - [`agent`]: the stand-in for the official agent: listener, worker, scripts, and the archive of a release.

pub mod agent;
pub mod demo;
pub mod forge;
pub mod markers;
pub mod official;
pub mod patience;
pub mod protocol;
pub mod registry;
pub mod scale;

/// The version of GitHub's agent that the stand-in claims to be.
pub const AGENT_VERSION: &str = "2.338.0";

/// The version of the Azure Pipelines agent that the stand-in claims to be.
pub const AZURE_AGENT_VERSION: &str = "5.279.0";
