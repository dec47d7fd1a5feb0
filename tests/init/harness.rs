//! Runs cases and holds the results against what is known of the init under test.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use oscr_sim::patience::patient;

use crate::inits::{INITS, Init};
use crate::known::{self, Known, known};

/// One thing that an init may keep or not.
pub struct Case {
    /// Its name, a sentence with underscores.
    pub name: &'static str,
    /// Panics where the init does not keep it.
    pub run: fn(&Init),
}

/// Makes cases of functions: the name of each is the promise.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const CASES: &[crate::harness::Case] =
            &[$(crate::harness::Case { name: stringify!($name), run: $name }),*];
    };
}
pub(crate) use cases;

/// A heading of the table and the cases below it.
pub type Section = (&'static str, &'static [Case]);

/// How many cases run at once: they mostly wait.
const AT_ONCE: usize = 4;

/// A case that takes longer than this hangs, and takes the run with it.
const TOO_LONG: Duration = Duration::from_secs(900);

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The arguments of a test program that matter here; cargo's users pass them to all of them at once.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    ignored: bool,
    table: bool,
    at_once: Option<usize>,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => read.exact = true,
                "--list" => read.list = true,
                "--ignored" => read.ignored = true,
                "--table" => read.table = true,
                "--skip" => read.skipped.extend(words.next()),
                "--test-threads" => read.at_once = words.next().and_then(|n| n.parse().ok()),
                "--format" | "--color" | "--logfile" | "-Z" => drop(words.next()),
                flag if flag.starts_with('-') => {}
                _ => read.filters.push(word),
            }
        }
        read
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |filter: &String| {
            if self.exact { name == filter } else { name.contains(filter.as_str()) }
        };
        !self.ignored && (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skipped.iter().any(hit)
    }
}

/// Runs what the command line asks for.
pub fn main(sections: &[Section]) -> ExitCode {
    let arguments = Arguments::read();
    let cases: Vec<&Case> = sections.iter().flat_map(|(_, cases)| *cases).collect();
    if arguments.table {
        print!("{}", table(sections));
        return ExitCode::SUCCESS;
    }
    if arguments.list {
        for case in cases.iter().filter(|case| arguments.wants(case.name)) {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    if !namespaces_are_allowed() {
        println!("init: skipped, for it needs root and PID namespaces");
        return ExitCode::SUCCESS;
    }
    panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = info.to_string());
    }));

    let mut wrong = check_names(&cases);
    wrong.extend(check_docs(sections));
    let chosen = std::env::var("INIT_UNDER_TEST").unwrap_or_else(|_| "oscr".to_owned());
    let inits: Vec<&Init> = INITS.iter().filter(|init| chosen == "all" || chosen == init.name).collect();
    let mut kept = 0;
    if inits.is_empty() {
        wrong.push(format!("INIT_UNDER_TEST={chosen} is none of oscr, tini, dumb-init, catatonit, all"));
    }
    for init in inits {
        if init.is_here() {
            let (judged, problems) = run(init, &cases, &arguments);
            kept += judged - problems.len();
            wrong.extend(problems);
        } else if chosen == "all" {
            println!("{} is not installed: skipped", init.name);
        } else {
            wrong.push(format!("{} is not installed; scripts/setup.sh installs it", init.name));
        }
    }
    for problem in &wrong {
        println!("\n---- {problem}");
    }
    if !wrong.is_empty() {
        // As the standard runner ends, for scripts/test-summary.sh.
        println!("\nfailures:");
        wrong.iter().for_each(|problem| println!("    {}", problem.lines().next().unwrap_or_default()));
    }
    let word = if wrong.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {kept} passed; {} failed\n", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn namespaces_are_allowed() -> bool {
    let unshare =
        Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).stderr(Stdio::null()).status();
    unshare.is_ok_and(|status| status.success())
}

/// Runs the cases against one init and returns how many, and what differs from what is known.
fn run(init: &Init, cases: &[&Case], arguments: &Arguments) -> (usize, Vec<String>) {
    let wanted: Vec<&Case> = cases.iter().rev().filter(|case| arguments.wants(case.name)).copied().collect();
    let count = wanted.len();
    let queue = Mutex::new(wanted);
    let wrong = Mutex::new(Vec::new());
    let running = Mutex::new(BTreeSet::new());
    println!("\nrunning the cases of an init against {}", init.name);
    thread::scope(|scope| {
        let worker = || {
            loop {
                let Some(case) = queue.lock().unwrap().pop() else { return };
                running.lock().unwrap().insert(case.name);
                let problem = judge(init, case);
                running.lock().unwrap().remove(case.name);
                wrong.lock().unwrap().extend(problem);
            }
        };
        let workers: Vec<_> = (0..arguments.at_once.unwrap_or(AT_ONCE)).map(|_| scope.spawn(worker)).collect();
        let begun = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::park_timeout(Duration::from_millis(50));
            if begun.elapsed() > patient(TOO_LONG) {
                println!("still running after {TOO_LONG:?}: {:?}", running.lock().unwrap());
                std::process::exit(101);
            }
        }
    });
    (count, wrong.into_inner().unwrap())
}

fn judge(init: &Init, case: &Case) -> Option<String> {
    let begun = Instant::now();
    let kept = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(init))).is_ok();
    let message = PANIC.with(|panic| std::mem::take(&mut *panic.borrow_mut()));
    let (verdict, problem) = match (kept, known(init.name, case.name)) {
        (true, Known::Kept) => ("ok", None),
        (false, Known::NotKept) => ("ok (not kept, as is known)", None),
        (_, Known::ByLuck) => ("ok (a matter of luck, as is known)", None),
        (false, Known::Kept) => ("FAILED", Some(message)),
        (true, Known::NotKept) => {
            let problem = "it is kept, but tests/init/known.rs says that it is not";
            ("FAILED", Some(problem.to_owned()))
        }
    };
    let took = begun.elapsed().as_secs_f64();
    println!("test {}: {} ... {verdict} ({took:.1} s)", init.name, case.name);
    problem.map(|problem| format!("{}: {}\n{problem}", init.name, case.name))
}

fn check_names(cases: &[&Case]) -> Vec<String> {
    known::all_names()
        .filter(|name| !cases.iter().any(|case| case.name == *name))
        .map(|name| format!("tests/init/known.rs knows {name}, which is no case"))
        .collect()
}

/// The table in the documentation is this program's.
fn check_docs(sections: &[Section]) -> Option<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/init.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    (!text.contains(&table(sections)))
        .then(|| format!("docs/init.md does not hold this table; put it there:\n{}", table(sections)))
}

/// Who keeps what, as Markdown.
fn table(sections: &[Section]) -> String {
    let mut text = String::from("| |");
    for init in INITS {
        let _ = write!(text, " {} |", init.name);
    }
    text.push_str("\n| --- |");
    text.push_str(&" :-: |".repeat(INITS.len()));
    text.push('\n');
    for (heading, cases) in sections {
        let _ = writeln!(text, "| **{heading}** |{}", " |".repeat(INITS.len()));
        for case in *cases {
            let _ = write!(text, "| {} |", case.name.replace('_', " "));
            for init in INITS {
                let mark = match known(init.name, case.name) {
                    Known::Kept => "✓",
                    Known::NotKept => "–",
                    Known::ByLuck => "(✓)",
                };
                let _ = write!(text, " {mark} |");
            }
            text.push('\n');
        }
    }
    text
}
