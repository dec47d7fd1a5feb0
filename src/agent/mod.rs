//! The agent as a child of PID 1: its root directory, its environment, its output, its worker, and the hooks around a job.

pub mod env;
pub mod hooks;
pub mod output;
pub mod release;
pub mod root;
pub mod system_env;
pub mod words;
pub mod worker;
