//! A board whose hooks fail for one job after another is set aside: it empties no queue, and comes back in order.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use oscr_sim::protocol::JobResult;
use serde_json::Value;

use crate::boards::{Boards, assert_reason, hook};
use crate::harness::{Container, Forge, LIMIT, allow, outcome, until};

const WAITS: &str = "waiting for what is set aside: board-1 is set aside since ";

/// A hook that fails for a board until the file beside its lock is there.
fn dead(boards: &Boards, container: &Container<'_>, board: &str) {
    let mended = boards.path().join("mended");
    let script = format!(
        "[ \"$OSCR_RESOURCE\" != {board} ] || [ -e {} ] || {{ echo the board is silent; exit 3; }}",
        mended.display()
    );
    hook(container, "resource-acquired/10-power", &script);
}

fn mend(boards: &Boards) {
    fs::write(boards.path().join("mended"), "").expect("a file");
    allow(&boards.path().join("mended"), 0o644);
}

/// The next incarnation's only job.
fn job(forge: &Forge, container: &mut Container<'_>) -> u64 {
    container.restart();
    forge.job("echo \"has $OSCR_RESOURCE\"")
}

/// Three jobs fail, which each tells why.
fn set_aside(forge: &Forge, container: &mut Container<'_>) {
    for _ in 0..3 {
        let job = job(forge, container);
        let job = forge.wait_job(job, LIMIT);
        assert_reason(&job, "10-power failed (exit code 3): the board is silent");
        assert_eq!(container.exit_code(), 0);
    }
}

/// What is recorded of failures.
fn records(boards: &Boards) -> Vec<PathBuf> {
    let names = fs::read_dir(boards.path()).expect("the locks").flatten().map(|entry| entry.path());
    names.filter(|path| path.to_string_lossy().contains(".aside-")).collect()
}

/// What is recorded, with one of its numbers changed.
fn record(boards: &Boards, change: impl FnOnce(&mut Value)) -> Value {
    let [path] = &records(boards)[..] else { panic!("one record: {:?}", records(boards)) };
    let mut record = serde_json::from_slice(&fs::read(path).expect("a record")).expect("JSON");
    change(&mut record);
    fs::write(boards.path().join("changed"), record.to_string()).expect("a file");
    fs::rename(boards.path().join("changed"), path).expect("the same directory");
    record
}

#[track_caller]
fn assert_works(forge: &Forge, boards: &Boards, container: &mut Container<'_>, job: u64) {
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(records(boards), Vec::<PathBuf>::new());
    boards.assert_free("board-1");
}

#[test]
fn a_fourth_job_waits_where_three_have_failed_and_goes_on_once_the_board_is_repaired() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    dead(&boards, &container, "board-1");
    set_aside(&forge, &mut container);
    let waiting = job(&forge, &mut container);
    forge.wait_log(waiting, WAITS);
    let status = container.status();
    assert_eq!(status["phase"], "waiting", "{status}");
    let aside = &status["aside"][0];
    assert_eq!(aside["resource"], "board-1", "{status}");
    assert!(aside["why"].as_str().is_some_and(|why| why.ends_with("the board is silent")), "{status}");
    let (_, said, _) = outcome(boards.command(&["status"]));
    assert!(said.contains("board-1  free") && said.contains("; the last was oscr-"), "{said}");
    assert!(!said.contains("turn-"), "{said}");
    let seen = boards.status("board-1");
    let aside = &seen["set_aside"][0];
    assert!(seen["state"] == "free" && aside["resource"] == "board-1", "{seen}");
    assert!(aside["why"].as_str().is_some_and(|why| why.ends_with("the board is silent")), "{seen}");
    // Nobody has it meanwhile: a person gets it at once.
    assert_eq!(outcome(boards.command(&["run", "board-1", "--", "true"])).0, 0);
    mend(&boards);
    let (code, said, _) = outcome(boards.command(&["repair", "board-1"]));
    assert!(code == 0 && said.starts_with("board-1 is back"), "{said}");
    assert_eq!(boards.status("board-1")["set_aside"], serde_json::json!([]));
    assert_works(&forge, &boards, &mut container, waiting);
    assert!(outcome(boards.command(&["repair", "board-1"])).1.starts_with("board-1 is not set aside"));
}

#[test]
fn the_first_that_waits_tries_it_again_in_time_and_does_not_fail_by_that() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    dead(&boards, &container, "board-1");
    set_aside(&forge, &mut container);
    let waiting = job(&forge, &mut container);
    forge.wait_log(waiting, WAITS);
    assert_eq!(record(&boards, |record| record["next"] = 0.into())["wait"], 60);
    container.wait_line("was tried in vain");
    assert_eq!(record(&boards, |_| ())["wait"], 120);
    container.wait_phase("waiting");
    mend(&boards);
    record(&boards, |record| record["next"] = 0.into());
    assert_works(&forge, &boards, &mut container, waiting);
}

