//! GitHub: github.com, GitHub Enterprise Cloud with data residency (`*.ghe.com`), GitHub Enterprise Server.

mod agent;
mod api;
mod app;
mod forge;
mod jit;
mod jwt;
mod settings;

#[cfg(test)]
pub(crate) use agent::AGENT;
pub use forge::FORGE;
