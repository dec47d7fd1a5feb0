//! Making a client of the settings: proxies, trust, and how long anything may take.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, NoProxy, Proxy};

use super::trouble::no_client;
use crate::config::Network;
use crate::provider::fault::Fault;
use crate::resolver::Resolver;

/// How long a connection, and a whole request, may take.
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);

/// A client that sends `headers` with each request, to a forge that is `encrypted` or not.
pub(super) fn client(network: &Network, encrypted: bool, headers: &HeaderMap) -> Result<Client, Fault> {
    // Fails only when a provider is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("oscr-entry/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers.clone())
        .dns_resolver(Arc::new(Resolver))
        .connect_timeout(CONNECT)
        .timeout(REQUEST)
        .pool_idle_timeout(Duration::from_secs(20))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let exceptions = network.no_proxy.as_deref().and_then(NoProxy::from_string);
    if let Some(url) = &network.http_proxy {
        builder = builder.proxy(Proxy::http(url).map_err(|error| no_client(&error))?.no_proxy(exceptions.clone()));
    }
    if let Some(url) = &network.https_proxy {
        builder = builder.proxy(Proxy::https(url).map_err(|error| no_client(&error))?.no_proxy(exceptions));
    }
    if !encrypted {
        // Certificates are read when the client is made, and an image for a forge without TLS may have none.
        builder = builder.tls_certs_only([]);
    } else if let Some(file) = &network.ca_file {
        let pem = fs::read(file).map_err(|error| Fault::Unreachable(format!("OSCR_CA_FILE: {error}")))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| no_client(&error))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|error| no_client(&error))
}
