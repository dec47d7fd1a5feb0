//! What a stand-in asks at the simulation's side channel, which no official agent does.

use std::time::Duration;

use super::client::{Client, Refusal};
use super::kind::Kind;
use crate::protocol::{Address, Manners};
use crate::scale::Scale;

/// Scheme, host and port of an address.
pub(super) fn origin(address: &str) -> &str {
    let end = address.match_indices('/').nth(2).map_or(address.len(), |(at, _)| at);
    &address[..end]
}

fn client(kind: Kind, server: &str) -> Client {
    Client::new(kind, origin(server), Vec::new()).patient(Duration::from_secs(10))
}

/// What is said before the agent is anybody's; none where there is no side channel, and then nothing is different from an official agent.
pub(super) fn address(kind: Kind, server: &str) -> Option<Address> {
    client(kind, server).get("/_sim/agent").ok().flatten()
}

/// How this agent is to be, `at` a `session` or a `poll`. Where nobody answers it waits no longer than a simulation does.
pub(super) fn manners(kind: Kind, server: &str, agent: u64, at: &str) -> Manners {
    match client(kind, server).get(&format!("/_sim/agent/{agent}?at={at}")) {
        Ok(Some(manners)) => manners,
        Err(Refusal::Broken(_)) => Manners { scale: Scale::default(), ..Manners::default() },
        Ok(None) | Err(Refusal::Status { .. }) => Manners::default(),
    }
}

/// Shows lines of a job while they come, by its number. Another forge knows nothing of it.
pub(super) fn live(kind: Kind, server: &str, job: u64, text: String) {
    let _ = client(kind, server).post_text(&format!("/_sim/agent/jobs/{job}/live"), text);
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn an_origin_is_what_stands_before_the_path() {
        assert_eq!(origin("http://forge:8080/_tenant/"), "http://forge:8080");
        assert_eq!(origin("http://forge"), "http://forge");
    }
}
