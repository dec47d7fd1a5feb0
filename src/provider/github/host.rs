//! Where GitHub is: github.com, a company's part of it, or a server of its own.

use crate::config::Reader;
use crate::shown::quoted;

/// Where the forge is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// The base of its web pages, without a slash at the end.
    pub web: String,
    /// The base of its API, likewise.
    pub api: String,
}

/// A port that is not the scheme's own.
pub(super) struct OtherPort {
    pub port: u16,
    /// The address without it, which leads to this port.
    pub host: String,
    pub own: u16,
}

impl Host {
    /// Works the two out from what a user may write: a host, `host:port` or a URL.
    fn parse(text: &str) -> Option<Self> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = reqwest::Url::parse(with_scheme.trim_end_matches('/')).ok()?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.path().len() <= 1
            && url.query().is_none();
        let host = url.host_str().filter(|_| plain)?;
        let host = Some(host).filter(|host| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c)))?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let web = format!("{}://{host}{port}", url.scheme());
        let api = match host {
            "github.com" | "www.github.com" => "https://api.github.com".to_owned(),
            host if host.ends_with(".ghe.com") => format!("{}://api.{host}{port}", url.scheme()),
            _ => format!("{web}/api/v3"),
        };
        Some(Self { web, api })
    }

    /// The port of its web pages, if it is not the scheme's own.
    pub(super) fn other_port(&self) -> Option<OtherPort> {
        let url = reqwest::Url::parse(&self.web).ok()?;
        let port = url.port()?;
        let host = format!("{}://{}", url.scheme(), url.host_str()?);
        Some(OtherPort { port, host, own: if url.scheme() == "https" { 443 } else { 80 } })
    }

    /// Whether it is GitHub's own: github.com, or a company's part of it.
    pub(super) fn is_github_com(&self) -> bool {
        let url = reqwest::Url::parse(&self.web).ok();
        let host = url.as_ref().and_then(|url| url.host_str());
        host.is_some_and(|host| matches!(host, "github.com" | "www.github.com") || host.ends_with(".ghe.com"))
    }
}

/// `REPO_URL` of other containers: host and scope in one.
pub(super) struct RepoUrl {
    host: String,
    /// The segments of its path: an owner, and perhaps a repository.
    pub parts: Vec<String>,
}

/// Reads it, if it is set.
pub(super) fn repo_url(reader: &mut Reader<'_>) -> Option<RepoUrl> {
    let text = reader.foreign("REPO_URL")?;
    let parsed = reqwest::Url::parse(&text).ok().filter(|url| url.host_str().is_some());
    let Some(url) = parsed else {
        reader.problem(
            "REPO_URL",
            format!("{} is no URL", quoted(&text)),
            "write GITHUB_OWNER and GITHUB_REPO instead",
        );
        return None;
    };
    let parts: Vec<String> =
        url.path().trim_matches('/').split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.is_empty() || parts.len() > 2 {
        reader.problem(
            "REPO_URL",
            format!("{} names no repository", quoted(&text)),
            "write GITHUB_OWNER and GITHUB_REPO instead",
        );
        return None;
    }
    reader.note("REPO_URL was read as GITHUB_HOST, GITHUB_OWNER and GITHUB_REPO");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(RepoUrl { host: format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default()), parts })
}

/// Reads the settings; `None` when they make no sense, which the reader then knows.
pub(super) fn read(reader: &mut Reader<'_>, repo_url: Option<&RepoUrl>) -> Option<Host> {
    let text = reader.text("GITHUB_HOST");
    let text = text.or_else(|| repo_url.map(|url| url.host.clone())).unwrap_or_else(|| "github.com".to_owned());
    let mut host = Host::parse(&text);
    match &mut host {
        None => reader.problem(
            "GITHUB_HOST",
            format!("{} is neither a host, nor host:port, nor a URL without a path", quoted(&text)),
            "write github.example.com, github.example.com:8443 or https://github.example.com",
        ),
        Some(host) => {
            if let Some(api) = reader.text("GITHUB_API_URL") {
                let api = api.trim_end_matches('/').to_owned();
                match reqwest::Url::parse(&api) {
                    Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => host.api = api,
                    _ => reader.problem(
                        "GITHUB_API_URL",
                        format!("{} is no URL", quoted(&api)),
                        "write https://host/api/v3",
                    ),
                }
            }
        }
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lead_to_their_api() {
        let api = |text| Host::parse(text).map(|host| host.api);
        assert_eq!(api("github.com").as_deref(), Some("https://api.github.com"));
        assert_eq!(api("https://github.com/").as_deref(), Some("https://api.github.com"));
        assert_eq!(api("octo.ghe.com").as_deref(), Some("https://api.octo.ghe.com"));
        assert_eq!(api("git.example.com:8443").as_deref(), Some("https://git.example.com:8443/api/v3"));
        assert_eq!(api("http://forge:8080").as_deref(), Some("http://forge:8080/api/v3"));
        for wrong in ["https://github.com/owner", "ftp://x", "https://me:pw@host", "a b"] {
            assert_eq!(api(wrong), None, "{wrong}");
        }
    }
}
