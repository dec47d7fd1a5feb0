//! What a release does, as far as it can be done without GitHub: the scripts of `scripts/release`, with stand-ins for the programs that reach out.

#![expect(clippy::unwrap_used, reason = "a case that cannot be set up is no case")]

mod binaries;
mod checkout;
mod entry;
mod images;
mod tags;
mod workflow;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs it with these bytes as standard input: the output, which a failure shows.
fn run(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    // One that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Its standard output; it must succeed.
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What it says for people; it must fail.
fn bad(output: &Output) -> String {
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A program of this text. Another process writes it: what a test itself has open for writing, no test that forks meanwhile can run.
fn program(path: &Path, text: &str) {
    good(&run(Command::new("bash").args(["-c", "cat >\"$0\" && chmod 0755 \"$0\""]).arg(path), text));
}
