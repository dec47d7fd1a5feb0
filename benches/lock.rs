//! How long a board is idle between two holders, and what waiting costs: `oscr-entry lock run`, `flock(1)`, and a shell loop
//! that looks once a second, in one run. Numbers of one machine; what counts is how they compare.
//!
//! A hand-over is measured from the last instruction of one holder's command to the first of the next one's, so it has the end of
//! a process, the release, and the start of a process in it. Meanwhile as many wait as the column says: whoever leaves is
//! replaced while the next one holds.

#[path = "goals.rs"]
mod aims;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use oscr::resource::{LockPlace, Locks, ResourceId};

/// How long each command holds: enough for a new waiter to queue up, so that its start is not in anybody's hand-over.
const HOLD: Duration = Duration::from_millis(40);
const WAITERS: [usize; 3] = [2, 10, 100];
/// Over so much time the cost of waiting is measured.
const IDLE: Duration = Duration::from_secs(10);

/// A way to take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Oscr,
    Flock,
    Polling,
}

impl Way {
    const ALL: [Self; 3] = [Self::Oscr, Self::Flock, Self::Polling];

    fn title(self) -> &'static str {
        match self {
            Self::Oscr => "oscr-entry lock run",
            Self::Flock => "flock(1)",
            Self::Polling => "a release file, looked at each second",
        }
    }

    /// Hand-overs to measure.
    fn samples(self) -> usize {
        if self == Self::Polling { 12 } else { 60 }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, fifo] = &arguments[..]
        && role == "hold"
    {
        return hold(Path::new(fifo));
    }
    let mut text = aims::machine();
    text += ".\nMedian and, in brackets, 90th percentile, in ms.\n\n";
    let _ = writeln!(text, "| | {} |\n| --- | --- | --- | --- |", Way::ALL.map(Way::title).join(" | "));
    let mut sheet = aims::Sheet::of("lock");
    for waiters in WAITERS {
        let mut medians = Vec::new();
        let cells = Way::ALL.map(|way| {
            let mut gaps = hand_overs(way, waiters);
            gaps.sort_unstable();
            medians.push(gaps[gaps.len() / 2].as_secs_f64() * 1000.0);
            let ms = |index: usize| gaps[index.min(gaps.len() - 1)].as_secs_f64() * 1000.0;
            format!("{:.2} ({:.2})", ms(gaps.len() / 2), ms(gaps.len() * 9 / 10))
        });
        let _ = writeln!(text, "| {waiters} waiting | {} |", cells.join(" | "));
        let name = format!("hand-over with {waiters} waiting, median, ms");
        sheet.note(&name, Some(medians[0]), Some(medians[1]));
    }
    let costs = Way::ALL.map(|way| {
        let minute = cost_of_waiting(way).as_secs_f64() * 1000.0 * 60.0 / IDLE.as_secs_f64();
        format!("{minute:.1}")
    });
    let _ = writeln!(text, "| processor time of 100 waiters in a minute | {} |", costs.join(" | "));
    print!("{text}\n{}", sheet.table());
    sheet.leave(&text);
}

/// The command that holds: says when it began and when it ends.
fn hold(fifo: &Path) {
    let began = now();
    let mut fifo = OpenOptions::new().write(true).open(fifo).expect("the bench reads");
    writeln!(fifo, "began {began}").expect("the bench reads");
    std::thread::sleep(HOLD);
    // A line is written as one, whoever else writes.
    writeln!(fifo, "ends {}", now()).expect("the bench reads");
}

fn now() -> u128 {
    // Not the monotonic clock, which the standard library does not let two processes compare.
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos()
}

/// A place to queue for one thing in one way.
struct Place {
    way: Way,
    folder: tempfile::TempDir,
    fifo: PathBuf,
    waiters: Vec<Child>,
    /// Has the thing, until it is dropped.
    holder: Option<File>,
}

