//! A row of the table: at which forge and where in the life, what goes wrong, what must happen, and how it is tried.

use std::collections::BTreeSet;
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

/// What comes of a fault, as a cell of a matrix says it.
struct End {
    sign: &'static str,
    /// How the words of a row begin that mean it and say more: they become a note.
    begins: &'static str,
    /// The words of a row that says no more than the sign.
    plain: &'static str,
}

const fn end(sign: &'static str, begins: &'static str, plain: &'static str) -> End {
    End { sign, begins, plain }
}

/// Where nothing but the note says what comes of it.
const NOTED: &str = "✱";

/// The digits of a note's number.
const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

/// The first that fits counts, so a special one comes before what it is a kind of.
const ENDS: &[End] = &[
    end("78", "exit 78", "exit 78 with the cure, before any request"),
    end("D", "`denied`", "`denied`: one line with the cure, unhealthy, slow; on at once when it is corrected"),
    end("O", "`outdated`", "`outdated`: one line with the cause, unhealthy, slow; nothing of it stays"),
    end("L", "`backing-off` for as long", "`backing-off` for as long as asked, then on"),
    end("M", "`backing-off` for a minute", "`backing-off` for a minute"),
    end(
        "B+",
        "`backing-off`: one line that names it",
        "`backing-off`: one line that names it, healthy at first, tried again ever more slowly; a stop ends it at once",
    ),
    end("B", "`backing-off`", "`backing-off`, tried again in seconds"),
    end("W", "it is waited for", "it is waited for"),
    end("R", "a new registration", "a new registration"),
    end("A", "the agent ", "the agent itself tries again"),
    end("✓", "the runner ", "the runner listens all the same; one line has the cause"),
    end("G", "the registration is ", "the registration is gone, as wanted"),
    end("T", "asked again ", "asked again within `OSCR_KILL_TIMEOUT`, then gone"),
    end("S", "silence ", "silence for as long as asked, then gone"),
    end("N", "left ", "left to the next incarnation, which removes the registration; exit 0; the log names the cause"),
    end("K", "killed: ", "killed: the next incarnation removes what is registered; no lock stays"),
    end(
        "X",
        "the forge gives the job up",
        "the forge gives the job up by itself; the next incarnation removes the registration; no lock stays",
    ),
    end("75", "exit 75", "exit 75, and the next incarnation begins"),
    end("0!", "exit 0 at once", "exit 0 at once; nothing stays"),
    end("0", "exit 0", "exit 0; nothing stays"),
    end("J", "the job finishes", "the job finishes; exit 0; nothing stays"),
    end("F", "the job fails", "the job fails, and its log says why"),
    end("C", "the job is cancelled", "the job is cancelled, and its log says why; exit 0; nothing stays"),
];

/// The steps whose requests a forge answers.
const REQUESTS: [Step; 9] = [
    Step::Leftovers,
    Step::Kept,
    Step::Sweep,
    Step::Principal,
    Step::Pool,
    Step::Grant,
    Step::JustInTime,
    Step::Stop,
    Step::Unregister,
];
/// Those of them that ask for what a registration needs: most of what can be wrong between the forge and us is tried with them alone.
const GRANTS: [Step; 3] = [Step::Grant, Step::Principal, Step::Pool];
/// The steps with faults of their own.
const OWN: [Step; 9] = [
    Step::Start,
    Step::CleanSlate,
    Step::Sweep,
    Step::Configure,
    Step::Listen,
    Step::Update,
    Step::Job,
    Step::Hardware,
    Step::Leave,
];
/// What may strike at every point of a life.
const BLOWS: [Step; 3] = [Step::Killed, Step::Stopped, Step::StoppedTwice];

/// A chapter of the page: matrices, and what their signs mean.
#[derive(Default)]
struct Chapter {
    text: String,
    signs: BTreeSet<usize>,
}

impl Chapter {
    /// A matrix of rows, whose columns are a step at a forge each. Columns without a row are left out.
    fn matrix(&mut self, what: &str, rows: &[&Row], steps: &[Step]) {
        let columns = FORGES.iter().flat_map(|(forge, ..)| steps.iter().map(move |step| (*forge, *step)));
        let columns: Vec<_> =
            columns.filter(|(forge, step)| rows.iter().any(|row| row.forge == *forge && row.step == *step)).collect();
        let mut faults: Vec<&str> = Vec::new();
        for row in rows {
            if !faults.contains(&row.fault.as_str()) {
                faults.push(&row.fault);
            }
        }
        let mut notes: Vec<&str> = Vec::new();
        let mut head = vec![what];
        for (forge, step) in &columns {
            let (_, title, _) = FORGES.into_iter().find(|(known, ..)| known == forge).expect("one of them");
            head.push(if steps.len() == 1 { title } else { step.words().0 });
        }
        let mut lines = vec![head.into_iter().map(str::to_owned).collect()];
        for fault in faults {
            let mut line = vec![fault.to_owned()];
            for column in &columns {
                let row = rows.iter().find(|row| row.fault == fault && (row.forge, row.step) == *column);
                line.push(row.map_or(String::new(), |row| self.cell(&row.must, &mut notes)));
            }
            lines.push(line);
        }
        self.text.push_str(&aligned(&lines));
        if !notes.is_empty() {
            self.text.push('\n');
        }
        for (number, note) in notes.iter().enumerate() {
            let _ = writeln!(self.text, "{}. {note}", number + 1);
        }
    }

