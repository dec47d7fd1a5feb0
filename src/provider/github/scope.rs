//! The scope: one repository, one organisation or one enterprise, and what it needs of a credential.

use std::fmt;

use super::host::RepoUrl;
use crate::config::Reader;
use crate::shown::{quoted, shown};

/// Whose runners they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// One repository.
    Repository { owner: String, name: String },
    /// One organisation.
    Organization(String),
    /// One enterprise.
    Enterprise(String),
    /// Wherever the given configuration belongs to.
    OfConfiguration,
}

impl Scope {
    /// The path below the API's base.
    pub(super) fn api_path(&self) -> String {
        match self {
            Self::Repository { owner, name } => format!("/repos/{owner}/{name}"),
            Self::Organization(owner) => format!("/orgs/{owner}"),
            Self::Enterprise(name) => format!("/enterprises/{name}"),
            Self::OfConfiguration => String::new(),
        }
    }

    /// What a token needs for this scope.
    pub(super) fn permission(&self) -> &'static str {
        match self {
            Self::Repository { .. } => {
                "the permission Administration (read and write) on the repository, or, as a classic token, the scope repo"
            }
            Self::Organization(_) => {
                "the organisation permission Self-hosted runners (read and write), or, as a classic token, the scope admin:org"
            }
            Self::Enterprise(_) => "the scope manage_runners:enterprise of a classic token",
            Self::OfConfiguration => "no permission",
        }
    }

    /// What a GitHub App needs for this scope.
    pub(super) fn app_permission(&self) -> &'static str {
        match self {
            Self::Repository { .. } => "the repository permission Administration (read and write)",
            Self::Organization(_) | Self::Enterprise(_) | Self::OfConfiguration => {
                "the organisation permission Self-hosted runners (read and write)"
            }
        }
    }

    /// The settings that name it.
    pub(super) fn settings(&self) -> &'static str {
        match self {
            Self::Repository { .. } => "GITHUB_OWNER and GITHUB_REPO",
            Self::Organization(_) => "GITHUB_OWNER",
            Self::Enterprise(_) => "GITHUB_ENTERPRISE",
            Self::OfConfiguration => "ACTIONS_RUNNER_INPUT_JITCONFIG",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, name } => write!(f, "{owner}/{name}"),
            Self::Organization(owner) => write!(f, "organisation {owner}"),
            Self::Enterprise(name) => write!(f, "enterprise {name}"),
            Self::OfConfiguration => f.write_str("the given just-in-time configuration"),
        }
    }
}

/// Reads the settings; `None` when they name no scope although one is `needed`, or make no sense, which the reader then knows.
pub(super) fn read(reader: &mut Reader<'_>, repo_url: Option<&RepoUrl>, needed: bool) -> Option<Scope> {
    let mut owner = reader.text("GITHUB_OWNER");
    let mut repo = reader.text("GITHUB_REPO");
    let enterprise = reader.text("GITHUB_ENTERPRISE");
    if let Some((in_repo, name)) = repo.clone().as_deref().and_then(|repo| repo.split_once('/')) {
        if owner.as_deref().is_some_and(|owner| !owner.eq_ignore_ascii_case(in_repo)) {
            reader.problem(
                "GITHUB_REPO",
                format!(
                    "names the owner {}, but GITHUB_OWNER is {}",
                    quoted(in_repo),
                    quoted(owner.as_deref().unwrap_or_default())
                ),
                "make them agree, or unset GITHUB_OWNER",
            );
        }
        owner = Some(in_repo.to_owned());
        repo = Some(name.to_owned());
    }
    if let Some(url) = repo_url {
        let from_url = (url.parts.first().cloned(), url.parts.get(1).cloned());
        let differs = |ours: &Option<String>, theirs: &Option<String>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => !ours.eq_ignore_ascii_case(theirs),
            (ours, _) => ours.is_some(),
        };
        if differs(&owner, &from_url.0) || differs(&repo, &from_url.1) {
            reader.problem("REPO_URL", "contradicts GITHUB_OWNER and GITHUB_REPO", "keep the latter only");
        }
        owner = owner.or(from_url.0);
        repo = repo.or(from_url.1);
    }
    if let Some(login) = reader.foreign("APP_LOGIN") {
        if owner.as_deref().is_some_and(|owner| !owner.eq_ignore_ascii_case(&login)) {
            reader.problem(
                "APP_LOGIN",
                "names another owner than the other settings",
                "unset it: the App's installation is looked up by GITHUB_OWNER and GITHUB_REPO",
            );
        }
        reader.note("APP_LOGIN was read as GITHUB_OWNER");
        owner = owner.or(Some(login));
    }
    let declared = reader.foreign("RUNNER_SCOPE").map(|scope| scope.to_ascii_lowercase());
    if let Some(declared) = &declared {
        reader.note(format!(
            "RUNNER_SCOPE={} was compared with GITHUB_OWNER, GITHUB_REPO and GITHUB_ENTERPRISE",
            shown(declared)
        ));
    }
    for (setting, value) in [("GITHUB_OWNER", &owner), ("GITHUB_REPO", &repo), ("GITHUB_ENTERPRISE", &enterprise)] {
        if let Some(value) = value
            && !is_segment(value)
        {
            reader.problem(
                setting,
                format!("{} is no name on GitHub", quoted(value)),
                "use letters, digits, dashes, dots, underscores",
            );
            return None;
        }
    }
    let scope = match (owner, repo, enterprise) {
        (None, None, Some(enterprise)) => Scope::Enterprise(enterprise),
        (Some(owner), Some(name), None) => Scope::Repository { owner, name },
        (Some(owner), None, None) => Scope::Organization(owner),
        (_, _, Some(_)) => {
            reader.problem(
                "GITHUB_ENTERPRISE",
                "a runner belongs to an enterprise, an organisation or a repository, and more than one is set",
                "keep GITHUB_ENTERPRISE, or GITHUB_OWNER with GITHUB_REPO",
            );
            return None;
        }
        (None, Some(_), None) => {
            reader.problem("GITHUB_OWNER", "is not set, but GITHUB_REPO is", "set it, or write GITHUB_REPO=owner/name");
            return None;
        }
        (None, None, None) if !needed => Scope::OfConfiguration,
        (None, None, None) => {
            reader.problem(
                "GITHUB_OWNER",
                "nothing says whose runner this is",
                "set GITHUB_OWNER (organisation), GITHUB_OWNER and GITHUB_REPO (repository), or GITHUB_ENTERPRISE",
            );
            return None;
        }
    };
    let fits = match declared.as_deref() {
        None => true,
        Some(declared) if declared.starts_with("repo") => matches!(scope, Scope::Repository { .. }),
        Some(declared) if declared.starts_with("org") => matches!(scope, Scope::Organization(_)),
        Some(declared) if declared.starts_with("ent") => matches!(scope, Scope::Enterprise(_)),
        Some(_) => false,
    };
    if !fits {
        reader.problem(
            "RUNNER_SCOPE",
            format!(
                "{} contradicts the scope that the other settings give ({scope})",
                quoted(&declared.unwrap_or_default())
            ),
            "unset RUNNER_SCOPE; GITHUB_OWNER, GITHUB_REPO and GITHUB_ENTERPRISE say it all",
        );
    }
    Some(scope)
}

/// One segment of a URL's path, as GitHub's names are.
fn is_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