impl Place {
    fn new(way: Way) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
        let fifo = folder.path().join("fifo");
        mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("a fifo can be made");
        let holder =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(lock_of(folder.path()));
        let holder = holder.expect("the lock can be made");
        holder.lock().expect("the lock is free");
        if way == Way::Polling {
            fs::create_dir(folder.path().join("taken")).expect("the release file can be made");
        }
        Self { way, folder, fifo, waiters: Vec::new(), holder: Some(holder) }
    }

    fn join(&mut self) {
        let ours = std::env::current_exe().expect("this program has a path");
        let mut command = match self.way {
            Way::Oscr => {
                // `make bench` names the release binary.
                let entry = std::env::var_os("OSCR_ENTRY").unwrap_or_else(|| env!("CARGO_BIN_EXE_oscr-entry").into());
                let mut command = Command::new(entry);
                command.args(["lock", "--dir"]).arg(self.folder.path()).args(["run", "board", "--"]).arg(ours);
                command
            }
            Way::Flock => {
                let mut command = Command::new("flock");
                command.arg(lock_of(self.folder.path())).arg(ours);
                command
            }
            Way::Polling => {
                let mut command = Command::new("bash");
                let script = r#"until mkdir "$0" 2>/dev/null; do sleep 1; done; "$@"; rmdir "$0""#;
                command.args(["-c", script]).arg(self.folder.path().join("taken")).arg(ours);
                command
            }
        };
        command.arg("hold").arg(&self.fifo).stdin(Stdio::null()).stderr(Stdio::null());
        // A group of its own, so that all of it can be ended.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.waiters.push(command.spawn().expect("a waiter starts"));
    }

    /// Waits until so many wait.
    fn filled(&self, waiters: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        let place = LockPlace { directory: self.folder.path().to_owned(), allow_nfs: false };
        let waiting = || match self.way {
            Way::Oscr => Locks::unchecked(&place).look(&board()).queue.len(),
            // A line for each that waits for a lock of any file; nothing else on this machine should.
            Way::Flock => self.waiters.iter().filter(|waiter| blocked(waiter.id())).count(),
            Way::Polling => self.waiters.len(),
        };
        while waiting() < waiters {
            assert!(Instant::now() < until, "{} of {waiters} wait", waiting());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn release(&mut self) {
        self.holder = None;
        if self.way == Way::Polling {
            // They all started just now, and would all look in the same moment.
            fs::remove_dir(self.folder.path().join("taken")).expect("the release file is there");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for waiter in &mut self.waiters {
            let _ = killpg(Pid::from_raw(waiter.id().cast_signed()), Signal::SIGKILL);
            let _ = waiter.kill();
            let _ = waiter.wait();
        }
    }
}

fn board() -> ResourceId {
    "board".parse().expect("an id")
}

fn lock_of(folder: &Path) -> PathBuf {
    folder.join("board.lock")
}

/// Whether /proc/locks says that this process waits for a lock.
fn blocked(pid: u32) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = pid.to_string();
    locks.lines().any(|line| line.contains("->") && line.split_whitespace().any(|word| word == pid))
}

fn hand_overs(way: Way, waiters: usize) -> Vec<Duration> {
    let mut place = Place::new(way);
    let read = OpenOptions::new().read(true).write(true).open(&place.fifo).expect("the fifo can be read");
    for n in 0..waiters {
        place.join();
        if way == Way::Polling && waiters < 50 {
            // Spread over the second, as they would be in life.
            std::thread::sleep(Duration::from_millis(1000 / waiters as u64 * u64::from(n > 0)));
        }
    }
    place.filled(waiters);
    place.release();
    let (mut ended, mut gaps) = (None, Vec::new());
    for line in BufReader::new(read).lines() {
        let line = line.expect("the fifo can be read");
        let (word, stamp) = line.split_once(' ').expect("a word and a time");
        let stamp: u128 = stamp.parse().expect("a time");
        if word == "ends" {
            ended = Some(stamp);
            continue;
        }
        place.join();
        if let Some(ended) = ended.take() {
            gaps.push(Duration::from_nanos(u64::try_from(stamp.saturating_sub(ended)).unwrap_or(u64::MAX)));
        }
        if gaps.len() == way.samples() {
            break;
        }
    }
    gaps
}

fn cost_of_waiting(way: Way) -> Duration {
    let mut place = Place::new(way);
    for _ in 0..100 {
        place.join();
    }
    place.filled(100);
    // What they do at their start is not waiting.
    std::thread::sleep(Duration::from_secs(2));
    let before = processor_time(&place.waiters);
    std::thread::sleep(IDLE);
    processor_time(&place.waiters).saturating_sub(before)
}

/// What these, those in their groups, and their children that ended have used.
fn processor_time(leaders: &[Child]) -> Duration {
    let groups: Vec<String> = leaders.iter().map(|leader| leader.id().to_string()).collect();
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let path = entry.path();
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        // From the third field on: state, parent, group, … cutime and cstime are the 16th and 17th.
        let fields: Vec<&str> = rest.split(' ').collect();
        let ours = groups.iter().any(|group| group == fields[1] || group == fields[2]);
        if !ours {
            continue;
        }
        let own = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let own = own.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        let ticks: u64 = fields[13..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 on every Linux.
        sum += Duration::from_nanos(own) + Duration::from_millis(ticks * 10);
    }
    sum
}