    /// The sign of what must happen, with the number of its note where the sign does not say it all.
    fn cell<'a>(&mut self, must: &'a str, notes: &mut Vec<&'a str>) -> String {
        let plain = ENDS.iter().position(|end| end.plain == must);
        let known = plain.or_else(|| ENDS.iter().position(|end| must.starts_with(end.begins)));
        self.signs.extend(known);
        let sign = known.map_or(NOTED, |known| ENDS[known].sign);
        if plain.is_some() {
            return sign.to_owned();
        }
        let number = notes.iter().position(|note| *note == must).unwrap_or_else(|| {
            notes.push(must);
            notes.len() - 1
        });
        let digits = (number + 1).to_string();
        let raised = digits.bytes().map(|digit| RAISED[usize::from(digit - b'0')]);
        sign.chars().chain(raised).collect()
    }

    /// With the meaning of its signs before it.
    fn told(&self, title: &str, about: &str) -> String {
        let mut text = format!("\n## {title}\n\n{about}\n\n| sign | what comes of it |\n| --- | --- |\n");
        for end in self.signs.iter().map(|known| &ENDS[*known]) {
            let _ = writeln!(text, "| {} | {} |", end.sign, end.plain);
        }
        text + &self.text
    }
}

/// A table whose columns stand below each other for who reads the source.
fn aligned(lines: &[Vec<String>]) -> String {
    let longest = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..lines[0].len()).filter_map(longest).collect();
    let width: usize = widths.iter().map(|width| width + 3).sum();
    assert!(width < 120, "the matrix of «{}» is {width} columns wide: say less in a row's name", lines[0].join(", "));
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if at == 0 {
            widths.iter().for_each(|width| text += &format!("| {} ", "-".repeat(*width)));
            text.push_str("|\n");
        }
    }
    text
}

/// A list of steps as the heads of columns name them.
fn heads(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("- `{}`: {}", step.words().0, step.words().1)).collect::<Vec<_>>().join("\n")
}

fn at<'a>(forge: Kind, rows: &[&'a Row]) -> Vec<&'a Row> {
    rows.iter().copied().filter(|row| row.forge == forge).collect()
}

/// The matrices as the documentation has them.
pub fn markdown(rows: &[Row]) -> String {
    let of = |steps: &[Step]| rows.iter().filter(|row| steps.contains(&row.step)).collect::<Vec<_>>();
    let count = |of| rows.iter().filter(|row| row.forge == of).count();
    let counts = FORGES.map(|(forge, title, _)| format!("{} of {title}", count(forge))).join(", ");
    let befalls_only =
        |steps: &[Step], fault: &str| rows.iter().filter(|row| row.fault == fault).all(|row| steps.contains(&row.step));
    let (mut at_sweep, mut at_grants, mut anywhere) = (Vec::new(), Vec::new(), Vec::new());
    for row in of(&REQUESTS) {
        if befalls_only(&[Step::Sweep], &row.fault) {
            at_sweep.push(row);
        } else if befalls_only(&GRANTS, &row.fault) {
            at_grants.push(row);
        } else {
            anywhere.push(row);
        }
    }

    let mut answers = Chapter::default();
    for (forge, title, _) in FORGES {
        let _ = write!(answers.text, "\n### {title} answers\n\n");
        answers.matrix("fault", &at(forge, &anywhere), &REQUESTS);
    }
    let mut way = Chapter { text: "\n".to_owned(), ..Chapter::default() };
    way.matrix("fault", &at_grants, &GRANTS);
    let mut own = Chapter::default();
    for step in OWN {
        let (begin, title) = step.words();
        let _ = write!(own.text, "\n### {}{}: `{begin}`\n\n", title[..1].to_uppercase(), &title[1..]);
        own.matrix("fault", &if step == Step::Sweep { at_sweep.clone() } else { of(&[step]) }, &[step]);
    }
    let mut blows = Chapter::default();
    for (forge, title, _) in FORGES {
        let _ = write!(blows.text, "\n### At {title}\n\n");
        blows.matrix("what goes on", &at(forge, &of(&BLOWS)), &BLOWS);
    }

    let chapters = [&answers, &way, &own, &blows];
    let told = REQUESTS.iter().chain(&OWN).chain(&BLOWS);
    for row in rows {
        assert!(told.clone().any(|step| *step == row.step), "no matrix has the step of {}", row.name());
    }
    for (known, end) in ENDS.iter().enumerate() {
        assert!(chapters.iter().any(|chapter| chapter.signs.contains(&known)), "no row comes to {}", end.sign);
    }
    let mut text = format!("{} tests: {counts}.\n", rows.len());
    text += &answers.told("What the forge answers", &format!("The columns are requests:\n\n{}", heads(&REQUESTS)));
    text += &way.told(
        "Between the forge and the runner",
        "The network, a proxy, certificates, clocks, and what the credential may do.\n\
         Only the requests that come before a registration are tried with these: `grant` at GitHub, `principal` and `pool` at \
         Azure DevOps.",
    );
    text += &own.told("The machine, the agent and the job", "Each of these befalls one step of a life.");
    text += &blows.told(
        "A blow at any moment",
        &format!("The rows are what is going on; the columns are what strikes:\n\n{}", heads(&BLOWS)),
    );
    text
}
