//! Which hosts are reached without a proxy: the list in `NO_PROXY`, as most programs read it.

use std::net::IpAddr;

use reqwest::Url;

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bypass {
    /// As it was written.
    pub text: String,
    /// The hosts.
    pub hosts: Hosts,
    /// The one port; any, without.
    pub port: Option<u16>,
}

/// The hosts that an entry is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// All of them: `*`.
    All,
    /// The one of this name, and all below it. It has no dot before it, and small letters alone.
    Domain(String),
    /// Those whose addresses begin with so many of the bits of this one.
    Addresses(IpAddr, u8),
}

/// The entries of a list that are understood, and the texts of those that are not.
pub(crate) fn read(list: &str) -> (Vec<Bypass>, Vec<&str>) {
    let (mut exceptions, mut unread) = (Vec::new(), Vec::new());
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match Bypass::read(text) {
            Some(exception) => exceptions.push(exception),
            None => unread.push(text),
        }
    }
    (exceptions, unread)
}

impl Bypass {
    fn read(text: &str) -> Option<Self> {
        let of = |hosts, port| Some(Self { text: text.to_owned(), hosts, port });
        if text == "*" {
            return of(Hosts::All, None);
        }
        if let Some(addresses) = addresses(text) {
            return of(addresses, None);
        }
        let (host, port) = match text.rsplit_once(':').filter(|_| !text.ends_with(']')) {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(address) = bare.unwrap_or(host).parse::<IpAddr>().ok().filter(|at| at.is_ipv6() == bare.is_some()) {
            return of(Hosts::Addresses(address, bits(address)), port);
        }
        let domain = host.strip_prefix("*.").or(host.strip_prefix('.')).unwrap_or(host).trim_end_matches('.');
        let named = !domain.is_empty() && domain.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if named { of(Hosts::Domain(domain.to_lowercase()), port) } else { None }
    }

    /// Whether it is for this address.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        if self.port.is_some() && self.port != url.port_or_known_default() {
            return false;
        }
        match (&self.hosts, address_of(host)) {
            (Hosts::All, _) => true,
            (Hosts::Addresses(network, length), Some(address)) => within(address, *network, *length),
            (Hosts::Domain(domain), None) => {
                let host = host.trim_end_matches('.').to_lowercase();
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        }
    }
}

/// Whether an address is this machine's own, for whom nobody asks a proxy.
pub(crate) fn is_own_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    match address_of(host) {
        Some(address) => address.to_canonical().is_loopback(),
        None => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// The address that a host is written as.
fn address_of(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

/// An address, or a network as `10.0.0.0/8`.
fn addresses(text: &str) -> Option<Hosts> {
    match text.split_once('/') {
        None => text.parse().ok().map(|address| Hosts::Addresses(address, bits(address))),
        Some((network, length)) => {
            let (network, length): (IpAddr, u8) = (network.parse().ok()?, length.parse().ok()?);
            (length <= bits(network)).then_some(Hosts::Addresses(network, length))
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn within(address: IpAddr, network: IpAddr, length: u8) -> bool {
    let left = |bits: u8| u32::from(bits - length);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let different = address.to_bits() ^ network.to_bits();
            different.checked_shr(left(32)).unwrap_or_default() == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let different = address.to_bits() ^ network.to_bits();
            different.checked_shr(left(128)).unwrap_or_default() == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(list: &str, url: &str) -> bool {
        let (exceptions, _) = read(list);
        exceptions.iter().any(|exception| exception.covers(&Url::parse(url).unwrap()))
    }

    #[test]
    fn a_name_is_for_its_host_and_all_below_it() {
        for entry in ["forge.example", ".forge.example", "*.forge.example", "EXAMPLE", "other, forge.example.", "*"] {
            assert!(covers(entry, "https://api.forge.example/x"), "{entry}");
        }
        for entry in ["orge.example", "api.forge", "forge.example.org", "x.api.forge.example", "", ",,"] {
            assert!(!covers(entry, "https://api.forge.example/x"), "{entry}");
        }
        assert!(covers(".forge.example", "https://forge.example"));
    }

    #[test]
    fn a_port_is_the_one_that_is_asked() {
        assert!(covers("forge.example:8443", "https://forge.example:8443"));
        assert!(
            covers("forge.example:443", "https://forge.example") && covers("forge.example:80", "http://forge.example")
        );
        assert!(!covers("forge.example:80", "https://forge.example"));
        assert!(!covers("forge.example:8443", "https://forge.example"));
        assert!(covers("192.0.2.7:8080", "http://192.0.2.7:8080") && !covers("192.0.2.7:8080", "http://192.0.2.7"));
        assert!(covers("[2001:db8::7]:8080", "http://[2001:db8::7]:8080"));
        assert!(!covers("[2001:db8::7]:8080", "http://[2001:db8::7]"));
    }

    #[test]
    fn addresses_and_networks_are_for_hosts_that_are_written_so() {
        for entry in ["192.0.2.7", "192.0.2.0/24", "192.0.0.0/16", "192.0.2.6/31", "0.0.0.0/0", "192.0.2.7/32"] {
            assert!(covers(entry, "http://192.0.2.7:8080"), "{entry}");
        }
        for entry in ["192.0.2.8", "192.0.3.0/24", "192.0.2.8/31", "::/0", "2.7"] {
            assert!(!covers(entry, "http://192.0.2.7:8080"), "{entry}");
        }
        for entry in ["2001:db8::7", "2001:DB8::/32", "[2001:db8::7]", "::/0"] {
            assert!(covers(entry, "http://[2001:db8::7]:8080"), "{entry}");
        }
        assert!(!covers("192.0.2.0/24", "http://seven.example"));
    }

    #[test]
    fn what_is_no_host_is_told() {
        let (_, unread) =
            read("http://a.example, 10.0.0.0/33, a b, a.example:http, ^.*\\.corp$, *x*, good.example, [::1");
        let wrong = ["http://a.example", "10.0.0.0/33", "a b", "a.example:http", "^.*\\.corp$", "*x*", "[::1"];
        assert_eq!(unread, wrong);
    }

    #[test]
    fn this_machine_is_known_by_its_names_and_addresses() {
        for own in
            ["http://localhost:1", "https://LOCALHOST", "http://x.localhost", "http://127.9.9.9", "http://[::1]:8"]
        {
            assert!(is_own_machine(&Url::parse(own).unwrap()), "{own}");
        }
        for other in ["http://localhost.example", "http://128.0.0.1", "http://notlocalhost", "http://[::2]"] {
            assert!(!is_own_machine(&Url::parse(other).unwrap()), "{other}");
        }
    }
}
