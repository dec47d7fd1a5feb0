//! Runners that start together with one credential, each as PID 1 of namespaces of its own.

use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oscr::os::signal::{self, SignalSet};
use oscr_sim::forge::{Forge, ForgeHandle};

use crate::runner;
use crate::runner::set_mode;

/// For so long they may take to listen.
const PATIENCE: Duration = Duration::from_secs(180);
/// So often is looked whether somebody wants this to end.
const LOOK: Duration = Duration::from_millis(200);

/// Somebody wants this to end.
pub static ENDS: AtomicBool = AtomicBool::new(false);

/// All of them, with their forge. They end with the value.
pub struct Herd {
    runners: Vec<Child>,
    pub forge: ForgeHandle,
    folder: tempfile::TempDir,
    entry: PathBuf,
    secret: PathBuf,
    /// When the first was started.
    started: Option<Instant>,
}

impl Herd {
    /// Lays out so many runners, and starts none.
    pub fn new(entry: &Path, programs: &Path, count: usize) -> Self {
        let forge = Forge::start_at_port_80().unwrap();
        let folder = tempfile::Builder::new().prefix("oscr-bench-").tempdir_in("/tmp").unwrap();
        let place = folder.path();
        set_mode(place, 0o755);
        // One file for all, as the containers of an image have it: they share its pages.
        let ours = place.join("oscr-entry");
        runner::copy_entry(entry, &ours);
        let stage = place.join("built");
        runner::copy_agent(programs, &stage);
        fs::create_dir(place.join("tokens")).unwrap();
        set_mode(&place.join("tokens"), 0o700);
        let secret = place.join("github_pat");
        fs::write(&secret, forge.pat()).unwrap();
        set_mode(&secret, 0o400);
        let herd = Self { runners: Vec::new(), forge, folder, entry: ours, secret, started: None };
        // All of them before the first starts: a link changes what the kernel says of a file that the others watch.
        for number in 0..count {
            runner::lay_out(&herd.root(number), &stage);
        }
        herd
    }

    fn root(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("runner-{number}"))
    }

    /// Starts one, with the settings as shipped.
    pub fn start(&mut self, number: usize, shared_token: bool) {
        let root = self.root(number);
        let log = fs::File::create(root.join("log")).unwrap();
        // Should this program die, `unshare` dies with it, and with that the whole namespace.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL", "--"])
            .arg(&self.entry)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // Ctrl-C is for this program, which ends them.
            .process_group(0);
        runner::tell(&mut command, &root, &self.forge.url(), &self.secret);
        if shared_token {
            command.env("OSCR_TOKEN_CACHE", self.folder.path().join("tokens"));
        }
        // This program blocks what it waits for; a runner does not inherit that.
        // SAFETY: the closure runs in the forked child and makes one system call.
        unsafe {
            command.pre_exec(|| signal::set_mask(SignalSet::EMPTY).map(drop));
        }
        self.started.get_or_insert_with(Instant::now);
        self.runners.push(command.spawn().unwrap());
    }

    /// Waits until all listen: how long that took from the first start. `None` when somebody wants this to end.
    pub fn listens(&mut self) -> Option<Duration> {
        let started = self.started.unwrap();
        let count = self.runners.len();
        let online = |seen: &oscr_sim::forge::Snapshot| {
            seen.runners.iter().filter(|runner| runner.status == "online").count() >= count
        };
        while self.forge.try_wait(LOOK, online).is_none() {
            if ENDS.load(Ordering::Relaxed) {
                return None;
            }
            let ended = self.runners.iter_mut().any(|runner| runner.try_wait().unwrap().is_some());
            assert!(!ended && started.elapsed() < PATIENCE, "not all listen: {}", self.last_words());
        }
        Some(started.elapsed())
    }

    /// The last line of each.
    fn last_words(&self) -> String {
        let log = |number| fs::read_to_string(self.root(number).join("log")).unwrap_or_default();
        let mut lines: Vec<String> = (0..self.runners.len())
            .filter_map(|number| log(number).lines().last().map(|line| format!("\n{number}: {line}")))
            .collect();
        lines.truncate(20);
        lines.concat()
    }

    /// PID 1 of each, as this machine's own namespace knows it.
    pub fn pids(&self) -> Vec<u32> {
        let child = |runner: &Child| {
            let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", runner.id())).unwrap();
            text.trim().parse().unwrap()
        };
        self.runners.iter().map(child).collect()
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        // The death of `unshare` ends PID 1, and that the whole namespace.
        for runner in &mut self.runners {
            let _ = runner.kill();
        }
        for runner in &mut self.runners {
            let _ = runner.wait();
        }
    }
}

/// Sleeps; `false` when somebody wants this to end.
pub fn rest(time: Duration) -> bool {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if ENDS.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(left.min(LOOK));
    }
    true
}

/// What a process has used of processors, all its threads together, those that ended too.
pub fn processor_time(pid: u32) -> Duration {
    let mut clock = MaybeUninit::uninit();
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: both calls fill what they are given, and say so.
    let time = unsafe {
        assert_eq!(libc::clock_getcpuclockid(pid.cast_signed(), clock.as_mut_ptr()), 0, "process {pid} has ended");
        assert_eq!(libc::clock_gettime(clock.assume_init(), time.as_mut_ptr()), 0, "process {pid} has ended");
        time.assume_init()
    };
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}
