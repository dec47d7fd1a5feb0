//! A hundred runners that start together with one credential, against the simulated forge: what they ask of it, how long they take,
//! and what they cost, each with a token of its own and with a shared one.
//!
//! `make bench-herd` measures the release binary (`OSCR_ENTRY`). Under `cargo test`, or with `BENCH_QUICK=1`, five start, to see that
//! it can be measured. All settings are as shipped, so what keeps a herd apart (`OSCR_START_JITTER`) is on.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

#[path = "../goals.rs"]
mod aims;
mod herd;
#[path = "../runner.rs"]
mod runner;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use herd::Herd;
use oscr::os::signal::{self, SignalSet};
use oscr_sim::forge::RequestRecord;

/// How many, and for how long they are looked at.
struct Effort {
    runners: usize,
    /// What starting has left to do is done after so long.
    settling: Duration,
    idle: Duration,
}

const FULL: Effort = Effort { runners: 100, settling: Duration::from_secs(5), idle: Duration::from_secs(60) };
const QUICK: Effort = Effort { runners: 5, settling: Duration::from_millis(200), idle: Duration::from_millis(200) };

/// What was measured of one herd.
struct Figures {
    ours: Vec<RequestRecord>,
    agents: Vec<RequestRecord>,
    half: Duration,
    listened: Duration,
    /// kB.
    private_dirty: u64,
    pss: u64,
    until_listening: Duration,
    idling: Duration,
    idle_requests: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let mut names = arguments.iter().filter(|name| !name.starts_with('-'));
    if !full && arguments.iter().any(|argument| argument == "--list") || !names.all(|name| "herd_bench".contains(name))
    {
        return ExitCode::SUCCESS;
    }
    let unshare = Command::new("unshare").args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    let programs = oscr_sim::agent::programs_dir();
    let (true, Ok(programs)) = (unshare.is_ok_and(|status| status.success()), &programs) else {
        println!("herd_bench: skipped, for it needs root, PID namespaces and the stand-in agent ({programs:?})");
        return ExitCode::SUCCESS;
    };
    signal::set_mask(SignalSet::ALL).unwrap();
    std::thread::spawn(|| {
        while !matches!(signal::wait(None), Ok(Some(libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT))) {}
        herd::ENDS.store(true, Ordering::Relaxed);
    });
    let effort = if full && std::env::var_os("BENCH_QUICK").is_none() { FULL } else { QUICK };
    let entry =
        std::env::var_os("OSCR_ENTRY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_oscr-entry")), PathBuf::from);
    let measure = |shared| measure(&entry, programs, &effort, shared);
    let Some((own, shared)) = measure(false).and_then(|own| Some((own, measure(true)?))) else {
        println!("herd_bench: ended before it was done");
        return ExitCode::from(130);
    };
    let text = table(&own, &shared, effort.runners);
    print!("{text}");
    aims::hold_rows("herd", &text);
    if effort.runners == FULL.runners {
        let mut sheet = aims::Sheet::of("herd");
        let refused = own.refused() + shared.refused();
        sheet.note("100 runners: requests that the forge refused", Some(refused as f64), None);
        sheet.note("100 runners, a shared token: requests for one", Some(shared.for_a_token() as f64), None);
        print!("\n{}", sheet.table());
        sheet.leave(&text);
    } else {
        println!("Too few runners, and perhaps no release binary: `make bench-herd` judges.");
    }
    ExitCode::SUCCESS
}

/// One herd, from its start to its end. `None` when somebody wants this to end.
fn measure(entry: &Path, programs: &Path, effort: &Effort, shared: bool) -> Option<Figures> {
    let mut herd = Herd::new(entry, programs, effort.runners);
    for number in 0..effort.runners {
        if herd::ENDS.load(Ordering::Relaxed) {
            return None;
        }
        herd.start(number, shared);
    }
    let listened = herd.listens()?;
    let pids = herd.pids();
    let processor_time = || pids.iter().map(|pid| herd::processor_time(*pid)).sum::<Duration>();
    let until_listening = processor_time();
    let half = listened.saturating_sub(since_half_listened(&herd, effort.runners));
    let (agents, ours) = herd.forge.requests().into_iter().partition(|request| request.agent);
    if !herd::rest(effort.settling) {
        return None;
    }
    let memory: Vec<(u64, u64)> = pids.iter().map(|pid| runner::memory(pid.cast_signed())).collect();
    herd.forge.clear_requests();
    let before = processor_time();
    if !herd::rest(effort.idle) {
        return None;
    }
    Some(Figures {
        ours,
        agents,
        half,
        listened,
        private_dirty: memory.iter().map(|kb| kb.0).sum(),
        pss: memory.iter().map(|kb| kb.1).sum(),
        until_listening,
        idling: processor_time() - before,
        idle_requests: herd.forge.api_requests().len(),
    })
}

