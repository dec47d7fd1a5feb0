//! What a line of an agent's output is: words for people, a trace of the listener's or of the worker's; and what it says.
//!
//! GitHub's agent traces to its standard output because some of its signs come only there. A trace begins with
//! `[RUNNER 2026-11-29 10:31:10Z INFO Terminal] `, the worker's with `[WORKER …`; words for people come plain and once more as the trace
//! of having been written. A prefix and its text are two writes of two processes, so lines mix: a prefix stands alone before
//! another's line, and its text follows on a line without any.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tracing::Level;

use super::line_origin::{LISTENERS, LineOrigin, origin, time};
use crate::provider::{AgentFacts, Meaning, Sign};

/// What a line said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marker {
    /// The listener is connected.
    Listening,
    /// It begins a job of this name.
    Running(String),
    /// The job of this name is over, with this result in its own word.
    Completed(String, String),
    /// It is of this version.
    Version(String),
    /// How it is, and in which words.
    Sign(Sign, String),
    /// A process that it started, of this number, ended with this code.
    Finished(i32, i32),
}

/// Whose words they are, and so how many people should see of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The listener's: shown, but while a worker lives, because then they may be a job's.
    Listener,
    /// Those of a step that registers or removes: its error has them, if it fails. Its banner is nobody's business.
    Step,
    /// Something else's: all are shown, and mean nothing.
    Other,
}

/// What is to be done with a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How important it is; `None` is not worth a line at any level, or is nobody's to read.
    pub level: Option<Level>,
    /// What it says that was not said before.
    pub marker: Option<Marker>,
    /// Whether it is for people, and so worth keeping for an error's text.
    pub for_people: bool,
}

/// Of so many words it is remembered that only one of their two forms was seen.
const REMEMBERED: usize = 16;

/// Reads the output of one process, which comes through two pipes. They share what was said.
#[derive(Debug)]
pub(crate) struct LineReader {
    facts: &'static AgentFacts,
    manner: Voice,
    said: Rc<RefCell<Said>>,
    /// So many texts of the worker's are still to come, each on a line of its own: their prefixes stood before other lines.
    owed: u32,
}

/// What was said in one of two forms, plain or traced.
#[derive(Debug, Default)]
struct Said(VecDeque<(String, bool)>);

impl Said {
    /// Whether these words were not said in the other form yet. Each pair of forms says one thing.
    fn first(&mut self, words: &str, traced: bool) -> bool {
        if self.take(words, !traced) {
            return false;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((words.to_owned(), traced));
        true
    }

    /// Whether these words were said in this form, and not in the other yet. They are forgotten then.
    fn take(&mut self, words: &str, traced: bool) -> bool {
        let at = self.0.iter().position(|(known, was_traced)| known == words && *was_traced == traced);
        at.inspect(|at| drop(self.0.remove(*at))).is_some()
    }
}

impl LineReader {
    /// For both pipes of one process, first its standard output's.
    #[must_use]
    pub(crate) fn pair(facts: &'static AgentFacts, manner: Voice) -> [Self; 2] {
        let said = Rc::default();
        [(); 2].map(|()| Self { facts, manner, said: Rc::clone(&said), owed: 0 })
    }

    /// Reads a line. `working` says whether a worker lives, so that a job may have written it.
    pub(crate) fn read(&mut self, line: &str, working: bool) -> Heard {
        let says = meaning(line, self.facts);
        let origin = match &says {
            // Only words for people begin like this, and a job may be named like any trace.
            Some(Marker::Running(_) | Marker::Completed(..)) => LineOrigin::Words(line),
            _ if self.facts.traces.is_empty() => LineOrigin::Words(line),
            _ => origin(line),
        };
        match origin {
            LineOrigin::Workers(text) => {
                // The worker's own text comes later if this one is of another process.
                let of_others = |text: &str| text.starts_with(LISTENERS) || self.said.borrow_mut().take(text, true);
                if text.is_none_or(of_others) {
                    self.owed += 1;
                }
                Heard::default()
            }
            LineOrigin::Mixed => Heard { level: self.traced(line), ..Heard::default() },
            // Words that stand behind the prefix of another trace, whose own text comes later.
            LineOrigin::Trace(_, text) if self.said.borrow_mut().take(text, true) => {
                self.owed += 1;
                Heard { level: self.shown(&meaning(text, self.facts), working), for_people: true, ..Heard::default() }
            }
            LineOrigin::Trace(source, text) => {
                let means = |&&(from, start, _): &&(&str, &str, Sign)| from == source && text.starts_with(start);
                let sign = self.facts.traces.iter().find(means).map(|(.., sign)| Marker::Sign(*sign, text.to_owned()));
                let finished = || {
                    let (number, code) = self.facts.process_end?.read(source, text)?;
                    Some(Marker::Finished(number, code))
                };
                Heard { level: self.traced(text), marker: sign.or_else(finished), ..Heard::default() }
            }
            LineOrigin::Copy(text) => {
                let marker = self.unless_said(meaning(text, self.facts), text, true);
                Heard { level: self.traced(text), marker, ..Heard::default() }
            }
            LineOrigin::Words(text) => self.words(text, says, working),
        }
    }

