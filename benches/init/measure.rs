//! The measurements that all inits undergo.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use oscr::init::process::Stat;
use oscr::os::signal::{self, SignalSet};

use crate::Effort;
use crate::run_mode::Runner;
use crate::runner::memory;

/// The first argument that makes this program a part of a measurement.
pub const HELPER: &str = "--as-a-helper";

/// One init and how it is asked to run a command, which follows.
pub struct Contender {
    /// Its column.
    pub name: &'static str,
    /// Its program and options.
    pub line: Vec<OsString>,
}

/// What was measured of one of them.
#[derive(Default, Clone)]
pub struct Figures {
    /// The program's size in bytes.
    pub bytes: u64,
    /// kB that are its own and nobody else's.
    pub private_dirty: u64,
    /// kB with its part of what is shared.
    pub pss: u64,
    /// Milliseconds that it adds to `true`.
    pub start: f64,
    /// Microseconds from `kill` to the child, median and 99th percentile.
    pub latency: (f64, f64),
    /// Seconds until all orphans were made and reaped.
    pub orphans: f64,
    /// Microseconds of its processor time for each.
    pub per_orphan: f64,
    /// The most zombies ever seen.
    pub zombies: usize,
    /// Wake-ups in a minute of idleness.
    pub wakeups: f64,
}

pub fn namespaces_are_allowed() -> bool {
    let unshare = Command::new("unshare").args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    unshare.is_ok_and(|status| status.success())
}

/// An init as PID 1 of a namespace, over a command, which ends with it.
pub struct Instance {
    process: Child,
}

impl Instance {
    /// Starts it and waits until its child has written something.
    pub fn start(init: &[OsString], command: &[OsString]) -> (Self, std::process::ChildStdout) {
        Self::start_by(Command::new("unshare"), init, command)
    }

    /// The same on one processor: what a signal or an orphan costs varies with the processors that it crosses, by more than
    /// the inits differ.
    fn start_on_one_processor(init: &[OsString], command: &[OsString]) -> (Self, std::process::ChildStdout) {
        let mut start = Command::new("taskset");
        start.args(["--cpu-list", "0", "unshare"]);
        Self::start_by(start, init, command)
    }

    fn start_by(mut start: Command, init: &[OsString], command: &[OsString]) -> (Self, std::process::ChildStdout) {
        let mut process = start
            .args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"])
            .args(init)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = process.stdout.take().unwrap();
        out.read_exact(&mut [0]).unwrap();
        (Self { process }, out)
    }

    fn over_a_sleeper(contender: &Contender) -> Self {
        Self::start(&contender.line, &words(&["sh", "-c", "printf r; exec sleep 1000"])).0
    }

