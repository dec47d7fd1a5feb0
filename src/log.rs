//! One line per event on standard output, as text or JSON, each with the phase and the runner's name.
//!
//! PID 1 waits for nobody who should read them: see [`unhurried`].
//!
//! Every line passes the redaction below before it is written: whatever a library or the agent may say, a secret that this
//! process knows does not leave it.

mod queue;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use zeroize::Zeroizing;

use self::queue::{LineQueue, is_held};
use crate::print;

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one object per line.
    Json,
}

/// What every line carries besides its message.
struct Shared {
    phase: &'static str,
    runner: String,
    format: Format,
    secrets: KnownSecrets,
}

/// The secrets to blank out: at most [`MOST`], those that were used last.
struct KnownSecrets {
    /// Longest first, so that a secret that contains another is replaced whole; with the turn in which each was last used.
    all: Vec<(u64, Zeroizing<String>)>,
    turn: u64,
}

/// The exit code after a panic: `EX_SOFTWARE` of `sysexits.h`.
const DEFECT: i32 = 70;
/// How many secrets are known at most. A runner that lives for months sees one or two new tokens an hour.
const MOST: usize = 256;
/// The shortest piece of a longer secret that is blanked out by itself.
const SHORTEST_PIECE: usize = 16;

/// How long the end of a process waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

static SHARED: Mutex<Shared> = Mutex::new(Shared {
    phase: "starting",
    runner: String::new(),
    format: Format::Text,
    secrets: KnownSecrets { all: Vec::new(), turn: 0 },
});

/// Where lines wait to be written, in a process that must not wait for it.
static QUEUE: OnceLock<Arc<LineQueue>> = OnceLock::new();

fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the phase that lines carry from now on.
pub(crate) fn set_phase(phase: &'static str) {
    shared().phase = phase;
}

/// Sets the runner's name that lines carry from now on.
pub(crate) fn set_runner(name: &str) {
    name.clone_into(&mut shared().runner);
}

/// Replaces `secret` by `***` in every line from now on; of one with several lines, such as a private key, each longer line
/// too. Values shorter than four characters are left alone: they would blank out ordinary words, and no forge issues such a
/// token.
pub(crate) fn redact(secret: &str) {
    // A test that throws bytes at something makes thousands up, and other tests' words would be blanked out.
    #[cfg(test)]
    if crate::fuzz::running() {
        return;
    }
    let secret = secret.trim();
    let mut shared = shared();
    if secret.len() >= 4 {
        shared.secrets.add(secret);
    }
    let lines: Vec<&str> =
        secret.split(['\n', '\r', '\\']).map(|line| line.strip_prefix('n').unwrap_or(line)).collect();
    if lines.len() > 1 {
        for line in
            lines.into_iter().map(str::trim).filter(|line| line.len() >= SHORTEST_PIECE && !line.contains("---"))
        {
            shared.secrets.add(line);
        }
    }
}

impl KnownSecrets {
    fn add(&mut self, secret: &str) {
        self.turn += 1;
        if let Some((turn, _)) = self.all.iter_mut().find(|(_, known)| known.as_str() == secret) {
            *turn = self.turn;
            return;
        }
        if self.all.len() >= MOST
            && let Some(oldest) = self.all.iter().enumerate().min_by_key(|(_, (turn, _))| *turn).map(|(at, _)| at)
        {
            self.all.remove(oldest);
        }
        self.all.push((self.turn, Zeroizing::new(secret.to_owned())));
        self.all.sort_by_key(|(_, known)| std::cmp::Reverse(known.len()));
    }
}

/// `text` without the known secrets.
#[must_use]
pub(crate) fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    for (_, secret) in &shared().secrets.all {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "***");
        }
    }
    text
}

/// Has a panic, a defect of OSCR, say so in one line without the known secrets and end the process with code 70. What a PID 1
/// holds is freed by its end, and what it registered is in the state file.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        // Whoever panics while it holds the secrets gets no words, because they could not be looked through; and whoever holds these
        // or the queue writes no line of the log, which would wait for both.
        let held = is_held(&SHARED);
        let queued = QUEUE.get().is_none_or(|queue| !queue.is_held());
        let said = if held { None } else { panic.payload_as_str().map(redacted) };
        let text =
            format!("a defect of oscr-entry{place}: {}; please report it", said.as_deref().unwrap_or("(no words)"));
        if !held && queued && tracing::event_enabled!(Level::ERROR) {
            tracing::error!("{text}");
        } else {
            print::say(&text);
        }
        if queued {
            write_the_rest();
        }
        std::process::exit(DEFECT);
    }));
}