    /// Words for people, and what they say.
    fn words(&mut self, text: &str, says: Option<Marker>, working: bool) -> Heard {
        if self.owed > 0 && says.is_none() {
            self.owed -= 1;
            return Heard::default();
        }
        let banner = is_banner(text);
        let level = if self.manner == Voice::Step && banner { None } else { self.shown(&says, working) };
        let for_people = self.manner == Voice::Other || !banner;
        Heard { level, marker: self.unless_said(says, text, false), for_people }
    }

    /// How important words for people are.
    fn shown(&self, says: &Option<Marker>, working: bool) -> Option<Level> {
        match (self.manner, says) {
            (Voice::Other, _) => Some(Level::INFO),
            (Voice::Step, _) => Some(Level::DEBUG),
            // Whoever acts upon them says so.
            (Voice::Listener, Some(Marker::Running(_) | Marker::Completed(..))) => None,
            (Voice::Listener, _) if working => Some(Level::DEBUG),
            (Voice::Listener, _) => Some(Level::INFO),
        }
    }

    fn traced(&self, text: &str) -> Option<Level> {
        let banner = self.manner == Voice::Step && is_banner(text);
        (!banner).then_some(Level::DEBUG)
    }

    /// What words say, unless their other form has said it; nothing where words mean nothing.
    fn unless_said(&self, says: Option<Marker>, words: &str, traced: bool) -> Option<Marker> {
        says.filter(|_| self.manner != Voice::Other && self.said.borrow_mut().first(words, traced))
    }
}

/// What words for people say, taken by the whole of them: a job may be named like any part.
fn meaning(words: &str, facts: &AgentFacts) -> Option<Marker> {
    let untimed = time(words).and_then(|rest| rest.strip_prefix(": "));
    facts.words.iter().find_map(|line| {
        let text = match line.timed {
            true => untimed?,
            false => untimed.unwrap_or(words),
        };
        let between = text.trim().strip_prefix(line.start)?.strip_suffix(line.end)?;
        match line.meaning {
            Meaning::Listening => between.is_empty().then_some(Marker::Listening),
            Meaning::Running => Some(Marker::Running(between.trim().to_owned())),
            Meaning::Completed(separator) => {
                // The last one: what stands before it is the job's name.
                let (job, result) = between.rsplit_once(separator)?;
                Some(Marker::Completed(job.to_owned(), result.trim().to_owned()))
            }
            Meaning::Version => {
                let version: String =
                    between.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(32).collect();
                (!version.is_empty()).then_some(Marker::Version(version))
            }
            Meaning::Sign(sign) => Some(Marker::Sign(sign, text.trim().to_owned())),
        }
    })
}

/// Whether words belong to a picture that is drawn with characters.
fn is_banner(words: &str) -> bool {
    let drawn =
        |c: char| matches!(c, '|' | '-' | '_' | '/' | '\\' | ' ' | '(' | ')' | '<' | '>' | '\'' | '`' | ',' | '.');
    words.starts_with('|') || words.ends_with('|') || words.chars().all(drawn)
}

#[cfg(test)]
mod tests {
    use super::super::line_origin::WORKERS;
    use super::*;

    /// All that the official runner printed in one life: its configure step up to here, then its listener.
    const LIFE: &str = include_str!("../../tests/recordings/github-token-life.txt");
    const CONFIGURED: usize = 225;
    const AGENT: &AgentFacts = &crate::provider::github::AGENT;

    fn listeners() -> LineReader {
        let [reader, _] = LineReader::pair(AGENT, Voice::Listener);
        reader
    }

