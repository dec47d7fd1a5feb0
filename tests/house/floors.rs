//! The floors: a module uses only what stands below it, and the files of one module never each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Arrow, Source};

/// The modules, from the top floor to the ground.
pub const FLOORS: &[&str] = &[
    "cli",
    "entry",
    "agent",
    "provider",
    "control",
    "config",
    "policy",
    "docker",
    "resource",
    "workspace",
    "metrics",
    "init",
    "log",
    "resolver",
    "files",
    "encode",
    "shown",
    "plain",
    "print",
    "os",
    "exit",
];

/// What is wrong with the house, a sentence each.
pub fn faults(source: &Source, floors: &[&str]) -> Vec<String> {
    let floor = |module: &str| floors.iter().position(|other| *other == module);
    let mut faults = Vec::new();
    for module in source.modules() {
        if floor(module).is_none() {
            faults.push(format!(
                "`{module}` has no floor: name it in FLOORS (tests/house/floors.rs), above all that it uses"
            ));
        }
    }
    for module in floors.iter().filter(|module| !source.modules().contains(*module)) {
        faults.push(format!("`{module}` has a floor and no file: take it out of FLOORS (tests/house/floors.rs)"));
    }
    let arrows = source.arrows();
    for Arrow { from, to, by, of } in &arrows {
        if let (Some(own), Some(other)) = (floor(&from[0]), floor(&to[0]))
            && other < own
        {
            faults.push(format!(
                "{by} uses {of}, but `{}` stands on a floor above `{}`: what both need belongs below both",
                to[0], from[0]
            ));
        }
    }
    faults.extend(circles(&arrows));
    faults
}

/// The circles between files of one module, each once, as the way around.
fn circles(arrows: &BTreeSet<Arrow<'_>>) -> Vec<String> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Arrow { from, to, by, of } in arrows {
        if from[0] == to[0] {
            uses.entry(by).or_default().insert(of);
        }
    }
    let mut told: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    let mut found = Vec::new();
    for start in uses.keys() {
        let Some(way) = way_back(&uses, start) else { continue };
        if told.insert(way.iter().copied().collect()) {
            found.push(format!(
                "{}: files that use each other in a circle cannot be read one by one",
                way.join(" uses ")
            ));
        }
    }
    found
}

/// The shortest way from a file back to itself.
fn way_back<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = std::collections::VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in uses.get(way.last()?).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(next);
            if *next == start {
                return Some(longer);
            }
            if seen.insert(*next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// The modules that each module uses.
pub fn uses(source: &Source) -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Arrow { from, to, .. } in source.arrows() {
        if from[0] != to[0] && !from.is_empty() {
            uses.entry(from[0].clone()).or_default().insert(to[0].clone());
        }
    }
    uses
}
