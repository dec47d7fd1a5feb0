//! GitHub's settings, and the names that other containers use for them.

use std::fmt;

use super::{jit, jwt};
use crate::config::table::{Kind, Setting};
use crate::config::{Common, Reader, SecretSource};
use crate::provider::agents::architecture;

/// The settings of this provider.
pub const TABLE: &[Setting] = &[
    Setting {
        name: "GITHUB_PAT",
        kind: Kind::Secret,
        default: "one credential is needed",
        about: "A personal access token that may manage self-hosted runners of the scope.",
        aliases: &["ACCESS_TOKEN", "GH_PAT"],
    },
    Setting {
        name: "GITHUB_APP_ID",
        kind: Kind::Text,
        default: "unset",
        about: "The id or client id of a GitHub App that is installed for the owner, instead of a token of a person. With `GITHUB_APP_PRIVATE_KEY`.",
        aliases: &["APP_ID"],
    },
    Setting {
        name: "GITHUB_APP_PRIVATE_KEY",
        kind: Kind::Secret,
        default: "one credential is needed",
        about: "The App's private key (PEM), as GitHub gave it; in a variable, `\\n` may stand for the ends of lines.",
        aliases: &["APP_PRIVATE_KEY"],
    },
    Setting {
        name: "GITHUB_APP_INSTALLATION_ID",
        kind: Kind::Text,
        default: "looked up by owner and repository",
        about: "The number of the App's installation.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_TOKEN",
        kind: Kind::Secret,
        default: "one credential is needed",
        about: "A registration token made by hand. It lives for an hour, and with it alone a killed container's registration cannot be removed by the next one.",
        aliases: &[],
    },
    Setting {
        name: "ACTIONS_RUNNER_INPUT_JITCONFIG",
        kind: Kind::Secret,
        default: "one credential is needed",
        about: "A just-in-time configuration that was made elsewhere (`generate-jitconfig`), complete by itself: no owner, no other credential. It is good for one job.",
        aliases: &[],
    },
    Setting {
        name: "GITHUB_OWNER",
        kind: Kind::Text,
        default: "needed, unless `GITHUB_ENTERPRISE` is set",
        about: "The organisation, or the owner of the repository.",
        aliases: &["ORG_NAME", "ORG"],
    },
    Setting {
        name: "GITHUB_REPO",
        kind: Kind::Text,
        default: "unset: the whole organisation",
        about: "The repository, as `name` or `owner/name`.",
        aliases: &["REPO"],
    },
    Setting {
        name: "GITHUB_ENTERPRISE",
        kind: Kind::Text,
        default: "unset",
        about: "The enterprise's slug, for runners of a whole enterprise.",
        aliases: &["ENTERPRISE_NAME"],
    },
    Setting {
        name: "GITHUB_HOST",
        kind: Kind::Text,
        default: "`github.com`",
        about: "The host, `host:port` or URL of GitHub Enterprise Server or `<name>.ghe.com`.",
        aliases: &[],
    },
    Setting {
        name: "GITHUB_API_URL",
        kind: Kind::Text,
        default: "worked out from `GITHUB_HOST`",
        about: "The API's base URL: `https://api.github.com`, `https://api.<name>.ghe.com`, `https://<host>/api/v3`.",
        aliases: &[],
    },
    Setting {
        name: "GITHUB_RUNNER_GROUP",
        kind: Kind::Text,
        default: "the default group",
        about: "The runner group, by name.",
        aliases: &["RUNNER_GROUP"],
    },
    Setting {
        name: "RUNNER_NO_DEFAULT_LABELS",
        kind: Kind::Flag,
        default: "false",
        about: "Leave out `self-hosted`, the system and the architecture, which the agent adds by itself.",
        aliases: &["NO_DEFAULT_LABELS"],
    },
    Setting {
        name: "OSCR_REGISTRATION",
        kind: Kind::Text,
        default: "`token`",
        about: "`token`: a registration token and the agent's configure step. `jit`: a just-in-time configuration, without it.",
        aliases: &[],
    },
];

/// What the credential is.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A personal access token: it can ask for anything.
    Pat(SecretSource),
    /// A GitHub App: it can ask for tokens that can ask for anything.
    App(AppKey),
    /// A registration token: it can configure and remove.
    RegistrationToken(SecretSource),
    /// A just-in-time configuration: a registration that somebody else made.
    JitConfig(SecretSource),
}

impl Credential {
    /// Where the secret comes from.
    pub fn source(&self) -> &SecretSource {
        match self {
            Self::Pat(source) | Self::RegistrationToken(source) | Self::JitConfig(source) => source,
            Self::App(app) => &app.key,
        }
    }

