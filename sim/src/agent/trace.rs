//! The terminal and the log in `_diag`.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;

use super::kind::Facts;

/// Writes `_diag/<prefix>_<time>-utc.log`, and the terminal.
#[derive(Debug)]
pub(super) struct Trace {
    file: Mutex<Option<File>>,
    on_stdout: bool,
    /// What tells the two programs apart on standard output.
    program: &'static str,
}

impl Trace {
    /// Opens the log. Without a writable `_diag` there is none: upstream would fail here, after having said why.
    pub(super) fn open(root: &Path, facts: &Facts, component: &'static str) -> Self {
        let moved = facts.log_folders[usize::from(component == "Worker")].and_then(std::env::var_os);
        let folder = moved.map_or_else(|| root.join("_diag"), PathBuf::from);
        let time = Timestamp::now().strftime("%Y%m%d-%H%M%S");
        let path = folder.join(format!("{component}_{time}-utc.log"));
        let file = create_dir_all(&folder)
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
            .map_err(|error| eprintln!("{}: {error}", path.display()))
            .ok();
        let program = if component == "Worker" { "WORKER" } else { "RUNNER" };
        Self { file: Mutex::new(file), on_stdout: facts.log_on_stdout.is_some_and(super::flag), program }
    }

    /// What a part of the program has to say, for the log, also on standard output where a variable asks for that.
    pub(super) fn info(&self, source: &str, text: &str) {
        self.write("INFO", source, text);
    }

    /// An error for the log.
    pub(super) fn error(&self, source: &str, text: &str) {
        self.write("ERR ", source, text);
    }

    /// Each line of it has the prefix.
    fn write(&self, level: &str, source: &str, text: &str) {
        let time = now();
        let write = |to: &mut dyn std::io::Write, begin: &str| {
            text.split('\n').try_for_each(|line| writeln!(to, "[{begin}{time} {level} {source}] {line}"))
        };
        if self.on_stdout {
            // Standard output may be closed; the agent goes on.
            let _ = write(&mut std::io::stdout().lock(), &format!("{} ", self.program));
        }
        if let Ok(mut file) = self.file.lock()
            && let Some(file) = file.as_mut()
        {
            // A full disk must not end the agent.
            let _ = write(file, "");
        }
    }

    /// A line for people.
    pub(super) fn say(&self, text: &str) {
        self.info("Terminal", &format!("WRITE LINE: {text}"));
        // Standard output may be closed; the agent goes on.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// A line for people with the time before it, as the listener's markers have it.
    pub(super) fn say_timed(&self, text: &str) {
        self.say(&format!("{}: {text}", now()));
    }

    /// An error for people with the time before it.
    pub(super) fn complain_timed(&self, text: &str) {
        self.complain(&format!("{}: {text}", now()));
    }

    /// An error for people.
    pub(super) fn complain(&self, text: &str) {
        self.error("Terminal", &format!("WRITE ERROR: {text}"));
        // Standard error may be closed; the agent goes on.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// `2026-11-20 15:30:00Z`.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