#[test]
fn a_job_waits_for_what_is_set_aside_no_longer_than_it_may_and_says_why() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_TIMEOUT", "2")]);
    dead(&boards, &container, "board-1");
    set_aside(&forge, &mut container);
    let waiting = job(&forge, &mut container);
    let waiting = forge.wait_job(waiting, LIMIT);
    assert!(!waiting.log.contains("\nhas board-1"), "{}", waiting.log);
    assert_reason(&waiting, "it did not work again within 2s");
    assert_reason(&waiting, "the board is silent");
    assert_eq!(container.exit_code(), 0);
    boards.assert_free("board-1");
}

#[test]
fn jobs_take_another_of_a_pool_and_who_has_other_hooks_is_not_concerned() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut pool = boards.runner(&forge, &[("RUNNER_RESOURCE_ID", "board-1|board-2")]);
    dead(&boards, &pool, "board-1");
    let person = boards.somebody("board-2");
    set_aside(&forge, &mut pool);
    drop(person);
    let another = job(&forge, &mut pool);
    let another = forge.wait_job(another, LIMIT);
    assert!(another.log.contains("has board-2"), "{}", another.log);
    pool.exit_code();

    // One that waits for the others gets it once it is back, whoever has those.
    let person = boards.somebody("board-2");
    let waiting = job(&forge, &mut pool);
    forge.wait_log(waiting, "waiting for board-2");
    assert_eq!(outcome(boards.command(&["repair", "board-1"])).0, 0);
    let log = forge.wait_job(waiting, LIMIT).log;
    assert!(log.contains("the board is silent"), "it is tried: {log}");
    pool.exit_code();
    drop(person);
    let mut others = boards.runner(&forge, &[]);
    let own = job(&forge, &mut others);
    assert!(forge.wait_job(own, LIMIT).log.contains("has board-1"));
    others.exit_code();
}

#[test]
fn those_who_wait_for_what_is_set_aside_keep_their_order() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let order = boards.path().join("order");
    fs::write(&order, "").expect("a file");
    allow(&order, 0o666);
    let mut first = boards.runner(&forge, &[]);
    dead(&boards, &first, "board-1");
    set_aside(&forge, &mut first);
    let mut runners = vec![first];
    let mut jobs = Vec::new();
    for place in 0..3 {
        let mut runner = if place == 0 { runners.remove(0) } else { boards.runner(&forge, &[]) };
        dead(&boards, &runner, "board-1");
        runner.restart();
        let job = forge.job(&format!("echo {place} >>{}", order.display()));
        forge.wait_log(job, WAITS);
        let turn = || {
            let names = fs::read_dir(boards.path()).expect("the locks").flatten();
            names
                .filter_map(|entry| entry.file_name().into_string().ok()?.strip_suffix(".queue").map(str::to_owned))
                .find(|name| name.starts_with("turn-"))
        };
        until("it has its place", || {
            turn().is_some_and(|turn| {
                let status = boards.status(&turn);
                status["held"] == true && status["queue"].as_array().map(Vec::len) == Some(place)
            })
        });
        jobs.push(job);
        runners.push(runner);
    }
    mend(&boards);
    assert_eq!(outcome(boards.command(&["repair", "board-1"])).0, 0);
    for job in jobs {
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    }
    assert_eq!(fs::read_to_string(&order).expect("the file"), "0\n1\n2\n");
}

#[test]
fn a_job_that_waits_for_what_is_set_aside_gives_its_turn_up_with_its_runner() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    dead(&boards, &container, "board-1");
    set_aside(&forge, &mut container);
    let killed = job(&forge, &mut container);
    forge.wait_log(killed, WAITS);
    container.signal(Signal::SIGKILL);
    container.exit_code();
    let next = job(&forge, &mut container);
    forge.wait_log(next, WAITS);
    mend(&boards);
    assert_eq!(outcome(boards.command(&["repair", "board-1"])).0, 0);
    assert_works(&forge, &boards, &mut container, next);
}

#[test]
fn jobs_of_one_kept_registration_and_of_one_run_are_different_jobs() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[("RUNNER_PERSISTENT", "true")]);
    dead(&boards, &container, "board-1");
    container.start();
    for _ in 0..3 {
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_reason(&job, "the board is silent");
    }
    let waiting = forge.job("true");
    forge.wait_log(waiting, WAITS);
    mend(&boards);
    assert_eq!(outcome(boards.command(&["repair", "board-1"])).0, 0);
    assert_eq!(forge.wait_job(waiting, LIMIT).result, Some(JobResult::Succeeded));
}
