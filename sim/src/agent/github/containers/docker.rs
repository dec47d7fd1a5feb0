//! Running the command line of Docker, as the log of a job shows it.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Lines;
use crate::agent::process::exit_code;

/// The command line of Docker, run in one folder.
#[derive(Debug)]
pub(super) struct Docker {
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
}

impl Docker {
    /// Runs it and gives its exit code; what it says is logged.
    pub(super) fn run<S: AsRef<str>>(&self, arguments: &[S], log: Lines<'_>) -> Result<i32, String> {
        self.both(arguments, log).map(|(code, _)| code)
    }

    /// The lines that it says. Any exit code but 0 is an error.
    pub(super) fn ask<S: AsRef<str>>(&self, arguments: &[S], log: Lines<'_>) -> Result<Vec<String>, String> {
        match self.both(arguments, log)? {
            (0, lines) => Ok(lines),
            (code, _) => Err(format!(
                "Exit code {code} returned from process: file name '{}', arguments '{}'.",
                self.program.display(),
                line(arguments)
            )),
        }
    }

    fn both<S: AsRef<str>>(&self, arguments: &[S], log: Lines<'_>) -> Result<(i32, Vec<String>), String> {
        log(&format!("##[command]{} {}", self.program.display(), line(arguments)));
        let mut command = Command::new(&self.program);
        command.args(arguments.iter().map(AsRef::as_ref)).current_dir(&self.folder).stdin(Stdio::null());
        let output = command.output().map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => format!("File not found: '{}'", self.program.display()),
            _ => format!("{}: {why}", self.program.display()),
        })?;
        let said = |bytes: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(bytes).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let lines = said(&output.stdout);
        lines.iter().chain(&said(&output.stderr)).for_each(|line| log(line));
        let code = exit_code(output.status).unwrap_or(128);
        Ok((code, lines))
    }
}

/// Arguments as people read them.
fn line<S: AsRef<str>>(arguments: &[S]) -> String {
    let quoted = arguments.iter().map(AsRef::as_ref).map(|word| {
        let plain = !word.is_empty() && !word.contains(char::is_whitespace);
        if plain { word.to_owned() } else { format!("\"{word}\"") }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// So many random hexadecimal digits.
pub(super) fn random_hex(digits: usize) -> String {
    let mut bytes = vec![0_u8; digits.div_ceil(2)];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}
