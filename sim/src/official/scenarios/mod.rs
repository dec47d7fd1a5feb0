//! The scenarios. Each is a name, what must be so, and a function that lives through it.

use super::runner::Runner;
use super::world::World;

/// Ends the scenario if something is not so.
macro_rules! check {
    ($so:expr, $($words:tt)+) => { if !$so { return Err(format!($($words)+)); } };
}

mod boards;
mod containers;
mod ends;
mod faults;
mod jobs;
mod lives;

/// How the reason begins why a scenario is red that this image or this machine cannot have.
pub(super) const CANNOT: &str = "not to be had here";

fn cannot(why: &str) -> String {
    format!("{CANNOT}: {why}")
}

/// How the runners of a scenario register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Registers {
    /// It is lived through by token and just in time.
    Both,
    /// It does not matter.
    Either,
}

/// A scenario.
pub(super) struct Scenario {
    /// For the command line.
    pub(super) name: &'static str,
    /// What must be so, for people.
    pub(super) about: &'static str,
    pub(super) registers: Registers,
    pub(super) run: fn(&World<'_>) -> Result<(), String>,
}

const fn either(name: &'static str, about: &'static str, run: fn(&World<'_>) -> Result<(), String>) -> Scenario {
    Scenario { name, about, registers: Registers::Either, run }
}

const fn both(name: &'static str, about: &'static str, run: fn(&World<'_>) -> Result<(), String>) -> Scenario {
    Scenario { name, about, registers: Registers::Both, run }
}

/// All of them, those that take longest first.
pub(super) fn all() -> impl Iterator<Item = &'static Scenario> {
    [containers::TABLE, lives::TABLE, boards::TABLE, faults::TABLE, ends::TABLE, jobs::TABLE].into_iter().flatten()
}
