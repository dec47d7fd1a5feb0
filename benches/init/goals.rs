//! The inits' figures against what was aimed at.

use crate::aims::Sheet;
use crate::measure::{Contender, Figures};
use crate::run_mode::RunFigures;

/// Every goal, and its figure in this very run.
pub fn sheet(contenders: &[Contender], figures: &[Figures], runner: Option<&RunFigures>) -> Sheet {
    let of = |name: &str| contenders.iter().position(|contender| contender.name == name).map(|at| &figures[at]);
    let (ours, tini, fixed) = (of("oscr exec"), of("tini"), of("tini-static"));
    let mut sheet = Sheet::of("init");
    sheet.note("binary, bytes", ours.map(|f| f.bytes as f64), None);
    sheet.note("`exec`: Private_Dirty, kB", ours.map(|f| f.private_dirty as f64), None);
    sheet.note("`run`, listening: Private_Dirty, kB", runner.map(|r| r.registered.0 as f64), None);
    sheet.note("`run`, an hour later: Private_Dirty, kB", runner.map(|r| r.hour.0 as f64), None);
    sheet.note("`run`, as a stretch: Private_Dirty, kB", runner.map(|r| r.registered.0 as f64), None);
    let (first, later) = (runner.map(|r| r.registered.0 as f64), runner.map(|r| r.six_hours.0 as f64));
    sheet.note("`run`, after 720 health checks: Private_Dirty, kB", later, first);
    sheet.note("`run`, a hundred of them: Private_Dirty, kB", runner.map(|r| r.hundred as f64), None);
    sheet.note("added to `true`, ms", ours.map(|f| f.start), fixed.map(|f| f.start));
    sheet.note("signal to child, median, µs", ours.map(|f| f.latency.0), tini.map(|f| f.latency.0));
    sheet.note("signal to child, 99th percentile, µs", ours.map(|f| f.latency.1), tini.map(|f| f.latency.1));
    sheet.note("processor time per orphan, µs", ours.map(|f| f.per_orphan), tini.map(|f| f.per_orphan));
    sheet.note("`exec`: wake-ups per idle minute", ours.map(|f| f.wakeups), None);
    sheet.note("`run`: wake-ups per idle minute", runner.map(|r| r.wakeups), None);
    sheet
}
