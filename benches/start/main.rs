//! What a user waits for: from `docker run` to the first session, and from a job's end to the next runner that listens, beside a plain
//! entrypoint, in turns, at one simulated forge, as Markdown.
//!
//! `make bench` measures the image of the release binary, whose name is in `OSCR_BENCH_IMAGE`. Under `cargo test` nothing is measured
//! unless `OSCR_CONTAINER_TESTS` is 1; then, and with `BENCH_QUICK=1`, everything is done once, to see that it can be measured.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

#[path = "../goals.rs"]
mod aims;
mod moments;
mod site;
mod turn;

use std::process::ExitCode;

use aims::Sheet;
use oscr_sim::official::How;
use site::{Contender, Place, Who};
use turn::{Parts, medians};

/// How often things are done.
struct Effort {
    /// Starts and cycles of each contender.
    turns: usize,
    /// One-second jobs in a row.
    row: usize,
    /// Who takes part.
    contenders: &'static [Contender],
    /// How long a container must have been up so that Docker does not hold its next start back.
    settled: f64,
    /// `OSCR_MIN_UPTIME`, by default 10 s.
    least: &'static str,
}

const FULL: Effort = Effort { turns: 4, row: 4, contenders: &CONTENDERS, settled: 10.5, least: "10s" };
const QUICK: Effort = Effort {
    turns: 1,
    row: 0,
    // Each entrypoint and each way to register once.
    contenders: &[CONTENDERS[0], CONTENDERS[3]],
    settled: 0.0,
    least: "0s",
};

/// Everyone who takes part, in the order of the turns.
const CONTENDERS: [Contender; 4] = [
    Contender { who: Who::Ours, how: How::Token },
    Contender { who: Who::Plain, how: How::Token },
    Contender { who: Who::Ours, how: How::Jit },
    Contender { who: Who::Plain, how: How::Jit },
];

/// The turns of one kind.
type Kind = fn(&Seen) -> &[Parts];

/// What was measured of one of them.
#[derive(Default)]
struct Seen {
    first: Vec<Parts>,
    later: Vec<Parts>,
    cycles: Vec<Parts>,
    row: Vec<f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let mut names = arguments.iter().filter(|name| !name.starts_with('-'));
    let listed = !full && arguments.iter().any(|argument| argument == "--list");
    let asked = full || std::env::var("OSCR_CONTAINER_TESTS").is_ok_and(|value| value == "1");
    if listed || !asked || !names.all(|name| "start_bench".contains(name)) {
        return ExitCode::SUCCESS;
    }
    let full = full && std::env::var_os("BENCH_QUICK").is_none();
    if let Some(why) = site::missing() {
        println!("start_bench: skipped: {why}");
        return ExitCode::SUCCESS;
    }
    let image = std::env::var("OSCR_BENCH_IMAGE").unwrap_or_else(|_| "oddessentials/oscr-github:sim".to_owned());
    match measure(&image, if full { FULL } else { QUICK }) {
        Ok(text) => {
            print!("{text}");
            if !full {
                println!("Too few turns: `make bench` judges.");
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("start_bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// All turns, and what they came to.
fn measure(image: &str, effort: Effort) -> Result<String, String> {
    let mut place = Place::new(image, effort.least)?;
    let done = turns(&mut place, &effort);
    let removed = place.remove();
    let seen = done?;
    removed?;
    let mut text = aims::machine();
    let (agent, turns) = (place.agent(), effort.turns);
    text += &format!(".\nImage {image}, agent {agent}, {}; medians of {turns}, in s.\n\n", site::engine()?);
    text += "| | | whole | agent ends | Docker | entrypoint | forge | configure | listener |\n";
    text += "| --- | --- | --: | --: | --: | --: | --: | --: | --: |\n";
    let kinds: [(&str, Kind); 3] =
        [("`docker run`", |seen| &seen.first), ("`docker start`", |seen| &seen.later), ("cycle", |seen| &seen.cycles)];
    for (kind, turns) in kinds {
        for (contender, seen) in effort.contenders.iter().zip(&seen) {
            if turns(seen).is_empty() {
                return Err(format!("{kind} of {contender}: the kernel told of no turn in full"));
            }
            let parts = medians(turns(seen));
            text += &format!("| {kind} | {contender} | {:.2} |", parts.whole());
            for part in parts.all() {
                text += &format!(" {part:.3} |");
            }
            text += "\n";
        }
    }
    if effort.row > 0 {
        text += "\n| one-second jobs in a row: each cycle, s | |\n| --- | --- |\n";
        for (contender, seen) in effort.contenders.iter().zip(&seen).filter(|(contender, _)| contender.how == How::Jit)
        {
            let row: Vec<String> = seen.row.iter().map(|cycle| format!("{cycle:.2}")).collect();
            text += &format!("| {contender} | {} |\n", row.join(", "));
        }
        text += "\n";
        let sheet = sheet(&seen);
        sheet.leave(&text);
        text += &sheet.table();
    }
    Ok(text)
}

/// Every goal, and its figure in this very run.
fn sheet(seen: &[Seen]) -> Sheet {
    let [token, plain_token, jit, plain_jit] = seen else { unreachable!("there are four contenders") };
    let ours = |turns: &[Parts]| medians(turns).entrypoint;
    let whole = |turns: &[Parts]| Some(medians(turns).whole());
    let mut sheet = Sheet::of("start");
    for (how, seen, plain) in [("token", token, plain_token), ("JIT", jit, plain_jit)] {
        let (first, later) = (ours(&seen.first), ours(&seen.later));
        sheet.note(&format!("`docker start`, {how}: OSCR's own part, s"), Some(later), None);
        sheet.note(&format!("cycle, {how}: OSCR's own part, s"), Some(ours(&seen.cycles)), None);
        sheet.note(&format!("cycle, {how}: the whole, s"), whole(&seen.cycles), whole(&plain.cycles));
        sheet.note(
            &format!("{how}: what a first start takes OSCR longer than a later one, s"),
            Some(first - later),
            None,
        );
    }
    sheet
}

/// Each in turn, so that what else the machine does is everyone's.
fn turns(place: &mut Place, effort: &Effort) -> Result<Vec<Seen>, String> {
    let mut seen: Vec<Seen> = effort.contenders.iter().map(|_| Seen::default()).collect();
    let mut standing = Vec::new();
    for turn in 0..effort.turns {
        for (contender, seen) in effort.contenders.iter().zip(&mut seen) {
            let (mut stand, first) = place.run(*contender)?;
            seen.first.extend(first);
            seen.later.extend(place.restart(&mut stand)?);
            if turn + 1 == effort.turns {
                standing.push(stand);
            } else {
                place.end(&stand);
            }
        }
    }
    for _ in 0..effort.turns {
        for (stand, seen) in standing.iter_mut().zip(&mut seen) {
            seen.cycles.extend(place.cycle(stand, "true", effort.settled)?);
        }
    }
    for (stand, seen) in standing.iter_mut().zip(&mut seen).filter(|(stand, _)| stand.contender.how == How::Jit) {
        // From a start that is not held back.
        place.cycle(stand, "true", effort.settled)?;
        for _ in 0..effort.row {
            seen.row.extend(place.cycle(stand, "sleep 1", 0.0)?.map(|parts| parts.whole()));
        }
    }
    Ok(seen)
}
