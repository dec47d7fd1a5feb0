//! Shared hardware: a job has its board exactly while its worker lives, in the order of arrival, whatever dies.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::forge::{Job, JobSpec};
use oscr_sim::protocol::{Condition, JobResult, Step};
use serde_json::Value;

use crate::harness::{Container, Forge, LIMIT, allow, write_program};

/// A lock directory of the host, as a lab makes it.
pub(crate) struct Boards(tempfile::TempDir);

impl Boards {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("oscr-boards-").tempdir_in("/tmp").expect("a directory in /tmp");
        allow(folder.path(), 0o755);
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// `oscr-entry lock …` on the host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oscr-entry"));
        command.arg("lock").arg("--dir").arg(self.path()).args(arguments);
        command
    }

    pub(crate) fn status(&self, board: &str) -> Value {
        let output = self.command(&["status", "--json", board]).output().expect("the binary");
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")[0].clone()
    }

    /// Waits until so many wait for the board.
    #[track_caller]
    pub(crate) fn wait_queue(&self, board: &str, length: usize) {
        crate::harness::until(&format!("{length} in the queue of {board}"), || {
            self.status(board)["queue"].as_array().is_some_and(|queue| queue.len() == length)
        });
    }

    #[track_caller]
    pub(crate) fn assert_free(&self, board: &str) {
        let status = self.status(board);
        assert_eq!(status["held"], false, "{status}");
        assert_eq!(status["queue"].as_array().map(Vec::len), Some(0), "{status}");
    }

    /// Somebody on the host who takes the board with `flock(1)` until their input ends.
    pub(crate) fn somebody(&self, board: &str) -> Person {
        Person::with(&self.path().join(format!("{board}.lock")))
    }

    pub(crate) fn runner<'f>(&self, forge: &'f Forge, settings: &[(&str, &str)]) -> Container<'f> {
        let mut container = Container::new(forge);
        container
            .set_all(&[("RUNNER_RESOURCE_ID", "board-1"), ("RUNNER_LOCK_DIR", &self.path().display().to_string())]);
        container.set_all(settings);
        container
    }
}

/// Holds a lock until dropped.
pub(crate) struct Person(Child);

impl Person {
    pub(crate) fn with(lock: &Path) -> Self {
        let mut child = Command::new("flock")
            .arg(lock)
            .args(["sh", "-c", "echo has it; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("flock(1)");
        let mut line = [0; 7];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut line).expect("it has the lock");
        Self(child)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub(crate) fn hook(container: &Container<'_>, name: &str, text: &str) {
    let path = container.path("etc/oscr/hooks.d").join(name);
    write_program(&path, &format!("#!/bin/bash\n{text}\n"));
}

/// The job's page says why it failed, once.
#[track_caller]
pub(crate) fn assert_reason(job: &Job, why: &str) {
    assert_eq!(job.annotations.iter().filter(|text| text.contains(why)).count(), 1, "{why}: {:#?}", job.annotations);
}

#[test]
fn a_job_has_its_board_while_it_runs_and_its_log_and_environment_say_so() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let mut gate = container.gate();
    container.start();
    let job = forge.job(&format!("echo \"has $OSCR_RESOURCE\"; {}", gate.wait()));
    forge.wait_log(job, "at the gate");
    let status = boards.status("board-1");
    assert_eq!(status["held"], true);
    let holder = &status["holder"];
    assert!(holder["who"].as_str().is_some_and(|who| who.starts_with("oscr-")), "{holder}");
    assert!(holder["scope"].as_str().is_some_and(|scope| scope.contains("o/r")), "{holder}");
    assert!(holder["run_url"].as_str().is_some_and(|url| url.contains("/o/r/actions/runs/")), "{holder}");
    assert_eq!(container.status()["resource"], "board-1");
    gate.open();
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("this job has board-1") && job.log.contains("has board-1"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    boards.assert_free("board-1");
}

#[test]
fn a_job_waits_for_a_person_with_flock_and_its_log_says_so_at_once() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let person = boards.somebody("board-1");
    container.start();
    let job = forge.job("echo ran");
    forge.wait_log(job, "waiting for board-1: held by something that leaves no record");
    let status = container.status();
    assert_eq!(status["phase"], "waiting");
    assert_eq!(status["queue"]["wanted"], "board-1", "{status}");
    assert!(status["queue"]["report"].as_str().is_some_and(|report| report.contains("leaves no record")), "{status}");
    assert_eq!(container.ask(&["health"]).0, 0);
    drop(person);
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    boards.assert_free("board-1");
}

#[test]
fn two_organisations_take_turns_in_the_order_of_arrival() {
    let (one, two, boards) = (Forge::start(), Forge::start(), Boards::new());
    let person = boards.somebody("board-1");
    let order = boards.path().join("order");
    fs::write(&order, "").expect("a file");
    allow(&order, 0o666);
    let mut containers = Vec::new();
    let mut jobs = Vec::new();
    for (place, forge) in [&one, &two, &two, &one].into_iter().enumerate() {
        let mut container = boards.runner(forge, &[]);
        container.start();
        let script = format!("echo {place} >>{0}; grep -c . {0}", order.display());
        jobs.push((forge, forge.job(&script)));
        boards.wait_queue("board-1", place + 1);
        containers.push(container);
    }
    let status = boards.status("board-1");
    let scopes: Vec<&str> = status["queue"]
        .as_array()
        .expect("a queue")
        .iter()
        .map(|w| w["claim"]["scope"].as_str().unwrap_or(""))
        .collect();
    assert!(scopes[0] != scopes[1] && scopes[1] == scopes[2], "{scopes:?}");
    drop(person);
    for (forge, job) in jobs {
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    }
    assert_eq!(fs::read_to_string(&order).expect("the file"), "0\n1\n2\n3\n");
    for mut container in containers {
        assert_eq!(container.exit_code(), 0);
    }
    boards.assert_free("board-1");
}

#[test]
fn a_killed_runner_frees_its_board_at_once() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let (_, _gate) = container.start_with_job();
    let waiter = boards.command(&["run", "board-1", "--", "true"]).spawn().expect("the binary");
    boards.wait_queue("board-1", 1);
    container.signal(Signal::SIGKILL);
    assert!(finished(waiter).success());
    boards.assert_free("board-1");
}

#[test]
fn a_job_whose_listener_does_not_say_that_it_is_cancelled_gives_its_place_up_with_its_worker() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[]);
    container.replace_listener("exec > >(grep --line-buffered --invert-match 'Job cancellation request')");
    forge.order(|orders| orders.worker_kill_ms = 300);
    container.start();
    let job = forge.job("echo never");
    boards.wait_queue("board-1", 1);
    assert!(forge.cancel_job(job));
    boards.wait_queue("board-1", 0);
    assert_eq!(boards.status("board-1")["held"], true, "the person has it still");
    // The hook is left alone until its worker is killed, and then nobody reports.
    forge.let_go_once_refused(forge.runner_of(job));
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Abandoned));
    assert!(!job.live.contains("\nnever"), "{}", job.live);
    container.exit_code();
    drop(person);
    boards.assert_free("board-1");
}

