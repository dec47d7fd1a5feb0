//! What was aimed at, and whether it was reached.

use std::fmt::Write as _;

/// One aim.
pub struct Goal {
    /// As it is called in the docs.
    pub name: &'static str,
    /// The most that it may be.
    pub limit: f64,
}

/// All of them, in the order of [`table`]'s figures.
pub const GOALS: [Goal; 8] = [
    Goal { name: "start, token: ours, s", limit: 0.15 },
    Goal { name: "start, JIT: ours, s", limit: 0.15 },
    Goal { name: "cycle, token: ours, s", limit: 0.15 },
    Goal { name: "cycle, JIT: ours, s", limit: 0.15 },
    Goal { name: "cycle, token: the whole, part of the plain one's", limit: 1.0 },
    Goal { name: "cycle, JIT: the whole, part of the plain one's", limit: 0.7 },
    Goal { name: "token: what a first start takes ours longer than a later one, s", limit: 0.02 },
    Goal { name: "JIT: what a first start takes ours longer than a later one, s", limit: 0.02 },
];

/// Every goal with what was measured, and the verdict.
pub fn table(measured: [f64; GOALS.len()]) -> String {
    let mut text = String::from("| goal | at most | measured | |\n| --- | --: | --: | --- |\n");
    for (Goal { name, limit }, measured) in GOALS.iter().zip(measured) {
        let verdict = if measured <= *limit { "met" } else { "**not met**" };
        let _ = writeln!(text, "| {name} | {limit:.2} | {measured:.2} | {verdict} |");
    }
    text
}
