//! `NO_PROXY` for Azure DevOps' agent: it reads the entries as patterns which may stand anywhere in `scheme://host:port`, where a port
//! is named unless it is the scheme's own. So it is given a file of patterns that mean what the entries mean.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::Url;

use crate::config::exceptions::{Bypass, Hosts};
use crate::config::{Direct, Network, Reader, Way};

/// The file in the agent's root, a pattern in each line.
pub(super) const BYPASS: &str = ".proxybypass";

/// Notes what the agent reads otherwise than we do. `url` is the organisation's address.
pub(super) fn note(reader: &mut Reader<'_>, network: &Network, url: Option<&str>) {
    let exceptions = &network.exceptions;
    let foreign = exceptions.iter().filter(|one| patterns(one).is_empty());
    let foreign: Vec<&str> = foreign.map(|one| one.text.as_str()).collect();
    if !foreign.is_empty() {
        reader.note(format!(
            "NO_PROXY: Azure DevOps' agent cannot be told of {}, and asks the proxy for such hosts",
            foreign.join(", ")
        ));
    }
    let Some(url) = url.and_then(|url| Url::parse(url).ok()) else { return };
    if network.has_proxy() && network.way(&url) == Way::Direct(Direct::Unset) {
        let (set, unset) = match url.scheme() {
            "https" => ("HTTP_PROXY", "HTTPS_PROXY"),
            _ => ("HTTPS_PROXY", "HTTP_PROXY"),
        };
        reader.note(format!(
            "{set} is for Azure DevOps' agent, which has one proxy for all, and OSCR asks {} without one: set {unset} too",
            url.origin().ascii_serialization()
        ));
    }
    if let Way::Proxy(..) = network.way(&url) {
        let whole = url.origin().ascii_serialization();
        let anywhere = |one: &&Bypass| whole.contains(&one.text.to_ascii_lowercase());
        if let Some(one) = exceptions.iter().find(anywhere) {
            reader.note(format!(
                "NO_PROXY: Azure DevOps' agent takes {:?} for a part of any address, and asks {whole} without the proxy, which OSCR \
                 does not",
                one.text
            ));
        }
    }
}

/// The content of the file; `None` where there is nothing to except.
pub(super) fn file(network: &Network) -> Option<String> {
    let lines: Vec<String> = network.exceptions.iter().flat_map(patterns).map(|line| line + "\n").collect();
    (!lines.is_empty()).then(|| lines.concat())
}

/// Patterns that are found in the addresses that an exception is for, and in no others; none, where that cannot be said.
fn patterns(one: &Bypass) -> Vec<String> {
    let hosts = match &one.hosts {
        Hosts::All => return vec![".*".to_owned()],
        Hosts::Domain(name) => {
            let name = name.replace('.', r"\.");
            vec![name.clone(), format!(r".*\.{name}")]
        }
        Hosts::Addresses(IpAddr::V4(network), length) => addresses(*network, *length),
        Hosts::Addresses(IpAddr::V6(address), 128) => vec![format!(r"\[{address}\]")],
        Hosts::Addresses(IpAddr::V6(_), _) => return Vec::new(),
    };
    let of_host = |host: &String| match one.port {
        None => vec![format!("//{host}$"), format!(r"//{host}:\d+$")],
        Some(port) => {
            let own = match port {
                80 => Some("http"),
                443 => Some("https"),
                _ => None,
            };
            let unnamed = own.map(|scheme| format!("^{scheme}://{host}$"));
            unnamed.into_iter().chain([format!("//{host}:{port}$")]).collect()
        }
    };
    hosts.iter().flat_map(of_host).collect()
}