#[test]
fn a_job_that_waits_too_long_fails_and_none_of_its_steps_runs() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_TIMEOUT", "1")]);
    container.start();
    let step = |name: &str, condition| Step {
        name: Some(name.to_owned()),
        run: format!("echo ran {name}"),
        condition,
        ..Step::default()
    };
    let steps = vec![step("first", Condition::Success), step("clean-up", Condition::Always)];
    let job = forge.wait_job(forge.submit(JobSpec::steps("job", steps)), LIMIT);
    assert_ne!(job.result, Some(JobResult::Succeeded));
    assert!(job.log.contains("board-1 did not become free within 1s"), "{}", job.log);
    assert_reason(&job, "this job is failed: board-1 did not become free within 1s");
    assert!(!job.log.contains("\nran "), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    boards.wait_queue("board-1", 0);
}

#[test]
fn what_a_job_leaves_running_is_dead_before_the_board_is_free() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let mut gate = container.gate();
    container.start();
    // It writes for as long as it lives, and would be seen writing under the next holder.
    let beat = boards.path().join("beat");
    fs::write(&beat, "").expect("a file");
    allow(&beat, 0o666);
    let script =
        format!("setsid sh -c 'while :; do date +%N >{}; done' >/dev/null 2>&1 & {}", beat.display(), gate.wait());
    let job = forge.job(&script);
    forge.wait_log(job, "at the gate");
    let check = format!("a=$(cat {0}); sleep 0.2; test \"$a\" = \"$(cat {0})\"", beat.display());
    let waiter = boards.command(&["run", "board-1", "--", "sh", "-c", &check]).spawn().expect("the binary");
    boards.wait_queue("board-1", 1);
    gate.open();
    assert!(finished(waiter).success(), "something of the job still wrote");
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    container.exit_code();
}

