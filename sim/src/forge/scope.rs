//! Where a runner is registered.

use std::fmt;

/// A repository, an organisation or an enterprise of GitHub, or a pool of Azure DevOps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `repos/owner/name`.
    Repository(String, String),
    /// `orgs/name`.
    Organization(String),
    /// `enterprises/name`.
    Enterprise(String),
    /// `pools/organisation/name`. The organisation is the path of its address and may have several segments, such as
    /// `tfs/DefaultCollection`.
    Pool(String, String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(owner, name) => write!(f, "repos/{owner}/{name}"),
            Self::Organization(name) => write!(f, "orgs/{name}"),
            Self::Enterprise(name) => write!(f, "enterprises/{name}"),
            Self::Pool(organization, name) => write!(f, "pools/{organization}/{name}"),
        }
    }
}

impl Scope {
    /// Reads the form that `Display` writes, and gives the path segments that follow.
    #[must_use]
    pub fn split<'a>(segments: &'a [&'a str]) -> Option<(Self, &'a [&'a str])> {
        match segments {
            ["repos", owner, name, rest @ ..] => Some((Self::Repository((*owner).into(), (*name).into()), rest)),
            ["orgs", name, rest @ ..] => Some((Self::Organization((*name).into()), rest)),
            ["enterprises", name, rest @ ..] => Some((Self::Enterprise((*name).into()), rest)),
            _ => None,
        }
    }

    /// Reads the form that `Display` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((organization, name)) = text.strip_prefix("pools/").and_then(|rest| rest.rsplit_once('/')) {
            return Some(Self::Pool(organization.into(), name.into()));
        }
        let segments: Vec<&str> = text.split('/').collect();
        match Self::split(&segments)? {
            (scope, []) => Some(scope),
            _ => None,
        }
    }

    /// Reads the path of the address that `config.sh --url` is given: `owner/name`, `org`, `enterprises/name`.
    #[must_use]
    pub fn from_url_path(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        match segments.as_slice() {
            ["enterprises", name] => Some(Self::Enterprise((*name).into())),
            ["orgs", name] | [name] => Some(Self::Organization((*name).into())),
            [owner, name] => Some(Self::Repository((*owner).into(), (*name).into())),
            _ => None,
        }
    }

    /// Whether a runner here can run jobs of this repository. An enterprise has every owner.
    #[must_use]
    pub fn serves(&self, repository: &str) -> bool {
        let (owner, name) = repository.split_once('/').unwrap_or((repository, ""));
        match self {
            Self::Repository(o, n) => o.eq_ignore_ascii_case(owner) && n.eq_ignore_ascii_case(name),
            Self::Organization(o) => o.eq_ignore_ascii_case(owner),
            Self::Enterprise(_) => true,
            // Its jobs come from pipelines, which ask for a pool.
            Self::Pool(..) => false,
        }
    }

    /// The repository that a job without one is taken to come from.
    #[must_use]
    pub fn default_repository(&self) -> String {
        match self {
            Self::Repository(owner, name) => format!("{owner}/{name}"),
            Self::Organization(name) | Self::Enterprise(name) => format!("{name}/demo"),
            Self::Pool(..) => "playground/demo".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn scopes_are_read_from_rest_paths_and_from_web_addresses() {
        for (path, url) in [("repos/o/r", "o/r"), ("orgs/acme", "acme/"), ("enterprises/big", "enterprises/big")] {
            let scope = Scope::parse(path).expect("a scope");
            assert_eq!(Scope::from_url_path(url), Some(scope.clone()));
            assert_eq!(scope.to_string(), path);
        }
        assert_eq!(Scope::parse("repos/o"), None);
        let pool = Scope::Pool("tfs/Collection".into(), "Default".into());
        assert_eq!(Scope::parse(&pool.to_string()), Some(pool));
    }

    #[test]
    fn an_organisation_serves_its_repositories_only() {
        let scope = Scope::Organization("acme".into());
        assert!(scope.serves("Acme/tool") && !scope.serves("other/tool"));
    }
}
