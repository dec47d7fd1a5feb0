//! One line per event on standard output, as text or JSON, each with the phase and the runner's name.
//!
//! Every line passes the redaction below before it is written: whatever a library or the agent may say, a secret that this
//! process knows does not leave it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use zeroize::Zeroizing;

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
    /// Longest first, so that a secret that contains another is replaced whole.
    secrets: Vec<Zeroizing<String>>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared { phase: "starting", runner: String::new(), secrets: Vec::new() });

fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the phase that lines carry from now on.
pub fn set_phase(phase: &'static str) {
    shared().phase = phase;
}

/// Sets the runner's name that lines carry from now on.
pub fn set_runner(name: &str) {
    name.clone_into(&mut shared().runner);
}

/// Replaces `secret` by `***` in every line from now on. Values shorter than four characters are left alone: they would
/// blank out ordinary words, and no forge issues such a token.
pub fn redact(secret: &str) {
    let secret = secret.trim();
    if secret.len() < 4 {
        return;
    }
    let mut shared = shared();
    if shared.secrets.iter().any(|known| known.as_str() == secret) {
        return;
    }
    shared.secrets.push(Zeroizing::new(secret.to_owned()));
    shared.secrets.sort_by_key(|known| std::cmp::Reverse(known.len()));
}

/// `text` without the known secrets.
#[must_use]
pub fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    for secret in &shared().secrets {
        if text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), "***");
        }
    }
    text
}

/// Starts logging. A second call changes nothing.
pub fn start(format: Format, level: LevelFilter) {
    let subscriber = tracing_subscriber::registry().with(Lines { format }.with_filter(level));
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct Lines {
    format: Format,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Libraries log their inner workings at debug; at that level a reader wants ours.
        let ours = event.metadata().target().starts_with("oscr");
        if !ours && *event.metadata().level() > Level::WARN {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let (phase, runner) = {
            let shared = shared();
            (shared.phase, shared.runner.clone())
        };
        let level = event.metadata().level();
        let line = match self.format {
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
            Format::Json => {
                let mut object = Map::new();
                object.insert("time".into(), time.to_string().into());
                object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
                object.insert("phase".into(), phase.into());
                object.insert("runner".into(), runner.into());
                object.insert("message".into(), fields.message.into());
                object.extend(fields.rest);
                Value::Object(object).to_string()
            }
        };
        let mut line = redacted(&line);
        line.push('\n');
        // Nothing can be done about a standard output that is gone, and no job may die of it.
        let _ = io::stdout().lock().write_all(line.as_bytes());
        let _ = io::stdout().lock().flush();
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
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
}
