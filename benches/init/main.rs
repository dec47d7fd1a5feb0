//! What an init costs: ours against tini, dumb-init and catatonit, in one run on one machine, as Markdown.
//!
//! `make bench` measures the release binary (`OSCR_ENTRY`). Under `cargo test`, or with `BENCH_QUICK=1`, everything is measured
//! a few times only, to see that it can be.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

#[path = "../goals.rs"]
mod aims;
mod goals;
mod measure;
mod run_mode;
#[path = "../runner.rs"]
mod runner;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use measure::{Contender, Figures};

/// How often things are done.
pub struct Effort {
    /// Instances whose memory is read.
    pub memory: usize,
    /// Times that `true` is run.
    pub starts: usize,
    /// Signals sent.
    pub signals: usize,
    /// Orphans made, and how many times so many.
    pub orphans: (usize, usize),
    /// Seconds of idleness in which wake-ups are counted.
    pub idle: u64,
    /// Health checks that the runner answers before its memory is read again: those of an hour, one each 30 seconds.
    pub health_checks: usize,
    /// Runners that listen at the same time.
    pub runners: usize,
}

const FULL: Effort =
    Effort { memory: 5, starts: 500, signals: 2000, orphans: (10_000, 5), idle: 60, health_checks: 120, runners: 20 };
const QUICK: Effort =
    Effort { memory: 1, starts: 5, signals: 20, orphans: (50, 1), idle: 1, health_checks: 2, runners: 1 };

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measure::HELPER) {
        return measure::helper(&arguments[1..]);
    }
    // `cargo bench` says so; `cargo test` gives what its user wants to see, which may be something else.
    let full = arguments.iter().any(|argument| argument == "--bench");
    let mut names = arguments.iter().filter_map(|argument| argument.to_str()).filter(|name| !name.starts_with('-'));
    if !full && arguments.iter().any(|argument| argument == "--list") || !names.all(|name| "init_bench".contains(name))
    {
        return ExitCode::SUCCESS;
    }
    let effort = if full && std::env::var_os("BENCH_QUICK").is_none() { FULL } else { QUICK };
    if !measure::namespaces_are_allowed() {
        println!("init_bench: skipped, for it needs root and PID namespaces");
        return ExitCode::SUCCESS;
    }
    let ours =
        std::env::var_os("OSCR_ENTRY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_oscr-entry")), PathBuf::from);
    let ours = ours.canonicalize().unwrap();
    let contenders: Vec<Contender> = contenders(&ours).into_iter().filter(|c| Path::new(&c.line[0]).exists()).collect();

    let mut figures: Vec<Figures> = contenders.iter().map(|c| Figures::of_memory(c, &effort)).collect();
    let bare = measure::starts(&contenders, &mut figures, &effort);
    let direct = measure::latencies(&contenders, &mut figures, &effort);
    measure::orphans(&contenders, &mut figures, &effort);
    let runner = run_mode::listen(&ours, &effort);
    measure::idleness(&contenders, &mut figures, runner.as_ref(), &effort);
    let runner = runner.map(run_mode::Runner::end);

    let mut text = table::machine();
    text += &table::figures(&contenders, &figures, runner.as_ref(), bare, direct, effort.orphans.0);
    print!("{text}");
    aims::hold_rows("init", &text);
    if effort.starts == FULL.starts {
        let sheet = goals::sheet(&contenders, &figures, runner.as_ref());
        print!("{}", sheet.table());
        sheet.leave(&text);
    } else {
        println!("Too few turns, and perhaps no release binary: `make bench` judges.");
    }
    ExitCode::SUCCESS
}

fn contenders(ours: &Path) -> Vec<Contender> {
    let of = |name, line: &[&str]| Contender { name, line: line.iter().map(Into::into).collect() };
    vec![
        Contender { name: "oscr exec", line: vec![ours.into(), "exec".into(), "--".into()] },
        // With its subreaper where it is not PID 1, as ours has one by itself.
        of("tini", &["/usr/bin/tini", "-s", "--"]),
        of("tini-static", &["/usr/bin/tini-static", "-s", "--"]),
        of("dumb-init", &["/usr/bin/dumb-init", "--"]),
        of("catatonit", &["/usr/bin/catatonit", "--"]),
    ]
}
