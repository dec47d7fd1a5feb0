//! The agent as a child of PID 1: its directory, its environment, its output, its worker, and the hooks around a job.

pub(crate) mod directory;
pub(crate) mod env;
pub(crate) mod hook_files;
pub(crate) mod hooks;
pub(crate) mod interpreter;
mod job_log;
mod line_origin;
pub(crate) mod output;
mod proxy;
pub(crate) mod release;
pub(crate) mod system_env;
pub(crate) mod words;
pub mod worker;
