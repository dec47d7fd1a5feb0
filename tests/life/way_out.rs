//! A network that has no way out any more, as that of a container has which shares it with one that was started anew.

use oscr_sim::agent::Kind;
use oscr_sim::protocol::JobResult;

use crate::harness::{Container, Forge, LIMIT, each, until};
use crate::own_network::OwnNetwork;

const BOTH: [Kind; 2] = [Kind::GitHub, Kind::Azure];
/// What the log says when it leaves.
const LEAVES: &str = "network has no way out any more: leaving (75)";

fn container(kind: Kind, forge: &Forge) -> Container<'_> {
    match kind {
        Kind::GitHub => Container::new(forge),
        Kind::Azure => Container::azure(forge),
    }
}

#[test]
fn an_idle_runner_whose_network_has_no_way_out_leaves_and_is_back_after_a_restart() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        let mut network = OwnNetwork::of(&mut container);
        container.start();
        let relay = network.with(&container, &forge);
        forge.listening();
        drop(relay);
        // While there is a way out, it is somebody else's trouble.
        let failed = "the forge cannot be asked about the registration";
        until("it asks in vain", || container.lines_with(failed).len() >= 3);
        assert!(container.lines_with(LEAVES).is_empty());
        network.lose_the_way_out(&container);
        container.wait_line(LEAVES);
        assert_eq!(container.exit_code(), 75);
        assert!(container.state()["left_for_network"].is_u64(), "{}", container.state());

        container.restart();
        let relay = network.with(&container, &forge);
        forge.listening();
        drop(relay);
        network.lose_the_way_out(&container);
        // Once in half an hour.
        container.wait_line("has left for that a short while ago");
        let _relay = network.reach(&container, &forge);
        assert_eq!(forge.wait_job(forge.job("true"), LIMIT).result, Some(JobResult::Succeeded));
        assert_eq!(container.exit_code(), 0);
        assert!(container.lines_with(LEAVES).is_empty());
    });
}

#[test]
fn a_runner_that_cannot_register_without_a_way_out_leaves_too() {
    each(&BOTH, |kind| {
        let forge = Forge::start();
        let mut container = container(*kind, &forge);
        let mut network = OwnNetwork::of(&mut container);
        container.start();
        network.alone(&container);
        container.wait_line("trying again in");
        network.lose_the_way_out(&container);
        container.wait_line(LEAVES);
        assert_eq!(container.exit_code(), 75);
        container.assert_state_empty();
    });
}