#[test]
fn a_job_can_neither_free_nor_take_nor_see_the_lock() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    let mut gate = container.gate();
    container.start();
    let socket = container.path("run/oscr/control.sock");
    let hooks = container.path("etc/oscr/hooks.d");
    let entry = container.path("usr/local/bin/oscr-entry");
    let hook = |event: &str| {
        let (entry, socket, hooks) = (entry.display(), socket.display(), hooks.display());
        format!("{entry} hook --socket {socket} --hooks {hooks} {event} && echo {event} answered")
    };
    let attempts = [
        hook("job-started"),
        hook("job-completed"),
        format!("cat {}/board-1.lock && echo read it", boards.path().display()),
        format!("ls {}/board-1.queue && echo listed it", boards.path().display()),
        format!("touch {}/board-1.lock2 && echo made one", boards.path().display()),
        gate.wait(),
    ];
    let script = attempts.join("; ");
    let job = forge.job(&format!("set +e; {script}"));
    forge.wait_log(job, "at the gate");
    assert_eq!(boards.status("board-1")["held"], true);
    let refused = boards.command(&["run", "board-1", "--", "true"]).spawn().expect("the binary");
    boards.wait_queue("board-1", 1);
    gate.open();
    let job = forge.wait_job(job, LIMIT);
    for absent in ["\nread it", "\nlisted it", "\nmade one"] {
        assert!(!job.log.contains(absent), "{absent}: {}", job.log);
    }
    assert!(finished(refused).success());
    container.exit_code();
}

#[test]
fn hooks_between_holders_run_as_the_agent_and_a_failing_one_fails_the_job() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[]);
    hook(&container, "resource-acquired/10-power", "echo \"power on $OSCR_RESOURCE as $(id -u)\"");
    let released = container.path("etc/oscr/hooks.d/resource-released/10-power");
    write_program(&released, "echo \"power off $OSCR_RESOURCE\"\n");
    hook(&container, "resource-released/20-log.js", "exit 1");
    write_program(
        &container.path("opt/oscr/agent/externals/node24/bin/node"),
        "#!/bin/sh\necho node24 runs ${1##*/}\n",
    );
    container.start();
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
    container.exit_code();
    assert_eq!(container.lines_with("node24 runs 20-log.js").len(), 1);
    assert_eq!(container.lines_with(&format!("power on board-1 as {}", container.uid)).len(), 1);
    assert_eq!(container.lines_with("power off board-1").len(), 1);

    hook(&container, "resource-acquired/20-broken", "exit 3");
    container.restart();
    let job = forge.wait_job(forge.job("echo never"), LIMIT);
    assert_ne!(job.result, Some(JobResult::Succeeded));
    assert!(job.log.contains("20-broken failed (exit code 3)") && !job.log.contains("\nnever"), "{}", job.log);
    assert_reason(&job, "20-broken failed (exit code 3)");
    container.exit_code();
    assert_eq!(container.lines_with("power off board-1").len(), 1, "the clean-up runs however it ended");
    boards.assert_free("board-1");
}

#[test]
fn a_hook_that_hangs_is_ended_in_time() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_HOOK_TIMEOUT", "1")]);
    hook(&container, "resource-acquired/10-hangs", "sleep 600");
    container.start();
    let job = forge.wait_job(forge.job("echo never"), LIMIT);
    assert!(job.log.contains("took longer than 1s"), "{}", job.log);
    assert_reason(&job, "took longer than 1s");
    container.exit_code();
    boards.assert_free("board-1");
}

#[test]
fn in_listener_scope_a_runner_waits_before_it_registers_and_yields_when_idle() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_SCOPE", "listener"), ("OSCR_LOCK_IDLE", "1")]);
    container.start();
    boards.wait_queue("board-1", 1);
    assert_eq!(forge.runners().len(), 0);
    assert_eq!(container.status()["phase"], "waiting");
    drop(person);
    let (first, _) = forge.listening();
    // Idle for longer than a second, but nobody waits: it keeps the board.
    container.wait_line("has the hardware");
    let waiter = boards.command(&["run", "board-1", "--", "true"]).spawn().expect("the binary");
    assert!(finished(waiter).success());
    container.wait_line("gave the hardware to somebody who waits");
    let next = forge.another(first);
    let job = forge.wait_job(forge.job("echo \"has $OSCR_RESOURCE\""), LIMIT);
    assert!(job.log.contains("has board-1"), "{}", job.log);
    assert_eq!(job.runner_id, Some(next.id));
    container.exit_code();
    boards.assert_free("board-1");
}

#[test]
fn a_waiting_runner_that_is_stopped_leaves_the_queue() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let _person = boards.somebody("board-1");
    let mut container = boards.runner(&forge, &[("OSCR_LOCK_SCOPE", "listener")]);
    container.start();
    boards.wait_queue("board-1", 1);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
    boards.wait_queue("board-1", 0);
}

