//! The stand-in agent against the forge: what the official agent does, where OSCR relies on it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use crate::common::{Agent, LIMIT, api, forge};
use nix::sys::signal::Signal;
use oscr_sim::forge::{Cut, Fault, JobSpec, JobStatus, ListenerExit, LostAssignments, Match, Removal};
use oscr_sim::protocol::{Condition, JobResult, Step};
use serde_json::json;

/// The number after a word at the start of a line.
fn number(log: &str, word: &str) -> Option<i32> {
    log.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

fn step(run: &str, condition: Condition) -> Step {
    Step { run: run.into(), condition, ..Step::default() }
}

#[test]
fn an_ephemeral_agent_takes_one_job_and_leaves() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "one");
    assert!(fs::read_to_string(agent.root.join(".runner")).expect("settings").starts_with('\u{feff}'));
    let id =
        forge.submit(JobSpec::script("greet", "echo hello $GITHUB_REPOSITORY; tr '\\0' '\\n' </proc/$PPID/comm; pwd"));
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    let workspace = agent.root.join("_work/r/r");
    for part in ["hello o/r\n", "Runner.Worker\n", &format!("{}\n", workspace.display())] {
        assert!(job.log.contains(part), "{part:?} in {}", job.log);
    }
    assert_eq!(running.code(), Some(0));
    for marker in [
        "√ Connected to GitHub",
        "Current runner version: '2.338.0'",
        "Listening for Jobs",
        "Running job: greet",
        "Job greet completed with result: Succeeded",
    ] {
        assert!(running.said(marker), "{marker}: {:#?}", running.seen);
    }
    assert!(!agent.root.join(".runner").exists());
    assert_eq!(forge.runners().len(), 0);
    assert_eq!(forge.contract_violations(), Vec::<String>::new());
}

#[test]
fn an_idle_agent_leaves_at_once_on_sigint() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "idle");
    running.expect_line("Listening for Jobs");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let asked = Instant::now();
        running.signal(signal);
        assert_eq!(running.code(), Some(0));
        // It did not wait for the end of its poll.
        assert!(asked.elapsed().as_millis() < u128::from(forge.orders().poll_timeout_ms / 2), "{:?}", asked.elapsed());
        let left = forge.runners();
        assert_eq!((left.len(), left[0].status.as_str()), (1, "offline"));
        assert!(agent.root.join(".runner").exists());
        running = agent.run(&[]);
        running.expect_line("Listening for Jobs");
    }
}

