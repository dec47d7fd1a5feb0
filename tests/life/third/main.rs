//! A forge that stands in no list of the product's, and lives whole lives: its provider is here, its agent a script, and the forge
//! itself a thread of the test.
//!
//! PID 1 must know this provider, so it is this very program, started anew under the product's name.

#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../filter.rs"]
mod filter;
#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../forge.rs"]
mod forge;
#[allow(dead_code, reason = "shared with the life tests, which use all of it")]
#[path = "../harness.rs"]
mod harness;
mod provider;
#[path = "../../containers/runner.rs"]
mod runner;
mod server;

use std::fs;
use std::process::ExitCode;

use nix::sys::signal::Signal;

use harness::{Container, Forge, until, write, write_program};
use provider::LISTENER;
use runner::Test;
use server::{Server, TOKEN};

/// What the product's program is called in a container, which is how we know that we are to be it.
const PROGRAM: &str = "usr/local/bin/oscr-entry";
const AGENT: &str = include_str!("agent.sh");

fn main() -> ExitCode {
    let ourselves = std::env::current_exe().expect("/proc");
    if ourselves.ends_with(PROGRAM) {
        return oscr::cli::main_with(provider::FORGES);
    }
    let tests: [(&str, fn()); 6] = [
        ("a_whole_life_and_the_next", a_whole_life_and_the_next),
        ("a_job_that_runs_when_asked_to_stop_finishes", a_job_that_runs_when_asked_to_stop_finishes),
        ("a_job_that_the_forge_has_just_assigned_is_waited_for", a_job_that_the_forge_has_just_assigned_is_waited_for),
        ("a_job_that_crosses_the_removal_still_finishes", a_job_that_crosses_the_removal_still_finishes),
        ("a_job_that_it_was_killed_under_is_told_of", a_job_that_it_was_killed_under_is_told_of),
        ("the_other_commands_know_it_too", the_other_commands_know_it_too),
    ];
    let tests = tests.map(|(name, run)| Test { name: name.to_owned(), run: Box::new(move |_| run()) });
    let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|number| number.parse().ok());
    runner::run(tests.into(), threads.unwrap_or(tests_at_a_time()), None)
}

fn tests_at_a_time() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// A container of the third forge's, in place of what the harness makes of its own.
fn container(forge: &Forge) -> (Container<'_>, Server) {
    let mut container = Container::new(forge);
    let program = container.path(PROGRAM);
    fs::remove_file(&program).expect("the product");
    let ourselves = std::env::current_exe().expect("/proc");
    if fs::hard_link(&ourselves, &program).is_err() {
        fs::copy(&ourselves, &program).expect("a copy");
    }
    let agent = container.path("opt/oscr/agent");
    fs::remove_dir_all(&agent).expect("the stand-in");
    let server = Server::start();
    let mailbox = server.mailbox().to_str().expect("a path is text");
    let script = AGENT.replace("MAILBOX", mailbox).replace("WORK", &container.text("work"));
    write_program(&agent.join(LISTENER), &script);
    write(&container.path("run/secrets/third"), TOKEN, 0o400);
    for name in ["GITHUB_HOST", "GITHUB_OWNER", "GITHUB_REPO", "GITHUB_PAT_FILE"] {
        container.unset(name);
    }
    let secret = container.text("run/secrets/third");
    container.set_all(&[("CI_PROVIDER", "third"), ("THIRD_URL", &server.url), ("THIRD_TOKEN_FILE", &secret)]);
    (container, server)
}

/// Waits until its one runner listens; the runner's name.
#[track_caller]
fn listening(container: &Container<'_>, server: &Server) -> String {
    container.wait_line("agent: ready for work");
    container.wait_phase("listening");
    let [name] = &server.runners()[..] else { panic!("{:?}", server.runners()) };
    name.clone()
}

/// Asserts that of this runner there is nothing left, at the forge or here, and in which order it was let go.
#[track_caller]
fn assert_gone(container: &Container<'_>, server: &Server, name: &str) {
    assert!(server.runners().is_empty(), "{:?}", server.runners());
    container.assert_state_empty();
    for place in ["work", "tmp", "runner"] {
        assert!(container.names(place).is_empty(), "{place}: {:?}", container.names(place));
    }
    let asked = server.asked();
    let place = |request: String| asked.iter().position(|known| *known == request);
    let disabled = place(format!("POST /runners/{name}/disable"));
    let released = place(format!("DELETE /runners/{name}"));
    assert!(disabled.is_some() && disabled < released, "{asked:#?}");
    assert!(container.lines_with(TOKEN).is_empty() && container.lines_with("key-number").is_empty());
}

