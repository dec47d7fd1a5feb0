//! Docker for jobs: waited for before a runner registers, and swept of what its jobs left, by the agent's label alone.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use oscr::docker::Label;
use oscr_sim::protocol::JobResult;
use serde_json::json;

use crate::engine::Engine;
use crate::harness::{Container, Forge, LIMIT, until, write, write_program};

/// The label of the agent that runs now, as PID 1 remembers it before a job's first step.
fn label(container: &Container) -> String {
    let state = container.state();
    let labels = state["docker_labels"].as_array().expect("a list").clone();
    let [label] = labels.as_slice() else { panic!("one label: {state}") };
    label.as_str().expect("a text").to_owned()
}

/// The name of an anonymous volume.
fn anonymous(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A container whose jobs have this engine.
fn with_engine(container: &Container) -> Engine {
    Engine::at(&container.path("var/run/docker.sock"))
}

#[test]
fn what_a_killed_incarnation_left_in_docker_is_removed_by_the_next() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let engine = with_engine(&container);
    let (_, _gate) = container.start_with_job();
    let label = label(&container);
    let root = container.path("runner").join(&container.names("runner")[0]);
    let text = fs::read_to_string(root.join(".runner")).expect("a configuration");
    assert_eq!(Label::of(&text).to_string(), label);
    engine.make("of-the-job", &label, &[]);
    engine.make("of-another", "ffffff", &[]);
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("removed what a job left in Docker");
    container.wait_line("registered with");
    assert_eq!(engine.containers(), ["of-another"]);
}

#[test]
fn no_runner_registers_before_docker_answers_and_tools_find_it_in_the_usual_place() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let socket = container.path("elsewhere/docker.sock");
    container.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    container.set("OSCR_DOCKER_WAIT", "1");
    container.start();
    container.wait_line("no job is taken without Docker");
    assert_eq!(forge.requests().len(), 0);
    assert_eq!(fs::read_link(container.path("var/run/docker.sock")).expect("a link"), socket);
    Engine::at(&socket);
    container.wait_line("registered with");
}

/// What the job's agent and others make, and what of it stays when the agent removes its containers as agents do: without volumes.
fn anonymous_volumes_go(mut container: Container) {
    let engine = with_engine(&container);
    let (_, mut gate) = container.start_with_job();
    let label = label(&container);
    until("the job's containers are watched", || engine.is_watched(&label));
    let [first, second, adopted, others, named] = ['a', 'b', 'c', 'd', 'e'].map(anonymous);
    engine.make("theirs", "ffffff", &[&others, "data"]);
    engine.make("job", &label, &[&first, &adopted]);
    engine.make_with("service", &label, &[&second, &others, &named, "data"], &[&others, &named, "data"]);
    until("the volumes are in the state", || container.state()["docker_volumes"] == json!([first, adopted, second]));
    engine.make_with("made-by-the-job", "", &[&adopted], &[&adopted]);
    engine.remove("job");
    engine.remove("service");
    gate.open();
    assert_eq!(container.exit_code(), 0);
    container.wait_line("removed what a job left in Docker");
    assert_eq!(engine.volumes(), [&*adopted, "data", &others, &named], "{:?}", engine.asked());
    assert_eq!(engine.containers(), ["made-by-the-job", "theirs"]);
    assert_eq!((&container.state()["docker_volumes"], &container.state()["docker_labels"]), (&json!(null), &json!([])));
    let removals = engine.asked().into_iter().filter(|asked| asked.starts_with("DELETE /volumes"));
    assert!(removals.clone().count() > 0 && removals.clone().all(|asked| !asked.contains("force")));
}

#[test]
fn anonymous_volumes_of_a_jobs_containers_are_removed_and_nobody_elses() {
    let forge = Forge::start();
    anonymous_volumes_go(Container::new(&forge));
}

#[test]
fn anonymous_volumes_of_a_job_of_azure_are_removed_too() {
    let forge = Forge::start();
    anonymous_volumes_go(Container::azure(&forge));
}

#[test]
fn anonymous_volumes_that_a_killed_incarnation_noted_are_removed_by_the_next() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let engine = with_engine(&container);
    let (_, _gate) = container.start_with_job();
    let label = label(&container);
    until("the job's containers are watched", || engine.is_watched(&label));
    engine.make("job", &label, &[&anonymous('a')]);
    until("the volume is in the state", || container.state()["docker_volumes"] == json!([anonymous('a')]));
    container.signal(Signal::SIGKILL);
    engine.remove("job");
    container.restart();
    container.wait_line("registered with");
    assert_eq!(engine.volumes(), Vec::<String>::new(), "{:?}", engine.asked());
}

#[test]
fn containers_that_were_made_while_docker_was_away_are_looked_at_when_it_is_back() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let engine = with_engine(&container);
    let (_, mut gate) = container.start_with_job();
    let label = label(&container);
    until("the job's containers are watched", || engine.is_watched(&label));
    engine.hang_up();
    engine.make("job", &label, &[&anonymous('a')]);
    until("the volume is in the state", || container.state()["docker_volumes"] == json!([anonymous('a')]));
    engine.remove("job");
    gate.open();
    assert_eq!(container.exit_code(), 0);
    assert_eq!(engine.volumes(), Vec::<String>::new());
}

#[test]
fn a_docker_that_tells_nothing_of_containers_costs_a_line_and_no_job() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let engine = with_engine(&container);
    engine.refuse("GET /events", 403);
    let (job, mut gate) = container.start_with_job();
    container.wait_line("anonymous volumes of this job's containers stay");
    gate.open();
    assert_eq!(container.exit_code(), 0);
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
    let asked = engine.asked();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("GET /events")).count(), 1, "{asked:?}");
}