#[test]
fn a_stopped_agent_skips_all_further_steps_and_fails_the_job() {
    let forge = forge();
    let mut agent = Agent::new();
    let hook = agent.root.join("completed.sh");
    fs::write(&hook, "echo completed hook ran\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &hook.to_string_lossy());
    let (_agent, mut running) = agent.listen(&forge, "stopped", &["--ephemeral"]);
    let steps = vec![step("echo started; exec sleep 60", Condition::Success), step("echo always", Condition::Always)];
    let id = forge.submit(JobSpec::steps("long", steps));
    forge.wait("the step runs", LIMIT, |s| s.jobs.iter().any(|j| j.live.contains("started\n")));
    running.signal(Signal::SIGINT);
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.log.contains("The runner has received a shutdown signal"), "{}", job.log);
    assert!(!job.log.contains("\nalways\n") && !job.log.contains("completed hook ran"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job long completed with result: Canceled"));
}

#[test]
fn a_cancelled_job_runs_its_always_steps() {
    let forge = forge();
    // The step ends by the first signal, whenever it comes to that.
    forge.order(|o| o.sigint_ms = Some(600_000));
    let (_agent, mut running) = Agent::listening(&forge, "cancelled");
    let steps = vec![
        step("trap 'echo interrupted; exit 1' INT; echo started; while :; do sleep 0.01; done", Condition::Success),
        step("echo skipped-one", Condition::Failure),
        step("echo cleaned", Condition::Always),
    ];
    let id = forge.submit(JobSpec::steps("long", steps));
    forge.wait("the step runs", LIMIT, |s| s.jobs.iter().any(|j| j.live.contains("started\n")));
    assert!(forge.cancel_job(id));
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Canceled), "{}", job.log);
    assert!(job.log.contains("interrupted\n") && job.log.contains("\ncleaned\n"), "{}", job.log);
    assert!(!job.log.contains("\nskipped-one\n"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
}

#[test]
fn a_hook_that_blocks_outlives_its_killed_worker() {
    let forge = forge();
    forge.order(|o| o.worker_kill_ms = 50);
    let mut agent = Agent::new();
    let hook = agent.root.join("started.sh");
    fs::write(&hook, "echo hook $$; exec sleep 60\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_STARTED", &hook.to_string_lossy());
    let (_agent, mut running) = agent.listen(&forge, "blocked", &["--ephemeral"]);
    let id = forge.submit(JobSpec::script("waits", "true"));
    let seen = forge.wait("the hook runs", LIMIT, |s| number(&s.jobs[0].live, "hook ").is_some());
    let pid = number(&seen.jobs[0].live, "hook ").expect("a pid");
    assert!(forge.cancel_job(id));
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job waits completed with result: Canceled"), "{:?}", running.seen);
    // Nobody reports it, and what its worker had not stored is lost.
    let job = forge.job(id).expect("a job");
    assert_eq!((job.status, job.log.contains("hook ")), (JobStatus::InProgress, false), "{}", job.log);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("the hook is an orphan now");
}

#[test]
fn hooks_run_in_the_job_and_a_failing_one_spares_only_always_steps() {
    let forge = forge();
    let mut agent = Agent::new();
    let (started, completed) = (agent.root.join("started.sh"), agent.root.join("completed.sh"));
    fs::write(&started, "echo \"FROM_HOOK=yes\" >>\"$GITHUB_ENV\"; test -f \"$GITHUB_EVENT_PATH\"; pwd; false\n")
        .expect("a hook");
    fs::write(&completed, "echo completed with $FROM_HOOK\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_STARTED", &started.to_string_lossy());
    agent.set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &completed.to_string_lossy());
    let (agent, mut running) = agent.listen(&forge, "hooked", &["--ephemeral"]);
    let steps = vec![step("echo normal-step", Condition::Success), step("echo got $FROM_HOOK", Condition::Always)];
    let id = forge.submit(JobSpec::steps("hooks", steps));
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    for part in ["\ngot yes\n", "\ncompleted with yes\n", &format!("{}\n", agent.root.join("_work/r/r").display())] {
        assert!(job.log.contains(part), "{part:?} in {}", job.log);
    }
    assert!(!job.log.contains("\nnormal-step\n"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
}

#[test]
fn a_listener_without_a_registration_cleans_up_and_leaves() {
    let forge = forge();
    forge.order(|o| o.end_polls_on_delete = true);
    let (agent, mut running) = Agent::listening(&forge, "deleted");
    let id = forge.runners()[0].id;
    assert_eq!(api(&forge, "DELETE", &format!("/repos/o/r/actions/runners/{id}"), None).0, 204);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("The runner no longer exists on the server. Cleaning up local configuration."));
    assert!(!agent.root.join(".runner").exists());
}

#[test]
fn a_busy_registration_cannot_be_deleted() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "busy");
    let gate = agent.root.join("gate");
    let id = forge.submit(JobSpec::script("waits", &format!("until test -e {}; do sleep 0.01; done", gate.display())));
    let seen = forge.wait("it runs", LIMIT, |s| s.events.iter().any(|e| e.kind == "job_started"));
    let path = format!("/repos/o/r/actions/runners/{}", seen.runners[0].id);
    assert_eq!(api(&forge, "GET", &path, None).2["busy"], json!(true));
    assert_eq!(api(&forge, "DELETE", &path, None).0, 422);
    fs::write(gate, "").expect("the gate");
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(api(&forge, "DELETE", &path, None).0, 404);
    assert_eq!(running.code(), Some(0));
    assert_eq!(forge.contract_violations(), Vec::<String>::new());
}

#[test]
fn a_registration_can_go_at_assignment() {
    let forge = forge();
    forge.order(|o| o.ephemeral_removal = Removal::Assignment);
    let (_agent, mut running) = Agent::listening(&forge, "consumed");
    let id = forge.submit(JobSpec::script("job", "true"));
    forge.wait("it is gone", LIMIT, |s| s.runners.is_empty());
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}