    /// Whether GitHub's API answers to it.
    pub fn asks(&self) -> bool {
        matches!(self, Self::Pat(_) | Self::App(_))
    }
}

/// A GitHub App, and how it proves to be it.
#[derive(Debug, Clone)]
pub struct AppKey {
    /// Its id or client id.
    pub issuer: String,
    /// Its private key.
    pub key: SecretSource,
    /// The installation, if the user named it.
    pub installation: Option<u64>,
}

/// Whose runners they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One repository.
    Repository {
        /// Its owner.
        owner: String,
        /// Its name.
        name: String,
    },
    /// One organisation.
    Organization(String),
    /// One enterprise.
    Enterprise(String),
    /// Wherever the given configuration belongs to.
    OfConfiguration,
}

impl Scope {
    /// The path below the API's base.
    pub fn api_path(&self) -> String {
        match self {
            Self::Repository { owner, name } => format!("/repos/{owner}/{name}"),
            Self::Organization(owner) => format!("/orgs/{owner}"),
            Self::Enterprise(name) => format!("/enterprises/{name}"),
            Self::OfConfiguration => String::new(),
        }
    }

    /// What a token needs for this scope.
    pub fn permission(&self) -> &'static str {
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
    pub fn app_permission(&self) -> &'static str {
        match self {
            Self::Repository { .. } => "the repository permission Administration (read and write)",
            Self::Organization(_) | Self::Enterprise(_) | Self::OfConfiguration => {
                "the organisation permission Self-hosted runners (read and write)"
            }
        }
    }

    /// The settings that name it.
    pub fn settings(&self) -> &'static str {
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

/// Where the forge is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The base of its web pages, without a slash at the end.
    pub web: String,
    /// The base of its API, likewise.
    pub api: String,
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
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let web = format!("{}://{host}{port}", url.scheme());
        let api = match host {
            "github.com" | "www.github.com" => "https://api.github.com".to_owned(),
            host if host.ends_with(".ghe.com") => format!("{}://api.{host}{port}", url.scheme()),
            _ => format!("{web}/api/v3"),
        };
        Some(Self { web, api })
    }

    /// Whether it is GitHub's own: github.com, or a company's part of it.
    pub fn is_github_com(&self) -> bool {
        let url = reqwest::Url::parse(&self.web).ok();
        let host = url.as_ref().and_then(|url| url.host_str());
        host.is_some_and(|host| matches!(host, "github.com" | "www.github.com") || host.ends_with(".ghe.com"))
    }
}

/// All of GitHub's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub host: Host,
    pub scope: Scope,
    pub credential: Credential,
    pub group: Option<String>,
    pub labels: Vec<String>,
    pub no_default_labels: bool,
    pub jit: bool,
    pub persistent: bool,
}

impl Settings {
    /// The labels of a just-in-time runner, to which GitHub adds none: ours, and those that the agent would have added.
    pub fn jit_labels(&self) -> Vec<String> {
        let mut labels = self.labels.clone();
        let architecture = architecture().to_ascii_uppercase();
        let own = if self.no_default_labels { &[][..] } else { &["self-hosted", "Linux", &architecture] };
        for label in own {
            if !labels.iter().any(|known| known.eq_ignore_ascii_case(label)) {
                labels.push((*label).to_owned());
            }
        }
        labels
    }

    /// The page that the agent is configured with.
    pub fn web_url(&self) -> String {
        match &self.scope {
            Scope::Repository { owner, name } => format!("{}/{owner}/{name}", self.host.web),
            Scope::Organization(owner) => format!("{}/{owner}", self.host.web),
            Scope::Enterprise(name) => format!("{}/enterprises/{name}", self.host.web),
            Scope::OfConfiguration => self.host.web.clone(),
        }
    }
}

