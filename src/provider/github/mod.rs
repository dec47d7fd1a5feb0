//! GitHub: github.com, GitHub Enterprise Cloud with data residency (`*.ghe.com`), GitHub Enterprise Server.

mod address;
mod agent;
mod api;
mod app;
mod credential;
mod exceptions;
mod forge;
mod host;
mod jit;
mod job;
mod jwt;
mod payload;
mod refusal;
mod scope;
mod settings;
mod table;
mod token_cache;

#[cfg(test)]
pub(crate) use agent::AGENT;
pub use forge::FORGE;
