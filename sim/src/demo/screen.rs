//! What the demo shows: one block that is drawn anew on a terminal, lines with the time elsewhere.

use std::io::{IsTerminal as _, Write as _, stdout};

use jiff::tz::TimeZone;

/// A colour by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Dim,
    Busy,
    Good,
    Bad,
}

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    colours: bool,
    /// Lines of the block that stands there now.
    drawn: usize,
}

impl Screen {
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb" || t.is_empty());
        let live = stdout().is_terminal() && !dumb;
        let colours = live && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { live, colours, drawn: 0 }
    }

    /// Text in a colour, where there are colours.
    pub(super) fn paint(&self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Dim => 2,
            Tone::Busy => 33,
            Tone::Good => 32,
            Tone::Bad => 31,
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line of its own: above the block on a terminal, with the time elsewhere.
    pub(super) fn event(&mut self, text: &str) {
        self.erase();
        let time = jiff::Timestamp::now().to_zoned(TimeZone::UTC).strftime("%H:%M:%S").to_string();
        let time = self.paint(&time, Tone::Dim);
        self.write(&format!("{time} {text}\n"));
    }

    /// A line without time.
    pub(super) fn line(&mut self, text: &str) {
        self.erase();
        self.write(&format!("{text}\n"));
    }

    /// Draws the block in place of the one before. Nothing where there is no terminal.
    pub(super) fn block(&mut self, lines: &[String]) {
        if !self.live {
            return;
        }
        self.erase();
        // Without wrapping, a line that is too long does not break the count.
        let mut text = String::from("\x1b[?7l");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("\x1b[?7h");
        self.write(&text);
        self.drawn = lines.len();
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            self.write(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn write(&mut self, text: &str) {
        let mut out = stdout();
        // A reader that went away does not end the demo: its containers must still be stopped.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