#[test]
fn a_job_takes_all_of_several_or_any_of_a_pool() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut both = boards.runner(&forge, &[("RUNNER_RESOURCE_ID", "power-2,board-1")]);
    let mut gate = both.gate();
    both.start();
    let job = forge.job(&format!("echo \"has $OSCR_RESOURCE\"; {}", gate.wait()));
    forge.wait_log(job, "has board-1,power-2");
    forge.wait_log(job, "at the gate");
    let output = boards.command(&["run", "board-1|board-3", "--", "sh", "-c", "echo $OSCR_RESOURCE"]).output();
    assert_eq!(String::from_utf8_lossy(&output.expect("the binary").stdout), "board-3\n");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    both.exit_code();
    for board in ["board-1", "power-2", "board-3"] {
        boards.assert_free(board);
    }
}

#[test]
fn a_directory_that_cannot_keep_locks_is_refused_before_anything_is_asked() {
    let (forge, boards) = (Forge::start(), Boards::new());
    let mut container = boards.runner(&forge, &[("RUNNER_LOCK_DIR", "/nonexistent/locks")]);
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line("RUNNER_LOCK_DIR");

    // A lock that the agent's user can open is a lock that a job can hold.
    let lock = boards.path().join("board-1.lock");
    File::create(&lock).expect("a file");
    let mut container = boards.runner(&forge, &[]);
    std::os::unix::fs::chown(&lock, Some(container.uid), None).expect("root");
    container.start();
    assert_eq!(container.exit_code(), 78);
    container.wait_line("can be opened by the agent's user");

    let mut container = boards.runner(&forge, &[("RUNNER_RESOURCE_ID", "../board-1")]);
    container.start();
    assert_eq!(container.exit_code(), 78);
    assert_eq!(forge.calls(), Vec::<String>::new());
}

/// Processes that take and free the same board in every way there is, some of them killed: never two at once, never stuck.
#[test]
fn processes_killed_at_random_leave_the_lock_sound() {
    let boards = Boards::new();
    let marker = boards.path().join("marker");
    let overlap = boards.path().join("overlap");
    // The marker is made by O_EXCL, and a killed holder's marker is removed by the next, who knows that it has the lock.
    let body = format!(
        "[ -e {0} ] && kill -0 $(cat {0}) 2>/dev/null && echo $$ >>{1}; echo $$ >{0}; sleep 0.0$((RANDOM % 4)); rm -f {0}",
        marker.display(),
        overlap.display()
    );
    let mut children: Vec<Child> = Vec::new();
    for turn in 0..120u32 {
        let wanted = ["board-1", "board-1|board-1x", "board-1,board-2"][(turn % 3) as usize];
        // Only holders of board-1 itself are compared.
        let script = if wanted.contains('|') {
            "[ $OSCR_RESOURCE = board-1 ] || exit 0; ".to_owned() + &body
        } else {
            body.clone()
        };
        let child = boards
            .command(&["run", wanted, "--", "bash", "-c", &script])
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary");
        if turn % 4 == 3 {
            // Not the youngest: one that waits, holds or leaves by now.
            let victim = &children[getrandom(children.len())];
            let _ = kill(Pid::from_raw(victim.id() as i32), Signal::SIGKILL);
        }
        children.push(child);
        if children.len() >= 24 {
            let oldest = children.remove(0);
            finished(oldest);
        }
    }
    for child in children {
        finished(child);
    }
    assert_eq!(fs::read_to_string(&overlap).unwrap_or_default(), "", "two had the board at once");
    for board in ["board-1", "board-1x", "board-2"] {
        boards.assert_free(board);
    }
    let queue: PathBuf = boards.path().join("board-1.queue");
    assert!(boards.command(&["run", "board-1", "--", "true"]).status().expect("the binary").success());
    let names: Vec<_> = fs::read_dir(queue).expect("the queue").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, [".mutex"], "dead tickets are swept");
}

fn getrandom(below: usize) -> usize {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    usize::try_from(random % below as u64).unwrap_or(0)
}

/// Waits for a process of the host, within bounds.
#[track_caller]
pub(crate) fn finished(mut child: Child) -> std::process::ExitStatus {
    let mut status = None;
    crate::harness::until("a process of the host ends", || {
        status = child.try_wait().expect("our child");
        status.is_some()
    });
    status.expect("just seen")
}

#[test]
fn a_free_board_is_waited_for_without_joining_the_queue() {
    let boards = Boards::new();
    let person = boards.somebody("board-1");
    let waiter = boards.command(&["wait-free", "board-1"]).spawn().expect("the binary");
    boards.wait_queue("board-1", 0);
    drop(person);
    assert!(finished(waiter).success());
    let status = boards.command(&["status"]).output().expect("the binary");
    assert_eq!(String::from_utf8_lossy(&status.stdout), "board-1  free\n");
    let code = boards.command(&["run", "board-1", "--", "sh", "-c", "exit 5"]).status().expect("the binary").code();
    assert_eq!(code, Some(5));
}
