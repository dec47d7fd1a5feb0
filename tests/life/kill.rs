//! SIGKILL and power cuts: what an incarnation could not clean up, the next one does.

use nix::sys::signal::Signal;
use oscr_sim::forge::Removal;
use oscr_sim::protocol::JobResult;

use serde_json::{Value, json};

use crate::harness::{Container, Forge, LIMIT, WIPED, each};

/// How a container of either forge is made.
const KINDS: [fn(&Forge) -> Container<'_>; 2] = [|forge| Container::new(forge), |forge| Container::azure(forge)];

/// The one summary of the running incarnation.
#[track_caller]
fn summary(container: &Container<'_>) -> Value {
    container.wait_line("\"job summary\"");
    let lines = container.lines_with("\"job summary\"");
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str::<Value>(&lines[0]).expect("JSON")["summary"].clone()
}

/// What was counted of this family, as it is kept for the next incarnation.
#[track_caller]
fn counted(container: &Container<'_>, family: &str) -> Value {
    let bytes = std::fs::read(container.path("var/lib/oscr/metrics.json")).expect("counts");
    serde_json::from_slice::<Value>(&bytes).expect("JSON")[family].clone()
}

/// Kills a container under its job: the runner's id and name.
#[track_caller]
fn killed_under_a_job(forge: &Forge, container: &mut Container<'_>) -> (u64, String) {
    let (_, _gate) = container.start_with_job();
    let runner = forge.runners().remove(0);
    container.signal(Signal::SIGKILL);
    container.exit_code();
    (runner.id, runner.name)
}

#[test]
fn a_job_that_the_forge_believes_in_after_a_kill_is_told_of_as_lost() {
    each(&KINDS, |new| {
        let forge = Forge::start();
        forge.order(|orders| orders.ephemeral_removal = Removal::Never);
        let mut container = new(&forge);
        let (id, name) = killed_under_a_job(&forge, &mut container);
        let open = container.state()["job"].clone();
        assert_eq!(open["runner"], name.as_str(), "{open}");
        container.start();
        let summary = summary(&container);
        for (field, expected) in [
            ("result", json!("lost")),
            ("runner", json!(name)),
            ("began", open["began"].clone()),
            ("job", open["job"]["name"].clone()),
            ("repository", open["job"]["repository"].clone()),
            ("idle", Value::Null),
            ("ran", Value::Null),
            ("wiped", Value::Null),
        ] {
            assert_eq!(summary[field], expected, "{field}: {summary}");
        }
        assert!(summary["job"].as_str().is_some_and(|job| !job.is_empty()), "{summary}");
        container.wait_phase("listening");
        assert_eq!(container.state()["job"], Value::Null);
        assert_eq!(counted(&container, "jobs"), json!({ "lost": 1 }));
        assert!(forge.let_go(id));
        // Told once.
        container.signal(Signal::SIGKILL);
        container.restart();
        container.wait_line("registered with");
        assert!(container.lines_with("\"job summary\"").is_empty());
    });
}

#[test]
fn what_its_hook_said_of_a_job_is_known_after_a_kill() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    killed_under_a_job(&forge, &mut container);
    container.start();
    let summary = summary(&container);
    assert_eq!(summary["repository"], "o/r", "{summary}");
    assert!(summary["run_url"].as_str().is_some_and(|page| page.contains("/actions/runs/")), "{summary}");
}

#[test]
fn a_job_of_which_the_forge_knows_nothing_more_after_a_kill_is_told_of_as_unknown() {
    each(&KINDS, |new| {
        let forge = Forge::start();
        let mut container = new(&forge);
        let (id, name) = killed_under_a_job(&forge, &mut container);
        assert!(forge.let_go(id));
        container.start();
        let summary = summary(&container);
        assert_eq!((&summary["result"], &summary["runner"]), (&json!("unknown"), &json!(name)), "{summary}");
        container.wait_phase("listening");
        assert_eq!(counted(&container, "jobs"), json!({ "unknown": 1 }));
    });
}

#[test]
fn a_persistent_runners_job_is_told_of_after_a_kill_too() {
    each(&KINDS, |new| {
        let forge = Forge::start();
        let mut container = new(&forge);
        container.set("RUNNER_PERSISTENT", "true");
        let (id, name) = killed_under_a_job(&forge, &mut container);
        container.start();
        let summary = summary(&container);
        assert_eq!((&summary["result"], &summary["runner"]), (&json!("lost"), &json!(name)), "{summary}");
        assert!(forge.let_go(id));
        forge.listening();
        // It was taken up, and not made.
        assert_eq!(counted(&container, "registrations"), json!({ "made": 1 }));
    });
}

#[test]
fn a_job_that_nobody_can_ask_about_after_a_kill_is_told_of_as_unknown() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.unset("GITHUB_PAT_FILE");
    container.set("RUNNER_TOKEN", &forge.registration_token());
    killed_under_a_job(&forge, &mut container);
    container.start();
    assert_eq!(summary(&container)["result"], "unknown");
}