#[test]
fn what_cannot_be_removed_hinders_nothing_else_and_is_told() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_METRICS_FILE", &container.text("metrics.prom"));
    let engine = with_engine(&container);
    let (_, _gate) = container.start_with_job();
    let label = label(&container);
    engine.make("stuck", &label, &[]);
    engine.make("of-the-job", &label, &[]);
    engine.make("mine", "", &[]);
    // A job's own container, on the job's network.
    engine.network("job-net", &label, &["mine"]);
    engine.network("other-net", "ffffff", &["mine"]);
    engine.refuse("DELETE /containers/stuck", 500);
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("what a job left in Docker is tried again later");
    container.wait_line("registered with");
    assert_eq!(
        (engine.containers(), engine.networks()),
        (vec!["mine".to_owned(), "stuck".to_owned()], vec!["other-net".to_owned()])
    );
    let left = &container.status()["left_in_docker"];
    assert_eq!(left["things"], 1, "{left}");
    assert!(left["why"].as_str().is_some_and(|why| why.contains("500")), "{left}");
    until("the metric says so", || {
        let text = fs::read_to_string(container.path("metrics.prom")).unwrap_or_default();
        text.lines().any(|line| line.starts_with("oscr_docker_left{") && line.ends_with(" 1"))
    });
    assert!(container.state()["docker_labels"].as_array().is_some_and(|labels| labels.contains(&json!(label))));

    // A life later it can be.
    engine.allow();
    container.signal(Signal::SIGKILL);
    container.restart();
    container.wait_line("registered with");
    assert_eq!(engine.containers(), ["mine"]);
    assert_eq!(container.status()["left_in_docker"], json!(null));
}

#[test]
fn a_docker_that_hangs_keeps_the_next_job_waiting_no_longer_than_the_kill_timeout() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    container.set("OSCR_KILL_TIMEOUT", "2");
    let engine = with_engine(&container);
    let (_, _gate) = container.start_with_job();
    let mut labels = vec![label(&container)];
    container.signal(Signal::SIGKILL);
    container.exit_code();
    engine.fall_silent();
    // Each of many labels is no reason to wait anew.
    let mut state = container.state();
    labels.extend(["aaaaaa", "bbbbbb", "cccccc"].map(str::to_owned));
    state["docker_labels"] = json!(labels);
    write(&container.path("var/lib/oscr/state.json"), &state.to_string(), 0o600);
    let asked = engine.asked().len();
    container.restart();
    container.wait_line("what a job left in Docker is tried again later: it takes too long");
    container.wait_line("registered with");
    let asked = engine.asked().split_off(asked);
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("GET /containers/json")).count(), 1, "{asked:?}");
    assert_eq!(container.status()["left_in_docker"]["things"], 1);
    let kept = container.state()["docker_labels"].clone();
    assert!(labels.iter().all(|label| kept.as_array().is_some_and(|kept| kept.contains(&json!(label)))), "{kept}");
}

/// What `doctor` says, and what it leaves.
fn doctor(container: &Container) -> String {
    let (_, said, _) = container.ask(&["doctor"]);
    said
}

#[test]
fn a_start_doctor_and_check_say_what_containers_of_jobs_would_miss() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let engine = with_engine(&container);
    engine.hide(&container.path("work"));
    engine.hide(Path::new("/var/run/docker.sock"));
    write(&container.path("proc/1/cgroup"), "12:pids:/docker/0123\n1:name=systemd:/docker/0123\n", 0o444);
    container.start();
    forge.listening();
    let unseen = format!("Docker does not see what is in {}: ", container.text("work"));
    let words = [unseen.as_str(), "cgroup: private", "Docker makes a directory there"];
    let said = doctor(&container);
    for word in words {
        container.wait_line(word);
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(container.names("work").len(), 0, "what was made to be seen is gone");
    let (_, said, _) = container.ask(&["check"]);
    assert!(said.contains("cgroup: private"), "{said}");

    // With all of it as it should be there is nothing to say.
    let mut container = Container::new(&forge);
    with_engine(&container);
    write(&container.path("proc/1/cgroup"), "12:pids:/\n0::/\n", 0o444);
    container.start();
    container.wait_line("registered with");
    let log = container.lines().join("\n");
    let said = doctor(&container);
    for word in ["Docker does not see", "cgroup: private", "Docker makes a directory there"] {
        assert!(!log.contains(word) && !said.contains(word), "{word}: {log}{said}");
    }
    assert!(said.contains("it sees the files of jobs by the same paths"), "{said}");
}

#[test]
fn what_docker_does_not_say_is_not_guessed() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    let engine = with_engine(&container);
    engine.refuse("POST /containers/create", 403);
    container.start();
    container.wait_line("registered with");
    let log = container.lines().join("\n");
    let said = doctor(&container);
    assert!(said.contains("whether it sees the files of jobs cannot be told"), "{said}");
    assert!(!log.contains("does not see") && !said.contains("does not see"), "{log}{said}");
}

#[test]
fn a_client_that_is_too_old_for_docker_is_found() {
    let forge = Forge::start();
    let mut container = Container::new(&forge);
    with_engine(&container);
    write_program(&container.path("programs/docker"), "#!/bin/sh\n[ \"$1\" = --host ] && echo 1.41; exit 1\n");
    let path = std::env::var("PATH").unwrap_or_default();
    container.set("PATH", &format!("{}:{path}", container.text("programs")));
    let said = doctor(&container);
    assert!(said.contains("the client here speaks API 1.41, and this Docker takes none below 1.44"), "{said}");
}
