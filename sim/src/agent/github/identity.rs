//! Who a configured runner is: addresses, client id, and the tokens that it gets.

use std::time::Duration;

use crate::agent::ARCH;
use crate::agent::client::{Client, Refusal};
use crate::agent::credential::Credential;
use crate::agent::kind::{Configured, Kind};
use crate::agent::listener::{field, number, text, truth};

/// A client as the official runner is one, by its `User-Agent` above all. `token` is of the scheme, if there is one.
pub(super) fn client(base: &str, scheme: &str, token: &str) -> Client {
    let mut headers = vec![
        ("user-agent", format!("GitHubActionsRunner-linux-{ARCH}/{}", crate::AGENT_VERSION)),
        ("accept", "application/json".into()),
    ];
    if !token.is_empty() {
        headers.push(("authorization", format!("{scheme} {token}")));
    }
    Client::new(Kind::GitHub, base, headers)
}

/// What the files of a configuration say.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) agent_id: u64,
    pub(super) name: String,
    /// Where its services are found.
    pub(super) server: String,
    /// Its broker; empty where it is told of none.
    pub(super) broker: String,
    pub(super) disable_update: bool,
    credential: Credential,
}

impl Identity {
    pub(super) fn of(configured: &Configured) -> Self {
        let Configured { settings, credentials, .. } = configured;
        Self {
            agent_id: number(settings, "agentId"),
            name: text(settings, "agentName").to_owned(),
            server: with_slash(text(settings, "serverUrl")),
            broker: with_slash(text(settings, "serverUrlV2")),
            disable_update: truth(field(settings, "disableUpdate")),
            credential: Credential::of(credentials),
        }
    }

    /// Asks for a token.
    pub(super) fn token(&self, patience: Duration) -> Result<String, Refusal> {
        self.credential.token(&client(&self.credential.address, "", "").patient(patience))
    }
}

fn with_slash(address: &str) -> String {
    if address.is_empty() || address.ends_with('/') { address.to_owned() } else { format!("{address}/") }
}
