//! Making a client of the settings: proxies, trust, and how long anything may take.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Proxy};

use super::trouble::no_client;
use super::trust::Trust;
use crate::config::{Network, Way};
use crate::provider::fault::Fault;
use crate::resolver::Resolver;

/// How long a connection, and a whole request, may take.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);

/// A client that sends `headers` with each request, to a forge that is `encrypted` or not.
pub(super) fn client(network: &Network, encrypted: bool, headers: &HeaderMap) -> Result<Client, Fault> {
    let mut builder = Client::builder()
        .user_agent(concat!("oscr-entry/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers.clone())
        .dns_resolver(Arc::new(Resolver))
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .pool_idle_timeout(Duration::from_secs(20))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if network.has_proxy() {
        let network = network.clone();
        builder = builder.proxy(Proxy::custom(move |url| match network.way(url) {
            Way::Proxy(_, address) => Some(address.to_owned()),
            Way::Direct(_) => None,
        }));
    }
    let trust = Trust::of(network.ca_file.as_deref())?;
    if encrypted {
        trust.prepare()?;
    }
    let builder = builder.use_preconfigured_tls(trust.config()?);
    builder.build().map_err(|error| no_client(&error))
}
