//! Addresses as people copy them from a browser or a clone: which server, and whose runners.

use std::fmt;

use reqwest::Url;

/// A server of GitHub's, or somebody's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
}

/// What an address names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Address {
    pub server: Option<Server>,
    pub owner: Option<String>,
    pub repository: Option<String>,
    pub enterprise: Option<String>,
}

impl Server {
    fn new(scheme: &'static str, authority: &str) -> Option<Self> {
        let host = authority.rsplit('@').next()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
        if !host.chars().all(plain) || host.split('.').any(str::is_empty) {
            return None;
        }
        let url = Url::parse(&format!("{scheme}://{host}")).ok()?;
        let (host, port) = (url.host_str()?, url.port());
        let of_api = host.strip_prefix("api.").filter(|host| is_githubs(host));
        let host = match of_api.unwrap_or(host) {
            "www.github.com" | "ssh.github.com" => "github.com",
            host => host,
        };
        // It would only send us there, and the token has been seen by then.
        let scheme = if host == "github.com" { "https" } else { scheme };
        Some(Self { scheme, host: host.to_owned(), port })
    }

    /// The one of a clone by SSH, which says nothing of the port that its web pages have.
    fn guessed(authority: &str) -> Option<Self> {
        let authority = authority.rsplit('@').next()?;
        let host = authority.split(':').next()?;
        Self::new("https", host)
    }

    /// GitHub itself.
    pub(super) fn github() -> Self {
        Self { scheme: "https", host: "github.com".to_owned(), port: None }
    }

    /// The one of an address of its API.
    pub(super) fn of_api(url: &Url) -> Option<Self> {
        let scheme = if url.scheme() == "http" { "http" } else { "https" };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Self::new(scheme, &format!("{}{port}", url.host_str()?))
    }

    /// The base of its API, without a slash at the end.
    pub(super) fn api(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        match self.host.as_str() {
            "github.com" => "https://api.github.com".to_owned(),
            host if is_githubs(host) => format!("{}://api.{host}{port}", self.scheme),
            _ => format!("{self}/api/v3"),
        }
    }

    /// Whether it is GitHub's own: github.com, or a company's part of it.
    pub(super) fn is_githubs(&self) -> bool {
        is_githubs(&self.host)
    }

    /// The port, if it is not the scheme's own, the address without it, and the port that this leads to.
    pub(super) fn other_port(&self) -> Option<(u16, String, u16)> {
        let own = if self.scheme == "https" { 443 } else { 80 };
        Some((self.port?, format!("{}://{}", self.scheme, self.host), own))
    }

    /// Whether both are on one host.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        self.host == other.host
    }
}

/// The base of its web pages, without a slash at the end.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn is_githubs(host: &str) -> bool {
    matches!(host, "github.com" | "www.github.com") || host.ends_with(".ghe.com")
}

