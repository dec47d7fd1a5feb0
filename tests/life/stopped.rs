//! Jobs that stop what runs them (SIGSTOP): worker and listener are processes of their own user.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oscr_sim::agent::Kind;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each};

const BOTH: [Kind; 2] = [Kind::GitHub, Kind::Azure];

fn container(kind: Kind, forge: &Forge) -> Container<'_> {
    match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    }
}

/// Its listener and its worker.
fn agent(container: &Container<'_>) -> [Pid; 2] {
    let named = |part: &str| {
        let name = |pid: &Pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        container.processes().into_iter().find(|pid| name(pid).trim().ends_with(part)).expect(part)
    };
    [named(".Listener"), named(".Worker")]
}

/// Stops a process as often as it is let go on, until it is gone.
fn stop_again_and_again(process: Pid) {
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
    };
    while !matches!(state(), None | Some('Z' | 'X')) {
        if state() != Some('T') {
            let _ = kill(process, Signal::SIGSTOP);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn worker_and_listener_that_a_job_stops_once_go_on_and_the_job_with_them() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        let (job, mut gate) = container.start_with_job();
        for process in agent(&container) {
            kill(process, Signal::SIGSTOP).expect("it runs");
        }
        container.wait_line("worker was stopped (SIGSTOP): letting it go on");
        container.wait_line("listener was stopped (SIGSTOP): letting it go on");
        gate.open();
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        let summary = container.wait_line("job summary");
        assert!(summary.contains(r#""ended_by":null"#), "{summary}");
    });
}

#[test]
fn a_job_that_stops_its_worker_again_is_ended_and_its_listener_tells_the_forge() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        let (job, _gate) = container.start_with_job();
        let [_, worker] = agent(&container);
        std::thread::scope(|scope| {
            scope.spawn(|| stop_again_and_again(worker));
            container.wait_line("stopped again within 1m");
        });
        assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Failed));
        assert_eq!(container.exit_code(), 0);
        let summary = container.wait_line("job summary");
        assert!(summary.contains(r#""ended_by":"stopped""#), "{summary}");
    });
}

#[test]
fn a_listener_that_is_stopped_again_is_killed_only_once_its_worker_is() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        let (_, _gate) = container.start_with_job();
        let [listener, _] = agent(&container);
        std::thread::scope(|scope| {
            scope.spawn(|| stop_again_and_again(listener));
            container.wait_line("stopped again within 1m");
        });
        // It may have told the job's end before it was stopped again, and then that stands.
        let code = container.exit_code();
        assert!([0, 75].contains(&code), "{code}");
        // It may also have ended in the moment in which it could go on.
        let lines = container.lines();
        let at = |part: &str| lines.iter().position(|line| line.contains(part));
        assert!(at("no worker is left: killing it").is_none_or(|killed| at("worker is gone") < Some(killed)));
    });
}
