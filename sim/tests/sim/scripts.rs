//! What the scripts beside the programs make of the listener's exit codes.
//!
//! Programs that a script starts are links to bash here, which then runs the file that is named by the first argument: a file
//! that was just written can be read at once, but not always be started while another thread starts something.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use oscr_sim::agent::Kind;

use crate::common::Agent;

/// An agent whose listener is a script of the test's, by the name `run` in the root.
struct Fake(Agent);

fn bash() -> PathBuf {
    let path = std::env::var_os("PATH").expect("a PATH");
    std::env::split_paths(&path).map(|folder| folder.join("bash")).find(|bash| bash.is_file()).expect("bash")
}

impl Fake {
    fn new(kind: Kind, listener: &str) -> Self {
        let agent = Agent::of(kind);
        let link = |name: &str| {
            let path = agent.root.join(name);
            let _ = fs::remove_file(&path);
            symlink(bash(), path).expect("a link");
        };
        link(kind.listener());
        // It, and the command that Azure's script uses, say for how long they would sleep.
        link("safe_sleep.sh");
        fs::create_dir(agent.root.join("path")).expect("a folder");
        link("path/sleep");
        for seconds in ["1", "5"] {
            fs::write(agent.root.join(seconds), format!("echo slept {seconds}")).expect("a file");
        }
        fs::write(agent.root.join("run"), format!("echo listens \"$@\"\n{listener}")).expect("a file");
        Self(agent)
    }

