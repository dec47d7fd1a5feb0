//! What the benches aim at, in one table: they judge by it, and `tests/performance.rs` holds the pages against it.
//!
//! Where `OSCR_BENCH_OUT` names a directory, a bench leaves there what it printed (`NAME.md`) and how it was judged
//! (`NAME.tsv`). `make bench-docs` writes the pages from two such runs.

#![allow(dead_code, reason = "each bench, and the test of the pages, needs a part of it")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// One aim.
pub struct Goal {
    /// Whose: the bench's name.
    pub bench: &'static str,
    /// What it is about, with its unit.
    pub name: &'static str,
    pub limit: Limit,
}

/// The most that it may be.
pub enum Limit {
    Fixed(f64),
    /// So many times what this was in the same run.
    Times(f64, &'static str),
}

use Limit::{Fixed, Times};

const fn goal(bench: &'static str, name: &'static str, limit: Limit) -> Goal {
    Goal { bench, name, limit }
}

/// All of them, in the order of the pages.
pub const GOALS: &[Goal] = &[
    goal("init", "binary, bytes", Fixed(5e6)),
    goal("init", "`exec`: Private_Dirty, kB", Fixed(160.0)),
    goal("init", "`run`, listening: Private_Dirty, kB", Fixed(512.0)),
    goal("init", "`run`, an hour later: Private_Dirty, kB", Fixed(512.0)),
    goal("init", "`run`, as a stretch: Private_Dirty, kB", Fixed(256.0)),
    goal("init", "`run`, after 720 health checks: Private_Dirty, kB", Times(1.0, "at first")),
    goal("init", "`run`, a hundred of them: Private_Dirty, kB", Fixed(26_000.0)),
    goal("init", "added to `true`, ms", Times(1.0, "tini-static")),
    goal("init", "signal to child, median, µs", Times(1.2, "tini")),
    goal("init", "signal to child, 99th percentile, µs", Times(1.2, "tini")),
    goal("init", "processor time per orphan, µs", Times(1.0, "tini")),
    goal("init", "`exec`: wake-ups per idle minute", Fixed(0.0)),
    goal("init", "`run`: wake-ups per idle minute", Fixed(1.0)),
    goal("lock", "hand-over with 2 waiting, median, ms", Times(1.0, "flock(1)")),
    goal("lock", "hand-over with 10 waiting, median, ms", Times(1.0, "flock(1)")),
    goal("lock", "hand-over with 100 waiting, median, ms", Times(1.0, "flock(1)")),
    goal("wipe", "in memory, one processor, ms", Times(1.0, "rm -rf")),
    goal("wipe", "in memory, two processors, ms", Times(0.8, "rm -rf")),
    goal("wipe", "on a disk, one processor, ms", Times(1.0, "rm -rf")),
    goal("wipe", "on a disk, two processors, ms", Times(0.8, "rm -rf")),
    goal("start", "`docker start`, token: OSCR's own part, s", Fixed(0.15)),
    goal("start", "`docker start`, JIT: OSCR's own part, s", Fixed(0.15)),
    goal("start", "cycle, token: OSCR's own part, s", Fixed(0.15)),
    goal("start", "cycle, JIT: OSCR's own part, s", Fixed(0.15)),
    goal("start", "cycle, token: the whole, s", Times(1.0, "the plain one")),
    goal("start", "cycle, JIT: the whole, s", Times(0.7, "the plain one")),
    goal("start", "token: what a first start takes OSCR longer than a later one, s", Fixed(0.02)),
    goal("start", "JIT: what a first start takes OSCR longer than a later one, s", Fixed(0.02)),
    goal("herd", "100 runners: requests that the forge refused", Fixed(0.0)),
    goal("herd", "100 runners, a shared token: requests for one", Fixed(1.0)),
];

/// The rows of each bench's figures: how they begin. What follows may be a figure.
const ROWS: &[(&str, &[&str])] = &[
    (
        "init",
        &[
            "binary, bytes",
            "memory of its own (Private_Dirty), kB",
            "the same after an hour's health checks, kB",
            "the same after six hours', kB",
            "memory of a hundred of them, kB",
            "memory with its share (Pss), kB",
            "added to `true`",
            "signal to child, median",
            "signal to child, 99th percentile",
            "", // so many orphans
            "processor time per orphan, µs",
            "most zombies seen",
            "wake-ups per idle minute",
        ],
    ),
    ("wipe", &["memory, one processor", "memory, two processors", "a disk, one processor", "a disk, two processors"]),
    ("lock", &["2 waiting", "10 waiting", "100 waiting", "processor time of 100 waiters in a minute"]),
    (
        "start",
        &[
            "`docker run` | OSCR, token ",
            "`docker run` | plain, token ",
            "`docker run` | OSCR, jit ",
            "`docker run` | plain, jit ",
            "`docker start` | OSCR, token ",
            "`docker start` | plain, token ",
            "`docker start` | OSCR, jit ",
            "`docker start` | plain, jit ",
            "cycle | OSCR, token ",
            "cycle | plain, token ",
            "cycle | OSCR, jit ",
            "cycle | plain, jit ",
            "one-second jobs in a row",
            "OSCR, jit ",
            "plain, jit ",
        ],
    ),
    ("herd", HERD),
];

/// The same for a herd of runners, which makes its table of this.
pub const HERD: &[&str] = &[
    "requests of ours until all listen",
    "of these, for a registration token",
    "of these, refused or limited",
    "the most in one second",
    "the most in a minute that make something",
    "requests of the agents until all listen",
    "the most in one second, the agents' with them",
    "until half of them listen, s",
    "until all listen, s",
    "Private_Dirty of all, MB",
    "Pss of all, MB",
    "processor time until all listen, s",
    "processor time in an idle minute, ms",
    "requests of ours in an idle minute",
];

/// Panics if these figures have not the rows of this bench.
pub fn hold_rows(bench: &str, figures: &str) {
    let (_, names) = ROWS.iter().find(|(of, _)| *of == bench).unwrap_or_else(|| panic!("{bench} has no rows"));
    let mut lines = figures.lines().filter_map(|line| line.strip_prefix("| "));
    lines.next();
    let rows: Vec<&str> = lines.filter(|line| !line.starts_with("---")).collect();
    let alike = rows.len() == names.len() && rows.iter().zip(*names).all(|(row, name)| row.starts_with(name));
    assert!(alike, "the rows of {bench} are {names:?}, and here they are {rows:#?}");
}

/// What came of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Met,
    NotMet,
    NotMeasured,
    /// Two runs disagree.
    NotDecided,
}

