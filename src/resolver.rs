//! The addresses of hosts: `/etc/hosts` decides for the names that it has, the name servers of `/etc/resolv.conf` for all
//! others, as in C libraries.
//!
//! A static glibc cannot use its own resolver (it loads plug-ins). Asked for both kinds of addresses, the resolver library
//! goes to the name servers for the kind that `/etc/hosts` does not have, so that a name server that is out of reach
//! would make even `extra_hosts:` useless; and without `/etc/resolv.conf` it would ask a company on the Internet.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name as DomainName, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;

/// How long name servers are waited for: less than for a connection, so that the error says which of them is at fault.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long one question waits for its answer; it is put three times.
const TRY: Duration = Duration::from_secs(2);

/// Looks names up. `/etc/resolv.conf` is read once, `/etc/hosts` each time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resolver {
    servers: Arc<OnceLock<TokioResolver>>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = match in_hosts_file(name.as_str()) {
                known if !known.is_empty() => known,
                _ => names.ask(name.as_str()).await?,
            };
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

impl Resolver {
    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let servers = match self.servers.get() {
            Some(servers) => servers,
            None => {
                let made = from_resolv_conf()?;
                self.servers.get_or_init(|| made)
            }
        };
        match timeout(PATIENCE, servers.lookup_ip(name)).await {
            Ok(Ok(found)) => Ok(found.iter().collect()),
            Ok(Err(NetError::Timeout)) | Err(_) => {
                Err(format!("no name server of /etc/resolv.conf answered the lookup of {name}").into())
            }
            Ok(Err(error)) if error.is_no_records_found() => {
                Err(format!("the name servers of /etc/resolv.conf know no address of {name}").into())
            }
            Ok(Err(error)) => Err(format!("the lookup of {name} failed: {error}").into()),
        }
    }
}

fn from_resolv_conf() -> Result<TokioResolver, io::Error> {
    let unusable = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("/etc/resolv.conf, for the lookup of a name: {error}"))
    };
    let mut builder = TokioResolver::builder_tokio().map_err(|error| unusable(&error))?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    // Some name servers never answer for IPv6: what they said of IPv4 must be there in time.
    options.timeout = options.timeout.min(TRY);
    builder.build().map_err(|error| unusable(&error))
}

/// The addresses that `/etc/hosts` gives a name; none if it does not have it, or cannot be read.
fn in_hosts_file(name: &str) -> Vec<IpAddr> {
    let (Ok(hosts), Ok(name)) = (Hosts::from_system(), DomainName::from_utf8(name)) else { return Vec::new() };
    let of = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
    found
        .flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect()
}
