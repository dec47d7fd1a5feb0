//! What the program makes, as those read it whom it is for: man pages by mandoc, completions by the shell.

#![expect(clippy::unwrap_used, reason = "what is not made cannot be read")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use oscr::config::table::{COMMON, SettingKind};
use oscr::exit;
use oscr::provider::FORGES;
use tempfile::TempDir;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All that is made, in a directory of its own.
fn made() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_oscr-man")).arg(directory.path()).arg("2026-11-30").status();
    assert!(status.unwrap().success());
    directory
}

/// The text of a page, without what makes it bold and the like.
fn page(made: &TempDir, name: &str) -> String {
    let file = made.path().join("man/man1").join(name);
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    ["\\fB", "\\fI", "\\fR"].iter().fold(text.replace("\\-", "-"), |text, mark| text.replace(mark, ""))
}

/// What stands in a section of a page.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let heading = if name.contains(' ') { format!(".SH \"{name}\"\n") } else { format!(".SH {name}\n") };
    let (_, below) = page.split_once(&heading).unwrap_or_else(|| panic!("there is no {name}"));
    below.split_once("\n.SH ").map_or(below, |(section, _)| section)
}

/// Every command that people give, as its page is called, with its long options.
fn commands() -> Vec<(String, Vec<String>)> {
    fn add(command: &clap::Command, found: &mut Vec<(String, Vec<String>)>) {
        let options = command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
        found.push((command.get_display_name().unwrap().to_owned(), options.collect()));
        let below = command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help");
        below.for_each(|below| add(below, found));
    }
    let mut definition = oscr::cli::definition();
    definition.build();
    let mut found = Vec::new();
    // The parser itself knows no name for the page of the whole.
    add(&definition.display_name("oscr-entry"), &mut found);
    found
}

#[test]
fn every_command_that_people_give_has_a_page_with_its_options_and_no_other_has() {
    let made = made();
    let commands = commands();
    assert!(commands.iter().any(|(name, _)| name == "oscr-entry-lock-run"), "{commands:?}");
    for (name, options) in &commands {
        let page = page(&made, &format!("{name}.1"));
        let (synopsis, given) = (section(&page, "SYNOPSIS"), section(&page, "OPTIONS"));
        assert!(
            synopsis.starts_with(if name == "oscr-entry" { "oscr-entry [COMMAND]" } else { "oscr-entry " }),
            "{page}"
        );
        for option in options {
            assert!(given.lines().any(|line| line.split([' ', ',']).any(|word| word == option)), "{name}: {option}");
        }
    }
    let expected: BTreeSet<String> = commands.iter().map(|(name, _)| format!("{name}.1")).collect();
    let files = fs::read_dir(made.path().join("man/man1")).unwrap();
    let files: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, expected);
    assert!(section(&page(&made, "oscr-entry-exec.1"), "SYNOPSIS").contains("exec [OPTIONS] -- <CMD>..."));
}

#[test]
fn the_programs_page_has_every_setting_signal_place_and_exit_code() {
    let page = page(&made(), "oscr-entry.1");
    let environment = section(&page, "ENVIRONMENT");
    for setting in FORGES.0.iter().flat_map(|forge| forge.settings).chain(COMMON) {
        let file = if setting.kind == SettingKind::Secret { format!(", {}_FILE", setting.name) } else { String::new() };
        let entry = format!(".TP\n{}{file}\n", setting.name);
        assert!(environment.contains(&entry), "{entry}");
    }
    let codes = section(&page, "EXIT STATUS");
    let words: BTreeSet<&str> = codes.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    for code in [exit::DONE, exit::USAGE, exit::SOFTWARE, exit::TAKEN, exit::TEMPORARY, exit::CONFIG] {
        assert!(words.contains(code.to_string().as_str()), "{code}: {codes}");
    }
    // The page of the documentation has more of them, and what is said there in other forms is no table of this one's.
    let documented = fs::read_to_string(project().join("docs/configuration.md")).unwrap();
    let (_, documented) = documented.split_once("\n## Exit codes\n").unwrap();
    let (documented, _) = documented.split_once("\n## ").unwrap();
    let numbers = documented.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.parse::<u8>().is_ok());
    let numbers: BTreeSet<&str> = numbers.collect();
    assert!(numbers.contains("127") && numbers.is_subset(&words), "{numbers:?}: {codes}");
    for signal in ["SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1"] {
        assert!(section(&page, "SIGNALS").contains(signal), "{signal}");
    }
    for place in ["/work", "/run/oscr", "/var/lib/oscr", "/etc/oscr/hooks.d/"] {
        assert!(section(&page, "FILES").contains(&format!(".TP\n{place}\n")), "{place}");
    }
    // Nothing of how the documentation writes is left.
    for mark in ["`", "](", "**"] {
        assert!(!page.contains(mark), "{mark}: {page}");
    }
}

