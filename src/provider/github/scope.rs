//! The scope: one repository, one organisation or one enterprise, and what it needs of a credential.

use std::fmt;

use super::address::{Address, Server};
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

/// What the settings say of the scope and the server, each with the one that said it.
#[derive(Default)]
struct Gathered {
    owner: Option<(&'static str, String)>,
    repository: Option<(&'static str, String)>,
    enterprise: Option<(&'static str, String)>,
    servers: Vec<(&'static str, Server)>,
}

impl Gathered {
    fn add(&mut self, reader: &mut Reader<'_>, setting: &'static str, address: Address) {
        self.servers.extend(address.server.map(|server| (setting, server)));
        let parts = [
            ("owner", &mut self.owner, address.owner),
            ("repository", &mut self.repository, address.repository),
            ("enterprise", &mut self.enterprise, address.enterprise),
        ];
        for (kind, known, name) in parts {
            let Some(name) = name else { continue };
            match known {
                Some((other, known)) if !known.eq_ignore_ascii_case(&name) => reader.problem(
                    setting,
                    format!("names the {kind} {}, but {other} says {}", quoted(&name), quoted(known)),
                    format!("make them agree, or unset one of them: {other} is enough"),
                ),
                Some(_) => {}
                None => *known = Some((setting, name)),
            }
        }
    }
}

/// All that settings of ours and of other containers say, in the order in which they are believed.
fn gather(reader: &mut Reader<'_>) -> Gathered {
    let mut gathered = Gathered::default();
    for setting in ["GITHUB_OWNER", "GITHUB_REPO", "GITHUB_ENTERPRISE"] {
        let Some(text) = reader.text(setting) else { continue };
        let Some(mut address) = Address::parse(&text) else {
            no_name(reader, setting, &text);
            continue;
        };
        if address.server.is_some() {
            reader.note(format!("{setting} is an address, and was read as GITHUB_HOST, GITHUB_OWNER, GITHUB_REPO"));
        }
        let alone = address.server.is_none() && address.repository.is_none();
        match setting {
            // A name by itself is what the setting says that it is.
            "GITHUB_REPO" if alone => {
                let name = address.owner.take();
                address.repository = name.map(|name| name.strip_suffix(".git").unwrap_or(&name).to_owned());
            }
            "GITHUB_ENTERPRISE" if alone => address.enterprise = address.enterprise.or(address.owner.take()),
            _ => {}
        }
        let named = match setting {
            "GITHUB_OWNER" => &address.owner,
            "GITHUB_REPO" => &address.repository,
            _ => &address.enterprise,
        };
        if named.is_none() {
            no_name(reader, setting, &text);
            continue;
        }
        gathered.add(reader, setting, address);
    }
    if let Some(text) = reader.text("GITHUB_HOST") {
        match Address::of_server(&text) {
            Some(address) => gathered.add(reader, "GITHUB_HOST", address),
            None => reader.problem(
                "GITHUB_HOST",
                format!("{} is neither a host, nor host:port, nor a URL", quoted(&text)),
                "write github.example.com, github.example.com:8443 or https://github.example.com",
            ),
        }
    }
    for (setting, text) in [
        ("REPO_URL", reader.foreign("REPO_URL")),
        ("RUNNER_REPOSITORY_URL", reader.foreign("RUNNER_REPOSITORY_URL")),
        ("RUNNER_ORGANIZATION_URL", reader.foreign("RUNNER_ORGANIZATION_URL")),
        ("RUNNER_ENTERPRISE_URL", reader.foreign("RUNNER_ENTERPRISE_URL")),
        ("RUNNER_PRINCIPAL", reader.foreign("RUNNER_PRINCIPAL")),
    ] {
        let Some(text) = text else { continue };
        let Some(mut address) = Address::parse(&text).filter(Address::names_somebody) else {
            let what = format!("{} names no repository", quoted(&text));
            reader.problem(setting, what, "write GITHUB_OWNER and GITHUB_REPO instead");
            continue;
        };
        // Its scope says what it is.
        if setting == "RUNNER_PRINCIPAL"
            && address.repository.is_none()
            && declared(reader).is_some_and(|scope| scope.starts_with("ent"))
        {
            address.enterprise = address.enterprise.or(address.owner.take());
        }
        reader.note(format!("{setting} was read as GITHUB_HOST, GITHUB_OWNER and GITHUB_REPO"));
        gathered.add(reader, setting, address);
    }
    if let Some(login) = reader.foreign("APP_LOGIN") {
        reader.note("APP_LOGIN was read as GITHUB_OWNER");
        match Address::parse(&login).filter(|address| address.owner.is_some()) {
            Some(address) => gathered.add(reader, "APP_LOGIN", address),
            None => no_name(reader, "APP_LOGIN", &login),
        }
    }
    gathered
}

/// The scope as other containers have it beside the names.
fn declared(reader: &mut Reader<'_>) -> Option<String> {
    reader.foreign("RUNNER_SCOPE").map(|scope| scope.to_ascii_lowercase())
}

fn no_name(reader: &mut Reader<'_>, setting: &str, text: &str) {
    let what = match setting {
        "GITHUB_REPO" => "repository",
        "GITHUB_ENTERPRISE" => "enterprise",
        _ => "owner",
    };
    let cure = match setting {
        "GITHUB_REPO" => "write owner/name, or the address of the repository's page",
        "GITHUB_ENTERPRISE" => "write its name, as it stands in the address of its page behind /enterprises/",
        _ => "write its name, or the address of its page",
    };
    reader.problem(setting, format!("{} names no {what} on GitHub", quoted(text)), cure);
}

/// Reads the settings. The scope is `None` when they name none although one is `needed`, or make no sense, which the reader then knows. With
/// it come the servers that they name.
pub(super) fn read(reader: &mut Reader<'_>, needed: bool) -> (Option<Scope>, Vec<(&'static str, Server)>) {
    let problems = reader.problems();
    let Gathered { owner, repository, enterprise, servers } = gather(reader);
    let name = |named: Option<(&'static str, String)>| named.map(|(_, name)| name);
    let (owner, repo, enterprise) = (name(owner), name(repository), name(enterprise));
    // A setting that makes no sense was meant to say what is missing.
    let scope = if reader.problems() == problems { scope(reader, owner, repo, enterprise, needed) } else { None };
    if let Some(scope) = &scope {
        match scope {
            Scope::Repository { owner, name } => {
                reader.effective("GITHUB_OWNER", owner);
                reader.effective("GITHUB_REPO", name);
            }
            Scope::Organization(owner) => reader.effective("GITHUB_OWNER", owner),
            Scope::Enterprise(name) => reader.effective("GITHUB_ENTERPRISE", name),
            Scope::OfConfiguration => {}
        }
    }
    (scope, servers)
}

/// The one scope that these names come to.
fn scope(
    reader: &mut Reader<'_>,
    owner: Option<String>,
    repo: Option<String>,
    enterprise: Option<String>,
    needed: bool,
) -> Option<Scope> {
    let declared = declared(reader);
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
