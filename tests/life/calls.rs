//! What an older kernel, an engine's filter of system calls or a sandbox does not have. A runner works without each newer
//! system call, and where `/proc` does not show a job's processes it says so and takes none.

use std::fs::{self, File};
use std::path::Path;

use libc::{EINVAL, ENOSYS, EPERM, c_int, c_long};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, allow, each, outcome, until};

/// System calls that came with Linux 3.17 or later, or that sandboxes lack, of those that `oscr-entry` makes.
const NEWER: [c_long; 10] = [
    libc::SYS_pidfd_open,
    libc::SYS_openat2,
    libc::SYS_close_range,
    libc::SYS_memfd_create,
    libc::SYS_copy_file_range,
    libc::SYS_statx,
    libc::SYS_getrandom,
    libc::SYS_faccessat2,
    libc::SYS_ioprio_set,
    libc::SYS_inotify_init1,
];

/// What a kernel that does not know `pidfd_open` says, what filters say, and what emulations do.
const WITHOUT: [c_int; 3] = [ENOSYS, EPERM, EINVAL];

/// Gives the jobs of a runner a board to use.
fn with_a_board(container: &mut Container<'_>) {
    let locks = container.path("locks");
    fs::create_dir(&locks).expect("a directory");
    allow(&locks, 0o755);
    container.set_all(&[("RUNNER_RESOURCE_ID", "board-1"), ("RUNNER_LOCK_DIR", &locks.display().to_string())]);
}

fn board_is_free(container: &Container<'_>) -> bool {
    File::open(container.path("locks/board-1.lock")).expect("it was used").try_lock().is_ok()
}

/// One job from the registration to the end, with a board that is its own for just so long.
fn live(forge: &Forge, container: &mut Container<'_>) {
    with_a_board(container);
    let (job, mut gate) = container.start_with_job();
    assert_eq!(container.status()["resource"], "board-1");
    assert!(!board_is_free(container));
    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    container.wait_line("lets the hardware go");
    assert_eq!(container.exit_code(), 0);
    assert!(board_is_free(container));
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
}

#[test]
fn a_runner_lives_without_any_one_newer_system_call_and_without_all_of_them() {
    let alone = NEWER.map(|call| vec![call]);
    for calls in alone.iter().chain([&NEWER.to_vec()]) {
        each(&[ENOSYS, EPERM], |error| {
            let forge = Forge::start();
            let mut container = Container::new(&forge);
            calls.iter().for_each(|call| container.deny(*call, *error));
            live(&forge, &mut container);
        });
    }
}

#[test]
fn a_job_without_pidfd_open_is_waited_for_and_cancelled_as_ever() {
    each(&WITHOUT, |error| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        container.deny(libc::SYS_pidfd_open, *error);
        with_a_board(&mut container);
        let (job, mut gate) = container.start_with_job();
        assert_eq!(container.status()["posture"]["watch"], "looked");
        container.signal(Signal::SIGTERM);
        container.wait_line("waiting for it to finish");
        assert_eq!(container.status()["phase"], "draining");
        gate.open();
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        fs::remove_file(container.path("gate")).expect("the fifo");

        let (job, _gate) = container.start_with_job();
        container.signal(Signal::SIGTERM);
        container.wait_line("waiting for it to finish");
        container.signal(Signal::SIGTERM);
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Failed));
        assert_eq!(container.exit_code(), 0);
        assert!(board_is_free(&container));
        assert_eq!(forge.runners().len(), 0);
    });
}

#[test]
fn a_worker_that_is_killed_without_pidfd_open_frees_its_board_before_anybody_waits_for_it() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.deny(libc::SYS_pidfd_open, ENOSYS);
    with_a_board(&mut container);
    let (_, _gate) = container.start_with_job();
    let name = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let worker = container.processes().into_iter().find(|pid| name(pid).trim() == "Runner.Worker");
    // The worker stays as a zombie, because the listener cannot take it away.
    kill(container.listener(), Signal::SIGSTOP).expect("it lives");
    kill(worker.expect("a job runs"), Signal::SIGKILL).expect("it lives");
    container.wait_line("the job's worker is gone");
    until("the board is free", || board_is_free(&container));
}

#[test]
fn other_kinds_of_runners_live_without_pidfd_open_too() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("RUNNER_PERSISTENT", "true");
    container.deny(libc::SYS_pidfd_open, ENOSYS);
    container.start();
    for _ in 0..2 {
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    }
    drop(container);

    let forge = Forge::start();
    let mut container = Container::azure(&forge);
    container.deny(libc::SYS_pidfd_open, ENOSYS);
    let (job, mut gate) = container.start_with_job();
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
}

/// What hides a job's processes, by what it makes PID 1 say.
const HIDES: [(&str, &str); 3] = [
    ("mount -t tmpfs none /proc", "/proc: cannot be read"),
    ("umount /proc", "/proc: shows the processes of another container"),
    ("mount -t proc -o hidepid=2,gid=4711 proc /proc", "/proc: hides the processes of the agent's user"),
];

#[test]
fn a_runner_that_cannot_see_its_jobs_takes_none_and_says_why() {
    each(&HIDES, |(script, why)| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        container.in_namespace(script);
        container.start();
        assert_eq!(container.exit_code(), 78, "{script}");
        assert_eq!(container.lines_with(why).len(), 1, "{:#?}", container.lines());
        assert!(forge.calls().is_empty() && forge.runners().is_empty());
        // As a container is without the capability that PID 1 gives up.
        let script = format!("{script}\nset -- setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace \"$@\"");
        let (code, _, error) = outcome(container.command_after(&script, &["check"]));
        assert!(code == 78 && error.contains(why), "{script}: {code} {error}");
        let (code, report, _) = outcome(container.command_after(&script, &["doctor"]));
        let why = why.replacen(':', "", 1);
        let line = report.lines().find(|line| line.contains(&why)).unwrap_or_default();
        assert!(code == 1 && line.starts_with("FAIL") && line.contains("worker"), "{script}: {code} {report}");
    });
}

#[test]
fn a_mount_in_a_cache_is_nobodys_to_empty_without_openat2() {
    each(&[ENOSYS, EPERM], |error| {
        let forge = Forge::start();
        let mut container = Container::new(&forge);
        let (cache, others) = (container.path("cache"), container.path("others"));
        let fill = |folder: &Path| {
            fs::create_dir_all(folder).expect("a directory");
            fs::write(folder.join("data"), vec![1; 700 << 10]).expect("the file");
        };
        for folder in [cache.join("one"), cache.join("two"), others.clone()] {
            fill(&folder);
        }
        fs::create_dir(cache.join("mounted")).expect("a directory");
        container.mount(&others, &cache.join("mounted"));
        container.set_all(&[("OSCR_CACHE_DIRS", &container.text("cache")), ("OSCR_CACHE_MAX", "100k")]);
        container.deny(libc::SYS_openat2, *error);
        container.start();
        container.wait_line("removed 2 entries");
        assert_eq!(container.names("others"), ["data"]);
    });
}

#[test]
fn a_token_in_a_variable_needs_a_file_in_memory_and_says_so() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.unset("GITHUB_PAT_FILE");
    container.set("GITHUB_PAT", &forge.pat());
    container.deny(libc::SYS_memfd_create, EPERM);
    container.start();
    assert_eq!(container.exit_code(), 70);
    let said = container.wait_line("memfd_create");
    assert!(said.contains("give GITHUB_PAT as files"), "{said}");
}