#[test]
fn mandoc_has_nothing_to_say_about_any_page() {
    let made = made();
    let unpacked = project().join(".tools/mandoc/usr/bin/mandoc");
    let mut mandoc = Command::new(if unpacked.exists() { unpacked } else { "mandoc".into() });
    mandoc.args(["-T", "lint", "-W", "warning"]);
    mandoc.args(fs::read_dir(made.path().join("man/man1")).unwrap().map(|file| file.unwrap().path()));
    let output = mandoc.output().expect("mandoc can be started: scripts/setup.sh tests fetches it");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What bash proposes for the last of these words.
fn proposed(file: &Path, words: &[&str]) -> Vec<String> {
    // As bash calls it: the command, the word, and the one before.
    let script = r#"
        source "$0" && function=$(complete -p oscr-entry | sed 's/.* -F \([^ ]*\) .*/\1/')
        COMP_WORDS=(oscr-entry "$@") COMP_CWORD=$#
        "$function" oscr-entry "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash").args(["--norc", "--noprofile", "-c", script]).arg(file).args(words).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_paths() {
    let made = made();
    let file = made.path().join("bash-completion/completions/oscr-entry");
    let one = |words: &[&str]| {
        let found = proposed(&file, words);
        assert_eq!(found.len(), 1, "{words:?}: {found:?}");
        found.into_iter().next().unwrap()
    };
    assert_eq!(one(&["lo"]), "lock");
    assert_eq!(one(&["lock", "wa"]), "wait-free");
    assert_eq!(one(&["drain", "--ex"]), "--exit");
    assert_eq!(one(&["lock", "run", "--conf"]), "--conflict-exit-code");
    assert_eq!(one(&["lock", "wait-free", "--d"]), "--dir");
    let within = format!("{}/ma", made.path().display());
    assert_eq!(one(&["lock", "--dir", &within]), format!("{within}n"));
    let first: BTreeSet<String> = proposed(&file, &[""]).into_iter().filter(|word| !word.starts_with('-')).collect();
    let commands = commands().into_iter().filter_map(|(name, _)| Some(name.strip_prefix("oscr-entry-")?.to_owned()));
    let commands: BTreeSet<String> =
        commands.filter(|name| !name.starts_with("lock-")).chain(["help".to_owned()]).collect();
    assert_eq!(first, commands);
}

#[test]
fn every_shell_is_told_of_every_command_and_option_and_of_none_that_is_hidden() {
    let made = made();
    for (file, dashes) in [
        ("bash-completion/completions/oscr-entry", "--"),
        ("zsh/site-functions/_oscr-entry", "--"),
        ("fish/vendor_completions.d/oscr-entry.fish", "-l "),
    ] {
        let text = fs::read_to_string(made.path().join(file)).unwrap();
        let words: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect();
        for (name, options) in commands() {
            let parents = ["oscr-entry-lock-", "oscr-entry-"];
            let word = parents.iter().find_map(|parent| name.strip_prefix(parent)).unwrap_or(&name);
            assert!(words.contains(word), "{file}: {word}");
            for option in options {
                let option = option.replacen("--", dashes, 1);
                let followed = |(at, _): (usize, &str)| {
                    !text[at + option.len()..].starts_with(|c: char| c == '-' || c.is_alphanumeric())
                };
                assert!(text.match_indices(&option).any(followed), "{file}: {option}");
            }
        }
        let hidden = oscr::cli::definition();
        let hidden = hidden.get_subcommands().filter(|command| command.is_hide_set());
        for command in hidden {
            assert!(!words.contains(command.get_name()), "{file}: {}", command.get_name());
        }
    }
}

/// It is what every runner carries.
#[test]
fn nothing_that_makes_pages_is_a_part_of_the_program() {
    let lock = fs::read_to_string(project().join("Cargo.lock")).unwrap();
    let needs = |name: &str| -> Vec<String> {
        let package = format!("\n[[package]]\nname = \"{name}\"\n");
        let of_name =
            lock.match_indices(&package).map(|(at, _)| lock[at + package.len()..].split("\n\n").next().unwrap());
        let lines = of_name.flat_map(|package| package.lines().skip_while(|line| *line != "dependencies = [").skip(1));
        lines.filter_map(|line| line.trim().strip_prefix('"')?.split([' ', '"']).next().map(str::to_owned)).collect()
    };
    let mut known = BTreeSet::new();
    let mut open = vec!["oscr".to_owned()];
    while let Some(name) = open.pop() {
        if known.insert(name.clone()) {
            open.extend(needs(&name));
        }
    }
    assert!(known.contains("clap_builder"), "{known:?}");
    for name in ["clap_complete", "clap_mangen", "roff", "oscr-man"] {
        assert!(!known.contains(name), "{name}");
        assert!(lock.contains(&format!("name = \"{name}\"\n")), "{name} is called otherwise by now");
    }
}
