//! Emptying a directory of 200,000 files: `oscr-entry` against `rm -rf`, in one run, on one processor and on two, in memory and on a
//! disk.
//!
//! `make bench` measures the release binary (`OSCR_ENTRY`). On a disk is where `OSCR_BENCH_DIR` says, else the first place of ours that
//! lies in a file system of a disk, else an ext4 in a file, mounted for this program alone. A place that is slow is given fewer files and fewer rounds, so that all ends within some three
//! minutes. Under `cargo test`, or with `BENCH_QUICK=1`, the tree is small, to see that it can be measured.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

#[path = "../goals.rs"]
mod aims;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::statfs::statfs;
use nix::unistd::syncfs;

/// How much is removed, and how often.
struct Effort {
    files: usize,
    rounds: usize,
    /// For each row: making the trees is most of it.
    limit: Duration,
}

const FULL: Effort = Effort { files: 200_000, rounds: 7, limit: Duration::from_secs(20) };
const QUICK: Effort = Effort { files: 2000, rounds: 2, limit: Duration::from_secs(3) };
/// Even where a round takes longer than the limit: what a single one says is chance.
const ROUNDS: usize = 2;
/// After so many limits nothing more is begun, on a machine that has become slower than it was when the files were counted out.
const LIMITS: u32 = 7;

/// Files in each directory: what the trees of package managers have, by and large.
const FILES: usize = 10;

/// Who removes.
#[derive(Clone, Copy)]
enum Way {
    Oscr,
    Rm,
}

/// What came of one place and number of processors.
struct Series {
    files: usize,
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let full = arguments.iter().any(|argument| argument == "--bench");
    let mut names = arguments.iter().filter(|name| !name.starts_with('-'));
    if !full && arguments.iter().any(|argument| argument == "--list") || !names.all(|name| "wipe_bench".contains(name))
    {
        return ExitCode::SUCCESS;
    }
    let disk = disk();
    if disk.is_none() && std::env::var_os("OSCR_BENCH_DIR").is_none() {
        return on_an_image(&arguments);
    }
    let effort = if full && std::env::var_os("BENCH_QUICK").is_none() { FULL } else { QUICK };
    let shown = disk.as_ref().map_or("none was found: OSCR_BENCH_DIR names one".to_owned(), |(place, kind)| {
        format!("{} ({kind})", place.display())
    });
    let mut text = format!(
        "{}. The disk: {shown}. Directories of {FILES} files; median (fastest) in ms.\n\n\
         | | files | rounds | oscr-entry | rm -rf | ratio |\n| --- | --: | --: | --: | --: | --: |\n",
        aims::machine()
    );
    let mut sheet = aims::Sheet::of("wipe");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = Path::new("/dev/shm");
    let until = Instant::now() + effort.limit * LIMITS;
    for (on, place) in [("memory", Some(memory)), ("a disk", disk.as_ref().map(|(place, _)| place.as_path()))] {
        for (number, pinned) in [("one processor", "0"), ("two processors", "0,1")] {
            let possible = Instant::now() < until && pinned.split(',').count() <= processors;
            let place = place.filter(|place| possible && place.is_dir());
            let series = place.map(|place| measure(place, pinned, &effort, until));
            let medians = series.map(|mut series| {
                let ((ours, our_best), (theirs, their_best)) = (summary(&mut series.ours), summary(&mut series.theirs));
                let (files, rounds) = (series.files, series.ours.len());
                let figures =
                    format!("{ours:.0} ({our_best:.0}) | {theirs:.0} ({their_best:.0}) | {:.2}", ours / theirs);
                let _ = writeln!(text, "| {on}, {number} | {files} | {rounds} | {figures} |");
                (ours, theirs)
            });
            if medians.is_none() {
                let _ = writeln!(text, "| {on}, {number} | – | 0 | – | – | – |");
            }
            let (ours, theirs) = medians.unzip();
            sheet.note(
                &format!("{}, {number}, ms", if on == "memory" { "in memory" } else { "on a disk" }),
                ours,
                theirs,
            );
        }
    }
    print!("{text}");
    aims::hold_rows("wipe", &text);
    if effort.files == FULL.files {
        print!("\n{}", sheet.table());
        sheet.leave(&text);
    } else {
        println!("Too few files, and perhaps no release binary: `make bench` judges.");
    }
    ExitCode::SUCCESS
}

/// A directory in a file system of a disk, and that file system's name.
fn disk() -> Option<(PathBuf, &'static str)> {
    let named = std::env::var_os("OSCR_BENCH_DIR").map(PathBuf::from);
    let ours = [env!("CARGO_TARGET_TMPDIR"), env!("CARGO_MANIFEST_DIR"), "/var/tmp", "/tmp"].map(PathBuf::from);
    let places = named.map_or(ours.to_vec(), |named| vec![named]);
    places.into_iter().find_map(|place| {
        // By the kernel's numbers: not every C library has names for all of them.
        let kind = match statfs(&place).ok()?.filesystem_type().0 as u64 {
            0xef53 => "ext4",
            0x5846_5342 => "xfs",
            0x9123_683e => "btrfs",
            _ => return None,
        };
        Some((place, kind))
    })
}

/// This program anew in a namespace that has an ext4 of its own, if one can be made. The file has no name by then, and the mount ends
/// with the namespace: nothing is left, however this ends.
fn on_an_image(arguments: &[String]) -> ExitCode {
    let folder = tempfile::Builder::new().prefix("oscr-bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let script = r#"if truncate -s 4G "$OSCR_BENCH_DIR.img" && mkfs.ext4 -q -F -N 500000 "$OSCR_BENCH_DIR.img"; then
        mount -o loop "$OSCR_BENCH_DIR.img" "$OSCR_BENCH_DIR" || true
    fi
    rm -f "$OSCR_BENCH_DIR.img"
    exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.arg(std::env::current_exe().unwrap()).args(arguments).env("OSCR_BENCH_DIR", folder.path());
    let status = command.status().unwrap();
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Both take turns, as long as the time allows, and each as often as the other.
fn measure(place: &Path, pinned: &str, effort: &Effort, until: Instant) -> Series {
    let sample = effort.files / 100;
    let begun = Instant::now();
    removal(Way::Oscr, place, pinned, sample);
    // What both of one round take with all the files, if the time grows as they do.
    let round = begun.elapsed().as_secs_f64() * 200.0;
    let fits = effort.limit.as_secs_f64() / (round * ROUNDS as f64);
    let files = (effort.files as f64 * fits.min(1.0)) as usize / FILES * FILES;
    let mut series = Series { files: files.max(sample), ours: Vec::new(), theirs: Vec::new() };
    let begun = Instant::now();
    for round in 0..effort.rounds {
        let too_long = || begun.elapsed() * (round as u32 + 1) / round as u32 > effort.limit;
        if round > 0 && Instant::now() > until || round >= ROUNDS && too_long() {
            break;
        }
        series.ours.push(removal(Way::Oscr, place, pinned, series.files));
        series.theirs.push(removal(Way::Rm, place, pinned, series.files));
    }
    series
}

/// How long one removal of a new tree takes.
fn removal(way: Way, place: &Path, pinned: &str, files: usize) -> Duration {
    let folder = tempfile::Builder::new().prefix("oscr-bench-").tempdir_in(place).unwrap();
    let tree = folder.path().join("tree");
    grow(&tree, files);
    // What is still to be written is not the removal's business.
    syncfs(File::open(place).unwrap()).unwrap();
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