    /// The init.
    pub fn pid(&self) -> Pid {
        children(Pid::from_raw(self.process.id() as i32))[0]
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(Into::into).collect()
}

fn this_program(arguments: &[&str]) -> Vec<OsString> {
    let mut line = vec![std::env::current_exe().unwrap().into(), HELPER.into()];
    line.extend(words(arguments));
    line
}

fn children(pid: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// The middle of some values.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// How often a process has gone to sleep and been woken.
pub fn switches(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

impl Figures {
    /// Size and memory, one instance at a time: copies would share their Pss.
    pub fn of_memory(contender: &Contender, effort: &Effort) -> Self {
        let program = File::open(&contender.line[0]).unwrap();
        // A program that was just written is dirty in the page cache, and would be counted as such.
        program.sync_all().unwrap();
        let bytes = program.metadata().unwrap().len();
        let (mut dirty, mut pss) = (Vec::new(), Vec::new());
        for _ in 0..effort.memory {
            let instance = Instance::over_a_sleeper(contender);
            let (one, other) = memory(instance.pid().as_raw());
            dirty.push(one as f64);
            pss.push(other as f64);
        }
        Self { bytes, private_dirty: median(&mut dirty) as u64, pss: median(&mut pss) as u64, ..Self::default() }
    }
}

/// What each adds to `true`, in turns. Returns what `true` takes by itself.
pub fn starts(contenders: &[Contender], figures: &mut [Figures], effort: &Effort) -> f64 {
    let take = |init: &[OsString]| {
        let line: Vec<OsString> = init.iter().cloned().chain(words(&["/bin/true"])).collect();
        let begun = Instant::now();
        let status = Command::new(&line[0]).args(&line[1..]).status().unwrap();
        assert!(status.success());
        begun.elapsed().as_secs_f64() * 1e3
    };
    let mut bare = Vec::new();
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..effort.starts {
        bare.push(take(&[]));
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push(take(&contender.line));
        }
    }
    let bare = median(&mut bare);
    for (figures, times) in figures.iter_mut().zip(&mut times) {
        figures.start = median(times) - bare;
    }
    bare
}

/// How long a signal takes to the child, everything on one processor. Returns the same without an init.
pub fn latencies(contenders: &[Contender], figures: &mut [Figures], effort: &Effort) -> (f64, f64) {
    let take = |init: &[OsString]| {
        let output = Command::new("taskset")
            .args(["--cpu-list", "0"])
            .args(this_program(&["send", &effort.signals.to_string()]))
            .args(init)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut times: Vec<f64> = text.lines().map(|line| line.parse::<f64>().unwrap() / 1e3).collect();
        (median(&mut times), percentile(&mut times, 99))
    };
    for (contender, figures) in contenders.iter().zip(figures) {
        figures.latency = take(&contender.line);
    }
    take(&[])
}

/// The parts of a measurement that are processes of their own.
pub fn helper(arguments: &[OsString]) -> ExitCode {
    match arguments[0].to_str() {
        Some("send") => send(arguments[1].to_str().unwrap().parse().unwrap(), &arguments[2..]),
        Some("receive") => receive(),
        other => panic!("no such helper: {other:?}"),
    }
    ExitCode::SUCCESS
}

/// Sends signals to the init, and prints after how many nanoseconds each has arrived.
fn send(count: usize, init: &[OsString]) {
    let (instance, mut out) = Instance::start(init, &this_program(&["receive"]));
    let pid = instance.pid();
    for _ in 0..count {
        // The signal finds everybody asleep, as it would.
        thread::sleep(Duration::from_micros(200));
        let begun = now();
        signal::kill(pid.as_raw(), libc::SIGUSR1).unwrap();
        let mut arrived = [0; 8];
        out.read_exact(&mut arrived).unwrap();
        println!("{}", u64::from_ne_bytes(arrived) - begun);
    }
}

/// Takes signals, and writes when.
fn receive() {
    signal::set_mask(SignalSet::ALL).unwrap();
    let mut out = File::options().write(true).open("/proc/self/fd/1").unwrap();
    out.write_all(b"r").unwrap();
    loop {
        if signal::wait(None).unwrap().is_some() {
            out.write_all(&now().to_ne_bytes()).unwrap();
        }
    }
}

/// Nanoseconds on a clock that all processes share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives through the call, which fills it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Orphans by a shell that forks twice for each. The inits take turns.
pub fn orphans(contenders: &[Contender], figures: &mut [Figures], effort: &Effort) {
    let (count, times) = effort.orphans;
    let mut seconds = vec![Vec::new(); contenders.len()];
    let mut processor = vec![Vec::new(); contenders.len()];
    for _ in 0..times {
        for (at, contender) in contenders.iter().enumerate() {
            let (took, nanoseconds, zombies) = one_storm(contender, count);
            seconds[at].push(took);
            processor[at].push(nanoseconds as f64 / 1e3 / count as f64);
            figures[at].zombies = figures[at].zombies.max(zombies);
        }
    }
    for (at, figures) in figures.iter_mut().enumerate() {
        figures.orphans = median(&mut seconds[at]);
        figures.per_orphan = median(&mut processor[at]);
    }
}

fn one_storm(contender: &Contender, count: usize) -> (f64, u64, usize) {
    let script = "printf r; read -r _; i=0; while [ $i -lt $0 ]; do (: &); i=$((i + 1)); done; printf r; read -r _";
    let (mut instance, mut out) =
        Instance::start_on_one_processor(&contender.line, &words(&["sh", "-c", script, &count.to_string()]));
    let pid = instance.pid();
    let before = processor_time(pid);
    let begun = Instant::now();
    instance.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let done = thread::spawn(move || out.read_exact(&mut [0]).unwrap());
    let mut peak = 0;
    loop {
        let finished = done.is_finished();
        let children = children(pid);
        let dead = children.iter().filter(|pid| Stat::read(**pid).is_some_and(|stat| stat.state == 'Z'));
        peak = peak.max(dead.count());
        if finished && children.len() == 1 {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let took = begun.elapsed().as_secs_f64();
    (took, processor_time(pid) - before, peak)
}

/// Nanoseconds that a process has run.
fn processor_time(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Wake-ups while nothing happens, of all of them in the same time.
pub fn idleness(contenders: &[Contender], figures: &mut [Figures], runner: Option<&Runner>, effort: &Effort) {
    let instances: Vec<Instance> = contenders.iter().map(Instance::over_a_sleeper).collect();
    // What starting has left to do is done.
    thread::sleep(Duration::from_secs(1));
    let count = || instances.iter().map(|instance| switches(instance.pid())).collect::<Vec<u64>>();
    let before = count();
    if let Some(runner) = runner {
        runner.begin_idleness();
    }
    thread::sleep(Duration::from_secs(effort.idle));
    if let Some(runner) = runner {
        runner.end_idleness(effort.idle);
    }
    for (at, after) in count().into_iter().enumerate() {
        figures[at].wakeups = (after - before[at]) as f64 * 60.0 / effort.idle as f64;
    }
}
