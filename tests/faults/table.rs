//! A row of the table: where in the life, what goes wrong, what must happen, and how it is tried.

use std::fmt::Write as _;

use crate::runner::Test;

/// The steps of a life, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Start,
    CleanSlate,
    Leftovers,
    Kept,
    Grant,
    JustInTime,
    Configure,
    Listen,
    Job,
    Hardware,
    Stop,
    Unregister,
    Leave,
    Killed,
    Stopped,
    StoppedTwice,
}

impl Step {
    /// The first part of a test's name, and what the step is.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("start", "start"),
            Self::CleanSlate => ("clean_slate", "clean slate"),
            Self::Leftovers => ("leftovers", "removing an earlier registration"),
            Self::Kept => ("kept", "asking for a kept registration"),
            Self::Grant => ("grant", "asking for a registration token"),
            Self::JustInTime => ("jit", "asking for a just-in-time configuration"),
            Self::Configure => ("configure", "the agent's configure step"),
            Self::Listen => ("listen", "listening"),
            Self::Job => ("job", "a job"),
            Self::Hardware => ("hardware", "shared hardware"),
            Self::Stop => ("stop", "removing an idle runner that is stopped"),
            Self::Unregister => ("unregister", "removing the registration after a job"),
            Self::Leave => ("leave", "leaving"),
            Self::Killed => ("sigkill", "SIGKILL, as by a power cut or the kernel's OOM killer"),
            Self::Stopped => ("sigterm", "SIGTERM"),
            Self::StoppedTwice => ("sigterm_twice", "SIGTERM twice"),
        }
    }
}

/// One row.
pub struct Row {
    pub step: Step,
    pub fault: String,
    pub must: String,
    pub run: Box<dyn Fn() + Send>,
}

impl Row {
    pub fn new(step: Step, fault: &str, must: &str, run: impl Fn() + Send + 'static) -> Self {
        Self { step, fault: fault.to_owned(), must: must.to_owned(), run: Box::new(run) }
    }

    pub fn name(&self) -> String {
        let mut slug = String::new();
        for c in self.fault.chars() {
            match c {
                c if c.is_ascii_alphanumeric() => slug.push(c.to_ascii_lowercase()),
                '\'' => {}
                _ if slug.ends_with('_') => {}
                _ => slug.push('_'),
            }
        }
        format!("{}::{}", self.step.words().0, slug.trim_matches('_'))
    }

    pub fn test(self) -> Test {
        Test { name: self.name(), run: Box::new(move |_| (self.run)()) }
    }
}

/// The table as the documentation has it.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = format!("{} rows.\n", rows.len());
    let mut step = None;
    for row in rows {
        if step != Some(row.step) {
            let (_, title) = row.step.words();
            let title = format!("{}{}", title[..1].to_uppercase(), &title[1..]);
            let _ = write!(text, "\n### {title}\n\n| fault | what must happen | test |\n| --- | --- | --- |\n");
            step = Some(row.step);
        }
        let _ = writeln!(text, "| {} | {} | `{}` |", row.fault, row.must, row.name());
    }
    text
}