    fn root(&self) -> &Path {
        &self.0.root
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Output {
        self.command(name, arguments).output().expect("bash")
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").expect("a PATH");
        let mut script = Command::new("bash");
        script.arg(self.root().join(name)).args(arguments).current_dir(self.root());
        script.env("PATH", format!("{}:{path}", self.root().join("path").display()));
        script.env("RUNNER_ALLOW_RUNASROOT", "1").env("AGENT_ALLOW_RUNASROOT", "1");
        script
    }
}

/// How often something was said.
fn times(output: &Output, line: &str) -> usize {
    String::from_utf8_lossy(&output.stdout).lines().filter(|said| *said == line).count()
}

/// The exit code of GitHub's helper, and the seconds that it sleeps one at a time and five at a time.
#[track_caller]
fn helper(listener: u8, wanted: (i32, usize, usize)) {
    let fake = Fake::new(Kind::GitHub, &format!("exit {listener}"));
    let output = fake.script("run-helper.sh.template", &["--once"]);
    let found = (output.status.code(), times(&output, "slept 1"), times(&output, "slept 5"));
    assert_eq!(found, (Some(wanted.0), wanted.1, wanted.2), "{output:?}");
    assert_eq!(times(&output, "listens --once"), 1, "{output:?}");
}

#[test]
fn the_helper_stops_the_service_with_0_after_a_success() {
    helper(0, (0, 0, 0));
}

#[test]
fn the_helper_stops_the_service_with_0_after_a_terminating_error() {
    helper(1, (0, 0, 0));
}

#[test]
fn the_helper_asks_for_another_start_after_a_retryable_error() {
    helper(2, (2, 0, 1));
}

#[test]
fn the_helper_waits_for_an_update_for_31_seconds() {
    helper(3, (2, 31, 0));
    helper(4, (2, 31, 0));
}

#[test]
fn the_helper_waits_no_longer_than_the_update_takes() {
    for code in [3, 4] {
        let fake = Fake::new(Kind::GitHub, &format!("exit {code}"));
        fs::write(fake.root().join("1"), "echo slept 1; [ -e once ] && touch update.finished; touch once")
            .expect("a file");
        let output = fake.script("run-helper.sh.template", &[]);
        assert_eq!((output.status.code(), times(&output, "slept 1")), (Some(2), 2), "{output:?}");
    }
}

#[test]
fn the_helper_stops_the_service_with_0_after_a_session_conflict() {
    helper(5, (0, 0, 0));
}

#[test]
fn the_helper_passes_on_that_the_version_is_deprecated() {
    helper(7, (7, 0, 0));
}

#[test]
fn the_helper_hides_a_code_that_it_does_not_know() {
    helper(6, (0, 0, 0));
    helper(134, (0, 0, 0));
}

/// A listener that ends with one code after the other.
fn turns(codes: &str) -> String {
    format!("codes=({codes})\necho >>turns\nexit \"${{codes[$(($(wc -l <turns) - 1))]}}\"")
}

#[test]
fn githubs_run_starts_the_helper_anew_after_2_3_and_4_and_ends_after_all_else() {
    for (codes, starts, wanted) in [("2 3 4 0", 4, 0), ("1 2", 1, 0), ("5 2", 1, 0), ("2 7 2", 2, 7), ("9 2", 1, 0)] {
        for traps_signals in [false, true] {
            let fake = Fake::new(Kind::GitHub, &turns(codes));
            fs::write(fake.root().join("update.finished"), "").expect("a file");
            let mut run = fake.command("run.sh", &["--once"]);
            if traps_signals {
                run.env("RUNNER_MANUALLY_TRAP_SIG", "1");
            }
            let output = run.output().expect("bash");
            let found = (output.status.code(), times(&output, "listens --once"));
            assert_eq!(found, (Some(wanted), starts), "{codes}, traps {traps_signals}: {output:?}");
            assert!(fake.root().join("run-helper.sh").exists(), "it is copied at each start");
        }
    }
}

#[test]
fn azures_run_ends_with_the_listeners_code_and_starts_it_once_more_after_4() {
    for (codes, starts, slept, wanted) in
        [("0", 1, 0, 0), ("1", 1, 0, 1), ("2 0", 1, 0, 2), ("3 0", 1, 0, 3), ("4 0", 2, 1, 0), ("4 4 0", 2, 1, 4)]
    {
        let fake = Fake::new(Kind::Azure, &turns(codes));
        let output = fake.script("run.sh", &["--once"]);
        let found = (output.status.code(), times(&output, "listens --once"), times(&output, "slept 5"));
        assert_eq!(found, (Some(wanted), starts, slept), "{codes}: {output:?}");
    }
}

#[test]
fn azures_run_splits_its_arguments() {
    let fake = Fake::new(Kind::Azure, "exit 0");
    let output = fake.script("run.sh", &["--startuptype service", "--once"]);
    assert_eq!(times(&output, "listens --startuptype service --once"), 1, "{output:?}");
}

#[test]
fn azures_docker_script_starts_the_listener_anew_after_each_update_and_as_a_service_unless_for_one_job() {
    for (codes, starts, wanted) in [("0", 1, 0), ("1", 1, 1), ("2 0", 1, 2), ("3 4 3 0", 4, 0), ("4 9", 2, 9)] {
        for (arguments, listens) in [
            (["--once", "--startuptype x"], "listens --once --startuptype x"),
            (["--ONCE", ""], "listens --ONCE"),
            (["a b", "c"], "listens --startuptype service a b c"),
        ] {
            let fake = Fake::new(Kind::Azure, &turns(codes));
            let output = fake.script("run-docker.sh", &arguments);
            let found = (output.status.code(), times(&output, listens), times(&output, "slept 5"));
            assert_eq!(found, (Some(wanted), starts, starts - 1), "{codes} {arguments:?}: {output:?}");
        }
    }
}

#[test]
fn azures_docker_script_waits_for_the_other_version_and_not_for_ever() {
    for (back, wanted, slept) in [("[ -e once ] && mv away bin; touch once", 0, 2), ("", 1, 15)] {
        let fake = Fake::new(Kind::Azure, &format!("mv bin away\n{}", turns("3 0")));
        fs::write(fake.root().join("1"), format!("echo slept 1; {back}")).expect("a file");
        let output = fake.script("run-docker.sh", &[]);
        assert_eq!((output.status.code(), times(&output, "slept 1")), (Some(wanted), slept), "{output:?}");
    }
}