/// Starts logging. A second call changes nothing.
pub(crate) fn start(format: Format, level: LevelFilter) {
    shared().format = format;
    let subscriber = tracing_subscriber::registry().with(LineLayer { format }.with_filter(level));
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Has lines wait in a queue for a thread that writes them, until what this returns is dropped, and the process is about to end. Only once
/// the process has the privileges that it means to keep: a thread keeps those that it began with.
#[must_use]
pub(crate) fn unhurried() -> Unhurried {
    if let Ok(out) = io::stdout().as_fd().try_clone_to_owned() {
        let _ = QUEUE.set(Arc::new(LineQueue::new(out.into(), missing)));
    }
    Unhurried
}

/// Lines are written by a thread. See [`unhurried`].
pub(crate) struct Unhurried;

impl Drop for Unhurried {
    fn drop(&mut self) {
        write_the_rest();
    }
}

fn write_the_rest() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(LAST_LINES);
    }
}

/// How many lines could not be written since this was last asked.
pub(crate) fn lost() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.lost())
}

/// The line that says that others are missing.
fn missing(lines: u64) -> String {
    let format = shared().format;
    let message = format!("{lines} lines of this log are missing here: standard output could not be written to");
    redacted(&event_line(format, &Level::WARN, Fields { message, rest: Map::new() })) + "\n"
}

/// Writes a line that is JSON in either form of the log, for machines that look for `message`.
pub(crate) fn object(message: &str, name: &str, value: Value) {
    let (phase, runner) = {
        let shared = shared();
        (shared.phase, shared.runner.clone())
    };
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let rest = Map::from_iter([(name.to_owned(), value)]);
    write_line(&json_line(time, &Level::INFO, phase, runner, message.to_owned(), rest));
}

fn json_line(
    time: String,
    level: &Level,
    phase: &'static str,
    runner: String,
    message: String,
    rest: Map<String, Value>,
) -> String {
    let mut object = Map::new();
    object.insert("time".into(), time.into());
    object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    object.insert("phase".into(), phase.into());
    object.insert("runner".into(), runner.into());
    object.insert("message".into(), message.into());
    object.extend(rest);
    Value::Object(object).to_string()
}

fn write_line(line: &str) {
    let mut line = redacted(line);
    line.push('\n');
    if let Some(queue) = QUEUE.get() {
        queue.push(line);
        return;
    }
    // Nothing can be done about a standard output that is gone, and no job may die of it.
    let _ = io::stdout().lock().write_all(line.as_bytes());
    let _ = io::stdout().lock().flush();
}

/// What happened, as one line of this form.
fn event_line(format: Format, level: &Level, fields: Fields) -> String {
    let time = humantime::format_rfc3339_millis(SystemTime::now());
    let (phase, runner) = {
        let shared = shared();
        (shared.phase, shared.runner.clone())
    };
    match format {
        Format::Text => {
            let runner = if runner.is_empty() { "-" } else { &runner };
            let mut line = format!("{time} {level:<5} {phase:<13} {runner} {}", fields.message);
            for (name, value) in &fields.rest {
                let _ = match value {
                    Value::String(text) if text.contains([' ', '"', '=']) => {
                        write!(line, " {name}={text:?}")
                    }
                    Value::String(text) => write!(line, " {name}={text}"),
                    other => write!(line, " {name}={other}"),
                };
            }
            // One event is one line, whatever an agent or a forge put into it.
            line.replace(['\n', '\r'], " ")
        }
        Format::Json => json_line(time.to_string(), level, phase, runner, fields.message, fields.rest),
    }
}

