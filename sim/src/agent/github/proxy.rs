//! The variables of the runner's proxy.

use ureq::Proxy;

use crate::agent::proxy::{Target, Variables};

/// The one for the target's scheme, unless `no_proxy` names the target.
pub(super) fn proxy(target: &Target, set: &Variables) -> Option<Proxy> {
    let either = |name: &str| set(name).or_else(|| set(&name.to_uppercase()));
    let address = either(if target.scheme == "https" { "https_proxy" } else { "http_proxy" })?;
    let passed = either("no_proxy").unwrap_or_default();
    if passed.split(',').any(|entry| names(entry.trim(), target)) {
        return None;
    }
    Proxy::new(&address).ok().filter(|_| address.contains("://"))
}

/// Whether an entry is the target's host, or a domain that it is in, and its port if it has one. Addresses are no entries.
fn names(entry: &str, target: &Target) -> bool {
    let (host, port) = entry.split_once(':').map_or((entry, None), |(host, port)| (host, Some(port)));
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
    if host.is_empty() || is_address || port.is_some_and(|port| port != target.port.to_string()) {
        return false;
    }
    let (host, whole) = (host.to_lowercase(), target.host.to_lowercase());
    let domain = if host.starts_with('.') { host.clone() } else { format!(".{host}") };
    whole == host || whole.ends_with(&domain)
}