impl Verdict {
    /// The verdict on a figure.
    pub fn on(measured: Option<f64>, limit: Option<f64>) -> Self {
        match measured.zip(limit) {
            Some((measured, limit)) if measured <= limit => Self::Met,
            Some(_) => Self::NotMet,
            None => Self::NotMeasured,
        }
    }

    /// The verdict of two runs together.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            _ => Self::NotDecided,
        }
    }

    /// As the pages have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::NotMeasured => "not measured",
            Self::NotDecided => "not decided",
        }
    }
}

/// A figure as it is printed and judged: two digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Limit {
    /// As the tables have it.
    fn words(&self) -> String {
        match self {
            Fixed(most) => most.to_string(),
            Times(1.0, what) => (*what).to_owned(),
            Times(times, what) => format!("{times} × {what}"),
        }
    }
}

/// What was measured, and the most that it may be.
#[derive(Clone, Copy, Default)]
pub struct Row {
    pub measured: Option<f64>,
    pub limit: Option<f64>,
}

impl Row {
    fn verdict(self) -> Verdict {
        Verdict::on(self.measured, self.limit)
    }

    /// As the tables have it: `4.9 of 6.1`, where the limit is of this run.
    fn cell(self, goal: &Goal) -> String {
        match (self.measured, &goal.limit, self.limit) {
            (None, _, _) => "–".to_owned(),
            (Some(measured), Times(..), Some(limit)) => format!("{measured} of {limit}"),
            (Some(measured), _, _) => measured.to_string(),
        }
    }

    /// The same read.
    fn of_cell(cell: &str, goal: &Goal) -> Self {
        let (measured, limit) = cell.split_once(" of ").unwrap_or((cell, ""));
        let limit = if let Fixed(most) = goal.limit { Some(most) } else { limit.parse().ok() };
        Self { measured: measured.parse().ok(), limit }
    }
}

