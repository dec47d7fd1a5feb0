//! GitHub's settings: each by itself, and what they must not say together.

use std::path::PathBuf;

use super::address::{Address, Server};
use super::credential::{self, Credential};
use super::exceptions;
use super::host::{self, Host, OtherPort};
use super::jit;
use super::scope::{self, Scope};
use crate::config::{Common, Reader};
use crate::provider::agents::architecture;

/// The most labels that GitHub takes for a runner.
const MOST_LABELS: usize = 100;

/// All of GitHub's settings.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub host: Host,
    pub scope: Scope,
    pub credential: Credential,
    pub group: Option<String>,
    pub labels: Vec<String>,
    pub no_default_labels: bool,
    pub jit: bool,
    pub persistent: bool,
    /// Where replicas share a registration token.
    pub token_cache: Option<PathBuf>,
}

impl Settings {
    /// The labels of a just-in-time runner, to which GitHub adds none: ours, and those that the agent would have added.
    pub(super) fn jit_labels(&self) -> Vec<String> {
        let mut labels = self.labels.clone();
        let architecture = architecture().to_ascii_uppercase();
        let own = if self.no_default_labels { &[][..] } else { &["self-hosted", "Linux", &architecture] };
        own.iter().for_each(|label| add(&mut labels, label));
        labels
    }

    /// The page that the agent is configured with.
    pub(super) fn web_url(&self) -> String {
        match &self.scope {
            Scope::Repository { owner, name } => format!("{}/{owner}/{name}", self.host.web),
            Scope::Organization(owner) => format!("{}/{owner}", self.host.web),
            Scope::Enterprise(name) => format!("{}/enterprises/{name}", self.host.web),
            Scope::OfConfiguration => self.host.web.clone(),
        }
    }
}

/// Adds a label, if it is not there: GitHub takes no two that differ in case alone.
fn add(labels: &mut Vec<String>, label: &str) {
    if !labels.iter().any(|known| known.eq_ignore_ascii_case(label)) {
        labels.push(label.to_owned());
    }
}

