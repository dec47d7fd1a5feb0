//! Emptying a directory of 200,000 files: `oscr-entry` against `rm -rf`, in one run, on one processor and on two.
//!
//! `make bench` measures the release binary (`OSCR_ENTRY`), in memory (`/dev/shm`) and, with `OSCR_BENCH_DIR`, in a directory on a
//! disk. Under `cargo test`, or with `BENCH_QUICK=1`, the tree is small, to see that it can be measured.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How much is removed, and how often.
struct Effort {
    files: usize,
    rounds: usize,
}

const FULL: Effort = Effort { files: 200_000, rounds: 5 };
const QUICK: Effort = Effort { files: 2000, rounds: 1 };

/// Files in each directory: what the trees of package managers have, by and large.
const FILES: usize = 10;

/// Who removes.
#[derive(Clone, Copy)]
enum Way {
    Oscr,
    Rm,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let mut names = arguments.iter().filter(|name| !name.starts_with('-'));
    if !full && arguments.iter().any(|argument| argument == "--list") || !names.all(|name| "wipe_bench".contains(name))
    {
        return ExitCode::SUCCESS;
    }
    let effort = if full && std::env::var_os("BENCH_QUICK").is_none() { FULL } else { QUICK };
    let mut places = vec![PathBuf::from("/dev/shm")];
    places.extend(std::env::var_os("OSCR_BENCH_DIR").map(PathBuf::from));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{} files in directories of {FILES}, median of {} (fastest) in ms", effort.files, effort.rounds);
    println!("| on | processors | oscr-entry | rm -rf | ratio |\n| --- | --: | --: | --: | --: |");
    for place in places.iter().filter(|place| place.is_dir()) {
        for pinned in ["0", "0,1"] {
            let count = pinned.split(',').count();
            if count > processors {
                continue;
            }
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..effort.rounds {
                ours.push(removal(Way::Oscr, place, pinned, effort.files));
                theirs.push(removal(Way::Rm, place, pinned, effort.files));
            }
            let ((ours, our_best), (theirs, their_best)) = (summary(&mut ours), summary(&mut theirs));
            let place = place.display();
            println!(
                "| {place} | {count} | {ours:.0} ({our_best:.0}) | {theirs:.0} ({their_best:.0}) | {:.2} |",
                ours / theirs
            );
        }
    }
    ExitCode::SUCCESS
}

/// How long one removal of a new tree takes.
fn removal(way: Way, place: &Path, pinned: &str, files: usize) -> Duration {
    let folder = tempfile::Builder::new().prefix("oscr-bench-").tempdir_in(place).unwrap();
    let tree = folder.path().join("tree");
    grow(&tree, files);
    // What is still to be written is not the removal's business.
    File::open(place).unwrap().sync_all().unwrap();
    let ours = std::env::var_os("OSCR_ENTRY").unwrap_or_else(|| env!("CARGO_BIN_EXE_oscr-entry").into());
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", pinned]);
    match way {
        Way::Oscr => command.arg(ours).arg("wipe").arg(&tree),
        Way::Rm => command.args(["rm", "-rf"]).arg(&tree),
    };
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    let left = fs::read_dir(&tree).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{command:?}");
    took
}

/// Three levels of directories, each of the lowest with files of some bytes.
fn grow(tree: &Path, files: usize) {
    for number in 0..files / FILES {
        let directory = tree.join(format!("{}/{}/{}", number / 1000, number / 30 % 33, number % 30));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..FILES {
            fs::write(directory.join(format!("file-{file}")), "some bytes").unwrap();
        }
    }
}

/// Median and minimum in milliseconds.
fn summary(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    (ms(times[times.len() / 2]), ms(times[0]))
}
