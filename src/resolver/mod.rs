//! The addresses of hosts: `/etc/hosts` decides for the names that it has, the name servers of `/etc/resolv.conf` for all
//! others, as in the C library.
//!
//! A static glibc cannot use its own resolver (it loads plug-ins), and a resolver library that asks several servers at once,
//! reads names by rules of its own or gives up at the first line that it cannot read finds other addresses than the agent
//! beside us. So the order of candidates and servers is glibc's, held against `getent` in a table of files and servers; the
//! library reads and writes the messages.

#[cfg(test)]
mod against_getent;
mod conf;
mod hosts;
mod servers;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::Name as DomainName;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::Instant;

use conf::Conf;
use servers::{Outcome, Round};

/// How long name servers are waited for: less than for a connection, so that the error says which of them is at fault.
const PATIENCE: Duration = Duration::from_secs(8);

const CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Looks names up. Both files are read each time, as they are changed while a container runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = addresses(name.as_str()).await?;
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// The addresses of a name, or a sentence about who does not give them.
async fn addresses(name: &str) -> Result<Vec<IpAddr>, String> {
    let known = fs::read(HOSTS).map(|content| hosts::addresses(&content, name)).unwrap_or_default();
    if !known.is_empty() {
        return Ok(known);
    }
    let conf = Conf::read(&fs::read(CONF).unwrap_or_default(), own_name().as_deref());
    ask(&conf, name).await
}

/// The name of this machine: without a search list, what follows its first dot is one.
fn own_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

/// Asks for one candidate after the other until somebody knows it.
async fn ask(conf: &Conf, name: &str) -> Result<Vec<IpAddr>, String> {
    let deadline = Instant::now() + PATIENCE;
    let candidates = conf.candidates(name);
    let mut why = None;
    let mut skip_search = false;
    for (at, candidate) in candidates.iter().enumerate() {
        let Some(asked) = in_labels(&candidate.name) else { continue };
        if skip_search && !candidate.as_it_stands {
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // Somebody who does not answer for one of them leaves the others their time.
        let share = if at + 1 < candidates.len() { left / 2 } else { left };
        let outcome = Round::new(conf, asked, share).ask().await;
        let (said, ends_search) = match outcome {
            Outcome::Found(addresses) if !addresses.is_empty() => return Ok(addresses),
            // The name is there, if only as another name for nothing: the search ends with it.
            Outcome::Found(_) => return Err(unknown(name)),
            Outcome::Unknown => (unknown(name), false),
            Outcome::Failed(said) => (format!("the lookup of {name} failed: {said}"), false),
            Outcome::Refused(said) => (format!("the lookup of {name} failed: {said}"), true),
            Outcome::Silent => (unanswered(conf, name), true),
        };
        skip_search |= ends_search && !candidate.as_it_stands;
        // What became of the name itself says more than what became of it in a search list.
        if candidate.as_it_stands || why.is_none() {
            why = Some(said);
        }
    }
    Err(why.unwrap_or_else(|| format!("{name} is no name that a name server can be asked for")))
}

fn unanswered(conf: &Conf, name: &str) -> String {
    let whom = if conf.named { "" } else { " (it names none, so this machine was asked)" };
    format!("no name server of {CONF} answered the lookup of {name}{whom}")
}

fn unknown(name: &str) -> String {
    format!("the name servers of {CONF} know no address of {name}")
}

/// A name as name servers are asked for it: whatever stands between its dots, underscores and all. `None` for what is none.
fn in_labels(name: &str) -> Option<DomainName> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut asked = DomainName::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    asked.set_fqdn(true);
    Some(asked)
}
