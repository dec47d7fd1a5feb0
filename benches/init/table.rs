//! The figures as Markdown.

use std::fmt::Write as _;
use std::process::Command;

use crate::aims;
use crate::measure::{Contender, Figures};
use crate::run_mode::RunFigures;

/// Where it was measured, in a sentence.
pub fn machine() -> String {
    let version = |package: &str| {
        let output = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        format!("{package} {}", if text.is_empty() { "(no package)" } else { &text })
    };
    let versions: Vec<String> = ["tini", "dumb-init", "catatonit"].into_iter().map(version).collect();
    format!("{}; {}.\n\n", aims::machine(), versions.join(", "))
}

/// One line of the table: its name, decimals, the figure, and the same of `run`.
struct Row {
    name: String,
    decimals: usize,
    of: fn(&Figures) -> f64,
    run: Option<f64>,
}

/// All figures; in brackets the ratio to tini.
pub fn figures(
    contenders: &[Contender],
    figures: &[Figures],
    runner: Option<&RunFigures>,
    bare: f64,
    direct: (f64, f64),
    orphans: usize,
) -> String {
    let row = |name: &str, decimals, of, run: Option<f64>| Row { name: name.to_owned(), decimals, of, run };
    let run = |of: fn(&RunFigures) -> f64| runner.map(of);
    let rows = [
        row("binary, bytes", 0, |f| f.bytes as f64, None),
        row("memory of its own (Private_Dirty), kB", 0, |f| f.private_dirty as f64, run(|r| r.registered.0 as f64)),
        row("the same after an hour's health checks, kB", 0, |_| f64::NAN, run(|r| r.hour.0 as f64)),
        row("the same after six hours', kB", 0, |_| f64::NAN, run(|r| r.six_hours.0 as f64)),
        row("memory of a hundred of them, kB", 0, |_| f64::NAN, run(|r| r.hundred as f64)),
        row("memory with its share (Pss), kB", 0, |f| f.pss as f64, run(|r| r.registered.1 as f64)),
        row(&format!("added to `true`, which takes {bare:.2}, ms"), 2, |f| f.start, None),
        row(&format!("signal to child, median (without init {:.1}), µs", direct.0), 1, |f| f.latency.0, None),
        row(&format!("signal to child, 99th percentile ({:.1}), µs", direct.1), 1, |f| f.latency.1, None),
        row(&format!("{orphans} orphans made and reaped, s"), 2, |f| f.orphans, None),
        row("processor time per orphan, µs", 2, |f| f.per_orphan, None),
        row("most zombies seen", 0, |f| f.zombies as f64, None),
        row("wake-ups per idle minute", 0, |f| f.wakeups, run(|r| r.wakeups)),
    ];
    let tini = contenders.iter().position(|contender| contender.name == "tini").map(|at| &figures[at]);
    let mut text = String::from("| |");
    for contender in contenders {
        let _ = write!(text, " {} |", contender.name);
    }
    text.push_str(" oscr run |\n| --- |");
    text.push_str(&" --: |".repeat(contenders.len() + 1));
    text.push('\n');
    for Row { name, decimals, of, run } in rows {
        let _ = write!(text, "| {name} |");
        for value in figures.iter().map(of).map(Some).chain([run]) {
            let ratio = value.zip(tini).map(|(value, tini)| value / of(tini)).filter(|ratio| ratio.is_finite());
            let _ = match (value, ratio) {
                (Some(value), Some(ratio)) => write!(text, " {value:.decimals$} ({ratio:.2}) |"),
                (Some(value), None) if !value.is_nan() => write!(text, " {value:.decimals$} |"),
                _ => write!(text, " |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
    text
}
