//! What differs between forges.
//!
//! A [`Provider`] knows one forge and its agent: how a registration is granted, which commands configure and run the
//! agent, what the agent's exit codes mean, and how a registration is let go. It knows [`http`] and the configuration, and
//! nothing of the life cycle that uses it. [`forges`] lists them all.

mod agents;
pub mod azure_devops;
mod configure;
mod contract;
mod facts;
mod fault;
pub mod finding;
pub mod forges;
pub mod github;
pub mod http;
pub mod pace;
mod registration;

pub use agents::architecture;
pub use configure::{Configured, configure};
pub use contract::{Answer, Examination, Forge, Package, Provider, Reading, SharedDirectory};
pub use facts::{AgentFacts, JobHooks, JobSign, LabelledBy, Line, Meaning, ProxyVariables, Sign, StopPlan, Variable};
pub use fault::Fault;
pub use forges::{FORGES, Forges};
pub use registration::{Candidate, Files, Grant, Once, Registration, Released, Releasing, Removal, Standing, Step};
