//! Which jobs run: judged before their first step, told in their log, and stopped so that not even `always()` steps run.

use nix::sys::signal::Signal;
use oscr_sim::forge::{Job, JobSpec};
use oscr_sim::protocol::{Condition, JobResult, Step};
use serde_json::{Value, json};

use crate::harness::{Container, Forge, LIMIT, each};

fn pull(head: Value) -> Value {
    json!({
        "number": 7,
        "repository": { "full_name": "o/r" },
        "pull_request": { "number": 7, "head": { "repo": head }, "base": { "repo": { "full_name": "o/r" } } },
    })
}

fn fork() -> Value {
    pull(json!({ "full_name": "evil/r", "fork": true }))
}

/// A job for this event, with one step for each condition under which a step can run.
fn job(event: &str, payload: Value) -> JobSpec {
    let step = |condition, run: &str| Step { run: run.to_owned(), condition, ..Step::default() };
    let steps = vec![
        step(Condition::Success, "echo \"step-$((1))\""),
        step(Condition::Failure, "echo \"step-$((2))\""),
        step(Condition::Always, "echo \"step-$((3))\""),
        step(Condition::Cancelled, "echo \"step-$((4))\""),
    ];
    JobSpec { event: Some(event.to_owned()), payload, ..JobSpec::steps("job", steps) }
}

type Settings = &'static [(&'static str, &'static str)];

/// Runs the job on a runner with these settings, and gives what became of it.
fn run(settings: Settings, job: JobSpec) -> Job {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, settings);
    let job = forge.wait_job(forge.submit(job), LIMIT);
    assert_eq!(container.exit_code(), 0, "{}", job.log);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    let denied = container.lines_with("the job is not run: ").len();
    assert_eq!(denied, usize::from(job.log.contains("this job is not run: ")), "{:#?}", container.lines());
    job
}

#[test]
fn a_denied_job_says_why_and_none_of_its_steps_runs() {
    let main = || json!({ "ref": "refs/heads/main" });
    let cases: [(Settings, &str, Value, &str); 9] = [
        (&[], "pull_request", fork(), "a pull request from the fork evil/r"),
        (&[("OSCR_ALLOW_FORKS", "false")], "pull_request_target", fork(), "OSCR_ALLOW_FORKS"),
        (&[], "pull_request", pull(Value::Null), "a fork that has been deleted"),
        (&[], "pull_request", json!({}), "cannot be judged"),
        (
            &[],
            "issue_comment",
            json!({ "issue": { "pull_request": {} }, "comment": { "author_association": "NONE" } }),
            "by somebody from outside",
        ),
        (&[("OSCR_ALLOW_REPOS", "o/other,p/*")], "push", main(), "OSCR_ALLOW_REPOS"),
        (&[("OSCR_ALLOW_EVENTS", "schedule")], "push", main(), "OSCR_ALLOW_EVENTS"),
        (&[("OSCR_ALLOW_REFS", "release/*")], "push", main(), "OSCR_ALLOW_REFS"),
        (&[("OSCR_ALLOW_REFS", "main"), ("OSCR_ALLOW_FORKS", "true")], "pull_request", fork(), "refs/pull/7/merge"),
    ];
    each(&cases, |(settings, event, payload, said)| {
        let Job { result, log, annotations, .. } = run(settings, job(event, payload.clone()));
        assert_eq!(result, Some(JobResult::Failed), "{log}");
        assert!(log.contains("this job is not run: ") && log.contains(said), "{said}: {log}");
        let why: Vec<&String> = annotations.iter().filter(|text| text.starts_with("this job is not run: ")).collect();
        assert!(why.len() == 1 && why[0].contains(said), "{said}: {annotations:?}");
        for step in ["step-1", "step-2", "step-3", "step-4"] {
            assert!(!log.contains(step), "{step}: {log}");
        }
    });
}

#[test]
fn an_allowed_job_runs_whatever_its_event() {
    let own = || pull(json!({ "full_name": "O/R" }));
    let cases: [(Settings, &str, Value); 6] = [
        (&[], "push", Value::Null),
        (&[], "pull_request", own()),
        (&[("OSCR_ALLOW_FORKS", "true")], "pull_request", fork()),
        (&[("OSCR_ALLOW_FORKS", "true")], "pull_request", json!("of any form")),
        (&[("OSCR_ALLOW_REPOS", "O/*"), ("OSCR_ALLOW_REFS", "refs/pull/*/merge")], "pull_request", own()),
        // As much as an agent's pipe does not hold, and more than a request may have.
        (&[], "push", json!({ "commits": ["x".repeat(300_000)] })),
    ];
    each(&cases, |(settings, event, payload)| {
        let Job { result, log, annotations, .. } = run(settings, job(event, payload.clone()));
        assert_eq!(result, Some(JobResult::Succeeded), "{log}");
        assert_eq!(annotations, Vec::<String>::new());
        for (step, ran) in [("step-1", true), ("step-2", false), ("step-3", true), ("step-4", false)] {
            assert_eq!(log.contains(step), ran, "{step}: {log}");
        }
    });
}

#[test]
fn a_step_that_calls_the_hook_again_changes_nothing() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("OSCR_ALLOW_EVENTS", "push")]);
    let entry = container.text("usr/local/bin/oscr-entry");
    let hook = format!("hook --hooks /none --socket {} job-started", container.text("run/oscr/control.sock"));
    let attempt = forge.job(&format!(
        "echo '{}' >event.json\n\
         GITHUB_EVENT_NAME=pull_request GITHUB_EVENT_PATH=$PWD/event.json {entry} {hook}\n\
         GITHUB_EVENT_PATH=/dev/zero timeout 60 {entry} {hook}\n\
         echo still $((1)) here",
        fork()
    ));
    let job = forge.wait_job(attempt, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded), "{}", job.log);
    assert!(job.log.contains("still 1 here"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn somebody_elses_hook_is_no_verdict() {
    let forge = Forge::start();
    let container = Container::listening(&forge, &[]);
    // Before any job: as a process that has escaped every clean-up would try to be judged first.
    let socket = container.text("run/oscr/control.sock");
    let (code, said, _) = container.ask(&["hook", "--hooks", "/none", "--socket", &socket, "job-started"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("this is not the hook of a job of this runner"), "{said}");
    let job = forge.wait_job(forge.submit(job("pull_request", fork())), LIMIT);
    assert!(job.log.contains("this job is not run: "), "{}", job.log);
    assert!(!job.log.contains("step-3"), "{}", job.log);
}

#[test]
fn a_persistent_runner_listens_again_after_a_denied_job() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("RUNNER_PERSISTENT", "true")]);
    let denied = forge.wait_job(forge.submit(job("pull_request", fork())), LIMIT);
    assert!(!denied.log.contains("step-3"), "{}", denied.log);
    let allowed = forge.wait_job(forge.submit(job("push", Value::Null)), LIMIT);
    assert_eq!(allowed.result, Some(JobResult::Succeeded), "{}", allowed.log);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_policy_that_could_not_be_enforced_is_refused() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set_all(&[
        ("CI_PROVIDER", "azure-devops"),
        ("ADO_ORG_URL", &format!("{}/org", forge.url())),
        ("ADO_PAT", "a-token-of-somebody"),
        ("OSCR_ALLOW_REPOS", "o/*"),
    ]);
    let (code, _, said) = container.ask(&["check"]);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("- OSCR_ALLOW_*: ") && said.contains("1 problem"), "{said}");
}
