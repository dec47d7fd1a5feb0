//! Faults of shared hardware: its locks, its queue, and the hooks for a new holder.
//!
//! GitHub's runner takes it when a job begins, Azure DevOps' agent before it listens.

use std::fs::{self, File};

use nix::sys::signal::Signal;
use oscr_sim::agent::Kind;
use oscr_sim::forge::ListenerExit;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, until, write, write_program};
use crate::table::{Row, Step};
use crate::world::{STOP, assert_said, listens};

const LOCK: &str = "boards/board-1.lock";
const HOOK: &str = "etc/oscr/hooks.d/resource-acquired/10-power";

/// A runner that needs a board, whose lock directory lies in the container.
pub fn needs_board(container: &mut Container<'_>) {
    fs::create_dir(container.path("boards")).expect("a directory");
    container.set("RUNNER_LOCK_DIR", &container.text("boards"));
    container.set("RUNNER_RESOURCE_ID", "board-1");
}

/// Somebody else has the board, for as long as the file is open.
pub fn take_board(container: &Container<'_>) -> File {
    let lock = File::create(container.path(LOCK)).expect("a file");
    lock.lock().expect("flock");
    lock
}

/// Asserts that nobody has the board. Processes that died with PID 1 may take a moment to be gone.
#[track_caller]
pub fn assert_free(container: &Container<'_>) {
    let lock = File::open(container.path(LOCK)).expect("the lock");
    until("the lock is free", || lock.try_lock().is_ok());
}

/// A job has the board, and nobody after it.
fn works(forge: &Forge, container: &mut Container<'_>) {
    container.start();
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    container.exit_code();
    assert_free(container);
}

/// The hook for a new holder goes wrong.
fn hook(kind: Kind, fault: &str, script: &'static str, words: &'static str) -> Row {
    let must = match kind {
        Kind::GitHub => "the job fails and its log says why; the lock is free",
        Kind::Azure => "`backing-off`: one line with the cause; the lock is free; no registration is made meanwhile",
    };
    Row::new(kind, Step::Hardware, fault, must, move |forge, container| {
        needs_board(container);
        if words.contains("1s") {
            container.set("OSCR_LOCK_HOOK_TIMEOUT", "1");
        }
        write_program(&container.path(HOOK), script);
        container.start();
        match container.kind {
            Kind::GitHub => {
                let failed = forge.wait_job(forge.job("true"), LIMIT);
                assert_ne!(failed.result, Some(JobResult::Succeeded), "{}", failed.log);
                assert!(failed.log.contains("10-power") && failed.log.contains(words), "{}", failed.log);
                container.exit_code();
                assert_free(container);
            }
            Kind::Azure => {
                assert_said(container, &["trying again in", "10-power", words]);
                assert_free(container);
                assert!(forge.calls().is_empty(), "{:?}", forge.calls());
            }
        }
        fs::remove_file(container.path(HOOK)).expect("our own file");
        if container.runs() {
            listens(container);
        }
    })
}

pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = vec![
        hook(kind, "the hook for a new holder fails", "#!/bin/sh\nexit 3\n", "failed"),
        hook(kind, "the hook for a new holder hangs", "#!/bin/sh\nsleep 1000\n", "took longer than 1s"),
    ];
    rows.extend(full_disks(kind));
    rows.extend(match kind {
        Kind::GitHub => for_a_job(),
        Kind::Azure => before_listening(),
    });
    rows
}