fn a_whole_life_and_the_next() {
    let forge = Forge::start();
    let (mut container, server) = container(&forge);
    container.start();
    let name = listening(&container, &server);
    assert_eq!(container.status()["runner"]["name"], name.as_str());
    // The agent was given the registration and the grant when it was run.
    let seen = fs::read_to_string(server.mailbox().join("seen")).expect("it runs");
    assert_eq!(seen, format!("{name} 1 {}", server.key(&name)));
    server.have_linger();
    server.give("number one");
    let status = container.wait_phase("running");
    assert_eq!(status["job"]["name"], "number one", "{status}");
    server.finish();
    container.wait_line("the job is over: the listener listens again");
    server.let_leave();
    assert_eq!(container.exit_code(), 0);
    assert!(!container.lines_with("Job number one completed with result: succeeded").is_empty());
    assert_gone(&container, &server, &name);

    container.restart();
    let next = listening(&container, &server);
    assert_ne!(next, name);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    assert_gone(&container, &server, &next);
}

fn a_job_that_runs_when_asked_to_stop_finishes() {
    let forge = Forge::start();
    let (mut container, server) = container(&forge);
    container.start();
    let name = listening(&container, &server);
    server.give("unhurried");
    container.wait_phase("running");
    container.signal(Signal::SIGTERM);
    let status = container.wait_phase("draining");
    assert_eq!(status["job"]["name"], "unhurried", "{status}");
    assert!(!server.asked().iter().any(|request| request.contains("disable")), "{:?}", server.asked());
    server.finish();
    assert_eq!(container.exit_code(), 0);
    assert!(!container.lines_with("Job unhurried completed with result: succeeded").is_empty());
    assert_gone(&container, &server, &name);
}

fn a_job_that_the_forge_has_just_assigned_is_waited_for() {
    let forge = Forge::start();
    let (mut container, server) = container(&forge);
    container.start();
    let name = listening(&container, &server);
    server.assign();
    container.signal(Signal::SIGTERM);
    container.wait_line("a job has been assigned: waiting for it");
    server.deliver("late");
    let begun = |status: &serde_json::Value| status["job"]["name"] == "late";
    until("the job begins", || begun(&container.status()));
    server.finish();
    assert_eq!(container.exit_code(), 0);
    assert!(!container.lines_with("Job late completed with result: succeeded").is_empty());
    assert_gone(&container, &server, &name);
}

/// The forge lets the registration go, and the agent says in the same moment that it begins a job.
fn a_job_that_crosses_the_removal_still_finishes() {
    let forge = Forge::start();
    let (mut container, server) = container(&forge);
    container.start();
    let name = listening(&container, &server);
    container.signal(Signal::SIGTERM);
    until("the registration is gone", || server.runners().is_empty());
    server.deliver("crossing");
    container.wait_line("a job is running: waiting for it to finish");
    container.wait_line("agent: Running job: crossing");
    server.finish();
    assert_eq!(container.exit_code(), 0);
    assert!(!container.lines_with("Job crossing completed with result: succeeded").is_empty());
    assert_gone(&container, &server, &name);
}

fn a_job_that_it_was_killed_under_is_told_of() {
    let forge = Forge::start();
    let (mut container, server) = container(&forge);
    container.start();
    let name = listening(&container, &server);
    server.give("cut short");
    container.wait_phase("running");
    until("it is written down", || container.state()["job"]["job"]["name"] == "cut short");
    container.signal(Signal::SIGKILL);
    container.restart();
    let line = container.wait_line("\"job summary\"");
    let summary = serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["summary"].clone();
    assert_eq!(summary["result"], "lost", "{summary}");
    assert_eq!((&summary["job"], &summary["runner"]), (&"cut short".into(), &name.into()), "{summary}");
}

fn the_other_commands_know_it_too() {
    let forge = Forge::start();
    let (mut container, server) = container(&forge);
    let (code, said, error) = container.ask(&["check"]);
    assert_eq!(code, 0, "{error}");
    assert!(said.contains(&format!("Registers with {}.", server.url)), "{said}");
    assert!(said.contains("THIRD_TOKEN") && !said.contains(TOKEN), "{said}");
    let (_, said, _) = container.ask(&["doctor"]);
    assert!(said.contains("credential  may register"), "{said}");
    container.set("CI_PROVIDER", "github");
    let (code, _, said) = container.ask(&["check"]);
    assert!(code == 78 && said.contains("use one of: third"), "{said}");
}