/// Reads the settings; `None` when something is missing, which the reader then knows.
pub(super) fn read(reader: &mut Reader<'_>, common: &Common) -> Option<Settings> {
    let credential = credential::read(reader);
    let given = matches!(credential, Some(Credential::JitConfig(_)));
    let (scope, mut servers) = scope::read(reader, !given);
    servers.extend(credential.as_ref().and_then(of_configuration).map(|server| (host::OF_CONFIGURATION, server)));
    let host = host::read(reader, &servers);
    exceptions::note(reader, &common.network, host.as_ref());
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
    if !jit && !given {
        dropped_port(reader, common, credential.as_ref(), host.as_ref());
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
    let token_cache = reader.text("OSCR_TOKEN_CACHE").map(PathBuf::from);
    if token_cache.as_ref().is_some_and(|directory| !directory.is_absolute()) {
        reader.problem("OSCR_TOKEN_CACHE", "is not an absolute path", "write /var/cache/oscr/tokens, and mount it");
    }
    let mut labels = match &common.labels {
        Some(labels) => labels.clone(),
        // The agent adds the architecture and system in its own spelling.
        None if no_default_labels => vec!["docker".to_owned()],
        None => ["linux", "docker", "self-hosted"].map(str::to_owned).to_vec(),
    };
    for (_, label) in &common.added_labels {
        add(&mut labels, label);
    }
    reader.effective("RUNNER_LABELS", labels.join(","));
    if labels.len() > MOST_LABELS {
        let what = format!("names {} labels, and GitHub takes {MOST_LABELS} for a runner", labels.len());
        if jit {
            reader.problem("RUNNER_LABELS", what, "name fewer");
        } else {
            reader.warning(format!("RUNNER_LABELS {what}: jobs that ask for others may wait for ever"));
        }
    }
    let settings = Settings {
        host: host?,
        scope: scope?,
        credential: credential?,
        group,
        labels,
        no_default_labels,
        jit,
        persistent: common.persistent,
        token_cache,
    };
    reader.effective("GITHUB_HOST", &settings.host.web);
    reader.effective("GITHUB_API_URL", &settings.host.api);
    reader.effective("scope", &settings.scope);
    Some(settings)
}

/// The server of a just-in-time configuration that was made elsewhere, if it names one.
fn of_configuration(credential: &Credential) -> Option<Server> {
    let Credential::JitConfig(source) = credential else { return None };
    let page = jit::page(source.read().ok()?.expose()).ok().flatten()?;
    Address::of_server(&page)?.server
}

/// The runner that is configured by a token drops the port of the address, and sends the token to whoever is at the scheme's own.
fn dropped_port(reader: &mut Reader<'_>, common: &Common, credential: Option<&Credential>, host: Option<&Host>) {
    let Some((setting, OtherPort { port, host, own })) = host.and_then(|host| Some((host.setting, host.other_port()?)))
    else {
        return;
    };
    let what =
        format!("the runner that is configured by a token drops the port {port}, and would send the token to {host}");
    let mut cure = format!("have the server or a proxy listen on port {own}, and name no port");
    if !common.persistent && credential.is_none_or(Credential::asks) {
        cure = format!("use OSCR_REGISTRATION=jit, or {cure}");
    }
    reader.problem(setting, what, cure);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Problem, table};

    fn read_settings<const N: usize>(variables: [(&str, &str); N]) -> Result<(String, Vec<String>), Vec<Problem>> {
        super::super::FORGE.read_settings(variables)
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
    fn a_port_that_the_runner_would_drop_is_refused_with_the_cure_that_there_is() {
        let cure = |host: (&str, &str), more: [(&str, &str); 2]| {
            let [first, second] = more;
            let read = read_settings([("GITHUB_OWNER", "o"), ("GITHUB_REPO", "r"), host, first, second]);
            read.err().map(|problems| {
                assert_eq!(problems.len(), 1, "{problems:?}");
                assert_eq!(problems[0].setting, host.0);
                assert!(problems[0].what.contains("drops the port 8"), "{}", problems[0].what);
                problems[0].cure.clone()
            })
        };
        let (pat, token) = (("GITHUB_PAT", "abcd"), ("RUNNER_TOKEN", "abcd"));
        let none = ("OSCR_LOG", "text");
        let plain = "have the server or a proxy listen on port 80, and name no port";
        let with = ("GITHUB_HOST", "http://forge:8080");
        assert_eq!(cure(with, [pat, none]).unwrap(), format!("use OSCR_REGISTRATION=jit, or {plain}"));
        assert_eq!(cure(with, [token, none]).unwrap(), plain);
        assert_eq!(cure(with, [pat, ("RUNNER_PERSISTENT", "true")]).unwrap(), plain);
        assert!(cure(("GITHUB_HOST", "forge:8443"), [token, none]).unwrap().contains("port 443"));
        assert_eq!(cure(with, [pat, ("OSCR_REGISTRATION", "jit")]), None);
        for own in ["http://forge:80", "forge:443", "https://forge:443", "forge"] {
            assert_eq!(cure(("GITHUB_HOST", own), [token, none]), None, "{own}");
        }
        assert_eq!(cure(("GITHUB_API_URL", "http://forge:8080/api/v3"), [token, none]).unwrap(), plain);
        let problems = read_settings([pat, ("REPO_URL", "https://forge:8443/o/r")]).unwrap_err();
        assert_eq!(problems[0].setting, "REPO_URL");
    }

    #[test]
    fn addresses_say_server_and_scope_wherever_they_stand() {
        let api = "https://api.github.com";
        for (setting, value, scope) in [
            ("REPO_URL", "https://github.com/acme/widgets.git", "repos/acme/widgets"),
            ("REPO_URL", "git@github.com:acme/widgets.git", "repos/acme/widgets"),
            ("REPO_URL", "github.com/orgs/acme", "orgs/acme"),
            ("REPO_URL", "https://github.com/enterprises/acme", "enterprises/acme"),
            ("REPO_URL", "acme/widgets", "repos/acme/widgets"),
            ("GITHUB_REPO", "https://www.github.com/acme/widgets/settings/actions/runners/new", "repos/acme/widgets"),
            ("GITHUB_REPO", "acme/widgets.git", "repos/acme/widgets"),
            ("GITHUB_REPO", "/acme/widgets/", "repos/acme/widgets"),
            ("GITHUB_OWNER", "https://github.com/acme/?tab=repositories", "orgs/acme"),
            ("GITHUB_OWNER", "https://github.com/acme/widgets/tree/main", "repos/acme/widgets"),
            ("GITHUB_OWNER", "@acme", "orgs/acme"),
            ("GITHUB_OWNER", "orgs/acme", "orgs/acme"),
            ("GITHUB_ENTERPRISE", "https://github.com/enterprises/acme/settings", "enterprises/acme"),
            ("GITHUB_ENTERPRISE", "enterprises/acme", "enterprises/acme"),
            ("GITHUB_HOST", "https://github.com/acme/widgets", "repos/acme/widgets"),
        ] {
            let (found, _) = read_settings([("GITHUB_PAT", "abcd"), (setting, value)]).unwrap();
            assert_eq!(found, format!("{api}/{scope}/actions"), "{setting}={value}");
        }
        let (found, notes) = read_settings([
            ("GITHUB_PAT", "'abcd'"),
            ("GITHUB_OWNER", "\"acme\"\r"),
            ("GITHUB_REPO", "http://ghes.corp/acme/widgets"),
        ])
        .unwrap();
        assert_eq!(found, "http://ghes.corp/api/v3/repos/acme/widgets/actions");
        for name in ["GITHUB_PAT stands in quotes", "GITHUB_OWNER stands in quotes", "GITHUB_REPO is an address"] {
            assert_eq!(notes.iter().filter(|note| note.starts_with(name)).count(), 1, "{name}: {notes:?}");
        }
        for (setting, value) in [
            ("GITHUB_REPO", "https://github.com/acme"),
            ("GITHUB_OWNER", "https://github.com"),
            ("GITHUB_OWNER", "ftp://github.com/acme"),
            ("GITHUB_ENTERPRISE", "https://github.com/acme"),
            ("REPO_URL", "https://github.com/"),
        ] {
            let problems = read_settings([("GITHUB_PAT", "abcd"), (setting, value)]).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].setting, setting, "{problems:?}");
        }
    }

    #[test]
    fn labels_that_no_job_asks_for_and_too_many_are_told_of() {
        let warnings = |labels: &str, registration: &str| {
            let variables = [
                ("GITHUB_PAT", "abcd"),
                ("GITHUB_OWNER", "o"),
                ("RUNNER_LABELS", labels),
                ("OSCR_REGISTRATION", registration),
            ];
            let environment = Environment::from(variables);
            let configured = crate::provider::configure(crate::provider::FORGES, &environment);
            configured.map(|configured| configured.warnings).map_err(|problems| problems.len())
        };
        for labels in ["gpu", "gpu, linux", "[\"gpu\", \"x\"]", "'gpu','x'", "ubuntu-24.04,a_b,c/d"] {
            assert_eq!(warnings(labels, "token"), Ok(vec![]), "{labels}");
        }
        for labels in ["gpu linux", "gpu;linux", "{\"a\":1}", "gpu,$HOSTNAME", "a|b", "\"open"] {
            let said = warnings(labels, "token").unwrap();
            assert!(said.len() == 1 && said[0].contains("separated by commas"), "{labels}: {said:?}");
        }
        let many: Vec<String> = (0..101).map(|number| format!("label-{number}")).collect();
        assert!(warnings(&many.join(","), "token").unwrap()[0].contains("names 101 labels"));
        assert_eq!(warnings(&many.join(","), "jit"), Err(1));
        assert_eq!(warnings(&"é".repeat(256), "token"), Ok(vec![]));
        assert_eq!(warnings(&"é".repeat(257), "token"), Err(1));
    }

    #[test]
    fn labels_are_added_to_the_users_or_the_default_ones_and_each_once() {
        let labels = |given: &str| {
            let environment = Environment::from([
                ("GITHUB_PAT", "abcd"),
                ("GITHUB_OWNER", "o"),
                ("RUNNER_LABELS", given),
                ("OSCR_ADD_LABELS_OLLAMA", "ai-review"),
                ("OSCR_ADD_LABELS_GPU", "gpu, GPU"),
            ]);
            let mut reader = Reader::new(&environment, vec![table::COMMON, super::super::FORGE.settings]);
            let common = Common::read(&mut reader);
            read(&mut reader, &common).unwrap().labels.join(" ")
        };
        assert_eq!(labels(""), "linux docker self-hosted gpu ai-review");
        assert_eq!(labels("mine,Ai-Review"), "mine Ai-Review gpu");
    }

    #[test]
    fn pages_and_api_are_one_servers() {
        let scope = |host: &str, api: &str| {
            let read = read_settings([
                ("GITHUB_PAT", "abcd"),
                ("GITHUB_OWNER", "o"),
                ("GITHUB_HOST", host),
                ("GITHUB_API_URL", api),
            ]);
            read.map(|(scope, _)| scope.trim_end_matches("/orgs/o/actions").to_owned())
                .map_err(|problems| problems.into_iter().map(|problem| problem.setting).collect::<Vec<_>>())
        };
        for (host, api, found) in [
            ("", "https://ghes.corp/api/v3/", "https://ghes.corp/api/v3"),
            ("", "ghes.corp", "https://ghes.corp/api/v3"),
            ("", "https://api.github.com/", "https://api.github.com"),
            ("", "https://github.com", "https://api.github.com"),
            ("", "https://api.octo.ghe.com", "https://api.octo.ghe.com"),
            ("github.com", "https://api.github.com/repos/o/r", "https://api.github.com"),
            ("octo.ghe.com", "https://api.octo.ghe.com", "https://api.octo.ghe.com"),
            ("https://ghes.corp", "https://ghes.corp:8443/api/v3/orgs/o", "https://ghes.corp:8443/api/v3"),
            ("ghes.corp", "https://ghes.corp/proxied/", "https://ghes.corp/proxied"),
        ] {
            assert_eq!(scope(host, api).as_deref(), Ok(found), "{host} {api}");
        }
        for (host, api) in [
            ("github.com", "https://ghes.corp/api/v3"),
            ("ghes.corp", "https://api.github.com"),
            ("ghes.corp", "https://other.corp/api/v3"),
            ("octo.ghe.com", "https://api.umbrella.ghe.com"),
            ("ghes.corp", "https://api.ghes.corp"),
        ] {
            assert_eq!(scope(host, api), Err(vec!["GITHUB_API_URL".to_owned()]), "{host} {api}");
        }
        // Of an API alone the agent is told the server that it belongs to.
        let configured = |variables: [(&str, &str); 4]| {
            let environment = Environment::from(variables);
            let configured = crate::provider::configure(crate::provider::FORGES, &environment);
            configured.map(|configured| configured.provider.scope()).map_err(|problems| format!("{problems:?}"))
        };
        let (pat, owner) = (("GITHUB_PAT", "abcd"), ("GITHUB_OWNER", "o"));
        for registration in ["token", "jit"] {
            let registration = ("OSCR_REGISTRATION", registration);
            let scope = configured([pat, owner, registration, ("GITHUB_API_URL", "https://ghes.corp/api/v3")]);
            assert_eq!(scope.as_deref(), Ok("organisation o on https://ghes.corp"));
        }
        let problem = configured([pat, ("REPO_URL", "https://github.com/o/r"), ("GITHUB_HOST", "ghes.corp"), ("", "")]);
        assert!(problem.unwrap_err().contains("leads to https://github.com, and GITHUB_HOST to https://ghes.corp"));
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
    fn more_names_of_other_containers_work_and_are_noted() {
        let api = "https://api.github.com";
        for (variables, scope) in [
            ([("RUNNER_PAT", "abcd"), ("RUNNER_PRINCIPAL", "o/r"), ("RUNNER_SCOPE", "repos")], "repos/o/r"),
            ([("RUNNER_PAT", "abcd"), ("RUNNER_PRINCIPAL", "o"), ("RUNNER_SCOPE", "orgs")], "orgs/o"),
            ([("RUNNER_PAT", "abcd"), ("RUNNER_PRINCIPAL", "e"), ("RUNNER_SCOPE", "enterprises")], "enterprises/e"),
            (
                [
                    ("GITHUB_ACCESS_TOKEN", "abcd"),
                    ("RUNNER_REPOSITORY_URL", "https://github.com/o/r"),
                    ("RUNNER_WORK_DIRECTORY", "_work"),
                ],
                "repos/o/r",
            ),
            (
                [
                    ("GITHUB_ACCESS_TOKEN", "abcd"),
                    ("RUNNER_ORGANIZATION_URL", "https://github.com/o"),
                    ("RUNNER_GITHUB", "github.com"),
                ],
                "orgs/o",
            ),
        ] {
            let (found, notes) = read_settings(variables).unwrap();
            assert_eq!(found, format!("{api}/{scope}/actions"));
            for (name, _) in variables {
                assert_eq!(notes.iter().filter(|note| note.starts_with(name)).count(), 1, "{name}: {notes:?}");
            }
        }
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
