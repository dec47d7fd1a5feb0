//! A row of the table: at which forge and where in the life, what goes wrong, what must happen, and how it is tried.

use std::fmt::Write as _;

use oscr_sim::agent::Kind;

use crate::harness::{Container, Forge};
use crate::runner::Test;
use crate::world;

/// The forges: a title, and what their rows' names begin with.
pub const FORGES: [(Kind, &str, &str); 2] = [(Kind::GitHub, "GitHub", ""), (Kind::Azure, "Azure DevOps", "azure::")];

/// The steps of a life, in their order. A forge has no rows of a step that its lives do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Start,
    CleanSlate,
    Leftovers,
    Kept,
    Sweep,
    Grant,
    Principal,
    Pool,
    JustInTime,
    Configure,
    Listen,
    Update,
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
            Self::Sweep => ("sweep", "looking for old agents (`OSCR_REAP`)"),
            Self::Grant => ("grant", "asking for a registration token"),
            Self::Principal => ("principal", "asking for a service principal's token"),
            Self::Pool => ("pool", "finding the pool"),
            Self::JustInTime => ("jit", "asking for a just-in-time configuration"),
            Self::Configure => ("configure", "the agent's configure step"),
            Self::Listen => ("listen", "listening"),
            Self::Update => ("update", "fetching another version of the agent (`OSCR_AGENT_UPDATE`)"),
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

/// What is done to a container at its forge. A life in which nothing goes wrong follows.
type Story = dyn Fn(&Forge, &mut Container<'_>) + Send;

/// One row.
pub struct Row {
    pub forge: Kind,
    pub step: Step,
    pub fault: String,
    pub must: String,
    pub story: Box<Story>,
}

impl Row {
    pub fn new(
        forge: Kind,
        step: Step,
        fault: &str,
        must: &str,
        story: impl Fn(&Forge, &mut Container<'_>) + Send + 'static,
    ) -> Self {
        Self { forge, step, fault: fault.to_owned(), must: must.to_owned(), story: Box::new(story) }
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
        let (.., begin) = FORGES.into_iter().find(|(forge, ..)| *forge == self.forge).expect("one of them");
        format!("{begin}{}::{}", self.step.words().0, slug.trim_matches('_'))
    }

    pub fn test(self) -> Test {
        Test { name: self.name(), run: Box::new(move |_| world::tell(self.forge, &*self.story)) }
    }
}

/// The table as the documentation has it.
pub fn markdown(rows: &[Row]) -> String {
    let of = |forge| rows.iter().filter(move |row| row.forge == forge);
    let counts = FORGES.map(|(forge, title, _)| format!("{} of {title}", of(forge).count()));
    let mut text = format!("{} rows: {}.\n", rows.len(), counts.join(", "));
    for (forge, title, _) in FORGES {
        let _ = write!(text, "\n### {title}\n");
        let mut step = None;
        for row in of(forge) {
            if step != Some(row.step) {
                let (_, title) = row.step.words();
                let title = format!("{}{}", title[..1].to_uppercase(), &title[1..]);
                let _ = write!(text, "\n#### {title}\n\n| fault | what must happen | test |\n| --- | --- | --- |\n");
                step = Some(row.step);
            }
            let _ = writeln!(text, "| {} | {} | `{}` |", row.fault, row.must, row.name());
        }
    }
    text
}
