//! The commands that a container starts again and again, understood without the parser of all others: to build that one takes
//! longer than all the rest that an init does before its child runs.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::line::{Command, ExecArgs};

/// What these words mean, the program's name first. `None` where that is for the whole parser to say: it knows the other commands,
/// and has the words for what is wrong.
pub(super) fn command(words: &[OsString]) -> Option<Command> {
    let [_, line @ ..] = words else { return None };
    let [name, rest @ ..] = line else { return Some(Command::Run) };
    match name.to_str()? {
        "run" if rest.is_empty() => Some(Command::Run),
        "exec" => plain_exec(rest).or_else(|| alone(line)).map(Command::Exec),
        "hook" => alone(line).map(Command::Hook),
        "health" => alone(line).map(Command::Health),
        _ => None,
    }
}

/// `-- CMD…`, where no flag leaves anything to be parsed.
fn plain_exec(words: &[OsString]) -> Option<ExecArgs> {
    let [dashes, command @ ..] = words else { return None };
    (dashes == "--" && !command.is_empty()).then(|| ExecArgs {
        single_child: false,
        rewrite: Vec::new(),
        remap: Vec::new(),
        grace: Duration::ZERO,
        user: None,
        workdir: None,
        umask: None,
        pdeathsig: None,
        no_new_privs: false,
        command: command.to_vec(),
    })
}

/// What the parser of one command makes of its line.
fn alone<A: Args>(line: &[OsString]) -> Option<A> {
    let matches = A::augment_args(clap::Command::new("")).try_get_matches_from(line).ok()?;
    A::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use super::super::line::Cli;
    use super::*;
    use clap::Parser;

    /// Lines that are understood here, and some that are left to the whole parser.
    const HERE: &[&str] = &[
        "",
        "run",
        "exec -- true",
        "exec -- -- true",
        "exec -- true --help -- exec",
        "exec -- --version",
        "exec --grace 3s -- sh -c exit",
        "exec --grace=90 --single-child -- true",
        "exec --rewrite TERM:INT --rewrite 15:0 --remap 143:0 -- true",
        "exec --user 1:2 --workdir / --umask 027 --pdeathsig TERM --no-new-privs -- true a b",
        "health",
        "health --socket /s",
        "health --socket=/s",
        "hook job-started --socket /s --hooks /h",
        "hook job-completed --socket /s --forge github --hooks /h --agent /a --fetched /f",
    ];
    const ELSEWHERE: &[&str] = &[
        "run x",
        "run --help",
        "exec",
        "exec --",
        "exec true",
        "exec --help",
        "exec -h -- true",
        "exec --version -- true",
        "exec --no-such -- true",
        "exec --grace x -- true",
        "exec --grace 1 --grace 2 -- true",
        "exec --single-child=yes -- true",
        "exec --gra 1 -- true",
        "exec -- ",
        "Exec -- true",
        "exe -- true",
        "health x",
        "health --socket",
        "health --help",
        "hook",
        "hook job-started",
        "hook nothing --socket /s --hooks /h",
        "help exec",
        "status --json",
        "--version",
        "-- exec -- true",
    ];

    fn words(line: &str) -> Vec<OsString> {
        let name = std::iter::once("oscr-entry");
        name.chain(line.split(' ').filter(|word| !word.is_empty())).map(OsString::from).collect()
    }

    #[test]
    fn what_is_understood_here_is_what_the_whole_parser_understands() {
        for line in HERE {
            let whole = Cli::try_parse_from(words(line)).unwrap().command.unwrap_or(Command::Run);
            assert_eq!(command(&words(line)), Some(whole), "{line:?}");
        }
        let ends_empty = ["oscr-entry", "exec", "--", ""].map(OsString::from);
        assert_eq!(command(&ends_empty), Cli::try_parse_from(&ends_empty).unwrap().command);
    }

    #[test]
    fn what_has_no_meaning_or_is_rare_is_left_to_the_whole_parser() {
        for line in ELSEWHERE {
            assert_eq!(command(&words(line)), None, "{line:?}");
        }
    }
}
