//! Azure DevOps: dev.azure.com, `*.visualstudio.com`, and Azure DevOps Server with a collection.

mod address;
mod agent;
mod api;
mod exceptions;
mod forge;
mod moved;
mod refusal;
mod settings;

#[cfg(test)]
pub(crate) use agent::AGENT;
pub use forge::FORGE;
