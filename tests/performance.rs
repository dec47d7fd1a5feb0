//! The pages of performance have the rows, goals and verdicts of the benches.

#[path = "../benches/goals.rs"]
mod goals;
#[path = "life/page.rs"]
mod page;

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where the figures of each bench stand.
const FIGURES: &[(&str, &str)] = &[
    ("init", "docs/performance.md"),
    ("herd", "docs/performance.md"),
    ("lock", "docs/performance-lock.md"),
    ("wipe", "docs/performance-wipe.md"),
    ("start", "docs/performance-start.md"),
];

/// `make bench-docs` names the directories of two runs in `OSCR_BENCH_RUNS`, and has the pages written from them.
#[test]
fn the_pages_of_performance_have_the_benches_rows_goals_and_verdicts() {
    let runs = std::env::var("OSCR_BENCH_RUNS").ok();
    let runs = runs.as_ref().map(|runs| {
        let (first, second) = runs.split_once(':').expect("OSCR_BENCH_RUNS is two directories with a colon between");
        [Path::new(first), Path::new(second)]
    });
    let old = read("docs/performance.md");
    let goals = goals::page(&old[page::marked(&old, "goals")], runs);
    page::keep("docs/performance.md", "goals", &goals);
    for (bench, place) in FIGURES {
        let name = format!("figures:{bench}");
        let left = runs.map(|[_, run]| fs::read_to_string(run.join(format!("{bench}.md"))));
        let figures = left.map_or_else(
            || {
                let text = read(place);
                text[page::marked(&text, &name)].to_owned()
            },
            |left| left.unwrap_or_else(|error| panic!("the second run left no figures of {bench}: {error}")),
        );
        goals::hold_rows(bench, &figures);
        assert!(figures.starts_with("Measured on "), "{place} does not say on what machine");
        page::keep(place, &name, &figures);
    }
}

#[test]
fn a_verdict_that_flips_between_two_runs_is_not_decided() {
    use goals::Verdict::{Met, NotDecided, NotMeasured, NotMet};
    assert_eq!(goals::Verdict::on(Some(1.0), Some(1.0)), Met);
    assert_eq!(goals::Verdict::on(Some(1.01), Some(1.0)), NotMet);
    assert_eq!(goals::Verdict::on(Some(1.0), None), NotMeasured);
    assert_eq!(Met.and(Met), Met);
    assert_eq!(Met.and(NotMet), NotDecided);
    assert_eq!(Met.and(NotMeasured), NotDecided);
    let goal = goals::GOALS.iter().find(|goal| goal.name == "binary, bytes").expect("a goal");
    let row = |first, second| format!("| {} | {} | | {first} | {second} | |\n", goal.bench, goal.name);
    let ends = |rows: &str, word: &str| goals::page(rows, None).lines().nth(2).expect("a row").ends_with(word);
    assert!(ends(&row("1", "2"), "| 1 | 2 | met |"));
    assert!(ends(&row("1", "6000000"), "| 1 | 6000000 | not decided |"));
    assert!(ends(&row("6000000", "6000000"), "| **not met** |"));
    assert!(ends("", "| – | – | not measured |"));
}