#[test]
fn a_lost_assignment_leaves_a_ghost_that_listens() {
    let forge = forge();
    forge.order(|o| o.lost_assignments = Some(LostAssignments { times: 1, status: 409, consume: true }));
    let (ghost, mut running) = Agent::listening(&forge, "ghost");
    let id = forge.submit(JobSpec::script("job", "true"));
    forge.wait("the job is lost", LIMIT, |s| s.events.iter().any(|e| e.kind == "job_requeued"));
    let (_other, mut other) = Agent::listening(&forge, "other");
    assert_eq!(forge.wait_job(id, LIMIT).runner.as_deref(), Some("other"));
    assert_eq!(other.code(), Some(0));
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(0));
    assert!(!running.said("Running job"));
    assert!(ghost.diag().contains("Skipping message Job"));
}

#[test]
fn a_jit_agent_needs_no_configure_and_is_used_once() {
    let forge = forge();
    let ask = json!({"name": "jit", "runner_group_id": 1, "labels": ["self-hosted"]});
    let (_, _, made) = api(&forge, "POST", "/repos/o/r/actions/runners/generate-jitconfig", Some(ask));
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_INPUT_JITCONFIG", made["encoded_jit_config"].as_str().expect("text"));
    let mut running = agent.run(&[]);
    running.expect_line("Listening for Jobs");
    let id = forge.submit(JobSpec::script("job", "env"));
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.runner.as_deref(), Some("jit"));
    assert!(!job.log.contains("ACTIONS_RUNNER_INPUT"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
    assert_eq!(agent.run(&[]).code(), Some(1));
}

#[test]
fn once_takes_one_job_and_stays_registered() {
    let forge = forge();
    let agent = Agent::new();
    assert!(agent.configure(&forge, "once", &[]).status.success());
    let mut running = agent.run(&["--once"]);
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert_eq!(forge.runners().len(), 1);
    assert!(agent.root.join(".runner").exists());
}

#[test]
fn configure_says_what_is_wrong_and_ends_with_1() {
    let forge = forge();
    let agent = Agent::new();
    assert!(agent.configure(&forge, "taken", &[]).status.success());
    let again = agent.configure(&forge, "taken", &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already configured"));
    let same_name = Agent::new().configure(&forge, "taken", &[]);
    assert_eq!(same_name.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&same_name.stderr).contains("A runner exists with the same name"));
    let replaces = Agent::new().configure(&forge, "taken", &["--replace"]);
    assert!(replaces.status.success());
    forge.order(|o| o.token_lifetime_s = -1);
    let expired = Agent::new().configure(&forge, "late", &[]);
    assert_eq!(expired.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&expired.stderr).contains("NotFound"));
    assert_eq!(forge.runners().len(), 1);
}

#[test]
fn a_signal_ends_configure_with_1() {
    let forge = forge();
    forge.add_fault(Fault {
        matching: Match { path_contains: Some("/register".into()), ..Match::default() },
        delay_ms: 60_000,
        ..Fault::default()
    });
    let agent = Agent::new();
    let url = format!("{}/o/r", forge.url());
    let token = crate::common::token(&forge);
    let command = agent.command(&["configure", "--unattended", "--url", &url, "--name", "slow", "--token", &token]);
    let mut running = crate::common::Running::start(command);
    forge.wait("it registers", LIMIT, |s| s.requests.iter().any(|r| r.path.ends_with("/actions/runners/register")));
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(1));
    assert_eq!(forge.runners().len(), 0);
}

#[test]
fn remove_takes_the_registration_and_the_files() {
    let forge = forge();
    let agent = Agent::new();
    assert!(agent.configure(&forge, "gone", &[]).status.success());
    let (_, _, body) = api(&forge, "POST", "/repos/o/r/actions/runners/remove-token", None);
    let token = body["token"].as_str().expect("text");
    let removed = agent.command(&["remove", "--token", token]).output().expect("it starts");
    assert!(removed.status.success(), "{removed:?}");
    assert_eq!(forge.runners().len(), 0);
    let again = agent.command(&["remove", "--token", token]).output().expect("it starts");
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stdout).contains("config files are missing. Skipping"));
}

#[test]
fn a_second_session_is_refused_until_the_limit() {
    let forge = forge();
    forge.order(|o| o.conflict_limit_ms = Some(100));
    let (agent, _running) = Agent::listening(&forge, "twice");
    let mut second = agent.run(&[]);
    assert_eq!(second.code(), Some(5));
    assert!(second.said("A session for this runner already exists."));
}