struct LineLayer {
    format: Format,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Libraries log their inner workings at debug; at that level a reader wants ours.
        let ours = event.metadata().target().starts_with("oscr");
        if !ours && *event.metadata().level() > Level::WARN {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = event_line(self.format, event.metadata().level(), fields);
        write_line(&line);
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        // Before quoting or JSON writes its characters otherwise.
        let value = match value {
            Value::String(text) => Value::String(redacted(&text)),
            other => other,
        };
        if field.name() == "message" {
            self.message = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.rest.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_secret_never_leaves_even_inside_another_word() {
        redact("hunter22-and-more");
        redact("hunter22");
        redact("abc");
        assert_eq!(redacted("x-hunter22-and-more-y hunter22 abc"), "x-***-y *** abc");
    }

    /// The child of the test below.
    #[test]
    #[ignore = "it ends its process"]
    fn panic_with_a_secret() {
        redact("hunter22-in-a-panic");
        let log = std::env::var("TEST_LOG").ok();
        if log.is_some() {
            start(Format::Json, LevelFilter::INFO);
        }
        // Told of by the hook: it ends the process before this is dropped.
        let _unhurried = (log.as_deref() == Some("unhurried")).then(unhurried);
        report_panics();
        let _held = (std::env::var("TEST_HELD").is_ok()).then(shared);
        panic!("cannot use \"hunter22-in-a-panic\" here");
    }

    #[test]
    fn a_panic_is_one_line_without_secrets_and_code_70() {
        for log in [None, Some("json"), Some("unhurried")] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "log::tests::panic_with_a_secret", "--ignored", "--nocapture"]);
            if let Some(log) = log {
                child.env("TEST_LOG", log);
            }
            let output = child.output().unwrap();
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(70), "{said}");
            assert!(said.contains("a defect of oscr-entry at src/log.rs:") && said.contains("***"), "{said}");
            assert!(!said.contains("hunter22"), "{said}");
        }
    }

    #[test]
    fn a_panic_of_whoever_holds_the_secrets_ends_the_process_without_its_words() {
        for log in ["json", "unhurried"] {
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "log::tests::panic_with_a_secret", "--ignored", "--nocapture"]);
            let output = child.env("TEST_LOG", log).env("TEST_HELD", "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(70), "{said}");
            assert!(said.contains("a defect of oscr-entry at src/log.rs:") && said.contains("(no words)"), "{said}");
        }
    }

    #[test]
    fn missing_lines_are_told_of_in_the_form_of_the_log() {
        let line = |format| event_line(format, &Level::WARN, Fields { message: "x\ny".into(), rest: Map::new() });
        assert!(line(Format::Text).contains(" WARN ") && line(Format::Text).ends_with(" x y"));
        let object: Value = serde_json::from_str(&line(Format::Json)).unwrap();
        assert_eq!((&object["level"], &object["message"]), (&"warn".into(), &"x\ny".into()));
        let line = missing(7);
        assert!(line.contains(" 7 lines of this log are missing here") && line.ends_with("to\n"), "{line:?}");
    }

    #[test]
    fn no_line_of_a_key_leaves_however_its_ends_are_written() {
        let lines = ["MIIEowIBAAKCAQEAlineone", "ZsecondLineOfTheKeyAbC", "nthirdLineOfTheKeyAbC=="];
        for end in ["\n", "\r\n", "\\n"] {
            redact(&format!(
                "-----BEGIN RSA PRIVATE KEY-----{end}{}{end}-----END RSA PRIVATE KEY-----",
                lines.join(end)
            ));
            for line in lines {
                let left = redacted(&format!("a piece: {line}."));
                assert!(!left.contains(&line[1..]), "{left}");
            }
        }
        assert_eq!(redacted("-----BEGIN RSA PRIVATE KEY-----"), "-----BEGIN RSA PRIVATE KEY-----");
    }

    #[test]
    fn the_secrets_used_last_are_those_that_stay_known() {
        let mut known = KnownSecrets { all: Vec::new(), turn: 0 };
        for number in 0..10 * MOST {
            known.add("the-token-of-the-user");
            known.add(&format!("token-{number}"));
        }
        assert_eq!(known.all.len(), MOST);
        let has = |secret: &str| known.all.iter().any(|(_, text)| text.as_str() == secret);
        assert!(has("the-token-of-the-user") && has(&format!("token-{}", 10 * MOST - 1)) && !has("token-0"));
    }
}
