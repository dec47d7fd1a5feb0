//! One exact name (`OSCR_ALLOW_FIXED_NAME`): whose it is, and who gives way.

use oscr_sim::agent::Kind;
use oscr_sim::forge::Snapshot;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each};

/// A forge's kind, and how its agents are registered.
const WAYS: [(Kind, &str); 3] = [(Kind::GitHub, "token"), (Kind::GitHub, "jit"), (Kind::Azure, "token")];

fn container<'f>((kind, how): (Kind, &str), forge: &'f Forge, name: &str) -> Container<'f> {
    let mut container = match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    };
    if kind == Kind::GitHub {
        container.set("OSCR_REGISTRATION", how);
    }
    container.set_all(&[("RUNNER_NAME", name), ("OSCR_ALLOW_FIXED_NAME", "true")]);
    container
}

fn deletes(forge: &Forge) -> usize {
    forge.api_requests().iter().filter(|request| request.method == "DELETE").count()
}

#[test]
fn a_living_agent_keeps_its_name_and_whoever_comes_later_is_denied_it() {
    each(&WAYS, |way| {
        let forge = Forge::start();
        let mut first = container(*way, &forge, "the-name");
        first.start();
        let (id, _) = forge.listening();
        let mut second = container(*way, &forge, "the-name");
        second.start();
        let said = second.wait_line("the name the-name is taken by another agent that lives");
        assert!(said.contains(&format!("(id {id})")) && said.contains("unset RUNNER_NAME"), "{said}");
        assert_eq!(second.wait_phase("denied")["phase"], "denied");
        second.stop();
        assert_eq!(deletes(&forge), 0, "{:?}", forge.api_requests());
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).runner_id, Some(id));
        assert_eq!(first.exit_code(), 0);
    });
}

#[test]
fn an_agent_that_nobody_sees_gives_its_name_up_and_the_log_says_so() {
    each(&WAYS, |way| {
        let forge = Forge::start();
        let mut first = container(*way, &forge, "the-name");
        first.start();
        let (id, _) = forge.listening();
        // What it left is in a state that nobody has any more.
        first.signal(nix::sys::signal::Signal::SIGKILL);
        first.exit_code();
        forge.let_go(id);
        let offline = move |seen: &Snapshot| !seen.runners.iter().any(|r| r.id == id && r.status == "online");
        forge.wait("it is offline", LIMIT, offline);
        let mut second = container(*way, &forge, "the-name");
        second.start();
        second.wait_line(&format!("removing the-name (id {id}): the forge does not see it"));
        let job = forge.wait_job(forge.job("true"), LIMIT);
        assert_eq!(job.result, Some(JobResult::Succeeded));
        assert_ne!(job.runner_id, Some(id));
        assert_eq!(second.exit_code(), 0);
    });
}
