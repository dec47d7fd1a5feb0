//! Writes the man pages of `oscr-entry`, and what completes its command line in shells, below a directory as they lie below
//! `/usr/local/share`. All of it comes from the command line's own definition, the tables of settings and `docs/configuration.md`.

mod completions;
mod markdown;
mod pages;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;

/// What all of it is for.
const PROGRAM: &str = "oscr-entry";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, day] = arguments.as_slice() else {
        eprintln!("usage: oscr-man DIRECTORY DAY, such as dist/share 2026-11-30");
        return ExitCode::from(64);
    };
    match write_all(Path::new(directory), day) {
        Ok(()) => ExitCode::SUCCESS,
        Err((file, error)) => {
            eprintln!("{} cannot be written: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path, day: &str) -> Result<(), (PathBuf, io::Error)> {
    let write = |file: PathBuf, text: &[u8]| {
        let made = file.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&file, text)).map_err(|error| (file, error))
    };
    let command = for_people(&oscr::cli::definition());
    for page in pages::pages(&command, day) {
        write(directory.join("man/man1").join(&page.file), page.text.as_bytes())?;
    }
    for (file, text) in completions::all(&command) {
        write(directory.join(file), text.as_bytes())?;
    }
    Ok(())
}

/// The definition without the commands that only the program itself gives, and which the shells' completions would offer. What stands
/// behind its help is left out too: man pages have sections for that.
fn for_people(definition: &Command) -> Command {
    let command = Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about(definition.get_about().cloned().unwrap_or_default());
    command
        .args(definition.get_arguments().cloned())
        .subcommands(definition.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}
