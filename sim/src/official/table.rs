//! Runs scenarios a few at a time, and says of each in one line what became of it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::posture::Posture;
use super::say;
use super::scenarios::{CANNOT, Registers, Scenario};
use super::world::{How, Site, World};

/// A reason of more characters than this is cut short in its line.
const LONGEST: usize = 300;

/// One line of the table: a scenario, how its runners are held, and how they register.
#[derive(Clone, Copy)]
pub(super) struct Case {
    scenario: &'static Scenario,
    posture: Posture,
    how: How,
}

/// Why a line is red, and what was seen.
struct Red {
    line: String,
    seen: String,
}

/// The cases of these scenarios. Where it does not matter how a runner registers, one takes a token and the next is made just in
/// time, the other way round in the next posture.
pub(super) fn cases(scenarios: &[&'static Scenario], postures: &[Posture]) -> Vec<Case> {
    let mut cases = Vec::new();
    for posture in postures {
        let turn = Posture::ALL.iter().position(|other| other == posture).unwrap_or(0);
        for scenario in scenarios {
            let place = super::scenarios::all().position(|other| other.name == scenario.name).unwrap_or(0);
            let ways: &[How] = match scenario.registers {
                Registers::Both => &[How::Token, How::Jit],
                Registers::Either if (place + turn) % 2 == 0 => &[How::Token],
                Registers::Either => &[How::Jit],
            };
            cases.extend(ways.iter().map(|how| Case { scenario, posture: *posture, how: *how }));
        }
    }
    cases
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One case in a world of its own; what was seen of it, where it is red.
fn run_one(site: &Site, number: usize, case: Case) -> Result<(), (String, String)> {
    let world = World::begin(site, number, case.posture, case.how).map_err(|why| (why, String::new()))?;
    let lived = catch_unwind(AssertUnwindSafe(|| (case.scenario.run)(&world).and_then(|()| world.check())));
    let lived = lived.unwrap_or_else(|_| Err("a defect of this program: see above".to_owned()));
    lived.map_err(|why| (why, world.seen()))
}

/// Runs all cases, `at_once` of them side by side. True if all are green.
pub(super) fn run(site: &Site, cases: Vec<Case>, at_once: usize) -> bool {
    let total = cases.len();
    let queue = Mutex::new(VecDeque::from_iter(cases.into_iter().enumerate()));
    let reds: Mutex<Vec<Red>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_once.min(total) {
            scope.spawn(|| {
                let next = || lock(&queue).pop_front();
                while let Some((number, case)) = next() {
                    let began = Instant::now();
                    let lived = run_one(site, number, case);
                    if site.engine.is_over() {
                        return;
                    }
                    if let Some(red) = tell(case, &lived, began.elapsed().as_secs_f64()) {
                        lock(&reds).push(red);
                    }
                }
            });
        }
    });
    if site.engine.is_over() {
        return false;
    }
    let reds = reds.into_inner().unwrap_or_else(PoisonError::into_inner);
    for red in &reds {
        let _ = writeln!(std::io::stderr(), "\n==== {}\n{}", red.line, red.seen);
    }
    say(&format!("{} passed, {} failed", total - reds.len(), reds.len()));
    reds.is_empty()
}

/// Prints the line of a case.
fn tell(case: Case, lived: &Result<(), (String, String)>, seconds: f64) -> Option<Red> {
    let Case { scenario, posture, how } = case;
    let about = format!("{:<8} {:<5}  {:<16} {}", posture.word(), how.word(), scenario.name, scenario.about);
    let Err((why, seen)) = lived else {
        say(&format!("ok      {about} ({seconds:.1} s)"));
        return None;
    };
    let mut short = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ");
    if let Some((end, _)) = short.char_indices().nth(LONGEST) {
        short.truncate(end);
        short.push('…');
    }
    let hint =
        if why.starts_with(CANNOT) { format!("; --without {} leaves it out", scenario.name) } else { String::new() };
    let line = format!("FAILED  {about}: {short}{hint} ({seconds:.1} s)");
    say(&line);
    Some(Red { line, seen: format!("{why}\n{seen}") })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::official::scenarios;

    #[test]
    fn each_scenario_is_lived_through_in_each_posture_and_over_them_all_in_both_ways() {
        let all: Vec<&Scenario> = scenarios::all().collect();
        let names: BTreeSet<&str> = all.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), all.len(), "each has a name of its own");
        let cases = cases(&all, &Posture::ALL);
        for scenario in all {
            let lived = || cases.iter().filter(|case| case.scenario.name == scenario.name);
            for posture in Posture::ALL {
                let ways: Vec<&str> =
                    lived().filter(|case| case.posture == posture).map(|case| case.how.word()).collect();
                let wanted = if scenario.registers == Registers::Both { 2 } else { 1 };
                assert_eq!(ways.len(), wanted, "{} {posture:?}", scenario.name);
            }
            let ways: BTreeSet<&str> = lived().map(|case| case.how.word()).collect();
            assert_eq!(ways.len(), 2, "{}", scenario.name);
        }
    }
}
