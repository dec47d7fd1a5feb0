//! A program of the image in the place of a command, as in `docker run IMAGE bash`: what the user meant needs another line.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;
use clap::error::ErrorKind;

/// How to run what the arguments name, if that is why they were not understood by our `commands` and there is such a program.
pub(super) fn advice(
    commands: &Command,
    error: &clap::Error,
    arguments: impl Iterator<Item = OsString>,
) -> Option<String> {
    let words: Vec<OsString> = arguments.collect();
    let [program, rest @ ..] = words.as_slice() else { return None };
    let known = commands.find_subcommand(program).is_some();
    (error.kind() == ErrorKind::InvalidSubcommand && !known && is_here(program)).then(|| lines(program, rest))
}

fn is_here(program: &OsStr) -> bool {
    if program.as_encoded_bytes().contains(&b'/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn lines(program: &OsStr, rest: &[OsString]) -> String {
    let shown = quoted(program);
    let rest: String = rest.iter().map(|word| format!(" {}", quoted(word))).collect();
    format!(
        "{shown} is a program of this image and no command of oscr-entry, which is what the image starts. To run it there:\n  \
         docker run --rm -it --entrypoint {shown} IMAGE{rest}\nand in a container that runs:\n  \
         docker exec -it CONTAINER {shown}{rest}"
    )
}

/// A word as a shell takes it for one.
fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(words: &[&str]) -> Option<String> {
        let lock = Command::new("lock").subcommand(Command::new("status"));
        let commands = Command::new("oscr-entry").subcommand(lock).subcommand(Command::new("health"));
        let error = commands.clone().try_get_matches_from([&["oscr-entry"][..], words].concat()).err()?;
        advice(&commands, &error, words.iter().map(OsString::from))
    }

    #[test]
    fn a_program_of_the_image_is_answered_with_the_lines_that_run_it() {
        let text = advised(&["sh", "-c", "echo 'it is' > /x"]).unwrap();
        let line = r"docker run --rm -it --entrypoint sh IMAGE -c 'echo '\''it is'\'' > /x'";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("docker exec -it CONTAINER sh -c 'echo"), "{text}");
        assert!(advised(&["/bin/sh"]).is_some_and(|text| text.contains("--entrypoint /bin/sh IMAGE\n")));
    }

    #[test]
    fn what_is_no_program_and_the_arguments_of_our_own_commands_are_not() {
        for words in [&["no-such-program"][..], &["statu"], &["lock", "sh"], &["--sh"], &["/bin"], &["health", "sh"]] {
            assert_eq!(advised(words), None, "{words:?}");
        }
    }
}