#[test]
fn listeners_end_with_the_code_that_is_ordered() {
    let forge = forge();
    let mut agent = Agent::new();
    assert!(agent.configure(&forge, "told", &[]).status.success());
    let order = |code, at_session| {
        forge.order(|o| o.listener_exit = Some(ListenerExit { code, text: None, times: 1, runner: None, at_session }));
    };
    order(7, true);
    assert_eq!(agent.run(&[]).code(), Some(1));
    agent.set("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1");
    order(7, true);
    assert_eq!(agent.run(&[]).code(), Some(7));
    order(3, false);
    assert_eq!(agent.run(&[]).code(), Some(3));
}

#[test]
fn the_env_file_in_root_wins_over_the_environment() {
    let forge = forge();
    let mut agent = Agent::new();
    agent.set("COLOUR", "environment");
    fs::write(agent.root.join(".env"), "COLOUR=file\n").expect("a file");
    let (_agent, mut running) = agent.listen(&forge, "env", &["--ephemeral"]);
    let id = forge.submit(JobSpec::script("job", "echo colour $COLOUR"));
    assert!(forge.wait_job(id, LIMIT).log.contains("colour file\n"));
    assert_eq!(running.code(), Some(0));
}

#[test]
fn orphans_of_a_job_are_killed_unless_they_hide() {
    let forge = forge();
    let (_agent, mut running) = Agent::listening(&forge, "orphans");
    let id = forge.submit(JobSpec::script(
        "job",
        "sleep 60 >/dev/null 2>&1 & echo found $!\n\
         env -u RUNNER_TRACKING_ID sleep 60 >/dev/null 2>&1 & echo hidden $!",
    ));
    let log = forge.wait_job(id, LIMIT).log;
    assert_eq!(running.code(), Some(0));
    let pid = |word: &str| number(&log, word).expect("a pid");
    assert!(log.contains(&format!("Terminate orphan process: pid ({})", pid("found"))), "{log}");
    let hidden = nix::unistd::Pid::from_raw(pid("hidden"));
    nix::sys::signal::kill(hidden, Signal::SIGKILL).expect("it lives");
}

#[test]
fn a_job_whose_agent_dies_is_abandoned() {
    let forge = forge();
    forge.order(|o| (o.job_lease_ms, o.session_timeout_ms, o.hold_leases) = (400, 400, false));
    let (_agent, running) = Agent::listening(&forge, "dies");
    let id = forge.submit(JobSpec::script("job", "echo pid $$; exec sleep 60"));
    let seen = forge.wait("it runs", LIMIT, |s| number(&s.jobs[0].live, "pid ").is_some());
    running.signal(Signal::SIGKILL);
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Abandoned));
    forge.wait("no registration is left", LIMIT, |s| s.runners.is_empty());
    let pid = number(&seen.jobs[0].live, "pid ").expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("the step runs on");
}

#[test]
fn a_dead_agents_job_and_session_are_held_until_the_forge_is_told_to_let_go() {
    let forge = forge();
    // As impatient as can be, if it were not for the order.
    forge.order(|o| (o.job_lease_ms, o.session_timeout_ms, o.hold_leases) = (0, 0, true));
    let (_agent, mut running) = Agent::listening(&forge, "held");
    let id = forge.submit(JobSpec::script("job", "echo pid $$; exec sleep 60"));
    let seen = forge.wait("it runs", LIMIT, |s| number(&s.jobs[0].live, "pid ").is_some());
    running.signal(Signal::SIGKILL);
    assert_eq!(running.code(), None);
    let runner = forge.runners()[0].clone();
    let path = format!("/repos/o/r/actions/runners/{}", runner.id);
    assert_eq!(api(&forge, "DELETE", &path, None).0, 422);
    assert_eq!((runner.status.as_str(), runner.busy), ("online", true));
    assert_eq!(forge.job(id).and_then(|job| job.result), None);
    assert_eq!(api(&forge, "POST", &format!("/_sim/runners/{}/let-go", runner.id), None).0, 204);
    assert_eq!(forge.job(id).and_then(|job| job.result), Some(JobResult::Abandoned));
    assert_eq!(forge.runners().len(), 0);
    assert!(!forge.let_go(runner.id + 1000));
    let pid = number(&seen.jobs[0].live, "pid ").expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("the step runs on");
}