/// From the moment when half of them were online to that when all were, by the forge's clock.
fn since_half_listened(herd: &Herd, runners: usize) -> Duration {
    let events = herd.forge.events();
    let online: Vec<_> = events.iter().filter(|event| event.kind == "runner_online").map(|event| event.at).collect();
    let took = online[runners - 1].as_nanosecond() - online[(runners - 1) / 2].as_nanosecond();
    Duration::from_nanos(u64::try_from(took).unwrap())
}

impl Figures {
    fn refused(&self) -> usize {
        self.ours.iter().filter(|request| request.status.is_none_or(|status| status >= 400)).count()
    }

    fn for_a_token(&self) -> usize {
        self.ours.iter().filter(|request| request.path.ends_with("/registration-token")).count()
    }

    /// Those that make something, which GitHub allows fewer of than of questions.
    fn making(&self) -> Vec<&RequestRecord> {
        self.ours.iter().filter(|request| request.method != "GET").collect()
    }
}

/// The most of these requests in any time of this length.
fn peak<'a>(requests: impl IntoIterator<Item = &'a RequestRecord>, length: Duration) -> usize {
    let mut times: Vec<i128> = requests.into_iter().map(|request| request.at.as_nanosecond()).collect();
    times.sort_unstable();
    let length = i128::try_from(length.as_nanos()).unwrap();
    let until = |from: usize| times.partition_point(|time| *time < times[from] + length);
    (0..times.len()).map(|from| until(from) - from).max().unwrap_or(0)
}

/// All figures; `aims::HERD` names the rows.
fn table(own: &Figures, shared: &Figures, runners: usize) -> String {
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    let mb = |kb: u64| format!("{:.1}", kb as f64 / 1000.0);
    let cells = |of: &Figures| {
        [
            of.ours.len().to_string(),
            of.for_a_token().to_string(),
            of.refused().to_string(),
            peak(&of.ours, SECOND).to_string(),
            peak(of.making(), MINUTE).to_string(),
            of.agents.len().to_string(),
            peak(of.ours.iter().chain(&of.agents), SECOND).to_string(),
            format!("{:.2}", of.half.as_secs_f64()),
            format!("{:.2}", of.listened.as_secs_f64()),
            mb(of.private_dirty),
            mb(of.pss),
            format!("{:.2}", of.until_listening.as_secs_f64()),
            format!("{:.1}", of.idling.as_secs_f64() * 1000.0),
            of.idle_requests.to_string(),
        ]
    };
    let mut text = format!("{}: {runners} runners that start together.\n\n", aims::machine());
    text += "| | each its own token | a shared one |\n| --- | --: | --: |\n";
    for ((name, own), shared) in aims::HERD.iter().zip(cells(own)).zip(cells(shared)) {
        let _ = writeln!(text, "| {name} | {own} | {shared} |");
    }
    for (who, figures) in [("each its own token", own), ("a shared one", shared)] {
        let _ = writeln!(text, "\nRequests until all listen, {who}:\n");
        for (whose, requests) in [("ours", &figures.ours), ("the agents'", &figures.agents)] {
            let mut kinds = BTreeMap::<String, usize>::new();
            for request in requests {
                *kinds.entry(kind(request)).or_default() += 1;
            }
            let _ = writeln!(text, "- {whose}:{}", if kinds.is_empty() { " none" } else { "" });
            for (kind, count) in kinds {
                let _ = writeln!(text, "  - {count} × `{kind}`");
            }
        }
    }
    text.push('\n');
    text
}

/// A request without what differs from runner to runner: `POST …/registration-token 201`.
fn kind(request: &RequestRecord) -> String {
    let varies = |part: &str| part.len() > 20 || part.bytes().any(|byte| byte.is_ascii_digit()) && part != "v3";
    let path: Vec<&str> = request.path.split('/').map(|part| if varies(part) { "ID" } else { part }).collect();
    let status = request.status.map_or("no answer".to_owned(), |status| status.to_string());
    format!("{} {} {status}", request.method, path.join("/"))
}