    /// What is shown and said of these lines; a worker lives from the announcement of a job until its end.
    fn read<'a>(
        reader: &mut LineReader,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> (Vec<(Level, &'a str)>, Vec<Marker>) {
        let (mut shown, mut markers, mut working) = (Vec::new(), Vec::new(), false);
        for line in lines {
            let heard = reader.read(line.trim_end(), working);
            shown.extend(heard.level.filter(|_| !line.trim().is_empty()).map(|level| (level, line)));
            working = match &heard.marker {
                Some(Marker::Running(_)) => true,
                Some(Marker::Completed(..)) => false,
                _ => working,
            };
            markers.extend(heard.marker);
        }
        (shown, markers)
    }

    #[test]
    fn a_whole_life_of_the_official_runner_says_five_things_and_shows_five_lines() {
        let lines: Vec<&str> = LIFE.lines().collect();
        let (configure, listen) = lines.split_at(CONFIGURED);
        let [mut step, _] = LineReader::pair(AGENT, Voice::Step);
        let (shown, markers) = read(&mut step, configure.iter().copied());
        assert!(markers.iter().all(|marker| matches!(marker, Marker::Finished(..))), "{markers:?}");
        assert!(shown.iter().all(|(level, _)| *level == Level::DEBUG));
        let pictured = shown
            .iter()
            .find(|(_, line)| line.contains("|   ") || line.contains("----") || line.contains("Self-hosted"));
        assert_eq!(pictured, None, "the banner is nowhere");
        assert!(shown.iter().any(|(_, line)| *line == "√ Runner successfully added"));

        let (shown, markers) = read(&mut listeners(), listen.iter().copied());
        let expected = [
            Marker::Version("2.336.0".to_owned()),
            Marker::Listening,
            Marker::Sign(Sign::Acquiring, "Acknowledging runner request '2'.".to_owned()),
            Marker::Running("small".to_owned()),
            Marker::Finished(279, 100),
            Marker::Completed("small".to_owned(), "Succeeded".to_owned()),
        ];
        assert_eq!(markers, expected);
        let for_people: Vec<&str> =
            shown.iter().filter(|(level, _)| *level == Level::INFO).map(|(_, line)| *line).collect();
        assert_eq!(
            for_people,
            [
                "√ Connected to GitHub",
                "Current runner version: '2.336.0'",
                "2026-11-29 10:31:10Z: Listening for Jobs",
                "√ Removed .credentials",
                "√ Removed .runner"
            ]
        );
        assert!(listen.iter().filter(|line| line.contains("[WORKER ")).count() > 900);
        assert!(shown.iter().all(|(_, line)| !line.contains("[WORKER ")), "at no level");
    }

    /// A line's prefix and text, if it is a trace.
    fn parts(line: &str) -> Option<(&str, &str)> {
        let at = line.find("] ").filter(|_| line.starts_with(LISTENERS) || line.starts_with(WORKERS))?;
        Some(line.split_at(at + 2))
    }

    #[test]
    fn lines_that_mixed_say_nothing_new_and_show_nothing_of_the_worker() {
        let lines: Vec<&str> = LIFE.lines().skip(CONFIGURED).collect();
        let said = |reader: &mut LineReader, lines: &[&str]| {
            let owned: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            read(reader, owned.iter().map(String::as_str)).1
        };
        let mut tried = [0; 3];
        for pair in lines.windows(2) {
            let [first, second] = [pair[0], pair[1]];
            let mut known = said(&mut listeners(), pair);
            // A copy of which only the plain form is left, or the other way round, says the same.
            known.dedup();
            let (Some((prefix, text)), other) = (parts(first), parts(second)) else { continue };
            // Two prefixes, then the two texts; or a prefix, another's whole line, and the text.
            let mixes = match other {
                Some((inner, words)) => [
                    vec![format!("{prefix}{inner}{text}"), words.to_owned()],
                    vec![format!("{prefix}{second}"), text.to_owned()],
                ],
                None => {
                    tried[2] += 1;
                    [vec![first.to_owned(), format!("{prefix}{second}"), text.to_owned()], vec![]]
                }
            };
            for mix in mixes {
                let workers = [first, second].into_iter().filter(|line| line.starts_with(WORKERS)).count();
                tried[workers.min(1)] += 1;
                let mut reader = listeners();
                for line in &mix {
                    let heard = reader.read(line, true);
                    if let Some(marker) = &heard.marker {
                        assert!(known.contains(marker), "{mix:?} says {marker:?}");
                    }
                    // The text of a listener's own trace may be seen; the worker's not, and least of all for people.
                    assert_ne!(heard.level, Some(Level::INFO), "{mix:?}");
                    if workers > 0 && other.is_some() {
                        assert_eq!(heard.level, None, "{mix:?}");
                    }
                }
            }
        }
        assert!(tried.iter().all(|count| *count > 0), "{tried:?}");
    }

    #[test]
    fn words_that_stand_behind_the_workers_prefix_were_said_by_their_copy() {
        let lines = [
            "[RUNNER 2026-11-29 10:31:19Z INFO Terminal] WRITE LINE: 2026-11-29 10:31:19Z: Running job: small",
            "[WORKER 2026-11-29 10:31:37Z INFO Worker] 2026-11-29 10:31:19Z: Running job: small",
            "      \"value\": \"someone@example.com\"",
            "√ Removed .runner",
        ];
        let (shown, markers) = read(&mut listeners(), lines);
        assert_eq!(markers, [Marker::Running("small".to_owned())]);
        let shown: Vec<&str> = shown.into_iter().map(|(_, line)| line).collect();
        assert_eq!(shown, [lines[0], lines[3]], "the worker's text is shown to nobody");
    }

    #[test]
    fn words_that_mixed_with_the_listeners_own_traces_are_shown_once() {
        let trace = "[RUNNER 2026-11-29 10:31:10Z INFO ";
        // Two prefixes and the foreign text; then the text of the second, and its plain form.
        let tangled = format!("{trace}GitHubActionsService] {trace}Terminal] AAD Correlation ID: Unknown");
        // The plain form behind a foreign prefix; then the foreign text.
        let intruded = format!("{trace}GitHubActionsService] 2026-11-29 10:31:10Z: Listening for Jobs");
        let copy = format!("{trace}Terminal] WRITE LINE: 2026-11-29 10:31:10Z: Listening for Jobs");
        let lines = [
            tangled.as_str(),
            "WRITE LINE: Current runner version: '2.336.0'",
            "Current runner version: '2.336.0'",
            &copy,
            &intruded,
            "AAD Correlation ID: Unknown",
        ];
        let (shown, markers) = read(&mut listeners(), lines);
        assert_eq!(markers, [Marker::Version("2.336.0".to_owned()), Marker::Listening]);
        let people: Vec<&str> =
            shown.iter().filter(|(level, _)| *level == Level::INFO).map(|(_, line)| *line).collect();
        assert_eq!(people, [lines[2], lines[4]]);
    }

    #[test]
    fn a_line_is_taken_by_its_whole() {
        let time = "2026-01-01 00:00:00Z: ";
        let completed = |job: &str| Marker::Completed(job.to_owned(), "Failed".to_owned());
        for job in [
            "a b",
            "Running job: x",
            "Runner connect error: y",
            "Current runner version: '9.9.9'",
            "x completed with result: Succeeded",
            "2026-01-01 00:00:00Z: Listening for Jobs",
            "Skipping message Job. Gone.",
            "A session for this runner already exists.",
        ] {
            let running = format!("{time}Running job: {job}");
            assert_eq!(meaning(&running, AGENT), Some(Marker::Running(job.to_owned())), "{job}");
            let over = format!("{time}Job {job} completed with result: Failed");
            assert_eq!(meaning(&over, AGENT), Some(completed(job)), "{job}");
            let traced = format!("[WORKER 2026-01-01 00:00:00Z INFO Worker] {running}");
            assert_eq!(listeners().read(&traced, false), Heard::default());
        }
        let sign = |sign, words: &str| Some(Marker::Sign(sign, words.to_owned()));
        for (words, marker) in [
            ("√ Connected to GitHub", None),
            ("Current runner version: '2.336.0'", Some(Marker::Version("2.336.0".to_owned()))),
            ("Current runner version: 'x'", None),
            ("see: Current runner version: '1.2.3'", None),
            ("2026-01-01 00:00:00Z: Listening for Jobs", Some(Marker::Listening)),
            ("2026-01-01 00:00:00Z: Listening for Jobs of others", None),
            ("Listening for Jobs", None),
            ("Running job: x", None),
            ("Job x completed with result: Failed", None),
            (
                "2026-11-29 11:00:58Z: Runner connect error: Failed to get job message. Retrying until reconnected.",
                sign(
                    Sign::Disconnected,
                    "Runner connect error: Failed to get job message. Retrying until reconnected.",
                ),
            ),
            ("commit 1234: Runner connect error: no", None),
            (
                "A session for this runner already exists.",
                sign(Sign::Conflict, "A session for this runner already exists."),
            ),
            ("Registration 1234 was not found.", sign(Sign::Unknown, "Registration 1234 was not found.")),
            (
                "An error occurred: Registration 1234 was not found.",
                sign(Sign::Unknown, "An error occurred: Registration 1234 was not found."),
            ),
            ("Skipping message Job. Gone.", None),
            (
                "Runner update in progress, do not shutdown runner.",
                sign(Sign::Updating, "Runner update in progress, do not shutdown runner."),
            ),
            ("he said: Runner update in progress, do not shutdown runner.", None),
            ("Runner update failed: Access to the path '/x' is denied.", None),
            ("Agent update in progress, do not shutdown agent.", None),
        ] {
            assert_eq!(meaning(words, AGENT), marker, "{words}");
        }
        let azures = meaning("Agent update in progress, do not shutdown agent.", &crate::provider::azure_devops::AGENT);
        assert_eq!(azures, sign(Sign::Updating, "Agent update in progress, do not shutdown agent."));
    }

    #[test]
    fn a_trace_is_a_sign_only_from_the_part_that_gives_it() {
        let trace = |source: &str, text: &str| format!("[RUNNER 2026-11-29 10:57:24Z INFO {source}] {text}");
        for (source, text, sign) in [
            ("Runner", "Skipping message Job. Job message not found '2'. ordered", Some(Sign::Skipped)),
            ("BrokerMessageListener", "Acknowledging runner request '2'.", Some(Sign::Acquiring)),
            ("Runner", "No session restart needed for config type: credentials", Some(Sign::Reconfigured)),
            (
                "JobDispatcher",
                "Job cancellation request 5b7c received, cancellation timeout 5 minutes.",
                Some(Sign::Cancelled),
            ),
            ("Worker", "Job cancellation request 5b7c received, cancellation timeout 5 minutes.", None),
            (
                "Runner",
                "Acknowledge returned job-not-found for ephemeral runner request '2'. Exiting runner.",
                Some(Sign::Refused),
            ),
            ("JobDispatcher", "Skipping message Job. Gone.", None),
            ("Terminal", "WRITE LINE: Skipping message Job. Gone.", None),
            ("Runner", "he said: Skipping message Job. Gone.", None),
            ("Terminal", "WRITE ERROR: Registration 1 was not found.", Some(Sign::Unknown)),
            ("RSAFileKeyManager", "Registration 1 was not found.", None),
        ] {
            let heard = listeners().read(&trace(source, text), false);
            let said = text.trim_start_matches("WRITE ERROR: ").to_owned();
            assert_eq!(heard.marker, sign.map(|sign| Marker::Sign(sign, said)), "{source} {text}");
            assert_eq!(heard.level, Some(Level::DEBUG));
        }
    }

    #[test]
    fn each_saying_counts_once_whichever_of_its_forms_comes_first_and_through_which_pipe() {
        let copy = "[RUNNER 2026-11-29 10:57:24Z ERR  Terminal] WRITE ERROR: Registration 1 was not found.";
        let plain = "Registration 1 was not found.";
        for order in [[copy, plain, copy, plain], [plain, copy, plain, copy], [copy, plain, plain, copy]] {
            let [mut output, mut errors] = LineReader::pair(AGENT, Voice::Listener);
            let said = order.map(|line| match line == copy {
                true => output.read(line, false).marker,
                false => errors.read(line, false).marker,
            });
            assert_eq!(said.map(|marker| marker.is_some()), [true, false, true, false], "{order:?}");
        }
    }

    #[test]
    fn while_a_worker_lives_nothing_is_for_people() {
        let mut reader = listeners();
        assert_eq!(reader.read("hello", false).level, Some(Level::INFO));
        assert_eq!(reader.read("hello", true).level, Some(Level::DEBUG));
        // Said by whoever acts upon it, and only then.
        let announced = reader.read("2026-11-29 10:31:19Z: Running job: small", true);
        assert_eq!((announced.level, announced.marker.is_some()), (None, true));
    }

    #[test]
    fn azures_version_is_read_out_of_its_picture() {
        let [mut step, _] = LineReader::pair(&crate::provider::azure_devops::AGENT, Voice::Step);
        let heard = step.read("        agent v4.260.0             |_|          (commit 5115afe)", false);
        assert_eq!(heard.marker, Some(Marker::Version("4.260.0".to_owned())));
    }
}