impl Address {
    /// Reads an address, or only its path: `owner`, `owner/name`, `orgs/owner`. `None` for what is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::read(text, false)
    }

    /// The same where a server must stand first.
    pub(super) fn of_server(text: &str) -> Option<Self> {
        Self::read(text, true)
    }

    fn read(text: &str, needs_server: bool) -> Option<Self> {
        let text = text.split(['?', '#']).next()?;
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let scheme = scheme.as_deref().map(|scheme| scheme.trim_start_matches("git+"));
        let (first, path) = rest.split_once('/').unwrap_or((rest, ""));
        // As git writes it without a scheme: `git@host:owner/name`.
        let clone =
            rest.split_once(':').filter(|(host, _)| scheme.is_none() && host.contains('@') && !host.contains('/'));
        // Owners have no dots.
        let begins = first.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        let is_server = begins && (first.contains(['.', ':']) || first == "localhost");
        let (server, path) = match scheme {
            Some("https") => (Some(Server::new("https", first)?), path),
            Some("http") => (Some(Server::new("http", first)?), path),
            Some("ssh" | "git") => (Some(Server::guessed(first)?), path),
            Some(_) => return None,
            None => match clone {
                Some((host, path)) => (Some(Server::guessed(host)?), path),
                None if needs_server || (!path.is_empty() && is_server) => (Some(Server::new("https", first)?), path),
                None => (None, rest),
            },
        };
        Some(Self { server, ..Self::of_path(path) })
    }

    fn of_path(path: &str) -> Self {
        let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        if segments.starts_with(&["api", "v3"]) {
            segments.drain(..2);
        }
        let owned = |name: &str| Some(name.to_owned());
        match segments[..] {
            ["enterprises", name, ..] => Self { enterprise: owned(name), ..Self::default() },
            ["orgs" | "organizations" | "users", owner, ..] => Self { owner: owned(owner), ..Self::default() },
            ["repos", owner, name, ..] | [owner, name, ..] => {
                let name = name.strip_suffix(".git").unwrap_or(name);
                Self { owner: owned(owner), repository: owned(name), ..Self::default() }
            }
            [owner] => Self { owner: owned(owner.trim_start_matches('@')), ..Self::default() },
            [] => Self::default(),
        }
    }

    /// Whether it names anybody's runners.
    pub(super) fn names_somebody(&self) -> bool {
        self.owner.is_some() || self.enterprise.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: Option<Address>) -> String {
        let Some(Address { server, owner, repository, enterprise }) = address else { return "none".to_owned() };
        let server = server.map(|server| server.to_string()).unwrap_or_default();
        let part = |sign: &str, part: Option<String>| part.map(|part| format!("{sign}{part}")).unwrap_or_default();
        format!("{server}{}{}{}", part(" ", owner), part("/", repository), part(" enterprise ", enterprise))
    }

    #[test]
    fn addresses_are_read_as_browsers_and_clones_have_them() {
        for (text, meaning) in [
            ("https://github.com/acme/widgets", "https://github.com acme/widgets"),
            ("https://github.com/acme/widgets.git", "https://github.com acme/widgets"),
            ("http://www.GitHub.com/acme/widgets/", "https://github.com acme/widgets"),
            ("git@github.com:acme/widgets.git", "https://github.com acme/widgets"),
            ("ssh://git@github.com/acme/widgets.git", "https://github.com acme/widgets"),
            ("ssh://git@ssh.github.com:443/acme/widgets.git", "https://github.com acme/widgets"),
            ("git+ssh://git@github.com/acme/widgets", "https://github.com acme/widgets"),
            ("git://github.com/acme/widgets.git", "https://github.com acme/widgets"),
            ("https://octocat@github.com/acme/widgets.git", "https://github.com acme/widgets"),
            (
                "github.com/acme/widgets/settings/actions/runners/new?arch=x64&os=linux",
                "https://github.com acme/widgets",
            ),
            ("https://github.com/acme/widgets/actions", "https://github.com acme/widgets"),
            ("https://github.com/acme/widgets/tree/main#readme", "https://github.com acme/widgets"),
            ("https://github.com/acme?tab=repositories", "https://github.com acme"),
            ("github.com/orgs/acme", "https://github.com acme"),
            ("https://github.com/organizations/acme/settings/actions/runners/new", "https://github.com acme"),
            ("https://github.com/enterprises/acme/settings/actions", "https://github.com enterprise acme"),
            ("https://api.github.com/repos/acme/widgets", "https://github.com acme/widgets"),
            ("https://ghes.corp:8443/api/v3/orgs/acme", "https://ghes.corp:8443 acme"),
            ("http://ghes.corp/acme/widgets.js", "http://ghes.corp acme/widgets.js"),
            ("octo.ghe.com/acme", "https://octo.ghe.com acme"),
            ("https://github.com/", "https://github.com"),
            ("acme/widgets.js", " acme/widgets.js"),
            ("/acme/widgets.git/", " acme/widgets"),
            ("@acme", " acme"),
            ("enterprises/acme", " enterprise acme"),
            ("widgets.git", " widgets.git"),
            ("ftp://github.com/acme", "none"),
            ("https://a b/c", "none"),
            ("https://", "none"),
        ] {
            assert_eq!(shown(Address::parse(text)), meaning, "{text}");
        }
        for (text, meaning) in [
            ("github.com", "https://github.com"),
            ("forge", "https://forge"),
            ("http://forge:8080/", "http://forge:8080"),
            ("git.example.com:8443", "https://git.example.com:8443"),
            ("https://ghes.corp/api/v3", "https://ghes.corp"),
            ("api.octo.ghe.com", "https://octo.ghe.com"),
            ("git@ghes.corp:acme/widgets", "https://ghes.corp acme/widgets"),
            ("a b", "none"),
            ("NAME=x", "none"),
            ("/acme", "none"),
        ] {
            assert_eq!(shown(Address::of_server(text)), meaning, "{text}");
        }
    }

    #[test]
    fn servers_lead_to_their_api() {
        for (text, api) in [
            ("github.com", "https://api.github.com"),
            ("www.github.com", "https://api.github.com"),
            ("octo.ghe.com", "https://api.octo.ghe.com"),
            ("git.example.com:8443", "https://git.example.com:8443/api/v3"),
            ("http://forge:8080", "http://forge:8080/api/v3"),
            ("[::1]:8080", "https://[::1]:8080/api/v3"),
        ] {
            let server = Address::of_server(text).and_then(|address| address.server);
            assert_eq!(server.map(|server| server.api()).as_deref(), Some(api), "{text}");
        }
    }
}