/// Reads the settings; `None` when something is missing, which the reader then knows.
pub fn read(reader: &mut Reader<'_>, common: &Common) -> Option<Settings> {
    let credential = credential(reader);
    let repo_url = repo_url(reader);
    let host = host(reader, repo_url.as_ref());
    let given = matches!(credential, Some(Credential::JitConfig(_)));
    let scope = scope(reader, repo_url.as_ref(), !given);
    let mut group = reader.text("GITHUB_RUNNER_GROUP");
    if matches!(scope, Some(Scope::Repository { .. }))
        && group.as_deref().is_some_and(|group| group.eq_ignore_ascii_case("default"))
    {
        reader.note("GITHUB_RUNNER_GROUP has no effect: repositories have no runner groups");
        group = None;
    }
    let no_default_labels = reader.flag("RUNNER_NO_DEFAULT_LABELS").unwrap_or(false);
    let jit = reader.choice("OSCR_REGISTRATION", &[("token", false), ("jit", true)], false);
    if jit && common.persistent {
        reader.problem(
            "OSCR_REGISTRATION",
            "a just-in-time runner is always ephemeral, but RUNNER_PERSISTENT is true",
            "use OSCR_REGISTRATION=token",
        );
    }
    if given {
        if common.persistent {
            reader.problem(
                "RUNNER_PERSISTENT",
                "a just-in-time runner is always ephemeral, and ACTIONS_RUNNER_INPUT_JITCONFIG is one",
                "unset RUNNER_PERSISTENT",
            );
        }
        reader.note(
            "ACTIONS_RUNNER_INPUT_JITCONFIG names the runner, its labels and its group: settings about these have no effect",
        );
    }
    if jit && matches!(credential, Some(Credential::RegistrationToken(_))) {
        reader.problem(
            "OSCR_REGISTRATION",
            "jit needs a token that can ask GitHub's API, and RUNNER_TOKEN cannot",
            "use GITHUB_PAT or a GitHub App, or OSCR_REGISTRATION=token",
        );
    }
    if matches!(credential, Some(Credential::App(_))) && matches!(scope, Some(Scope::Enterprise(_))) {
        reader.problem(
            "GITHUB_ENTERPRISE",
            "GitHub lets no App manage the runners of an enterprise",
            "use GITHUB_PAT, or register with an organisation",
        );
    }
    if group.is_some() && matches!(scope, Some(Scope::Repository { .. })) {
        reader.problem(
            "GITHUB_RUNNER_GROUP",
            "repositories have no runner groups",
            "unset it, or unset GITHUB_REPO to register with the organisation",
        );
    }
    let labels = match &common.labels {
        Some(labels) => labels.clone(),
        // The agent adds the architecture and system in its own spelling.
        None if no_default_labels => vec!["docker".to_owned()],
        None => ["linux", "docker", "self-hosted"].map(str::to_owned).to_vec(),
    };
    reader.effective("RUNNER_LABELS", labels.join(","));
    let settings = Settings {
        host: host?,
        scope: scope?,
        credential: credential?,
        group,
        labels,
        no_default_labels,
        jit,
        persistent: common.persistent,
    };
    reader.effective("GITHUB_API_URL", &settings.host.api);
    reader.effective("scope", &settings.scope);
    Some(settings)
}

fn credential(reader: &mut Reader<'_>) -> Option<Credential> {
    let problems = reader.problems();
    let app = app(reader);
    let pat = reader.secret("GITHUB_PAT");
    let token = reader.secret("RUNNER_TOKEN");
    let jit_config = reader.secret("ACTIONS_RUNNER_INPUT_JITCONFIG");
    if let Some(source) = &jit_config {
        if let Ok(value) = source.read()
            && let Err(error) = jit::decode(value.expose())
        {
            reader.problem(
                &source.setting,
                format!("is no just-in-time configuration: {error}"),
                "give the encoded_jit_config that generate-jitconfig answered with, as it is",
            );
        }
        if app.is_some() || pat.is_some() || token.is_some() {
            reader.problem(
                &source.setting,
                "is complete by itself, but another credential is given too",
                "keep one of them",
            );
        }
    }
    let mut given: Vec<Credential> = app.map(Credential::App).into_iter().collect();
    given.extend(pat.map(Credential::Pat));
    given.extend(token.map(Credential::RegistrationToken));
    given.extend(jit_config.map(Credential::JitConfig));
    let mut given = given.into_iter();
    let Some(first) = given.next() else {
        // One that cannot be read was meant to be there: its own problem says all.
        if reader.problems() == problems {
            let secrets = ["GITHUB_PAT", "GITHUB_APP_PRIVATE_KEY", "RUNNER_TOKEN", "ACTIONS_RUNNER_INPUT_JITCONFIG"];
            reader.problem(
                "GITHUB_PAT",
                format!("there is no credential{}", reader.empty_files(&secrets)),
                "set GITHUB_PAT_FILE (better) or GITHUB_PAT to a personal access token, or GITHUB_APP_ID and \
                 GITHUB_APP_PRIVATE_KEY_FILE, or RUNNER_TOKEN to a registration token, or ACTIONS_RUNNER_INPUT_JITCONFIG",
            );
        }
        return None;
    };
    for other in given {
        reader.note(format!(
            "{} is used; {} is not needed beside it and has no effect",
            first.source().setting,
            other.source().setting
        ));
    }
    Some(first)
}

