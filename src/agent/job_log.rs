//! What a hook of ours writes into its job's log, and so to the agent, which takes some of the lines for commands.

use std::io::{self, Write};

use crate::plain::disturbs;
use crate::provider::JobHooks;

/// The log of a hook's job: the hook's standard output.
pub(super) struct JobLog<'a> {
    /// The agent that reads it, if it is known.
    pub(super) agent: Option<&'a JobHooks>,
}

impl JobLog<'_> {
    /// Says something.
    pub(super) fn say(&self, text: &str) {
        print(&said(text));
    }

    /// Says why the job fails, where the agent can, on the job's page as well.
    pub(super) fn fail(&self, why: &str) {
        print(&self.failure(why));
    }

    fn failure(&self, why: &str) -> String {
        match self.agent {
            Some(agent) => (agent.annotation)(&harmless(why)) + "\n",
            None => said(why),
        }
    }
}

fn said(text: &str) -> String {
    harmless(text).lines().map(|line| format!("oscr: {line}\n")).collect()
}

/// A text that may have others' words in it, so that no line of it does anything to a screen or is a command to the agent,
/// which takes `##[…]` for one anywhere in a line, and `::…::` at its beginning.
fn harmless(text: &str) -> String {
    let line = |line: &str| {
        // First what disturbs: without it, what stood around it may be a command.
        let line: String = line.chars().filter(|c| *c == '\t' || !disturbs(*c)).collect();
        let line = line.replace("##[", "# #[");
        match line.trim_start().strip_prefix("::") {
            Some(rest) => format!(": :{rest}"),
            None => line,
        }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn print(lines: &str) {
    let mut out = io::stdout().lock();
    // Nobody is left to be told when the log is gone.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_are_no_commands_and_do_nothing_to_a_screen() {
        let cases = [
            ("held by ##[error]x", "held by # #[error]x"),
            ("###[error]x", "## #[error]x"),
            ("##[a]##[b]", "# #[a]# #[b]"),
            ("#\u{1b}#[error]x", "# #[error]x"),
            ("##\u{202e}[error]x", "# #[error]x"),
            ("::error::x", ": :error::x"),
            (" \t\u{a0}::error::x", ": :error::x"),
            ("\u{1b}:\u{200f}:error::x", ": :error::x"),
            (":::x", ": ::x"),
            ("a ::error::x", "a ::error::x"),
            ("one\n::error::two\r\n  ::three\n##[four]", "one\n: :error::two\n: :three\n# #[four]"),
            ("one\r::error::two", "one::error::two"),
            ("\u{1b}[31mred\u{7}\u{9b}1m", "[31mred1m"),
            ("a\u{202a}b\u{202e}c\u{2066}d\u{2069}e\u{200e}f\u{200f}g\u{61c}h\u{2028}i", "abcdefghi"),
            ("a\tb 100% of o/r: [x] #7 f::g", "a\tb 100% of o/r: [x] #7 f::g"),
            ("Prüfstand لوحة", "Prüfstand لوحة"),
        ];
        for (text, shown) in cases {
            assert_eq!(harmless(text), shown, "{text:?}");
            assert_eq!(harmless(shown), shown, "once is enough");
        }
    }

    #[test]
    fn each_line_is_told_to_be_ours() {
        assert_eq!(said("one\n::two"), "oscr: one\noscr: : :two\n");
    }

    #[test]
    fn a_failure_is_one_line_whatever_is_in_it_and_plain_where_the_agent_has_no_page() {
        let known = crate::provider::FORGES.usual().agent.hooks.as_ref();
        let why = "held by 5% ##[x]\n::error::y\r";
        let line = "::error title=OSCR::held by 5%25 # #[x]%0A: :error::y\n";
        assert_eq!(JobLog { agent: known }.failure(why), line);
        assert_eq!(JobLog { agent: None }.failure(why), "oscr: held by 5% # #[x]\noscr: : :error::y\n");
    }
}
