//! Where GitHub is: github.com, a company's part of it, or a server of its own. Its pages and its API are one server's, or the token of
//! one would be another's to read.

use reqwest::Url;

use super::address::Server;
use crate::config::Reader;
use crate::shown::quoted;

/// What has its server in it, and cannot be made to agree.
pub(super) const OF_CONFIGURATION: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

/// Where the forge is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// The base of its web pages, without a slash at the end.
    pub web: String,
    /// The base of its API, likewise.
    pub api: String,
    server: Server,
    /// The setting that names it.
    pub setting: &'static str,
}

/// A port that is not the scheme's own.
pub(super) struct OtherPort {
    pub port: u16,
    /// The address without it, which leads to this port.
    pub host: String,
    pub own: u16,
}

impl Host {
    /// The port of its web pages, if it is not the scheme's own.
    pub(super) fn other_port(&self) -> Option<OtherPort> {
        self.server.other_port().map(|(port, host, own)| OtherPort { port, host, own })
    }

    /// Whether it is GitHub's own: github.com, or a company's part of it.
    pub(super) fn is_github_com(&self) -> bool {
        self.server.is_githubs()
    }
}

/// The server that all settings name, of which `named` are those with an address, and its API; `None` when they name none, or several,
/// which the reader then knows.
pub(super) fn read(reader: &mut Reader<'_>, named: &[(&'static str, Server)]) -> Option<Host> {
    let api = api(reader);
    let first = named.iter().find(|(setting, _)| *setting == "GITHUB_HOST").or(named.first());
    let (setting, server) = match (first, &api) {
        (Some((setting, server)), _) => (*setting, server.clone()),
        (None, Some((_, server))) => ("GITHUB_API_URL", server.clone()),
        (None, None) => ("GITHUB_HOST", Server::github()),
    };
    for (other, theirs) in named.iter().filter(|(_, theirs)| !theirs.is_at(&server)) {
        let what = format!("leads to {theirs}, and {setting} to {server}");
        if *other == OF_CONFIGURATION {
            reader.problem(other, what, format!("unset {setting}: the configuration is for its own server alone"));
            continue;
        }
        reader.problem(
            other,
            what,
            "make them agree, or keep one of them: GITHUB_HOST names the server, GITHUB_OWNER and GITHUB_REPO what is there",
        );
    }
    if let Some((_, theirs)) = api.as_ref().filter(|(_, theirs)| !theirs.is_at(&server)) {
        reader.problem(
            "GITHUB_API_URL",
            format!("leads to {theirs}, and {setting} to {server}: a token of the one would be sent to the other"),
            format!("unset it, and the API of {server} is used, or unset {setting}"),
        );
    }
    let api = api.map_or_else(|| server.api(), |(api, _)| api);
    Some(Host { web: server.to_string(), api, server, setting })
}

/// The API's address, if it is given, and whose it is.
fn api(reader: &mut Reader<'_>) -> Option<(String, Server)> {
    let text = reader.text("GITHUB_API_URL")?;
    let with_scheme = if text.contains("://") { text.clone() } else { format!("https://{text}") };
    let url = Url::parse(&with_scheme).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some((url, server)) = url.and_then(|url| Server::of_api(&url).map(|server| (url, server))) else {
        reader.problem("GITHUB_API_URL", format!("{} is no URL", quoted(&text)), "write https://host/api/v3");
        return None;
    };
    // GitHub's own have one base, and so has a server of which only the host is named.
    let api = match url.path().split_once("/api/v3") {
        _ if server.is_githubs() || url.path() == "/" => server.api(),
        Some((before, _)) => format!("{}{before}/api/v3", url.origin().ascii_serialization()),
        None => format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')),
    };
    Some((api, server))
}
