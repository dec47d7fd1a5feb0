//! Commands that people and scripts call, whose reader leaves before the end; and what a program of the image in the place of one
//! is answered with.

use std::io::pipe;
use std::process::{Command, Stdio};

use crate::boards::Boards;
use crate::harness::{Container, Forge, outcome, write_program};

/// The code of a command whose output nobody reads, nor its complaints if it is about `errors_too`, which else are given, too.
fn unread(mut command: Command, errors_too: bool) -> (i32, String) {
    let closed = || {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        writer
    };
    command.stdin(Stdio::null()).stdout(closed());
    if errors_too {
        command.stderr(closed());
    }
    let output = command.output().expect("the binary");
    (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_who_leaves_changes_no_command_s_end() {
    let forge = Forge::start();
    let (runner, mut wrong) = (Container::listening(&forge, &[]), Container::new(&forge));
    wrong.unset("GITHUB_OWNER");
    let boards = Boards::new();
    let directory = boards.path().to_str().expect("a plain name");
    outcome(runner.command(&["lock", "--dir", directory, "run", "board-1", "--", "true"]));
    let cases: [(&Container<'_>, &[&str]); 12] = [
        (&runner, &["check"]),
        (&runner, &["doctor"]),
        (&runner, &["status"]),
        (&runner, &["status", "--json"]),
        (&runner, &["health"]),
        (&runner, &["lock", "--dir", directory, "status"]),
        (&runner, &["lock", "--dir", directory, "status", "--json"]),
        (&runner, &["--version"]),
        (&runner, &["help", "exec"]),
        (&runner, &["no-such-command"]),
        (&wrong, &["check"]),
        (&wrong, &["status"]),
    ];
    for (container, arguments) in cases {
        let (code, out, error) = container.ask(arguments);
        assert!(!out.is_empty() || !error.is_empty(), "{arguments:?} is silent");
        assert_eq!(unread(container.command(arguments), false), (code, error), "{arguments:?}");
        assert_eq!(unread(container.command(arguments), true).0, code, "{arguments:?}");
    }
}

#[test]
fn a_program_in_the_place_of_a_command_is_answered_with_the_line_that_runs_it() {
    let forge = Forge::start();
    let container = Container::new(&forge);
    let (code, out, error) = container.ask(&["sh", "-c", "echo $HOME"]);
    assert_eq!((code, out.as_str()), (64, ""), "{error}");
    for line in [
        "docker run --rm -it --entrypoint sh IMAGE -c 'echo $HOME'\n",
        "docker exec -it CONTAINER sh -c 'echo $HOME'\n",
    ] {
        assert!(error.contains(line), "{line}: {error}");
    }
    let (code, _, error) = container.ask(&["statsu"]);
    assert!(code == 64 && error.contains("unrecognized") && !error.contains("docker"), "{error}");
}

#[test]
fn a_script_that_names_no_shell_runs_while_it_holds_a_board() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let container = Container::new(&forge);
    let script = boards.path().join("flash");
    write_program(&script, "echo \"$OSCR_RESOURCE $1\"\nexit 5\n");
    let (directory, script) = (boards.path().to_str().expect("a plain name"), script.to_str().expect("a plain name"));
    let (code, out, error) = container.ask(&["lock", "--dir", directory, "run", "board-1", "--", script, "now"]);
    assert_eq!((code, out.as_str()), (5, "board-1 now\n"), "{error}");
}
