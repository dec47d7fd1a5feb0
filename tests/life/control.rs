//! The socket: status, health, drain, and what a job may not do with it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, outcome};

fn send(container: &Container<'_>, bytes: &[u8]) -> String {
    let socket = container.path("run/oscr/control.sock");
    let mut stream = UnixStream::connect(socket).expect("PID 1 listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a valid time");
    // PID 1 may have had enough before all is written.
    let _ = stream.write_all(bytes);
    // Who has sent a whole request waits for its answer, as our clients do: one that shuts its end may be gone.
    if !bytes.ends_with(b"\n") {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The same command as the agent's user.
fn as_the_agent(container: &Container<'_>, arguments: &[&str]) -> (i32, String, String) {
    let ours = container.command(arguments);
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={}", container.uid), format!("--regid={}", container.uid)])
        .arg("--clear-groups")
        .arg(ours.get_program())
        .args(ours.get_args())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("OSCR_ROOT", &container.root);
    outcome(command)
}

#[test]
fn status_and_health_tell_the_story() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (code, out, _) = container.ask(&["health"]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("is it running"), "{out}");
    let mut gate = container.gate();
    container.start();
    let (id, name) = forge.listening();
    let status = container.wait_phase("listening");
    for (field, value) in [
        ("version", serde_json::json!(1)),
        ("phase", "listening".into()),
        ("healthy", true.into()),
        ("provider", "github".into()),
        ("runner", serde_json::json!({"name": name, "id": id})),
        ("job", serde_json::Value::Null),
        ("last_error", serde_json::Value::Null),
    ] {
        assert_eq!(status[field], value, "{field}: {status}");
    }
    assert_eq!(container.ask(&["health"]), (0, "listening\n".into(), String::new()));
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    container.wait_line("a job begins");
    let status = container.status();
    assert_eq!(status["phase"], "running", "{status}");
    assert_eq!(status["job"]["repository"], "o/r", "{status}");
    let (code, text, _) = container.ask(&["status"]);
    assert_eq!(code, 0);
    assert!(text.contains(&name) && text.contains("running"), "{text}");
    gate.open();
    assert_eq!(container.exit_code(), 0);
    assert_eq!(container.ask(&["health"]).0, 1);
}

#[test]
fn a_drained_runner_stays_without_taking_jobs_until_it_is_stopped() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let (job, mut gate) = container.start_with_job();
    let drain = container.command(&["drain"]);
    let drain = std::thread::spawn(move || outcome(drain));
    container.wait_line("waiting for it to finish");
    gate.open();
    assert_eq!(drain.join().expect("no panic").0, 0);
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    let status = container.status();
    assert_eq!(status["phase"], "drained", "{status}");
    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!(forge.runners().len(), 0);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(5)), 0);
}

#[test]
fn a_drain_of_an_idle_runner_removes_its_registration() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    container.signal(Signal::SIGUSR1);
    container.wait_line("drained: no job is taken");
    assert_eq!(forge.runners().len(), 0);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code_within(Duration::from_secs(5)), 0);
}

#[test]
fn a_drain_may_end_the_life() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let (code, _, error) = container.ask(&["drain", "--exit"]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn a_job_may_look_but_not_drain() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    let (code, _, error) = as_the_agent(&container, &["drain"]);
    assert_eq!(code, 1);
    assert!(error.contains("refused: only the user"), "{error}");
    assert_eq!(as_the_agent(&container, &["health"]).0, 0);
    assert_eq!(container.lines_with("asked to drain").len(), 0);
}

#[test]
fn garbage_on_the_socket_is_answered_or_dropped_and_nothing_else_happens() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    container.wait_phase("listening");
    let long = vec![b'x'; 1 << 20];
    for garbage in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"{\"request\":\"fly\"}\n",
        b"\xff\xfe\x00\n",
        b"{\"request\":\"drain\"}\n",
        b"{\"request\":\"hook\",\"event\":\"job-started\"}\n",
        &long,
    ] {
        let answer = send(&container, garbage);
        assert!(answer.is_empty() || answer.contains("\"error\""), "{answer}");
    }
    assert_eq!(send(&container, b""), "{\"error\":\"no request: EOF while parsing a value at line 1 column 0\"}\n");
    // Some who say nothing at all.
    let silent: Vec<UnixStream> =
        (0..40).map(|_| UnixStream::connect(container.path("run/oscr/control.sock")).expect("it listens")).collect();
    assert_eq!(container.status()["phase"], "listening");
    drop(silent);
    assert_eq!(container.lines_with("asked to drain").len(), 0);
}

#[test]
fn what_a_job_says_about_itself_cannot_break_a_line_of_the_log() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    let lie = serde_json::json!({"request": "hook", "event": "job-completed", "job": {"name": "a\nFAKE INFO line\u{1b}[31m"}});
    let answer = send(&container, format!("{lie}\n").as_bytes());
    assert!(answer.contains("go"), "{answer}");
    let line = container.wait_line("the job's steps are over");
    assert!(line.contains("FAKE INFO") && !line.contains('\u{1b}'), "{line}");
    assert!(!container.lines().iter().any(|line| line.starts_with("FAKE")));
}
