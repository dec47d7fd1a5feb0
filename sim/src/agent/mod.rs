//! The stand-in for the official agent: two programs, as in a release archive.
//!
//! `bin/Runner.Listener` ([`listener_main`]) configures, removes and listens; `bin/Runner.Worker` ([`worker_main`]) runs
//! one job. [`install`] lays an agent out from the built programs, [`pack`] makes the archive of a release.

use std::path::{Path, PathBuf};

mod client;
mod configure;
mod job;
mod layout;
mod listener;
mod process;
mod trace;
mod worker;

pub use layout::{install, pack, programs_dir};
pub use listener::main as listener_main;
pub use worker::main as worker_main;

/// The agent's root: the parent of the real path of the `bin` folder that the program lies in.
///
/// Upstream's apphost resolves its own path in the same way, so that a symlinked `bin` leads to the target's parent.
fn root() -> PathBuf {
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.canonicalize().unwrap_or(program);
    program.parent().and_then(Path::parent).map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

/// Whether a variable holds one of upstream's words for yes.
fn flag(name: &str) -> bool {
    std::env::var(name).is_ok_and(|v| matches!(v.to_lowercase().as_str(), "1" | "true" | "t" | "yes" | "y"))
}

/// A file of settings may begin with a byte order mark: upstream writes one.
fn read_json(path: &Path) -> std::io::Result<serde_json::Value> {
    let text = std::fs::read_to_string(path)?;
    Ok(serde_json::from_str(text.trim_start_matches('\u{feff}'))?)
}