/// Patterns for the addresses that begin with so many bits of this one: a number of which a part is fixed is named in each of its
/// values.
fn addresses(network: Ipv4Addr, length: u8) -> Vec<String> {
    let (whole, part) = (usize::from(length / 8), length % 8);
    let octets = network.octets();
    let values = match octets.get(whole) {
        Some(octet) if part > 0 => {
            let free = 0xff_u8 >> part;
            let first = octet & !free;
            (first..=first | free).map(|value| Some(value.to_string())).collect()
        }
        _ => vec![None],
    };
    let of_value = |value: Option<String>| {
        let fixed = octets[..whole].iter().map(u8::to_string).chain(value);
        let all = fixed.chain(std::iter::repeat(r"\d+".to_owned())).take(4);
        all.collect::<Vec<_>>().join(r"\.")
    };
    values.into_iter().map(of_value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::exceptions;
    use crate::provider::azure_devops::FORGE;

    fn lines(no_proxy: &str) -> Vec<String> {
        let network = Network { exceptions: exceptions::read(no_proxy).0, ..Network::default() };
        file(&network).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn entries_become_patterns_for_whole_hosts() {
        let of_domain = [r"//a\.example$", r"//a\.example:\d+$", r"//.*\.a\.example$", r"//.*\.a\.example:\d+$"];
        for entry in ["a.example", ".a.example", "*.A.example"] {
            assert_eq!(lines(entry), of_domain, "{entry}");
        }
        assert_eq!(lines("*"), [".*"]);
        assert_eq!(lines("a:8443"), ["//a:8443$", r"//.*\.a:8443$"]);
        assert_eq!(lines("a:443")[..2], ["^https://a$", "//a:443$"]);
        assert_eq!(lines("192.0.2.7:80"), [r"^http://192\.0\.2\.7$", r"//192\.0\.2\.7:80$"]);
        assert_eq!(lines("[2001:DB8::7]"), [r"//\[2001:db8::7\]$", r"//\[2001:db8::7\]:\d+$"]);
        assert!(lines("").is_empty() && lines("2001:db8::/32").is_empty());
    }

    #[test]
    fn networks_become_their_addresses() {
        assert_eq!(lines("10.1.0.0/16"), [r"//10\.1\.\d+\.\d+$", r"//10\.1\.\d+\.\d+:\d+$"]);
        assert_eq!(lines("0.0.0.0/0")[0], r"//\d+\.\d+\.\d+\.\d+$");
        let halves = lines("172.16.0.0/12");
        assert_eq!((halves.len(), halves[0].as_str()), (32, r"//172\.16\.\d+\.\d+$"));
        assert_eq!(halves[31], r"//172\.31\.\d+\.\d+:\d+$");
        assert_eq!(lines("192.0.2.7/31").len(), 4);
        assert_eq!(lines("192.0.2.255/25")[0], r"//192\.0\.2\.128$");
    }

    #[test]
    fn what_the_agent_reads_otherwise_is_noted() {
        let with = |setting: &str, no_proxy: &str| {
            let read = FORGE.read_settings([
                (setting, "http://proxy:3128"),
                ("NO_PROXY", no_proxy),
                ("ADO_ORG_URL", "https://dev.azure.com/acme"),
                ("ADO_PAT", "a-token"),
            ]);
            let (_, notes) = read.map_err(|problems| format!("{problems:?}")).unwrap();
            notes.into_iter().filter(|note| note.contains("_PROXY")).collect::<Vec<_>>()
        };
        let notes = |no_proxy: &str| with("HTTPS_PROXY", no_proxy);
        for alike in ["dev.azure.com", "azure.com", "10.0.0.0/8, a.example:8443, *.corp"] {
            assert!(notes(alike).is_empty(), "{alike}: {:?}", notes(alike));
        }
        assert!(notes("2001:db8::/32, a.example")[0].contains("cannot be told of 2001:db8::/32,"));
        assert!(notes("azure")[0].contains("takes \"azure\" for a part"));
        assert!(
            with("HTTP_PROXY", "a.example")[0].contains("asks https://dev.azure.com without one: set HTTPS_PROXY too")
        );
    }
}
