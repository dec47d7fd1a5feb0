//! The stand-ins for the official agents: two programs, as in a release archive.
//!
//! `bin/Runner.Listener` or `bin/Agent.Listener` ([`listener_main`]) configures, removes and listens; `bin/Runner.Worker` or
//! `bin/Agent.Worker` ([`worker_main`]) runs one job. One build serves both: a program is what its name says. What differs
//! between the two is in [`Kind`]'s table, with the folders `github` and `azure` behind it. [`install`] lays an agent out from
//! the built programs, [`pack`] makes the archive of a release.

use std::path::{Path, PathBuf};

mod arguments;
mod assignment;
mod azure;
mod client;
mod command_files;
mod credential;
mod dispatch;
mod github;
mod job;
mod kind;
mod layout;
mod listener;
mod listening;
mod log;
mod narrator;
mod pause;
mod permissions;
mod process;
mod proxy;
mod side;
mod trace;
mod update;
mod worker;

use kind::Facts;
pub use kind::Kind;
pub use layout::{archive, install, pack, programs_dir};
pub use listener::main as listener_main;
pub use worker::main as worker_main;

/// The machine's architecture, as archives and `User-Agent` have it.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };

/// The same as labels and variables have it.
const ARCH_LABEL: &str = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };

/// The agent's root: the parent of the real path of the `bin` folder that the program lies in.
///
/// Upstream's apphost resolves its own path in the same way, so that a symlinked `bin` leads to the target's parent.
fn root() -> PathBuf {
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let program = program.canonicalize().unwrap_or(program);
    program.parent().and_then(Path::parent).map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

/// The version that the agent in `root` claims to be: of an archive that was packed as another version, that one.
fn version(kind: Kind, root: &Path) -> String {
    let written = std::fs::read_to_string(root.join(layout::VERSION_FILE)).unwrap_or_default();
    let written = written.trim();
    if written.is_empty() { kind.version().to_owned() } else { written.to_owned() }
}

/// Whether a variable holds one of upstream's words for yes.
fn flag(name: &str) -> bool {
    std::env::var(name).is_ok_and(|v| matches!(v.to_lowercase().as_str(), "1" | "true" | "t" | "yes" | "y"))
}

/// The name of this machine.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|n| n.trim().to_owned()).unwrap_or_default()
}

/// A file of settings may begin with a byte order mark: upstream writes one.
fn read_json(path: &Path) -> std::io::Result<serde_json::Value> {
    let text = std::fs::read_to_string(path)?;
    Ok(serde_json::from_str(text.trim_start_matches('\u{feff}'))?)
}

/// Writes files of settings as .NET does, whose `Encoding.UTF8` puts a byte order mark before the text.
fn write_json(root: &Path, files: &[(&str, &serde_json::Value, u32)]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, value, mode) in files {
        let path = root.join(name);
        std::fs::write(&path, format!("\u{feff}{value:#}"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode))?;
    }
    Ok(())
}

/// The exit code of the configure step, which does its work by `register` unless it is done already.
fn configure(kind: Kind, root: &Path, trace: &trace::Trace, register: impl FnOnce() -> Result<(), String>) -> i32 {
    let Facts { noun, settings, .. } = kind.facts();
    let registered = if root.join(settings).exists() {
        Err(format!(
            "Cannot configure the {noun} because it is already configured. To reconfigure the {noun}, run 'config.cmd \
             remove' or './config.sh remove' first."
        ))
    } else {
        register()
    };
    if let Err(why) = registered {
        trace.complain(&why);
        return listener::TERMINATED;
    }
    0
}

/// Deletes a file; false where there was none.
///
/// # Errors
///
/// The words of the runtime.
fn deleted(path: &Path) -> Result<bool, String> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(permissions::words(path, &error)),
    }
}
