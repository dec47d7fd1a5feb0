//! GitHub's stand-in with a job: the rows that the official runner was seen to follow.

use std::fs;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::forge::{Fault, ForgeHandle, Job, JobSpec, JobStatus, Match, Refusals};
use oscr_sim::protocol::{Condition, JobResult, Step};
use oscr_sim::scale::Scale;

use crate::common::{Agent, LIMIT, Running, forge};

fn step(run: &str, condition: Condition) -> Step {
    Step { run: run.into(), condition, ..Step::default() }
}

fn count(forge: &ForgeHandle, path: &str) -> usize {
    forge.requests().iter().filter(|r| r.path == path).count()
}

fn wait_requests(forge: &ForgeHandle, path: &str, times: usize) {
    forge.wait(&format!("{times} requests to {path}"), LIMIT, |s| {
        s.requests.iter().filter(|r| r.path == path).count() >= times
    });
}

/// The number after a word at the start of a line that came live.
fn told(forge: &ForgeHandle, id: u64, word: &str) -> String {
    let find = |job: &Job| job.live.lines().find_map(|line| Some(line.strip_prefix(word)?.trim().to_owned()));
    let seen = forge.wait(&format!("the job says {word:?}"), LIMIT, |s| {
        s.jobs.iter().any(|job| job.id == id && find(job).is_some())
    });
    seen.jobs.iter().find(|job| job.id == id).and_then(find).expect("it was there a moment ago")
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().expect("a process id"))
}

/// When a step wrote the time.
fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

const NOW: &str = "date -u +%Y-%m-%dT%H:%M:%S.%NZ";