#[test]
fn a_job_that_was_only_offered_to_a_runner_that_is_let_go_is_offered_anew() {
    let forge = forge();
    forge.order(|o| o.hold_leases = true);
    let acquire = Match { path_contains: Some("/acquire".into()), ..Match::default() };
    forge.add_fault(Fault { matching: acquire, cut: Some(Cut::Before), ..Fault::default() });
    let (_agent, running) = Agent::listening(&forge, "offered");
    let id = forge.submit(JobSpec::script("job", "true"));
    forge.wait("it is offered", LIMIT, |s| s.jobs[0].status == JobStatus::Assigned);
    running.signal(Signal::SIGKILL);
    assert!(forge.let_go(forge.runners()[0].id));
    assert_eq!(forge.job(id).map(|job| job.status), Some(JobStatus::Queued));
}

#[test]
fn a_delete_can_cross_with_an_assignment() {
    let forge = forge();
    forge.order(|o| o.cross_deletes = 1);
    let (_agent, mut running) = Agent::listening(&forge, "crossed");
    let id = forge.runners()[0].id;
    assert_eq!(api(&forge, "DELETE", &format!("/repos/o/r/actions/runners/{id}"), None).0, 204);
    let job = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}

#[test]
fn a_listener_reconnects_after_the_forge_was_away() {
    let forge = forge();
    let (_agent, mut running) = Agent::listening(&forge, "patient");
    forge.go_down();
    running.expect_line("Retrying until reconnected");
    forge.come_back().expect("its port is free");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}

#[test]
fn the_root_is_the_parent_of_the_real_bin() {
    let forge = forge();
    let agent = Agent::new();
    let elsewhere = agent.root.with_file_name("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    std::os::unix::fs::symlink(agent.root.join("bin"), elsewhere.join("bin")).expect("a link");
    let linked = Agent::new();
    let mut command = std::process::Command::new(elsewhere.join("bin/Runner.Listener"));
    let url = format!("{}/o/r", forge.url());
    let token = crate::common::token(&forge);
    command.args(["configure", "--unattended", "--url", &url, "--token", &token, "--name", "linked"]);
    assert!(command.output().expect("it starts").status.success());
    assert!(agent.root.join(".runner").exists() && !elsewhere.join(".runner").exists());
    drop(linked);
}

#[test]
fn the_archive_is_the_same_each_time_and_belongs_to_root() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).expect("a folder");
    for name in ["runner-listener", "runner-worker"] {
        fs::write(programs.join(name), name).expect("a program");
    }
    let (one, two) = (folder.path().join("1.tar.gz"), folder.path().join("2.tar.gz"));
    let sums =
        [&one, &two].map(|to| oscr_sim::agent::pack(oscr_sim::agent::Kind::GitHub, &programs, to).expect("an archive"));
    assert_eq!(sums[0], sums[1]);
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(one).expect("it is there")));
    let mut names = Vec::new();
    for entry in tar.entries().expect("entries") {
        let entry = entry.expect("an entry");
        assert_eq!((entry.header().uid().ok(), entry.header().gid().ok()), (Some(0), Some(0)));
        names.push(entry.path().expect("a path").display().to_string());
    }
    for wanted in
        ["bin/Runner.Listener", "bin/Runner.Worker", "config.sh", "run.sh", "run-helper.sh.template", "env.sh"]
    {
        assert!(names.iter().any(|n| n == wanted), "{wanted}: {names:?}");
    }
}

#[test]
fn config_and_run_scripts_lead_to_the_listener() {
    let forge = forge();
    let agent = Agent::new();
    let mode = fs::metadata(agent.root.join("config.sh")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let url = format!("{}/o/r", forge.url());
    let mut config = std::process::Command::new(agent.root.join("config.sh"));
    config.args(["--unattended", "--url", &url, "--name", "scripted", "--ephemeral"]);
    config.env("RUNNER_ALLOW_RUNASROOT", "1").env("ACTIONS_RUNNER_INPUT_TOKEN", crate::common::token(&forge));
    let done = config.output().expect("it starts");
    assert!(done.status.success(), "{done:?}");
    assert!(agent.root.join(".path").exists() && agent.root.join(".env").exists());
    let mut run = std::process::Command::new(agent.root.join("run.sh"));
    run.env("RUNNER_ALLOW_RUNASROOT", "1");
    let mut running = crate::common::Running::start(run);
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
}
