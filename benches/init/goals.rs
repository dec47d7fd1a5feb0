//! What was aimed at, and whether it was reached.

use std::fmt::Write as _;

use crate::measure::{Contender, Figures};
use crate::run_mode::RunFigures;

/// One aim: what it is about, what was measured, and the most that it may be.
struct Goal {
    name: &'static str,
    measured: Option<f64>,
    limit: Option<f64>,
}

/// Every goal, its limit in this very run, and the verdict.
pub fn table(contenders: &[Contender], figures: &[Figures], runner: Option<&RunFigures>) -> String {
    let of = |name: &str| contenders.iter().position(|contender| contender.name == name).map(|at| &figures[at]);
    let goal = |name, measured, limit| Goal { name, measured, limit };
    let (ours, tini, fixed) = (of("oscr exec"), of("tini"), of("tini-static"));
    let goals = [
        goal("binary, bytes", ours.map(|f| f.bytes as f64), Some(5e6)),
        goal("`exec`: Private_Dirty, kB", ours.map(|f| f.private_dirty as f64), Some(160.0)),
        goal("`run`, listening: Private_Dirty, kB", runner.map(|r| r.registered.0 as f64), Some(512.0)),
        goal("`run`, an hour later: Private_Dirty, kB", runner.map(|r| r.hour.0 as f64), Some(512.0)),
        goal("`run`, as a stretch: Private_Dirty, kB", runner.map(|r| r.registered.0 as f64), Some(256.0)),
        goal("added to `true`, no more than tini-static, ms", ours.map(|f| f.start), fixed.map(|f| f.start)),
        goal("signal to child, median, 1.2 × tini, µs", ours.map(|f| f.latency.0), tini.map(|f| f.latency.0 * 1.2)),
        goal(
            "signal to child, 99th percentile, 1.2 × tini, µs",
            ours.map(|f| f.latency.1),
            tini.map(|f| f.latency.1 * 1.2),
        ),
        goal(
            "processor time per orphan, no more than tini, µs",
            ours.map(|f| f.per_orphan),
            tini.map(|f| f.per_orphan),
        ),
        goal("`exec`: wake-ups per idle minute", ours.map(|f| f.wakeups), Some(0.0)),
        goal("`run`: wake-ups per idle minute", runner.map(|r| r.wakeups), Some(1.0)),
    ];
    let mut text = String::from("| goal | at most | measured | |\n| --- | --: | --: | --- |\n");
    for Goal { name, measured, limit } in goals {
        let number =
            |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{}", (value * 100.0).round() / 100.0));
        let verdict = match measured.zip(limit) {
            Some((measured, limit)) if measured <= limit => "met",
            Some(_) => "**not met**",
            None => "not measured",
        };
        let _ = writeln!(text, "| {name} | {} | {} | {verdict} |", number(limit), number(measured));
    }
    text
}