/// The disk of the lock directory is full. `fill` leaves more or less room in what is mounted at PLACE.
fn full(kind: Kind, fault: &str, options: &'static str, fill: &'static str) -> Row {
    let must = "the runner works: the lock is had without a record for people, and that is said";
    Row::new(kind, Step::Hardware, fault, must, move |forge, container| {
        needs_board(container);
        let place = container.text("boards");
        let fill = fill.replace("PLACE", &place);
        container.in_namespace(&format!("mount -t tmpfs -o mode=755,{options} tmpfs '{place}'; {fill}"));
        match container.kind {
            Kind::GitHub => {
                container.start();
                let job = forge.wait_job(forge.job("echo \"has $OSCR_RESOURCE\""), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                assert!(job.log.contains("has board-1"), "{}", job.log);
                container.exit_code();
            }
            Kind::Azure => {
                container.start();
                listens(container);
            }
        }
        let said = container.lines_with("board-1 is held without a record of who has it");
        assert!(!said.is_empty() && said[0].contains("look after the disk"), "{:#?}", container.lines());
        container.in_namespace("");
    })
}

fn full_disks(kind: Kind) -> [Row; 2] {
    [
        full(
            kind,
            "the lock directory's disk is full",
            "size=4k",
            "touch 'PLACE/board-1.lock'; head -c 4096 /dev/zero >'PLACE/full'",
        ),
        // The file system, the lock, and what fills it.
        full(
            kind,
            "the lock directory's disk has room for no file",
            "nr_inodes=3",
            "touch 'PLACE/board-1.lock' 'PLACE/full'",
        ),
    ]
}

fn for_a_job() -> Vec<Row> {
    vec![
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "the lock directory's disk has become read-only",
            "the runner works: the lock is had without a record for people, and that is said",
            |forge, container| {
                needs_board(container);
                let place = container.text("boards");
                container.in_namespace(&format!("mount -t tmpfs -o mode=755 tmpfs '{place}'"));
                container.start();
                forge.listening();
                let pid = container.pid();
                let inside = std::process::Command::new("nsenter")
                    .args(["-t", &pid.to_string(), "-m", "mount", "-o", "remount,ro", &place])
                    .status()
                    .expect("nsenter of util-linux");
                assert!(inside.success());
                let job = forge.wait_job(forge.job("true"), LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                container.exit_code();
                let said = container.lines_with("board-1 is held without a record of who has it");
                assert_eq!(said.len(), 1, "{:#?}", container.lines());
                container.in_namespace("");
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "the lock directory is a volume without a name",
            "exit 78 with the cure, before any request",
            |forge, container| {
                needs_board(container);
                let (volume, place) =
                    (format!("volumes/{}/_data", "0123456789abcdef".repeat(4)), container.text("boards"));
                fs::create_dir_all(container.path(&volume)).expect("a directory");
                container.in_namespace(&format!("mount --bind '{}' '{place}'", container.text(&volume)));
                container.start();
                assert_eq!(container.exit_code(), 78);
                assert_eq!(container.lines_with("a volume without a name").len(), 1, "{:#?}", container.lines());
                assert!(forge.calls().is_empty());
                container.in_namespace("");
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "the lock directory is missing",
            "exit 78 with the cure, before any request",
            |forge, container| {
                container.set("RUNNER_RESOURCE_ID", "board-1");
                container.set("RUNNER_LOCK_DIR", &container.text("nowhere"));
                container.start();
                assert_eq!(container.exit_code(), 78);
                assert_eq!(container.lines_with("RUNNER_LOCK_DIR").len(), 1, "{:#?}", container.lines());
                assert!(forge.calls().is_empty());
                container.unset("RUNNER_RESOURCE_ID");
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "it does not become free",
            "the job fails after `OSCR_LOCK_TIMEOUT` and its log says who has it",
            |forge, container| {
                needs_board(container);
                container.set("OSCR_LOCK_TIMEOUT", "1");
                let _lock = take_board(container);
                container.start();
                let failed = forge.wait_job(forge.job("true"), LIMIT);
                assert!(failed.log.contains("did not become free within 1s"), "{}", failed.log);
                container.exit_code();
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "the holder's file is damaged",
            "the runner works: the job has its board, for the file is only words",
            |forge, container| {
                needs_board(container);
                write(&container.path("boards/board-1.holder"), "\u{0}{\"who\":", 0o600);
                works(forge, container);
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "the hook for a new holder fails for one job after another",
            "after three the board is set aside: the fourth job waits, and has it once it is repaired",
            |forge, container| {
                needs_board(container);
                let mended = container.path("boards/mended");
                write_program(&container.path(HOOK), &format!("#!/bin/sh\ntest -e {}\n", mended.display()));
                for _ in 0..3 {
                    container.restart();
                    let failed = forge.wait_job(forge.job("true"), LIMIT);
                    assert!(failed.log.contains("10-power failed"), "{}", failed.log);
                    container.exit_code();
                    assert_free(container);
                }
                container.start();
                let waits = forge.job("true");
                forge.wait_log(waits, "waiting for what is set aside");
                assert_free(container);
                write(&mended, "", 0o644);
                let directory = container.text("boards");
                let (code, said, _) = container.ask(&["lock", "--dir", &directory, "repair", "board-1"]);
                assert!(code == 0 && said.contains("is back"), "{said}");
                let job = forge.wait_job(waits, LIMIT);
                assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
                container.exit_code();
                fs::remove_file(container.path(HOOK)).expect("our own file");
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "the record of what failed is damaged",
            "the runner works: the job has its board, for nothing is set aside by it",
            |forge, container| {
                needs_board(container);
                write(&container.path("boards/board-1.aside-0123456789abcdef"), "\u{0}{\"jobs\":", 0o600);
                works(forge, container);
            },
        ),
        Row::new(
            Kind::GitHub,
            Step::Hardware,
            "a job that waits is cancelled",
            "its place in the queue is gone at once; it ends with its log, which says why; the lock is as it was",
            |forge, container| {
                needs_board(container);
                let lock = take_board(container);
                container.start();
                let waiting = forge.job("true");
                container.wait_line("the job is waiting");
                assert!(forge.cancel_job(waiting));
                let job = forge.wait_job(waiting, LIMIT);
                assert!(job.log.contains("it was cancelled while this job waited"), "{}", job.log);
                container.exit_code();
                drop(lock);
                assert_free(container);
            },
        ),
    ]
}

fn before_listening() -> Vec<Row> {
    vec![
        Row::new(
            Kind::Azure,
            Step::Hardware,
            "it does not become free",
            "`waiting`: no registration is made, nothing is asked; a stop ends it at once",
            |forge, container| {
                needs_board(container);
                let _lock = take_board(container);
                container.start();
                container.wait_line("a new phase: waiting");
                container.signal(Signal::SIGTERM);
                assert_eq!(container.exit_code_within(STOP), 0);
                assert!(forge.calls().is_empty(), "{:?}", forge.calls());
            },
        ),
        Row::new(
            Kind::Azure,
            Step::Hardware,
            "the listener dies while it holds it",
            "a new registration; the lock is free while nobody listens",
            |forge, container| {
                needs_board(container);
                container.start();
                let (first, _) = forge.listening();
                forge.order(|orders| {
                    let exit = ListenerExit { code: 2, text: None, times: 1, runner: None, at_session: false };
                    orders.listener_exit = Some(exit);
                });
                assert_said(container, &["trying again in"]);
                assert_free(container);
                forge.another(first);
            },
        ),
    ]
}
