//! What completes the command line in shells.

use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

use crate::PROGRAM;

/// Where each shell looks for it.
const FILES: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/oscr-entry"),
    (Shell::Zsh, "zsh/site-functions/_oscr-entry"),
    (Shell::Fish, "fish/vendor_completions.d/oscr-entry.fish"),
];

/// The files, each as its place and its text.
pub fn all(command: &Command) -> impl Iterator<Item = (&'static str, String)> {
    let command = hinted(command.clone());
    FILES.into_iter().map(move |(shell, file)| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), PROGRAM, &mut text);
        (file, of_one_name(&String::from_utf8(text).expect("it was made of text")))
    })
}

/// The generator for bash writes the dash of our name in two ways: one where it says which command a line is of, and another where
/// it asks for it, so that nothing of any command would ever be completed.
fn of_one_name(text: &str) -> String {
    text.replace(&PROGRAM.replace('-', "__subcmd__"), &PROGRAM.replace('-', "__"))
}

/// Says what values are, so that no files are proposed for a time.
fn hinted(command: Command) -> Command {
    command.mut_args(hint).mut_subcommands(hinted)
}

fn hint(arg: Arg) -> Arg {
    let hint = match arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str()) {
        Some("PATH") => ValueHint::AnyPath,
        Some("USER") => ValueHint::Username,
        Some("CMD") => ValueHint::CommandName,
        _ => ValueHint::Other,
    };
    if arg.get_action().takes_values() { arg.value_hint(hint) } else { arg }
}