/// The GitHub App, if one is named.
fn app(reader: &mut Reader<'_>) -> Option<AppKey> {
    let problems = reader.problems();
    let issuer = reader.text("GITHUB_APP_ID");
    let key = reader.secret("GITHUB_APP_PRIVATE_KEY");
    let installation = reader.text("GITHUB_APP_INSTALLATION_ID");
    let installation = installation.map(|text| match text.parse::<u64>() {
        Ok(id) => id,
        Err(_) => {
            reader.problem(
                "GITHUB_APP_INSTALLATION_ID",
                format!("{text:?} is no number"),
                "write the number at the end of the address of the installation's page, or unset it",
            );
            0
        }
    });
    if let Some(issuer) = &issuer
        && !issuer.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
    {
        reader.problem(
            "GITHUB_APP_ID",
            format!("{issuer:?} is neither an id nor a client id"),
            "copy it from the App's page: 123456, or Iv1.0123456789abcdef",
        );
    }
    // It was read a moment ago, so what can fail now is its form.
    if let Some(source) = &key
        && let Ok(value) = source.read()
        && let Err(error) = jwt::check(&value)
    {
        reader.problem(
            &source.setting,
            format!("cannot be used: {error}"),
            "generate a private key on the App's page, and give the file that GitHub hands out as it is",
        );
    }
    match (issuer, key) {
        (Some(issuer), Some(key)) => Some(AppKey { issuer, key, installation }),
        (Some(_), None) if reader.problems() == problems => {
            reader.problem(
                "GITHUB_APP_PRIVATE_KEY",
                format!("is not set, but GITHUB_APP_ID is{}", reader.empty_files(&["GITHUB_APP_PRIVATE_KEY"])),
                "set GITHUB_APP_PRIVATE_KEY_FILE (better) or GITHUB_APP_PRIVATE_KEY to the App's private key",
            );
            None
        }
        (None, Some(_)) => {
            reader.problem(
                "GITHUB_APP_ID",
                "is not set, but the private key of an App is",
                "set it to the App's id or client id",
            );
            None
        }
        _ => None,
    }
}

/// `REPO_URL` of other containers: host and scope in one.
struct RepoUrl {
    host: String,
    parts: Vec<String>,
}

fn repo_url(reader: &mut Reader<'_>) -> Option<RepoUrl> {
    let text = reader.foreign("REPO_URL")?;
    let parsed = reqwest::Url::parse(&text).ok().filter(|url| url.host_str().is_some());
    let Some(url) = parsed else {
        reader.problem("REPO_URL", format!("{text:?} is no URL"), "write GITHUB_OWNER and GITHUB_REPO instead");
        return None;
    };
    let parts: Vec<String> =
        url.path().trim_matches('/').split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.is_empty() || parts.len() > 2 {
        reader.problem(
            "REPO_URL",
            format!("{text:?} names no repository"),
            "write GITHUB_OWNER and GITHUB_REPO instead",
        );
        return None;
    }
    reader.note("REPO_URL was read as GITHUB_HOST, GITHUB_OWNER and GITHUB_REPO");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(RepoUrl { host: format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default()), parts })
}

fn host(reader: &mut Reader<'_>, repo_url: Option<&RepoUrl>) -> Option<Host> {
    let text = reader.text("GITHUB_HOST");
    let text = text.or_else(|| repo_url.map(|url| url.host.clone())).unwrap_or_else(|| "github.com".to_owned());
    let mut host = Host::parse(&text);
    match &mut host {
        None => reader.problem(
            "GITHUB_HOST",
            format!("{text:?} is neither a host, nor host:port, nor a URL without a path"),
            "write github.example.com, github.example.com:8443 or https://github.example.com",
        ),
        Some(host) => {
            if let Some(api) = reader.text("GITHUB_API_URL") {
                let api = api.trim_end_matches('/').to_owned();
                match reqwest::Url::parse(&api) {
                    Ok(url) if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() => host.api = api,
                    _ => reader.problem("GITHUB_API_URL", format!("{api:?} is no URL"), "write https://host/api/v3"),
                }
            }
        }
    }
    host
}

