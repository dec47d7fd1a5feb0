//! `oscr-entry run`, registered with a simulated forge, while its agent listens.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use oscr_sim::forge::{Forge, ForgeHandle};

use crate::Effort;
use crate::measure::switches;
use crate::runner;

/// What was measured.
#[derive(Default, Clone, Copy)]
pub struct RunFigures {
    /// Private_Dirty and Pss in kB, once the agent listens.
    pub registered: (u64, u64),
    /// The same after an hour's health checks.
    pub hour: (u64, u64),
    /// The same after those of six hours.
    pub six_hours: (u64, u64),
    /// Private_Dirty of a hundred runners, in kB, reckoned from fewer.
    pub hundred: u64,
    /// Wake-ups in a minute.
    pub wakeups: f64,
}

/// A runner whose agent listens.
pub struct Runner {
    process: Child,
    pid: Pid,
    figures: Cell<RunFigures>,
    before: Cell<u64>,
    _forge: ForgeHandle,
    root: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts one and reads its memory, and before that the memory of several. `None`, with a line, where the stand-in agent is not built.
pub fn listen(entry: &Path, effort: &Effort) -> Option<Runner> {
    let others = (0..effort.runners).map(|_| start(entry)).collect::<Option<Vec<Runner>>>()?;
    settle();
    let together: u64 = others.iter().map(|other| runner::memory(other.pid.as_raw()).0).sum();
    for runner in others {
        runner.end();
    }
    let one = start(entry)?;
    settle();
    let registered = runner::memory(one.pid.as_raw());
    let checked = |times| {
        (0..times).for_each(|_| check_health(one.root.path()));
        runner::memory(one.pid.as_raw())
    };
    let hour = checked(effort.health_checks);
    let six_hours = checked(5 * effort.health_checks);
    let hundred = together * 100 / effort.runners as u64;
    one.figures.set(RunFigures { registered, hour, six_hours, hundred, wakeups: 0.0 });
    Some(one)
}

/// It lets go of what registering needed once the agent says that it listens.
fn settle() {
    std::thread::sleep(Duration::from_secs(2));
}

/// Starts one. `None`, with a line, where the stand-in agent is not built.
fn start(entry: &Path) -> Option<Runner> {
    let programs = match oscr_sim::agent::programs_dir() {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("`run` is not measured: {error}");
            return None;
        }
    };
    let forge = Forge::start_at_port_80().unwrap();
    let folder = tempfile::Builder::new().prefix("oscr-bench-").tempdir_in("/tmp").unwrap();
    let root = folder.path();
    runner::set_mode(root, 0o755);
    let stage = root.join("opt/built");
    runner::copy_agent(&programs, &stage);
    runner::lay_out(root, &stage);
    let ours = root.join("oscr-entry");
    runner::copy_entry(entry, &ours);
    let secret = root.join("run/secrets/github_pat");
    fs::create_dir_all(root.join("run/secrets")).unwrap();
    fs::write(&secret, forge.pat()).unwrap();
    runner::set_mode(&secret, 0o400);

    let log = fs::File::create(root.join("log")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).arg(&ours);
    runner::tell(&mut command, root, &forge.url(), &secret);
    let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    if forge.try_wait(PATIENCE, |seen| seen.runners.iter().any(|runner| runner.status == "online")).is_none() {
        panic!("it does not listen: {}", fs::read_to_string(root.join("log")).unwrap_or_default());
    }
    let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id())).unwrap();
    let pid = Pid::from_raw(text.trim().parse().unwrap());
    let figures = Cell::new(RunFigures::default());
    Some(Runner { process, pid, figures, before: Cell::new(0), _forge: forge, root: folder })
}

fn check_health(root: &Path) {
    let socket: PathBuf = root.join("run/oscr/control.sock");
    let status =
        Command::new(root.join("oscr-entry")).args(["health", "--socket"]).arg(socket).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "it listens and is not healthy");
}

impl Runner {
    /// Counts from here.
    pub fn begin_idleness(&self) {
        self.before.set(switches(self.pid));
    }

    /// Counts to here.
    pub fn end_idleness(&self, seconds: u64) {
        let woken = switches(self.pid) - self.before.get();
        let wakeups = woken as f64 * 60.0 / seconds as f64;
        self.figures.set(RunFigures { wakeups, ..self.figures.get() });
    }

    /// Ends it.
    pub fn end(mut self) -> RunFigures {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.figures.get()
    }
}
