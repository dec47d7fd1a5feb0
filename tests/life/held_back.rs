//! A job that its hook holds back: it is cancelled meanwhile, its runner is stopped, its board is made ready, or nobody can tell
//! whose hook it is.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::sys::signal::Signal;
use oscr_sim::forge::{JobSpec, ListenerTrouble};
use oscr_sim::protocol::{Condition, JobResult, Step, Trouble};
use serde_json::Value;

use crate::boards::{Boards, assert_reason, hook};
use crate::harness::{Container, Forge, Gate, LIMIT, outcome, until, write_program};
use crate::results::ended;

/// A job with a step that runs whatever happened before.
fn with_a_last_step() -> JobSpec {
    let step = |condition, run: &str| Step { run: run.to_owned(), condition, ..Step::default() };
    JobSpec::steps(
        "job",
        vec![step(Condition::Success, "echo \"step-$((1))\""), step(Condition::Always, "echo \"step-$((2))\"")],
    )
}

/// Holds the job's hook back before it asks, in the place where the agent finds it.
fn hold_back(container: &Container<'_>, gate: &Gate) {
    let shim = container.path("run/oscr/hooks/job-started.sh");
    let text = fs::read_to_string(&shim).expect("the hook");
    write_program(&shim, &text.replace("exec ", &format!("{}\nexec ", gate.wait())));
}

/// A job's hook that asks from a PID namespace that PID 1 does not see into, as this user.
fn ask_from_elsewhere(container: &Container<'_>, user: u32) -> (i32, String, String) {
    let socket = container.text("run/oscr/control.sock");
    let mut command = container.command(&["hook", "--hooks", "/none", "--socket", &socket, "job-started"]);
    command.uid(user);
    outcome(command)
}

#[track_caller]
fn assert_cancelled(boards: &Boards, forge: &Forge, container: &mut Container<'_>, job: u64) {
    let job = forge.wait_job(job, LIMIT);
    assert!(matches!(job.result, Some(JobResult::Failed | JobResult::Canceled)), "somebody tells it: {job:#?}");
    assert_reason(&job, "it was cancelled while this job waited for its hardware");
    assert!(!job.log.contains("step-"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(ended(container).1.as_deref(), Some("forge"));
    boards.wait_queue("board-1", 0);
}

#[test]
fn a_job_that_is_cancelled_while_it_waits_for_its_board_says_so_and_ends() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[]);
    container.start();
    let job = forge.submit(with_a_last_step());
    boards.wait_queue("board-1", 1);
    assert!(forge.cancel_job(job));
    assert_cancelled(&boards, &forge, &mut container, job);
}

#[test]
fn a_job_that_is_cancelled_before_its_hook_asks_does_not_wait() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[]);
    let mut gate = container.gate();
    container.start();
    forge.listening();
    hold_back(&container, &gate);
    let job = forge.submit(with_a_last_step());
    forge.wait_log(job, "at the gate");
    assert!(forge.cancel_job(job));
    container.wait_line("Job cancellation request");
    gate.open();
    assert_cancelled(&boards, &forge, &mut container, job);
}

