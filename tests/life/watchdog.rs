//! Listeners that look alive and can get no job, and those that must end although they are well.

use oscr_sim::agent::Kind;
use oscr_sim::forge::{Fault, JobSpec, LostAssignments, Match};
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each, until};

fn answer(status: u16, times: Option<u32>, body: Option<serde_json::Value>) -> Fault {
    Fault { status: Some(status), times, body, ..Fault::default() }
}

/// The next runner takes a job, which shows that all is well again.
#[track_caller]
fn the_next_one_works(forge: &Forge, container: &mut Container<'_>, than: u64) {
    forge.another(than);
    let job = forge.wait_job(forge.job("true"), LIMIT);
    assert_eq!(job.result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
    forge.wait_nobody();
}

#[test]
fn a_listener_that_passed_its_one_job_over_is_replaced_at_once() {
    each(&[(404, true), (409, true), (422, true)], |(status, consume)| {
        let forge = Forge::start();
        forge.order(|orders| {
            orders.lost_assignments = Some(LostAssignments { times: 1, status: *status, consume: *consume });
        });
        let mut container = Container::listening(&forge, &[]);
        let lost = forge.job("true");
        let line = container.wait_line("replacing the listener");
        assert!(line.contains("passed its one job over"), "{line}");
        // The job was never taken; it waits, or is the next one's.
        assert_eq!(forge.wait_job(lost, LIMIT).result, Some(JobResult::Succeeded), "after {status}");
        assert_eq!(container.exit_code(), 0);
        container.assert_state_empty();
    });
}

#[test]
fn a_registration_that_vanished_at_the_forge_is_noticed_without_the_listener() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("OSCR_WATCH_INTERVAL", "1")]);
    let (first, _) = forge.listening();
    // The listener's polls are answered as if nothing had happened; only the forge's own list knows.
    let asked = Match { method: Some("GET".to_owned()), ..Match::default() };
    forge.fault(&format!("/actions/runners/{first}"), Fault { matching: asked, ..answer(404, None, None) });
    let line = container.wait_line("replacing the listener");
    assert!(line.contains("does not know the registration"), "{line}");
    forge.clear_faults();
    the_next_one_works(&forge, &mut container, first);
}

/// The agent's own requests to a path are refused, so often.
fn refused(forge: &Forge, path: &str, status: u16, message: &str, times: Option<u32>) {
    let matching = Match { path_contains: Some(path.to_owned()), agent: Some(true), ..Match::default() };
    let body = Some(serde_json::json!({"message": message}));
    forge.add_fault(Fault { matching, status: Some(status), body, times, ..Fault::default() });
}

#[test]
fn a_listener_that_gets_no_session_is_asked_about_and_replaced_once_its_registration_is_gone() {
    let forge = Forge::start();
    refused(&forge, "/_broker/session", 404, "Runner not found", None);
    let mut container = Container::new(&forge);
    container.set("OSCR_WATCH_INTERVAL", "1");
    container.start();
    container.wait_line("connect error");
    let first = forge.runners()[0].id;
    // Somebody who looks sees why it does not listen.
    let mut status = container.status();
    until("the status tells it", || {
        status = container.status();
        status["connection"] == "lost"
    });
    let error = status["last_error"].to_string();
    assert!(error.contains("cannot listen yet") && error.contains("connect error: Failed to create"), "{status}");
    assert_eq!((&status["phase"], &status["healthy"]), (&"registering".into(), &true.into()), "{status}");
    // It is there, and not online: no reason to give it up yet.
    forge.wait_requests(&format!("/actions/runners/{first}"), 2);
    assert!(container.lines_with("replacing").is_empty());
    // For whoever asks about it: the listener would be refused its token, and end by itself.
    let asked = Match { method: Some("GET".to_owned()), ..Match::default() };
    forge.fault(&format!("/actions/runners/{first}"), Fault { matching: asked, ..answer(404, None, None) });
    let line = container.wait_line("replacing the listener");
    assert!(line.contains("does not know the registration"), "{line}");
    forge.clear_faults();
    the_next_one_works(&forge, &mut container, first);
}

#[test]
fn one_answer_that_a_registration_was_not_found_replaces_no_listener_that_recovers() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    refused(&forge, "/_oauth/token", 400, "Registration 1 was not found.", Some(1));
    container.start();
    container.wait_line("was not found.");
    let (id, _) = forge.listening();
    assert_eq!(forge.wait_job(forge.job("true"), LIMIT).runner_id, Some(id));
    assert_eq!(container.exit_code(), 0);
    assert!(container.lines_with("replacing").is_empty());
}

#[test]
fn a_runner_that_the_forge_calls_offline_is_replaced_and_one_that_it_cannot_be_asked_about_is_not() {
    let forge = Forge::start();
    let settings = [("OSCR_WATCH_INTERVAL", "1"), ("OSCR_OFFLINE_TIMEOUT", "2")];
    let mut container = Container::listening(&forge, &settings);
    let (first, name) = forge.listening();
    let path = format!("/actions/runners/{first}");
    forge.fault(&path, answer(502, Some(2), None));
    forge.wait_requests(&path, 3);
    assert!(container.lines_with("replacing").is_empty());
    let body =
        serde_json::json!({"id": first, "name": name, "os": "linux", "status": "offline", "busy": false, "labels": []});
    forge.fault(&path, answer(200, Some(4), Some(body)));
    let line = container.wait_line("replacing the listener");
    assert!(line.contains("offline for 2s"), "{line}");
    the_next_one_works(&forge, &mut container, first);
}

