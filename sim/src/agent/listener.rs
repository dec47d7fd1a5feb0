//! `Runner.Listener` and `Agent.Listener`: the program, which configures, removes, or listens.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::arguments::Arguments;
use super::kind::{Facts, Kind};
use super::listening::{Event, Listener};
use super::permissions::listed;
use super::trace::Trace;

// Exit codes of both agents.
pub(super) const TERMINATED: i32 = 1;
pub(super) const RETRYABLE: i32 = 2;
pub(super) const UPDATING: i32 = 3;
pub(super) const ONCE_UPDATING: i32 = 4;
pub(super) const CONFLICT: i32 = 5;
pub(super) const DEPRECATED: i32 = 7;

/// The whole program; gives its exit code.
#[must_use]
pub fn main() -> i32 {
    end_by_panics();
    let kind = Kind::of_this_program();
    let facts = kind.facts();
    let root = super::root();
    // Before anything else is looked at: not even the version is told without a log.
    let trace = match Trace::open(&root, facts, facts.title) {
        Ok(trace) => Arc::new(trace),
        Err(why) => {
            eprintln!("{why}");
            return TERMINATED;
        }
    };
    load_env_file(&root);
    let mut arguments = Arguments::parse(facts, std::env::args_os().skip(1));
    arguments.add_environment(facts.input_prefix);
    if arguments.flag("version") {
        println!("{}", super::version(kind, &root));
        return 0;
    }
    if arguments.flag("commit") {
        println!("0000000000000000000000000000000000000000");
        return 0;
    }
    if arguments.flag("help") {
        println!("Commands: {}. See the official agent's help for the flags.", facts.commands.join(", "));
        return 0;
    }
    if !arguments.unknown.is_empty() {
        trace.complain(&format!(
            "Unrecognized command-line input arguments: '{}'. For usage refer to: .\\config.cmd --help or ./config.sh --help",
            arguments.unknown.join(", ")
        ));
        return TERMINATED;
    }
    let (events, received) = mpsc::channel();
    if let Err(error) = forward_signals(events.clone()) {
        trace.complain(&format!("An error occurred: {error}"));
        return TERMINATED;
    }
    if let Err(why) = listed(&root) {
        trace.complain(&format!("An error occurred: {why}"));
        return TERMINATED;
    }
    match arguments.command.as_deref() {
        Some("configure") => until_signal(facts, &trace, received, |trace| (facts.configure)(&root, trace, &arguments)),
        Some("remove") => until_signal(facts, &trace, received, |trace| (facts.remove)(&root, trace, &arguments)),
        Some("warmup" | "reauth") => 0,
        None if arguments.flag("warmup") => 0,
        Some(_) | None => {
            let loaded = Listener::load(kind, root, Arc::clone(&trace), &arguments, events, received);
            let code = loaded.map_or_else(|code| code, |mut listener| listener.run());
            finished(facts, &trace, code)
        }
    }
}

/// What nobody thought of ends the whole program, whichever thread meets it, as upstream's last resort does.
fn end_by_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // Standard error may be closed; the code tells it.
        let _ = writeln!(
            std::io::stderr(),
            "An error occurred: {}",
            panic.payload_as_str().unwrap_or("Unhandled exception")
        );
        std::process::exit(RETRYABLE);
    }));
}

/// `.env` in Root is loaded at start, and its values win over the environment.
fn load_env_file(root: &Path) {
    let Ok(text) = fs::read_to_string(root.join(".env")) else {
        return;
    };
    for line in text.trim_start_matches('\u{feff}').lines() {
        if let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.is_empty()) {
            // SAFETY: the listener has no other thread yet.
            unsafe { std::env::set_var(key, value) };
        }
    }
}

/// Configuring is cut short by a signal, with code 1.
fn until_signal(facts: &Facts, trace: &Trace, received: Receiver<Event>, work: impl FnOnce(&Trace) -> i32) -> i32 {
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Ok(Event::Signal(_)) = received.recv() {
                trace.say("Exiting...");
                std::process::exit(TERMINATED);
            }
        });
        let code = finished(facts, trace, work(trace));
        // The thread above waits for ever otherwise.
        std::process::exit(code)
    })
}

/// Says of a code that it is the program's.
fn finished(facts: &Facts, trace: &Trace, code: i32) -> i32 {
    trace.info("Listener", &format!("{} execution has finished with return code {code}", facts.title));
    code
}

fn forward_signals(events: Sender<Event>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// A member by name, whatever its case: JIT settings are written in another case than those of `configure`.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
}

/// A member that is a text.
pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    field(value, name).and_then(Value::as_str).unwrap_or_default()
}

/// A member that is a number, or the text of one.
pub(super) fn number(value: &Value, name: &str) -> u64 {
    let found = field(value, name);
    found.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok())).unwrap_or_default()
}

/// A truth, or the text of one.
pub(super) fn truth(value: Option<&Value>) -> bool {
    value.is_some_and(|v| v == &Value::Bool(true) || v.as_str().is_some_and(|v| v.eq_ignore_ascii_case("true")))
}