#[test]
fn words_about_a_cancel_that_a_step_writes_mean_nothing() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    container.start();
    let line = "[RUNNER 2026-11-29 10:31:10Z INFO JobDispatcher] Job cancellation request 1 received, cancellation \
                timeout 5 minutes.";
    // Often, because the worker's own traces may tear one of them.
    let script = format!("for _ in {{1..50}}; do echo '{line}' >/proc/$PPID/fd/1; done; echo still $((1)) here");
    let job = forge.wait_job(forge.job(&script), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    container.wait_line("Job cancellation request 1 received");
    assert!(job.log.contains("still 1 here"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(ended(&container), ("succeeded".to_owned(), None));
}

#[test]
fn the_place_of_a_job_whose_runner_is_stopped_for_good_goes_before_its_listener_does() {
    let (forge, boards) = (Forge::start(), Boards::new());
    forge.order(|orders| orders.listener_trouble = Some(ListenerTrouble { kind: Trouble::Deaf, times: 1 }));
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_KILL_TIMEOUT", "600")]);
    container.start();
    forge.job("true");
    boards.wait_queue("board-1", 1);
    container.signal(Signal::SIGTERM);
    container.wait_line("waiting for it to finish");
    container.signal(Signal::SIGTERM);
    boards.wait_queue("board-1", 0);
    assert!(container.runs() && Path::new("/proc").join(container.listener().to_string()).exists());
}

#[test]
fn what_a_hook_says_while_it_makes_a_board_ready_stands_in_the_jobs_log() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let mut gate = container.gate();
    let words = "echo '::error::no command'; echo 'x ##[error]neither'; printf 'a\\033[31mb\\342\\200\\256c\\n' >&2";
    hook(&container, "resource-acquired/10-flash", &format!("{words}; {}", gate.wait()));
    container.start();
    let job = forge.job("true");
    forge.wait_log(job, "oscr: 10-flash: at the gate");
    let status = container.status();
    assert_eq!((&status["phase"], &status["queue"]), (&Value::from("running"), &Value::Null), "{status}");
    assert_eq!(boards.status("board-1")["held"], true);
    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(job.annotations, Vec::<String>::new());
    for line in ["oscr: 10-flash: ::error::no command", "oscr: 10-flash: x # #[error]neither", "oscr: 10-flash: abc"] {
        assert!(job.log.contains(line), "{line}: {}", job.log);
    }
    assert_eq!(container.exit_code(), 0);
    boards.assert_free("board-1");
}

#[test]
fn a_hook_that_makes_a_board_ready_ends_with_its_jobs_wait_and_the_board_goes_back_in_order() {
    let cancelled: fn(&Forge, &Container<'_>, u64) = |forge, _, job| assert!(forge.cancel_job(job));
    let stopped: fn(&Forge, &Container<'_>, u64) = |_, container, _| {
        container.signal(Signal::SIGTERM);
        container.wait_line("waiting for it to finish");
        container.signal(Signal::SIGTERM);
    };
    crate::harness::each(&[cancelled, stopped], |end| {
        let (forge, boards) = (Forge::start(), Boards::new());
        let mut container = boards.runner(&forge, &[]);
        let gate = container.gate();
        hook(&container, "resource-acquired/10-flash", &format!("echo flashes as $$; {}; echo flashed", gate.wait()));
        hook(&container, "resource-released/10-off", "echo power off");
        container.start();
        let job = forge.submit(with_a_last_step());
        forge.wait_log(job, "oscr: 10-flash: at the gate");
        end(&forge, &container, job);
        let job = forge.wait_job(job, LIMIT);
        assert!(!job.log.contains("step-") && !job.log.contains("flashed"), "{}", job.log);
        assert_reason(&job, "while this job waited for its hardware");
        assert_eq!(container.exit_code(), 0);
        assert_eq!(container.lines_with("agent: power off").len(), 1);
        boards.assert_free("board-1");
    });
}

#[test]
fn a_job_whose_hook_cannot_be_told_from_anothers_is_ended_before_any_step() {
    // Not judged, and without its board.
    for board in [false, true] {
        let (forge, boards) = (Forge::start(), Boards::new());
        let mut container = if board { boards.runner(&forge, &[]) } else { Container::new(&forge) };
        if board {
            container.set("OSCR_ALLOW_FORKS", "true");
        }
        let gate = container.gate();
        container.start();
        forge.listening();
        hold_back(&container, &gate);
        let job = forge.submit(with_a_last_step());
        forge.wait_log(job, "at the gate");
        let (code, said, _) = ask_from_elsewhere(&container, container.uid);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("its hook is not known for its own"), "{said}");
        let job = forge.wait_job(job, LIMIT);
        assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
        assert!(!job.log.contains("step-"), "{}", job.log);
        assert_eq!(container.exit_code(), 0);
        assert_eq!(ended(&container).1.as_deref(), Some("hook"));
    }
}

#[test]
fn nobody_else_ends_a_job_by_posing_as_its_hook() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let mut gate = container.gate();
    container.start();
    forge.listening();
    hold_back(&container, &gate);
    let job = forge.submit(with_a_last_step());
    forge.wait_log(job, "at the gate");
    // Of other users, wherever; and a process of the jobs' user that is not below the listener.
    for user in [0, container.uid + 1] {
        let (code, said, _) = ask_from_elsewhere(&container, user);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("this is not the hook of a job of this runner"), "{said}");
    }
    let (entry, socket) = (container.text("usr/local/bin/oscr-entry"), container.text("run/oscr/control.sock"));
    let mut command = std::process::Command::new("nsenter");
    command.arg(format!("--target={}", container.pid())).args(["--pid", "setpriv", "--clear-groups"]);
    command.args([format!("--reuid={}", container.uid), format!("--regid={}", container.uid)]).arg(entry);
    command.args(["hook", "--hooks", "/none", "--socket", &socket, "job-started"]).stdin(std::process::Stdio::null());
    let (code, said, error) = outcome(command);
    assert_eq!(code, 1, "{said}{error}");
    assert!(said.contains("this is not the hook of a job of this runner"), "{said}");
    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("step-1") && job.log.contains("this job has board-1"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_job_that_left_nothing_is_not_said_to_have_left_its_own_worker() {
    let (forge, boards) = (Forge::start(), Boards::new());
    for _ in 0..3 {
        let mut container = boards.runner(&forge, &[]);
        container.start();
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        assert_eq!(container.lines_with("ending what the job left running"), Vec::<String>::new());
    }
    until("the board is free", || boards.status("board-1")["held"] == false);
}
