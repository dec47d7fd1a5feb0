//! Fifty processes that fork, die and send signals: nothing may be missed, nothing may be left, and the code must be right.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use oscr::init::process::Stat;
use oscr::init::{Signals, reap};

use crate::harness::cases;
use crate::inits::Init;
use crate::world::{World, limit, scratch};

cases![fifty_that_fork_die_and_signal_twenty_times];

const WORKERS: usize = 50;
const TIMES: usize = 20;

/// A real-time signal, because those are counted by the kernel: one lost is one too few.
const COUNTED: i32 = 40;

/// The code that the main child ends with when all is well.
const GOOD: u8 = 42;

/// Each leaves orphans that live a while, orphans that die at once, children that die of signals, and sends counted signals
/// to the init, for as long as the file is there. Then it says how many it sent.
const WORKER: &str = r#"
    read -r _
    sent=0
    while [ -e "$0" ]; do
        (sleep 0.0$((sent * 7 % 10)) &)
        (: &)
        (sh -c 'kill -KILL $$' &)
        sh -c 'kill -64 $$'
        kill -40 1 && sent=$((sent + 1))
        kill -WINCH 1
    done
    (setsid sleep 1000 >/dev/null 2>&1 &)
    echo "$sent""#;

fn seconds() -> f64 {
    std::env::var("STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.5)
}

fn fifty_that_fork_die_and_signal_twenty_times(init: &Init) {
    let each = Duration::from_secs_f64(seconds());
    let (_directory, path) = scratch();
    for turn in 0..TIMES {
        let flag = path.join(turn.to_string());
        fs::write(&flag, "").unwrap();
        let mut running = World::helper(init, &["stress", &flag.to_string_lossy()]).start();
        running.expect("working");
        // The duration of the test itself, not a wait for something.
        std::thread::sleep(each);
        fs::remove_file(&flag).unwrap();
        let finished = running.finish();
        assert_eq!(finished.code, i32::from(GOOD), "turn {turn}: {finished:?}");
    }
}

/// The main child: starts the workers, counts the signals that come through the init, and looks for zombies.
pub fn main_child(flag: &Path) -> ExitCode {
    // Groups of their own, so that what the init sends to ours does not reach them.
    let mut workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let mut command = Command::new("sh");
            command.args(["-c", WORKER]).arg(flag).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            command.spawn().unwrap()
        })
        .collect();
    let signals = Signals::block().unwrap();
    println!("working");
    // They begin at the end of their standard input.
    workers.iter_mut().for_each(|worker| drop(worker.stdin.take()));

    let (mut got, mut sent, mut alive) = (0, 0, WORKERS);
    let mut outputs: Vec<_> = workers.iter_mut().filter_map(|worker| worker.stdout.take()).collect();
    let mut last = Instant::now();
    while alive > 0 || got < sent {
        if let Some(caught) = signals.wait(Some(Duration::from_millis(100))).unwrap() {
            last = Instant::now();
            got += usize::from(caught.number == COUNTED);
            if caught.is_child() {
                alive -= reap().count();
            }
        }
        if alive == 0 && !outputs.is_empty() {
            let mut text = String::new();
            for mut output in outputs.drain(..) {
                output.read_to_string(&mut text).unwrap();
            }
            sent = text.lines().map(|line| line.parse::<usize>().unwrap()).sum();
        }
        if last.elapsed() > limit() / 2 {
            println!("{got} of {sent} signals came, {alive} workers are alive");
            return ExitCode::FAILURE;
        }
    }
    println!("{got} of {sent} signals came");
    let begun = Instant::now();
    while let Some(zombie) = zombie() {
        if begun.elapsed() > limit() / 2 {
            println!("{zombie:?} is not reaped");
            return ExitCode::FAILURE;
        }
    }
    if got == sent && sent > 0 { ExitCode::from(GOOD) } else { ExitCode::FAILURE }
}

fn zombie() -> Option<Stat> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Stat::read(Pid::from_raw(pid))).find(|stat| stat.state == 'Z')
}