#[test]
fn an_idle_runner_is_asked_about_seldom_and_so_is_one_whose_job_runs_which_need_not_be_listed() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let mut gate = container.gate();
    container.set_all(&[("OSCR_WATCH_INTERVAL", "1"), ("OSCR_JOB_OFFLINE_TIMEOUT", "1")]);
    container.start();
    let (id, _) = forge.listening();
    forge.wait_requests(&format!("/runners/{id}"), 2);
    // The registration is consumed, and the forge says so; but a worker lives for several intervals.
    forge.fault(&format!("/runners/{id}"), answer(404, None, None));
    let job = forge.job(&gate.wait());
    forge.wait_log(job, "at the gate");
    let before = forge.api_requests().len();
    forge.wait_requests(&format!("/runners/{id}"), before + 3);
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(container.exit_code(), 0);
    let asked = forge.calls().split_off(before);
    assert!(asked.iter().filter(|call| *call == "GET ID 404").count() >= 2, "{asked:?}");
}

#[test]
fn a_job_that_the_forge_has_given_up_is_ended_and_any_other_answer_starts_the_clock_anew() {
    each(&[Kind::GitHub, Kind::Azure], |kind| {
        let forge = Forge::start();
        let mut container = match kind {
            Kind::GitHub => Container::new(&forge),
            Kind::Azure => Container::azure(&forge),
        };
        container.set_all(&[("OSCR_WATCH_INTERVAL", "1"), ("OSCR_JOB_OFFLINE_TIMEOUT", "3")]);
        let (_, _gate) = container.start_with_job();
        let runner = forge.runners().remove(0);
        let path = match kind {
            Kind::GitHub => format!("/actions/runners/{}", runner.id),
            Kind::Azure => format!("/agents/{}", runner.id),
        };
        let seen = |status: &str, busy: bool| {
            let (id, name) = (runner.id, &runner.name);
            let mut seen = serde_json::json!({"id": id, "name": name, "os": "linux", "status": status, "busy": busy, "labels": []});
            if *kind == Kind::Azure && busy {
                seen["assignedRequest"] = serde_json::json!({"requestId": 1});
            }
            let asked = Match { method: Some("GET".to_owned()), ..Match::default() };
            Fault { matching: asked, ..answer(200, Some(1), Some(seen)) }
        };
        // Each fault is for one question, in this order.
        for _ in 0..3 {
            for _ in 0..3 {
                forge.fault(&path, seen("offline", false));
            }
            forge.fault(&path, seen("offline", true));
        }
        for _ in 0..40 {
            forge.fault(&path, seen("offline", false));
        }
        let line = container.wait_line("offline and not busy");
        assert!(line.contains("for 3s") && line.contains("OSCR_JOB_OFFLINE_TIMEOUT"), "{line}");
        let asked = forge.api_requests().into_iter().filter(|r| r.method == "GET" && r.path.contains(&path)).count();
        assert!(asked > 12, "given up after {asked} questions");
        container.exit_code();
        let summary = container.wait_line("job summary");
        assert!(summary.contains(r#""ended_by":"forge""#), "{summary}");
    });
}

#[test]
fn a_forge_whose_api_is_away_for_ten_scaled_minutes_ends_no_job() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    // A minute is a second.
    container.set_all(&[("OSCR_WATCH_INTERVAL", "1"), ("OSCR_JOB_OFFLINE_TIMEOUT", "3")]);
    let (job, mut gate) = container.start_with_job();
    let path = format!("/actions/runners/{}", forge.runners()[0].id);
    forge.fault(&path, answer(503, None, None));
    let before = forge.api_requests().len();
    forge.wait_requests(&path, before + 10);
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    forge.clear_faults();
    assert_eq!(container.exit_code(), 0);
}

#[test]
fn a_job_without_a_worker_is_given_up() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    // It takes the job and never starts a worker.
    container.replace_listener(
        r#"if [ "$1" = run ] && [ ! -e /tmp/once.$$ ]; then echo '2026-01-01 00:00:00Z: Listening for Jobs'; echo '2026-01-01 00:00:01Z: Running job: ghost'; trap 'exit 0' INT; while :; do sleep 0.1; done; fi"#,
    );
    container.set("OSCR_WORKER_TIMEOUT", "1");
    container.start();
    let line = container.wait_line("replacing the listener");
    assert!(line.contains("no worker"), "{line}");
    container.wait_line("trying again in");
    assert_eq!(forge.runners().len(), 0);
    assert_eq!(container.status()["phase"], "backing-off");
}

#[test]
fn an_idle_runner_goes_after_its_time_and_leaves_nothing() {
    let forge = Forge::start();
    let mut container = Container::listening(&forge, &[("OSCR_MAX_IDLE", "1")]);
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.runners().len(), 0);
    container.assert_state_empty();
    assert!(!container.lines_with("OSCR_MAX_IDLE").is_empty());
}

#[test]
fn an_idle_runner_whose_time_is_over_keeps_the_job_that_just_came() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let mut gate = container.gate();
    container.set("OSCR_MAX_IDLE", "1");
    forge.order(|orders| orders.cross_deletes = 1);
    container.start();
    let (first, _) = forge.listening();
    let job = forge.submit(JobSpec::script("crossing", &gate.wait()));
    forge.wait_log(job, "at the gate");
    gate.open();
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded), "of runner {first}");
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}

#[test]
fn a_job_that_is_over_its_time_is_cancelled() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_JOB_MAX", "1");
    let (job, _gate) = container.start_with_job();
    container.wait_line("longer than OSCR_JOB_MAX");
    let job = forge.wait_job(job, LIMIT);
    assert_ne!(job.result, Some(JobResult::Succeeded));
    assert!(job.log.contains("shutdown signal"), "{}", job.log);
    assert_eq!(container.exit_code(), 0);
    container.assert_state_empty();
}
