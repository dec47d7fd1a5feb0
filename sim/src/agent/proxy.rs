//! The proxy that an official agent would take: other variables, and other exceptions, than most programs make of them.
//!
//! Both agents reach this machine's own addresses without. There are tunnels alone here, where .NET needs none for plain HTTP.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

use super::kind::Kind;

/// The value of a variable that is set, or what a file in the agent's root says, whose name begins with a dot.
pub(super) type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    fn of(address: &str) -> Option<Self> {
        let address: Uri = address.parse().ok()?;
        let scheme = address.scheme_str()?.to_owned();
        let port = address.port_u16().unwrap_or_else(|| Self::default_port(&scheme));
        Some(Self { host: address.host()?.to_owned(), scheme, port })
    }

    fn default_port(scheme: &str) -> u16 {
        if scheme == "https" { 443 } else { 80 }
    }

    /// As .NET writes it: a port is named where it is not the scheme's own.
    pub(super) fn text(&self) -> String {
        let Self { scheme, host, port } = self;
        if *port == Self::default_port(scheme) {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

/// The proxy on the way to an address, if there is one.
pub(super) fn to(kind: Kind, address: &str) -> Option<Proxy> {
    by(kind, address, &|name| match name.starts_with('.') {
        true => std::fs::read_to_string(super::root().join(name)).ok(),
        false => std::env::var(name).ok(),
    })
}

/// The same, by these variables.
fn by(kind: Kind, address: &str, variables: &Variables) -> Option<Proxy> {
    let target = Target::of(address).filter(|target| !target.is_loopback())?;
    let set = |name: &str| variables(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    (kind.facts().proxy)(&target, &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `USER:PASSWORD@HOST:PORT` of the proxy that is taken.
    fn taken(kind: Kind, address: &str, variables: &[(&str, &str)]) -> Option<String> {
        let set = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        by(kind, address, &set).map(|proxy| {
            let user = proxy.username().map(|user| format!("{user}:{}@", proxy.password().unwrap_or_default()));
            format!("{}{}:{}", user.unwrap_or_default(), proxy.host(), proxy.port())
        })
    }

    const FORGE: &str = "http://forge.example:8080/o/r";

    #[test]
    fn githubs_runner_takes_the_one_of_the_scheme_in_either_case() {
        let set = [("HTTP_PROXY", "http://me:secret@one:3128"), ("https_proxy", "http://two:3129")];
        assert_eq!(taken(Kind::GitHub, FORGE, &set).as_deref(), Some("me:secret@one:3128"));
        assert_eq!(taken(Kind::GitHub, "https://forge.example", &set).as_deref(), Some("two:3129"));
        let both = [("HTTP_PROXY", "http://upper:1"), ("http_proxy", "http://lower:1")];
        assert_eq!(taken(Kind::GitHub, FORGE, &both).as_deref(), Some("lower:1"));
        for none in
            [("https_proxy", "http://two:1"), ("all_proxy", "http://two:1"), ("VSTS_HTTP_PROXY", "http://two:1")]
        {
            assert_eq!(taken(Kind::GitHub, FORGE, &[none]), None, "{none:?}");
        }
    }

    #[test]
    fn githubs_runner_knows_hosts_and_ports_in_no_proxy_and_passes_over_addresses_and_stars() {
        let through = |address: &str, passed: &str| {
            taken(Kind::GitHub, address, &[("http_proxy", "http://p:1"), ("NO_PROXY", passed)]).is_some()
        };
        for passed in ["forge.example", "example", ".example", "other, FORGE.example", "forge.example:8080"] {
            assert!(!through(FORGE, passed), "{passed}");
        }
        for not in ["*", "*.example", "orge.example", ".forge.example", "forge.example:80", ""] {
            assert!(through(FORGE, not), "{not}");
        }
        assert!(through("http://192.0.2.1:8080", "192.0.2.1"));
    }

    #[test]
    fn azures_agent_takes_its_own_variables_and_no_name_from_the_address() {
        let own = ("VSTS_HTTP_PROXY", "http://me:secret@one:3128");
        assert_eq!(taken(Kind::Azure, FORGE, &[own]).as_deref(), Some("one:3128"));
        let user = ("VSTS_HTTP_PROXY_USERNAME", "you");
        assert_eq!(taken(Kind::Azure, FORGE, &[own, user]).as_deref(), Some("one:3128"));
        let named = [own, user, ("VSTS_HTTP_PROXY_PASSWORD", "word")];
        assert_eq!(taken(Kind::Azure, FORGE, &named).as_deref(), Some("you:word@one:3128"));
        assert_eq!(taken(Kind::Azure, "https://forge.example", &[own]).as_deref(), Some("one:3128"));
        assert_eq!(taken(Kind::Azure, FORGE, &[("http_proxy", "http://two:1"), ("HTTP_PROXY", "http://two:1")]), None);
        assert_eq!(taken(Kind::Azure, FORGE, &[("VSTS_HTTP_PROXY", "one")]), None, "no whole address");
    }

    #[test]
    fn azures_agent_reads_no_proxy_as_patterns_anywhere_in_scheme_host_and_port() {
        let through = |passed: &str| {
            taken(Kind::Azure, FORGE, &[("VSTS_HTTP_PROXY", "http://p:1"), ("no_proxy", passed)]).is_some()
        };
        for passed in ["forge.example", "orge", "other,FORGE", r"forge\.example:8080", "http://f", "f.*ample", ".*"] {
            assert!(!through(passed), "{passed}");
        }
        // A dot is one, a star alone is no pattern, and of others nothing is known here.
        for not in ["forge-example", "f.rge", "*", "*.example", "forge.example:80$", "ample.*forge", ""] {
            assert!(through(not), "{not}");
        }
    }

    #[test]
    fn azures_agent_reads_a_file_of_patterns_too() {
        let through = |address: &str, lines: &str| {
            taken(Kind::Azure, address, &[("VSTS_HTTP_PROXY", "http://p:1"), (".proxybypass", lines)]).is_some()
        };
        for lines in [r"//forge\.example:\d+$", "x\n//.*\\.example:8080$\n", "^http://forge.example:8080$", ".*"] {
            assert!(!through(FORGE, lines), "{lines}");
        }
        for lines in [r"//forge\.example$", r"//orge\.example:\d+$", r"^https://forge.example:8080$", r"//\d+\.\d+"] {
            assert!(through(FORGE, lines), "{lines}");
        }
        assert!(!through("http://192.0.2.7", r"//192\.0\.\d+\.\d+$"));
        assert!(!through("https://[2001:db8::7]", r"//\[2001:db8::7\]$"));
    }

    #[test]
    fn nobody_takes_one_to_this_machine() {
        for address in ["http://127.0.0.1:80", "http://localhost:8080", "http://[::1]:80/x"] {
            for (kind, name) in [(Kind::GitHub, "http_proxy"), (Kind::Azure, "VSTS_HTTP_PROXY")] {
                assert_eq!(taken(kind, address, &[(name, "http://p:1")]), None, "{kind:?} {address}");
            }
        }
    }
}