fn scope(reader: &mut Reader<'_>, repo_url: Option<&RepoUrl>, needed: bool) -> Option<Scope> {
    let mut owner = reader.text("GITHUB_OWNER");
    let mut repo = reader.text("GITHUB_REPO");
    let enterprise = reader.text("GITHUB_ENTERPRISE");
    if let Some((in_repo, name)) = repo.clone().as_deref().and_then(|repo| repo.split_once('/')) {
        if owner.as_deref().is_some_and(|owner| !owner.eq_ignore_ascii_case(in_repo)) {
            reader.problem(
                "GITHUB_REPO",
                format!("names the owner {in_repo:?}, but GITHUB_OWNER is {:?}", owner.as_deref().unwrap_or_default()),
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
        reader
            .note(format!("RUNNER_SCOPE={declared} was compared with GITHUB_OWNER, GITHUB_REPO and GITHUB_ENTERPRISE"));
    }
    for (setting, value) in [("GITHUB_OWNER", &owner), ("GITHUB_REPO", &repo), ("GITHUB_ENTERPRISE", &enterprise)] {
        if let Some(value) = value
            && !is_segment(value)
        {
            reader.problem(
                setting,
                format!("{value:?} is no name on GitHub"),
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
            format!("{:?} contradicts the scope that the other settings give ({scope})", declared.unwrap_or_default()),
            "unset RUNNER_SCOPE; GITHUB_OWNER, GITHUB_REPO and GITHUB_ENTERPRISE say it all",
        );
    }
    Some(scope)
}

/// One segment of a URL's path, as GitHub's names are.
fn is_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problem;

    fn read_settings<const N: usize>(variables: [(&str, &str); N]) -> Result<(String, Vec<String>), Vec<Problem>> {
        super::super::FORGE.read_settings(variables)
    }

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

    #[test]
    fn the_three_scopes() {
        let scope = |variables| read_settings(variables).unwrap().0;
        assert_eq!(
            scope([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "o"), ("GITHUB_REPO", "r")]),
            "https://api.github.com/repos/o/r/actions"
        );
        assert_eq!(
            scope([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "o"), ("GITHUB_HOST", "ghes.local")]),
            "https://ghes.local/api/v3/orgs/o/actions"
        );
        assert_eq!(
            scope([("GITHUB_PAT", "abcd"), ("GITHUB_ENTERPRISE", "e"), ("GITHUB_API_URL", "http://h/x/")]),
            "http://h/x/enterprises/e/actions"
        );
    }

    #[test]
    fn names_of_other_containers_work_and_are_noted() {
        let (scope, notes) = read_settings([
            ("ACCESS_TOKEN", "abcd"),
            ("REPO", "o/r"),
            ("RUNNER_SCOPE", "repo"),
            ("LABELS", "a,b"),
            ("EPHEMERAL", "1"),
        ])
        .unwrap();
        assert_eq!(scope, "https://api.github.com/repos/o/r/actions");
        for name in ["ACCESS_TOKEN", "REPO", "RUNNER_SCOPE", "LABELS", "EPHEMERAL"] {
            assert_eq!(notes.iter().filter(|note| note.starts_with(name)).count(), 1, "{name}: {notes:?}");
        }
        let (scope, notes) = read_settings([("GH_PAT", "abcd"), ("REPO_URL", "https://ghe.corp/o/r")]).unwrap();
        assert_eq!(scope, "https://ghe.corp/api/v3/repos/o/r/actions");
        assert_eq!(notes.len(), 2, "{notes:?}");
        let (scope, _) = read_settings([("ACCESS_TOKEN", "abcd"), ("ORG_NAME", "o"), ("RUNNER_GROUP", "g")]).unwrap();
        assert_eq!(scope, "https://api.github.com/orgs/o/actions");
        let (scope, _) =
            read_settings([("ACCESS_TOKEN", "abcd"), ("ENTERPRISE_NAME", "e"), ("RUNNER_SCOPE", "ent")]).unwrap();
        assert_eq!(scope, "https://api.github.com/enterprises/e/actions");
    }

    #[test]
    fn contradictions_and_gaps_are_all_reported() {
        let problems = |variables| {
            let problems = read_settings(variables).unwrap_err();
            problems.iter().map(|problem| problem.setting.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            problems([("GITHUB_REPO", "r"), ("OSCR_LOG", "xml"), ("", "")]),
            ["OSCR_LOG", "GITHUB_PAT", "GITHUB_OWNER"]
        );
        assert_eq!(problems([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "a"), ("GITHUB_REPO", "b/c")]), ["GITHUB_REPO"]);
        assert_eq!(
            problems([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "a"), ("GITHUB_ENTERPRISE", "e")]),
            ["GITHUB_ENTERPRISE"]
        );
        assert_eq!(problems([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "../x"), ("", "")]), ["GITHUB_OWNER"]);
        assert_eq!(
            problems([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "a"), ("RUNNER_SCOPE", "repo")]),
            ["RUNNER_SCOPE"]
        );
        assert_eq!(problems([("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "a"), ("RUNNER_NAME", "x")]), ["RUNNER_NAME"]);
    }
}