/// One run's figures of a bench, by its goals.
pub struct Sheet {
    bench: &'static str,
    rows: Vec<(&'static Goal, Row)>,
}

impl Sheet {
    /// An empty one.
    pub fn of(bench: &'static str) -> Self {
        Self { bench, rows: Vec::new() }
    }

    /// Notes a figure. `compared` is the same of what the goal names, if it names any.
    pub fn note(&mut self, name: &str, measured: Option<f64>, compared: Option<f64>) {
        let goal = GOALS.iter().find(|goal| goal.bench == self.bench && goal.name == name);
        let goal = goal.unwrap_or_else(|| panic!("{name} is no goal of {}", self.bench));
        let limit = match goal.limit {
            Fixed(most) => Some(most),
            Times(times, _) => compared.map(|compared| rounded(compared * times)),
        };
        self.rows.push((goal, Row { measured: measured.map(rounded), limit }));
    }

    /// The verdicts as Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from("| goal | at most | measured | |\n| --- | --: | --: | --- |\n");
        for (goal, row) in &self.rows {
            let (limit, word) = (goal.limit.words(), row.verdict().word());
            let _ = writeln!(text, "| {} | {limit} | {} | {word} |", goal.name, row.cell(goal));
        }
        text
    }

    /// Leaves this, and what was printed besides, for `make bench-docs`.
    ///
    /// # Panics
    /// When a goal of this bench has no figure, not even a missing one: the pages would lack it.
    pub fn leave(&self, figures: &str) {
        for goal in GOALS.iter().filter(|goal| goal.bench == self.bench) {
            assert!(self.rows.iter().any(|(noted, _)| noted.name == goal.name), "nothing is said of {}", goal.name);
        }
        let Some(directory) = std::env::var_os("OSCR_BENCH_OUT") else { return };
        let directory = Path::new(&directory);
        let rows: String = self.rows.iter().map(|(goal, row)| format!("{}\t{}\n", goal.name, row.cell(goal))).collect();
        let written = fs::create_dir_all(directory)
            .and_then(|()| fs::write(directory.join(format!("{}.md", self.bench)), figures))
            .and_then(|()| fs::write(directory.join(format!("{}.tsv", self.bench)), rows));
        written.unwrap_or_else(|error| panic!("OSCR_BENCH_OUT, {}: {error}", directory.display()));
    }
}

/// The page's table of all goals: what two runs came to, as it is in `page`, or in the directories of `runs`. What is in neither was
/// not measured.
pub fn page(page: &str, runs: Option<[&Path; 2]>) -> String {
    let mut text =
        String::from("| bench | goal | at most | first run | second run | |\n| --- | --- | --: | --: | --: | --- |\n");
    let known: Vec<Vec<&str>> =
        page.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    for goal in GOALS {
        let of_page = known.iter().find(|cells| cells.starts_with(&[goal.bench, goal.name]));
        let cells: [String; 2] = match runs {
            Some(runs) => runs.map(|run| cell_left(run, goal)),
            None => [3, 4].map(|at| of_page.and_then(|cells| cells.get(at)).unwrap_or(&"").to_string()),
        };
        let rows = cells.map(|cell| Row::of_cell(&cell, goal));
        let verdict = rows[0].verdict().and(rows[1].verdict());
        let [first, second] = rows.map(|row| row.cell(goal));
        let (limit, word) = (goal.limit.words(), verdict.word());
        let _ = writeln!(text, "| {} | {} | {limit} | {first} | {second} | {word} |", goal.bench, goal.name);
    }
    text
}

/// What a run left of a goal.
fn cell_left(run: &Path, goal: &Goal) -> String {
    let text = fs::read_to_string(run.join(format!("{}.tsv", goal.bench))).unwrap_or_default();
    let cell = text.lines().find_map(|line| line.strip_prefix(goal.name)?.strip_prefix('\t'));
    cell.unwrap_or_default().to_owned()
}

/// Where it is measured, in a sentence without its end.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> =
        cpus.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|m| m.1).collect();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("an unknown system");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Measured on {} × {}, Linux {}, {}, at a load of {}",
        models.len(),
        models.first().unwrap_or(&"an unknown processor"),
        kernel.trim(),
        system.trim_matches('"'),
        load.split(' ').next().unwrap_or("?")
    )
}