#[test]
fn a_job_is_told_of_once_the_forge_can_be_asked_or_at_the_end() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    killed_under_a_job(&forge, &mut container);
    forge.fault("/runners/", oscr_sim::forge::Fault { status: Some(503), ..Default::default() });
    container.start();
    container.wait_line("trying again in");
    assert!(container.lines_with("\"job summary\"").is_empty(), "nobody has answered");
    // Killed again before an answer came.
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("trying again in");
    container.signal(Signal::SIGTERM);
    container.exit_code();
    assert_eq!(summary(&container)["result"], "unknown");
    assert_eq!(container.state()["job"], Value::Null);
    assert_eq!(counted(&container, "jobs"), json!({ "unknown": 1 }));
}

#[test]
fn registrations_are_counted_over_kills() {
    each(&KINDS, |new| {
        let forge = Forge::start();
        let mut container = new(&forge);
        container.start();
        for removed in 1..=2 {
            let (last, _) = forge.listening();
            container.signal(Signal::SIGKILL);
            container.restart();
            forge.another(last);
            let expected = json!({ "made": removed + 1, "removed": removed });
            assert_eq!(counted(&container, "registrations"), expected);
        }
    });
}

#[test]
fn a_runner_killed_while_idle_is_removed_before_another_registers() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[]);
    let (first, _) = forge.listening();
    container.signal(Signal::SIGKILL);
    container.restart();
    forge.another(first);
    assert_eq!(forge.calls(), ["POST registration-token 201", "DELETE ID 204", "POST registration-token 201"]);
}

#[test]
fn a_runner_killed_during_a_job_is_removed_once_the_forge_gives_the_job_up() {
    let forge = Forge::start();
    forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    let mut container = Container::new(&forge);
    let gate = container.gate();
    container.start();
    let (first, _) = forge.listening();
    let job = forge.job(&format!("touch leftover; {}", gate.wait()));
    forge.wait_log(job, "at the gate");
    container.signal(Signal::SIGKILL);
    container.restart();
    // The forge believes in the job; a new runner serves meanwhile.
    container.wait_line("still runs a job");
    assert!(forge.let_go(first));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Abandoned));
    let job = forge.job("ls -A; echo looked");
    let job = forge.wait_job(job, LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert_ne!(job.runner_id, Some(first));
    assert!(!job.log.contains("leftover\n"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    for place in WIPED {
        assert!(container.names(place).is_empty(), "{place}");
    }
}

#[test]
fn a_registration_that_was_busy_is_removed_while_the_next_runner_listens() {
    let forge = Forge::start();
    forge.order(|orders| orders.ephemeral_removal = Removal::Never);
    let mut container = Container::new(&forge);
    let (_, _gate) = container.start_with_job();
    let first = forge.runners()[0].id;
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("still runs a job");
    assert!(forge.let_go(first));
    let alone = |seen: &oscr_sim::forge::Snapshot| seen.runners.iter().all(|runner| runner.id != first);
    forge.wait("the dead runner's registration is gone", LIMIT, |seen| !seen.runners.is_empty() && alone(seen));
    assert_eq!(container.status()["phase"], "listening");
}

#[test]
fn a_runner_killed_in_the_moment_it_is_registered_is_removed() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.start();
    let seen = forge.wait("a registration", LIMIT, |seen| !seen.runners.is_empty());
    container.signal(Signal::SIGKILL);
    container.restart();
    let first = seen.runners[0].id;
    forge.another(first);
}

#[test]
fn a_damaged_state_file_is_put_aside_and_said_and_the_runner_works() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    crate::harness::write(&container.path("var/lib/oscr/state.json"), "{\"vers", 0o600);
    container.start();
    container.wait_line("is damaged");
    forge.listening();
    assert!(container.path("var/lib/oscr/state.damaged.json").exists());
}

#[test]
fn a_leftover_that_its_scope_refuses_does_not_keep_the_runner_from_working() {
    let forge = Forge::start();
    forge.order(|orders| {
        orders.deny.insert("orgs/former".to_owned(), 403);
    });
    let mut container = Container::new(&forge);
    let foreign = format!(
        r#"{{"version":1,"current":{{"id":7,"name":"old","scope":"{}/api/v3/orgs/former/actions"}},"leftovers":[],"failures":0}}"#,
        forge.url()
    );
    crate::harness::write(&container.path("var/lib/oscr/state.json"), &foreign, 0o600);
    container.start();
    container.wait_line("which refuses us");
    forge.listening();
    let state = container.state();
    assert_eq!(state["leftovers"], serde_json::json!([]), "{state}");
}

#[test]
fn a_leftover_at_another_server_is_not_asked_for_with_the_credential_of_this_one_and_not_forgotten() {
    let (forge, former) = (Forge::start(), Forge::start());
    let mut container = Container::new(&forge);
    let at = |forge: &Forge| {
        format!(
            r#"{{"version":1,"current":{{"id":7,"name":"old","scope":"{}/api/v3/orgs/o/actions"}},"leftovers":[],"failures":0}}"#,
            forge.url()
        )
    };
    crate::harness::write(&container.path("var/lib/oscr/state.json"), &at(&former), 0o600);
    container.start();
    let said = container.wait_line("another server");
    assert!(said.contains("old may still be registered at") && said.contains(&former.url()), "{said}");
    forge.listening();
    assert_eq!(former.requests().len(), 0);
    assert_eq!(container.state()["leftovers"][0]["name"], "old");
}