#[test]
fn a_refused_job_is_passed_over_and_the_next_one_taken() {
    for status in [404, 409, 422] {
        let forge = forge();
        forge.order(|o| o.refuse_acquire = Some(Refusals { status, times: Some(1) }));
        let mut agent = Agent::new();
        agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
        let (_agent, mut running) = agent.listen(&forge, "ghost", &["--ephemeral"]);
        let _lost = forge.submit(JobSpec::script("lost", "true"));
        running.expect_line("Skipping message Job. Job message not found");
        let next = forge.submit(JobSpec::script("next", "true"));
        assert_eq!(forge.wait_job(next, LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(running.code(), Some(0));
        // It is a trace, and nothing for people.
        let lines: Vec<&String> = running.seen.iter().filter(|line| line.contains("Skipping message Job.")).collect();
        assert!(
            lines.len() == 1 && lines[0].starts_with("[RUNNER ") && lines[0].contains(" INFO Runner] "),
            "{lines:?}"
        );
    }
}

#[test]
fn an_acquire_that_fails_is_tried_five_times_and_then_it_polls_on() {
    let forge = forge();
    forge.order(|o| {
        o.poll_timeout_ms = 50;
        o.refuse_acquire = Some(Refusals { status: 500, times: Some(5) });
    });
    let (_agent, mut running) = Agent::listening(&forge, "tries");
    let _id = forge.submit(JobSpec::script("lost", "true"));
    wait_requests(&forge, "/_run/acquirejob", 5);
    let polls = count(&forge, "/_broker/message");
    wait_requests(&forge, "/_broker/message", polls + 3);
    assert_eq!(count(&forge, "/_run/acquirejob"), 5);
    running.signal(Signal::SIGINT);
    assert_eq!(running.code(), Some(0));
    assert!(!running.said("acquire") && !running.said("Running job"), "{:#?}", running.seen);
}

#[test]
fn an_acknowledgement_that_is_not_found_ends_it_with_0_and_without_a_job() {
    let forge = forge();
    forge.order(|o| o.refuse_acknowledge = Some(Refusals { status: 404, times: Some(1) }));
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
    let (agent, mut running) = agent.listen(&forge, "late", &["--ephemeral"]);
    let id = forge.submit(JobSpec::script("lost", "true"));
    assert_eq!(running.code(), Some(0));
    let words = format!("Acknowledge returned job-not-found for ephemeral runner request '{id}'. Exiting runner.");
    assert!(running.said(&words), "{:#?}", running.seen);
    assert!(!agent.root.join(".runner").exists());
    assert!(forge.requests().iter().any(|r| r.method == "DELETE" && r.path == "/_broker/session"));
    assert_eq!(count(&forge, "/_run/acquirejob"), 0);
}

/// A job whose step tells the worker's process and its own, and then lasts.
fn lasting(forge: &ForgeHandle) -> (u64, Pid, Pid) {
    let id = forge.submit(JobSpec::script("long", "echo worker $PPID; echo step $$; exec sleep 600"));
    let worker = pid(&told(forge, id, "worker "));
    (id, worker, pid(&told(forge, id, "step ")))
}

#[test]
fn a_killed_workers_job_is_reported_as_failed_and_its_steps_log_is_lost() {
    let forge = forge();
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
    let (_agent, mut running) = agent.listen(&forge, "killed", &["--ephemeral"]);
    let (id, worker, child) = lasting(&forge);
    forge.wait("the set-up is stored", LIMIT, |s| s.jobs[0].log.contains("Complete job name"));
    kill(worker, Signal::SIGKILL).expect("it runs");
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.live.contains("step ") && !job.log.contains("step "), "{}", job.log);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job long completed with result: Failed"), "{:#?}", running.seen);
    assert!(running.said(&format!("Finished process {worker} with exit code 137, ")), "{:#?}", running.seen);
    kill(child, Signal::SIGKILL).expect("the step's process lives on");
}

#[test]
fn a_killed_listeners_worker_lives_on_and_nobody_reports() {
    let forge = forge();
    let (agent, running) = Agent::listening(&forge, "killed");
    let gate = agent.root.join("gate");
    let script = format!("echo worker $PPID; until test -e {}; do sleep 0.01; done", gate.display());
    let id = forge.submit(JobSpec::script("long", &script));
    let worker = pid(&told(&forge, id, "worker "));
    running.signal(Signal::SIGKILL);
    drop(running);
    fs::write(gate, "").expect("the gate");
    // Its last request is that which stores the whole log.
    forge.wait("the log is stored", LIMIT, |s| {
        s.requests.iter().any(|r| r.path.ends_with("/CreateJobLogsMetadata") && r.status.is_some())
    });
    let deadline = Instant::now() + oscr_sim::patience::patient(LIMIT);
    while fs::read_to_string(format!("/proc/{worker}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "the worker did not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(count(&forge, "/_run/completejob"), 0);
    assert_eq!(forge.job(id).map(|job| job.status), Some(JobStatus::InProgress));
}

#[test]
fn a_stopped_listeners_worker_reports_by_itself() {
    let forge = forge();
    let (agent, mut running) = Agent::listening(&forge, "stopped");
    let gate = agent.root.join("gate");
    let script = format!("echo worker $PPID; until test -e {}; do sleep 0.01; done", gate.display());
    let id = forge.submit(JobSpec::script("long", &script));
    told(&forge, id, "worker ");
    running.signal(Signal::SIGSTOP);
    fs::write(gate, "").expect("the gate");
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    running.signal(Signal::SIGCONT);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job long completed with result: Succeeded"), "{:#?}", running.seen);
}

/// A step that says which signals it gets, and ends by none but the last.
const DEAF: &str = "trap 'echo got INT' INT; trap 'echo got TERM' TERM; echo started; while :; do sleep 0.01; done";

#[test]
fn a_cancel_interrupts_the_step_in_three_ways_and_runs_what_is_due_after_it() {
    let forge = forge();
    let mut agent = Agent::new();
    let hook = agent.root.join("completed.sh");
    fs::write(&hook, "echo completed hook ran\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &hook.to_string_lossy());
    let (_agent, mut running) = agent.listen(&forge, "cancelled", &["--ephemeral"]);
    let steps = vec![
        step(DEAF, Condition::Success),
        step("echo ran success", Condition::Success),
        step("echo ran failure", Condition::Failure),
        step("echo ran cancelled", Condition::Cancelled),
        step("echo ran always", Condition::Always),
    ];
    let id = forge.submit(JobSpec::steps("long", steps));
    told(&forge, id, "started");
    assert!(forge.cancel_job(id));
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Canceled), "{}", job.log);
    let told: Vec<&str> =
        job.log.lines().filter(|line| ["got ", "ran ", "completed hook"].iter().any(|p| line.starts_with(p))).collect();
    assert_eq!(told, ["got INT", "got TERM", "ran cancelled", "ran always", "completed hook ran"], "{}", job.log);
    assert!(job.annotations.iter().any(|text| text == "The operation was canceled."), "{:?}", job.annotations);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job long completed with result: Canceled"), "{:#?}", running.seen);
}

#[test]
fn a_cancel_past_its_time_kills_the_worker_and_nobody_reports() {
    let forge = forge();
    forge.order(|o| o.worker_kill_ms = 1_000);
    let (agent, mut running) = Agent::listening(&forge, "deaf");
    let id = forge.submit(JobSpec::steps("long", vec![step(&format!("echo step $$; {DEAF}"), Condition::Always)]));
    let child = pid(&told(&forge, id, "step "));
    assert!(forge.cancel_job(id));
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job long completed with result: Canceled"), "{:#?}", running.seen);
    assert_eq!(count(&forge, "/_run/completejob"), 0);
    assert_eq!(forge.job(id).map(|job| job.status), Some(JobStatus::InProgress));
    assert!(!agent.root.join(".runner").exists());
    kill(child, Signal::SIGKILL).expect("the step lives on");
}

#[test]
fn a_shutdown_skips_all_that_follows_and_tells_the_forge_another_word_than_people() {
    let forge = forge();
    let mut agent = Agent::new();
    let hook = agent.root.join("completed.sh");
    fs::write(&hook, "echo completed hook ran\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &hook.to_string_lossy());
    let (agent, mut running) = agent.listen(&forge, "stopped", &["--ephemeral"]);
    let steps = vec![step(DEAF, Condition::Success), step("echo ran always", Condition::Always)];
    let id = forge.submit(JobSpec::steps("long", steps));
    told(&forge, id, "started");
    running.signal(Signal::SIGINT);
    let job = forge.wait_job(id, LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
    let told: Vec<&str> = job
        .log
        .lines()
        .filter(|line| ["got ", "ran ", "completed hook ran"].iter().any(|p| line.starts_with(p)))
        .collect();
    assert_eq!(told, ["got INT", "got TERM"], "{}", job.log);
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Exiting...") && running.said("Job long completed with result: Canceled"));
    assert!(agent.root.join(".runner").exists());
}

#[test]
fn an_interrupt_takes_its_time_from_the_listener_to_the_worker() {
    let forge = forge();
    forge.order(|o| o.time_scale = Scale::REAL);
    let (_agent, mut running) = Agent::listening(&forge, "interrupted");
    let script = format!("trap '{NOW}; exit 1' INT; echo started; while :; do sleep 0.01; done");
    let id = forge.submit(JobSpec::script("long", &script));
    told(&forge, id, "started");
    let sent = Timestamp::now();
    running.signal(Signal::SIGINT);
    let came = at(&told(&forge, id, "20").replacen("", "20", 1));
    assert!(came.duration_since(sent) >= Duration::from_millis(50).try_into().expect("a time"), "{sent} {came}");
    assert_eq!(running.code(), Some(0));
}

#[test]
fn a_worker_lives_a_second_past_its_last_step() {
    let forge = forge();
    forge.order(|o| o.time_scale = Scale(0.5));
    let (_agent, mut running) = Agent::listening(&forge, "tail");
    let id = forge.submit(JobSpec::script("short", NOW));
    let ended = at(&told(&forge, id, "20").replacen("", "20", 1));
    let job = forge.wait_job(id, LIMIT);
    let tail = job.finished_at.expect("it is over").duration_since(ended);
    assert!(tail >= Duration::from_millis(500).try_into().expect("a time"), "{tail:?}");
    assert_eq!(running.code(), Some(0));
}

#[test]
fn the_first_renewal_comes_before_the_worker_and_one_that_is_not_found_is_the_jobs_end() {
    let forge = forge();
    forge.order(|o| o.refuse_renew = Some(Refusals { status: 404, times: None }));
    let (agent, mut running) = Agent::listening(&forge, "lost");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Running job: job") && !running.said("completed with result"), "{:#?}", running.seen);
    assert_eq!(count(&forge, "/_run/completejob"), 0);
    assert!(forge.job(id).is_some_and(|job| job.live.is_empty()));
    assert!(!agent.root.join(".runner").exists());
}

/// A job whose lease cannot be kept while its step runs.
fn without_renewals(status: u16) -> (ForgeHandle, u64, Agent, Running) {
    let forge = forge();
    forge.order(|o| o.job_lease_ms = 1_000);
    let (agent, running) = Agent::listening(&forge, "unheard");
    let id = forge.submit(JobSpec::script("long", "echo started; exec sleep 600"));
    told(&forge, id, "started");
    forge.order(|o| o.refuse_renew = Some(Refusals { status, times: None }));
    (forge, id, agent, running)
}

#[test]
fn renewals_that_fail_five_times_cancel_the_job_which_people_hear_as_abandoned() {
    for (status, tries) in [(500, 5), (404, 1)] {
        let (forge, id, _agent, mut running) = without_renewals(status);
        let refused = |s: &oscr_sim::forge::Snapshot| {
            s.requests.iter().filter(|r| r.path == "/_run/renewjob" && r.status == Some(status)).count()
        };
        assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Canceled));
        assert_eq!(running.code(), Some(0));
        assert!(running.said("Job long completed with result: Abandoned"), "{:#?}", running.seen);
        assert_eq!(refused(&forge.snapshot()), tries);
    }
}

#[test]
fn a_forge_that_is_away_for_less_than_the_renewals_last_costs_nothing() {
    let forge = forge();
    forge.order(|o| o.job_lease_ms = 1_000);
    let (agent, mut running) = Agent::listening(&forge, "away");
    let gate = agent.root.join("gate");
    let script = format!("echo started; until test -e {}; do sleep 0.01; done", gate.display());
    let id = forge.submit(JobSpec::script("long", &script));
    told(&forge, id, "started");
    forge.order(|o| o.refuse_renew = Some(Refusals { status: 500, times: Some(4) }));
    let renewed = |s: &oscr_sim::forge::Snapshot| {
        let renewals = s.requests.iter().filter(|r| r.path == "/_run/renewjob");
        let answers: Vec<Option<u16>> = renewals.map(|r| r.status).collect();
        answers.iter().rposition(|status| *status == Some(500)).is_some_and(|at| answers[at..].contains(&Some(200)))
    };
    forge.wait("it is renewed again", LIMIT, renewed);
    fs::write(gate, "").expect("the gate");
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert!(running.said("Job long completed with result: Succeeded"), "{:#?}", running.seen);
}

#[test]
fn a_killed_hook_fails_its_step_and_what_is_always_due_goes_on() {
    let forge = forge();
    let mut agent = Agent::new();
    let hook = agent.root.join("started.sh");
    fs::write(&hook, "kill -9 $$\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_STARTED", &hook.to_string_lossy());
    let (_agent, mut running) = agent.listen(&forge, "hooked", &["--ephemeral"]);
    let steps = vec![step("echo ran success", Condition::Success), step("echo ran always", Condition::Always)];
    let job = forge.wait_job(forge.submit(JobSpec::steps("job", steps)), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert!(job.log.contains("\nran always\n") && !job.log.contains("\nran success\n"), "{}", job.log);
    assert!(job.log.contains("Process completed with exit code 137."), "{}", job.log);
    assert_eq!(running.code(), Some(0));
}

#[test]
fn the_end_of_a_job_is_told_until_the_forge_hears_it() {
    let forge = forge();
    forge.add_fault(Fault {
        matching: Match { path_contains: Some("/completejob".into()), ..Match::default() },
        status: Some(500),
        times: Some(24),
        ..Fault::default()
    });
    let (_agent, mut running) = Agent::listening(&forge, "patient");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert_eq!(count(&forge, "/_run/completejob"), 25);
}

#[test]
fn the_deletion_of_a_session_is_given_up_and_ends_it_with_0() {
    let forge = forge();
    forge.add_fault(Fault {
        matching: Match { method: Some("DELETE".into()), path_contains: Some("/session".into()), ..Match::default() },
        delay_ms: 600_000,
        ..Fault::default()
    });
    let (agent, mut running) = Agent::listening(&forge, "silence");
    let id = forge.submit(JobSpec::script("job", "true"));
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(running.code(), Some(0));
    assert!(!agent.root.join(".runner").exists());
}

#[test]
fn the_worker_ends_with_what_the_forge_was_told() {
    for (script, code) in [("true", 100), ("false", 102)] {
        let forge = forge();
        let mut agent = Agent::new();
        agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
        let (_agent, mut running) = agent.listen(&forge, "codes", &["--ephemeral"]);
        let id = forge.submit(JobSpec::script("job", &format!("echo worker $PPID; {script}")));
        let worker = told(&forge, id, "worker ");
        forge.wait_job(id, LIMIT);
        assert_eq!(running.code(), Some(0));
        let line = format!("ProcessInvokerWrapper] Finished process {worker} with exit code {code}, and elapsed time ");
        assert!(running.seen.iter().any(|l| l.starts_with("[RUNNER ") && l.contains(&line)), "{:#?}", running.seen);
    }
}

#[test]
fn a_failing_completed_hook_fails_the_job_and_an_error_command_stands_on_its_page() {
    let forge = forge();
    let mut agent = Agent::new();
    let hook = agent.root.join("completed.sh");
    fs::write(&hook, "echo '::error title=Denied::not here'; exit 1\n").expect("a hook");
    agent.set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &hook.to_string_lossy());
    let (_agent, mut running) = agent.listen(&forge, "hooked", &["--ephemeral"]);
    let job = forge.wait_job(forge.submit(JobSpec::script("job", "true")), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed));
    assert_eq!(job.annotations, ["not here", "Process completed with exit code 1."]);
    assert_eq!(running.code(), Some(0));
}

#[test]
fn each_steps_log_is_stored_by_itself_and_in_order() {
    let forge = forge();
    let (_agent, mut running) = Agent::listening(&forge, "many");
    let steps = (1..=20).map(|n| step(&format!("echo n {n}"), Condition::Success)).collect();
    let job = forge.wait_job(forge.submit(JobSpec::steps("many", steps)), LIMIT);
    assert_eq!(running.code(), Some(0));
    let lines: Vec<String> = job.log.lines().filter_map(|line| line.strip_prefix("n ")).map(str::to_owned).collect();
    assert_eq!(lines, (1..=20).map(|n| n.to_string()).collect::<Vec<_>>());
    // The steps, and the two parts around them.
    let stored = forge.requests().iter().filter(|r| r.path.ends_with("/CreateStepLogsMetadata")).count();
    assert_eq!(stored, 22);
}

#[test]
fn a_flood_of_words_is_shown_and_stored_whole() {
    let forge = forge();
    let (_agent, mut running) = Agent::listening(&forge, "flood");
    let script = "yes \"$(head -c 200 /dev/zero | tr '\\0' x)\" | head -c 5M; echo; echo the last of them";
    let job = forge.wait_job(forge.submit(JobSpec::script("flood", script)), LIMIT);
    assert_eq!(running.code(), Some(0));
    for (place, text) in [("shown", &job.live), ("stored", &job.log)] {
        assert!(text.len() > 5 << 20 && text.contains("the last of them"), "{place}: {} bytes", text.len());
    }
}

#[test]
fn what_a_job_writes_to_its_workers_output_comes_out_of_the_listener_as_its_own() {
    let forge = forge();
    let mut agent = Agent::new();
    agent.set("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1");
    let (_agent, mut running) = agent.listen(&forge, "forged", &["--ephemeral"]);
    forge.wait_job(forge.submit(JobSpec::script("job", "echo forged words >/proc/$PPID/fd/1")), LIMIT);
    assert_eq!(running.code(), Some(0));
    // Behind a prefix of the worker's, if they came between that and its text.
    assert!(running.seen.iter().any(|line| line.ends_with("forged words")), "{:#?}", running.seen);
}

#[test]
fn what_a_steps_files_say_becomes_the_jobs_outputs_and_its_summary() {
    let forge = forge();
    let (_agent, mut running) = Agent::new().listen(&forge, "outputs", &["--ephemeral"]);
    let say = "echo answer=1 >>$GITHUB_OUTPUT; echo answer=42 >>$GITHUB_OUTPUT; echo '**all** is well' >>$GITHUB_STEP_SUMMARY";
    let silent = Step { id: Some("silent".into()), ..step("true", Condition::Success) };
    let steps = vec![Step { id: Some("say".into()), ..step(say, Condition::Success) }, silent];
    let outputs = [("told", "steps.say.outputs.answer"), ("untold", "steps.silent.outputs.answer")];
    let outputs = outputs.map(|(name, of)| (name.to_owned(), of.to_owned())).into();
    let job = forge.wait_job(forge.submit(JobSpec { outputs, ..JobSpec::steps("outputs", steps) }), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert_eq!(job.outputs.into_iter().collect::<Vec<_>>(), [("told".to_owned(), "42".to_owned())]);
    assert_eq!(job.summary, "**all** is well\n");
    assert_eq!(running.code(), Some(0));
}

#[test]
fn an_action_of_a_folder_fails_and_is_said_not_to_be_run() {
    let forge = forge();
    let (_agent, mut running) = Agent::new().listen(&forge, "action", &["--ephemeral"]);
    let action = Step { uses: Some("./action".into()), ..Step::default() };
    let job = forge.wait_job(forge.submit(JobSpec::steps("action", vec![action])), LIMIT);
    assert_eq!(job.result, Some(JobResult::Failed), "{}", job.log);
    assert!(job.log.contains("##[error]./action: a stand-in runs no actions of a repository"), "{}", job.log);
    assert_eq!(running.code(), Some(0));
}
