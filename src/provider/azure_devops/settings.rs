//! Azure DevOps' settings, and the names that Microsoft's own container uses for them.

use std::fmt::Write as _;

use super::{address, exceptions};
use crate::config::proxy;
use crate::config::table::{Setting, SettingKind};
use crate::config::{Common, Reader, SecretSource, look_at_label};
use crate::encode::digest;
use crate::shown::quoted;

/// The settings of this provider.
pub(super) const TABLE: &[Setting] = &[
    Setting {
        name: "ADO_ORG_URL",
        kind: SettingKind::Text,
        default: "needed",
        about: "The organisation (`https://dev.azure.com/<name>`, `https://<name>.visualstudio.com`), or a collection of Azure DevOps Server (`https://<server>/<path>/<collection>`).",
        aliases: &["AZP_URL"],
    },
    Setting {
        name: "ADO_PAT",
        kind: SettingKind::Secret,
        default: "one of the two is needed",
        about: "A personal access token with the scope Agent Pools (read, manage), of somebody who is administrator of the pool.",
        aliases: &["AZP_TOKEN"],
    },
    Setting {
        name: "ADO_CLIENT_SECRET",
        kind: SettingKind::Secret,
        default: "one of the two is needed",
        about: "The secret of a service principal that is administrator of the pool.",
        aliases: &["AZP_CLIENTSECRET"],
    },
    Setting {
        name: "ADO_CLIENT_ID",
        kind: SettingKind::Text,
        default: "needed with `ADO_CLIENT_SECRET`",
        about: "The service principal's application (client) id.",
        aliases: &["AZP_CLIENTID"],
    },
    Setting {
        name: "ADO_TENANT_ID",
        kind: SettingKind::Text,
        default: "needed with `ADO_CLIENT_SECRET`",
        about: "The id of its tenant.",
        aliases: &["AZP_TENANTID"],
    },
    Setting {
        name: "ADO_AUTHORITY_URL",
        kind: SettingKind::Text,
        default: "`https://login.microsoftonline.com`",
        about: "Where service principals get their tokens, for national clouds.",
        aliases: &[],
    },
    Setting {
        name: "ADO_POOL",
        kind: SettingKind::Text,
        default: "`Default`",
        about: "The agent pool, by name.",
        aliases: &["AZP_POOL"],
    },
    Setting {
        name: "ADO_PROJECT",
        kind: SettingKind::Text,
        default: "unset",
        about: "Accepted and without effect: a pool belongs to the organisation, and serves the projects that it is shared with.",
        aliases: &[],
    },
    Setting {
        name: "AGENT_LABELS",
        kind: SettingKind::List,
        default: "empty",
        about: "User capabilities that pipelines can demand: `name` (its value is then `true`) or `name=value`. `RUNNER_LABELS` counts where this is unset.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_REAP",
        kind: SettingKind::Flag,
        default: "false",
        about: "Remove agents of the pool that are offline, older than a day, and were made by OSCR with the same `RUNNER_NAME_PREFIX`, when registering.",
        aliases: &[],
    },
];

/// The user capability by which later incarnations, of any container, know agents of theirs.
pub(super) const OURS: &str = "OSCR_NAME_PREFIX";

#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// A personal access token.
    Pat(SecretSource),
    /// An application of Microsoft Entra ID.
    ServicePrincipal(Principal),
}

/// A service principal.
#[derive(Debug, Clone)]
pub(super) struct Principal {
    /// The application's id.
    pub client: String,
    /// The tenant's id.
    pub tenant: String,
    /// Where tokens are made, without a slash at the end.
    pub authority: String,
    pub secret: SecretSource,
}

impl Credential {
    /// The one secret.
    pub(super) fn secret(&self) -> &SecretSource {
        match self {
            Self::Pat(source) => source,
            Self::ServicePrincipal(principal) => &principal.secret,
        }
    }

    /// Tells it from others, and says nothing about it; `None` when it cannot be read.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let secret = self.secret().read().ok()?;
        let (tenant, client) = match self {
            Self::Pat(_) => ("", ""),
            Self::ServicePrincipal(principal) => (principal.tenant.as_str(), principal.client.as_str()),
        };
        Some(digest(&["oscr credential", secret.expose(), tenant, client]))
    }

    /// What a refused credential needs.
    pub(super) fn cure(&self) -> String {
        let source = &self.secret().setting;
        match self {
            Self::Pat(_) => format!(
                "the token in {source} needs the scope Agent Pools (read, manage), and its owner must be administrator of the pool"
            ),
            Self::ServicePrincipal(_) => format!(
                "the service principal of {source} must be a user of the organisation and administrator of the pool"
            ),
        }
    }
}

/// What was read.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The organisation's or collection's address, without a slash at the end.
    pub url: String,
    pub pool: String,
    pub credential: Credential,
    /// User capabilities.
    pub capabilities: Vec<(String, String)>,
    /// The name prefix whose old agents are removed, if asked for.
    pub reap: Option<String>,
    /// The content of the agent's file of addresses that are asked without its proxy.
    pub bypass: Option<String>,
}

impl Settings {
    /// The content of the agent's file of user capabilities.
    pub(super) fn capabilities_file(&self) -> String {
        self.capabilities.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}={value}");
            text
        })
    }
}

/// Reads the settings; `None` when something is missing, which the reader then knows.
pub(super) fn read(reader: &mut Reader<'_>, common: &Common) -> Option<Settings> {
    let url = url(reader);
    // The agent's own, if the user names it another one than ours.
    let own = reader.foreign("VSTS_HTTP_PROXY");
    let own = own.and_then(|address| proxy::proved(reader, "VSTS_HTTP_PROXY", address));
    let proxied = common.network.has_proxy() || own.is_some();
    if proxied {
        exceptions::note(reader, &common.network, url.as_deref());
    }
    let credential = credential(reader);
    let pool = reader.text("ADO_POOL").unwrap_or_else(|| "Default".to_owned());
    reader.effective("ADO_POOL", &pool);
    if reader.text("ADO_PROJECT").is_some() {
        reader.note("ADO_PROJECT has no effect: a pool belongs to the organisation, not to a project");
    }
    let mut capabilities = capabilities(reader, common);
    let prefix = common.naming.prefix().map(str::to_owned);
    if let Some(prefix) = &prefix {
        capabilities.push((OURS.to_owned(), prefix.clone()));
    }
    let reap = reader.flag("OSCR_REAP").unwrap_or(false);
    if reap && prefix.is_none() {
        reader.problem("OSCR_REAP", "knows agents by their prefix, and RUNNER_NAME has none", "use RUNNER_NAME_PREFIX");
    }
    let bypass = exceptions::file(&common.network).filter(|_| proxied);
    Some(Settings { url: url?, pool, credential: credential?, capabilities, reap: prefix.filter(|_| reap), bypass })
}

fn url(reader: &mut Reader<'_>) -> Option<String> {
    let example = "write https://dev.azure.com/<organisation>, or https://<server>/<path>/<collection>";
    let Some(text) = reader.text("ADO_ORG_URL") else {
        reader.problem("ADO_ORG_URL", "nothing says which organisation the agent belongs to", example);
        return None;
    };
    let url = match address::organisation(&text) {
        Ok(url) => url,
        Err(wrong) => {
            reader.problem("ADO_ORG_URL", format!("{} {wrong}", quoted(&text)), example);
            return None;
        }
    };
    if url != text.trim_end_matches('/') {
        reader.note(format!("ADO_ORG_URL was read as {url}"));
    }
    reader.effective("ADO_ORG_URL", &url);
    Some(url)
}

fn credential(reader: &mut Reader<'_>) -> Option<Credential> {
    let problems = reader.problems();
    let pat = reader.secret("ADO_PAT");
    let secret = reader.secret("ADO_CLIENT_SECRET");
    let client = reader.text("ADO_CLIENT_ID");
    let tenant = reader.text("ADO_TENANT_ID");
    let authority = reader.text("ADO_AUTHORITY_URL");
    let authority = authority.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
    let (authority, in_address) = address::authority(&authority, tenant.as_deref()).unwrap_or_else(|| {
        reader.problem("ADO_AUTHORITY_URL", format!("{} is no URL", quoted(&authority)), "write https://host");
        (String::new(), None)
    });
    if let (Some(theirs), Some(ours)) = (&in_address, &tenant)
        && theirs != ours
    {
        reader.problem(
            "ADO_AUTHORITY_URL",
            format!("is of the tenant {}, and ADO_TENANT_ID is {}", quoted(theirs), quoted(ours)),
            "make them agree, or write the host alone",
        );
    }
    let tenant = tenant.or(in_address);
    let secret = match (pat, secret) {
        (Some(pat), None) => {
            if client.is_some() || tenant.is_some() {
                reader
                    .note("ADO_PAT is used; ADO_CLIENT_ID and ADO_TENANT_ID have no effect without ADO_CLIENT_SECRET");
            }
            return Some(Credential::Pat(pat));
        }
        (None, Some(secret)) => secret,
        (Some(_), Some(_)) => {
            reader.problem("ADO_PAT", "and ADO_CLIENT_SECRET are both set", "keep one of them");
            return None;
        }
        // One that cannot be read was meant to be there: its own problem says all.
        (None, None) if reader.problems() > problems => return None,
        (None, None) => {
            reader.problem(
                "ADO_PAT",
                format!("there is no credential{}", reader.empty_files(&["ADO_PAT", "ADO_CLIENT_SECRET"])),
                "set ADO_PAT_FILE (better) or ADO_PAT to a personal access token, or ADO_CLIENT_ID, ADO_TENANT_ID and \
                 ADO_CLIENT_SECRET_FILE for a service principal",
            );
            return None;
        }
    };
    let mut id = |name: &'static str, value: Option<String>| match value {
        Some(value) if value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) => Some(value),
        Some(value) => {
            reader.problem(
                name,
                format!("{} is no id", quoted(&value)),
                "copy it from the application's page in Entra ID",
            );
            None
        }
        None => {
            reader.problem(name, "is not set, but ADO_CLIENT_SECRET is", "a service principal needs all three");
            None
        }
    };
    let (client, tenant) = (id("ADO_CLIENT_ID", client), id("ADO_TENANT_ID", tenant));
    Some(Credential::ServicePrincipal(Principal { client: client?, tenant: tenant?, authority, secret }))
}

fn capabilities(reader: &mut Reader<'_>, common: &Common) -> Vec<(String, String)> {
    let labels = reader.list("AGENT_LABELS");
    let setting = if labels.is_some() { "AGENT_LABELS" } else { "RUNNER_LABELS" };
    let labels = labels.or_else(|| common.labels.clone()).unwrap_or_default();
    let own: Vec<(String, String)> = labels.into_iter().map(|label| (setting.to_owned(), label)).collect();
    let mut capabilities: Vec<(String, String)> = Vec::new();
    for (number, (setting, label)) in own.iter().chain(&common.added_labels).enumerate() {
        let (name, value) = label.split_once('=').unwrap_or((label, "true"));
        let (name, value) = (name.trim(), value.trim());
        let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !plain(name) || !plain(value) || name.eq_ignore_ascii_case(OURS) {
            // What is no label of any forge's is told already.
            if setting == "AGENT_LABELS" || !label.chars().any(char::is_control) {
                reader.problem(setting, format!("{} is no capability", quoted(label)), "write name or name=value");
            }
            continue;
        }
        if setting == "AGENT_LABELS" {
            look_at_label(reader, setting, name);
        }
        // The value that the user gave it stays.
        let known = |(known, _): &(String, String)| known.eq_ignore_ascii_case(name);
        if number < own.len() || !capabilities.iter().any(known) {
            capabilities.push((name.to_owned(), value.to_owned()));
        }
    }
    capabilities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Problem, table};

    fn read_settings<const N: usize>(variables: [(&str, &str); N]) -> Result<(String, Vec<String>), Vec<Problem>> {
        super::super::FORGE.read_settings(variables)
    }

    fn problems<const N: usize>(variables: [(&str, &str); N]) -> Vec<String> {
        read_settings(variables).unwrap_err().into_iter().map(|problem| problem.setting).collect()
    }

    #[test]
    fn organisations_and_collections() {
        let scope = |url| read_settings([("ADO_PAT", "abcd"), ("ADO_ORG_URL", url)]).map(|(scope, _)| scope);
        let pools = "_apis/distributedtask/pools?poolName=Default";
        for (url, base) in [
            ("https://dev.azure.com/acme/", "https://dev.azure.com/acme"),
            ("https://acme.visualstudio.com", "https://acme.visualstudio.com"),
            ("https://acme.visualstudio.com/DefaultCollection", "https://acme.visualstudio.com/DefaultCollection"),
            ("https://tfs.corp:8443/tfs/Main/", "https://tfs.corp:8443/tfs/Main"),
            ("http://forge:8080/acme", "http://forge:8080/acme"),
            ("dev.azure.com/acme/", "https://dev.azure.com/acme"),
            ("https://dev.azure.com/acme/project/_git/widgets", "https://dev.azure.com/acme"),
            ("https://acme@dev.azure.com/acme/project/_git/widgets", "https://dev.azure.com/acme"),
            ("https://dev.azure.com/acme/_settings/agentpools?poolId=1&view=agents", "https://dev.azure.com/acme"),
            ("https://dev.azure.com/acme?x=1#y", "https://dev.azure.com/acme"),
            ("http://dev.azure.com/acme", "https://dev.azure.com/acme"),
            ("git@ssh.dev.azure.com:v3/acme/project/widgets", "https://dev.azure.com/acme"),
            ("ssh://git@ssh.dev.azure.com/v3/acme/project/widgets", "https://dev.azure.com/acme"),
            ("https://vsrm.dev.azure.com/acme/_apis", "https://dev.azure.com/acme"),
            ("acme.visualstudio.com", "https://acme.visualstudio.com"),
            ("https://acme.visualstudio.com/project/_git/widgets", "https://acme.visualstudio.com"),
            ("acme@vs-ssh.visualstudio.com:v3/acme/project/widgets", "https://acme.visualstudio.com"),
            ("https://tfs.corp/tfs/Main/_settings/agentpools", "https://tfs.corp/tfs/Main"),
            ("https://tfs.corp/tfs/Main?x=1", "https://tfs.corp/tfs/Main"),
        ] {
            assert_eq!(scope(url).unwrap(), format!("{base}/{pools}"));
        }
        for wrong in [
            "https://dev.azure.com",
            "https://tfs.corp",
            "https://tfs.corp/tfs/Main/project/_git/widgets",
            "https://me:pw@dev.azure.com/acme",
            "https://dev.azure.com/_git/x",
            "acme",
            "ftp://x/y",
        ] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_address_of_a_tenant_is_read_as_the_host_and_the_tenant() {
        let problems = |authority, tenant| {
            let read = read_settings([
                ("ADO_ORG_URL", "https://dev.azure.com/acme"),
                ("ADO_CLIENT_ID", "an-id"),
                ("ADO_CLIENT_SECRET", "abcd"),
                ("ADO_AUTHORITY_URL", authority),
                ("ADO_TENANT_ID", tenant),
            ]);
            read.err().into_iter().flatten().map(|problem| problem.setting).collect::<Vec<_>>()
        };
        let page = "https://login.microsoftonline.com/some-tenant/oauth2/v2.0/token";
        for (authority, tenant) in [(page, "some-tenant"), (page, ""), ("login.microsoftonline.us", "some-tenant")] {
            assert_eq!(problems(authority, tenant), Vec::<String>::new(), "{authority} {tenant}");
        }
        assert_eq!(problems(page, "another"), ["ADO_AUTHORITY_URL"]);
        assert_eq!(problems("https://login.microsoftonline.com", ""), ["ADO_TENANT_ID"]);
        assert_eq!(problems("ftp://x", "some-tenant"), ["ADO_AUTHORITY_URL"]);
    }

    #[test]
    fn microsofts_container_is_replaced_by_changing_the_image() {
        let (scope, notes) = read_settings([
            ("AZP_URL", "https://dev.azure.com/acme"),
            ("AZP_TOKEN", "abcd"),
            ("AZP_POOL", "Linux pool"),
            ("AZP_AGENT_NAME", "Docker Agent - Linux"),
            ("AZP_WORK", "_work"),
        ])
        .unwrap();
        assert_eq!(scope, "https://dev.azure.com/acme/_apis/distributedtask/pools?poolName=Linux+pool");
        for name in ["AZP_URL", "AZP_TOKEN", "AZP_POOL", "AZP_AGENT_NAME", "AZP_WORK"] {
            assert_eq!(notes.iter().filter(|note| note.starts_with(name)).count(), 1, "{name}: {notes:?}");
        }
    }

    #[test]
    fn microsofts_names_for_a_service_principal_are_read() {
        let (_, notes) = read_settings([
            ("AZP_URL", "https://dev.azure.com/acme"),
            ("AZP_CLIENTID", "an-id"),
            ("AZP_CLIENTSECRET", "abcd"),
            ("AZP_TENANTID", "a-tenant"),
        ])
        .unwrap();
        for name in ["AZP_CLIENTID", "AZP_CLIENTSECRET", "AZP_TENANTID"] {
            assert_eq!(notes.iter().filter(|note| note.starts_with(name)).count(), 1, "{name}: {notes:?}");
        }
    }

    #[test]
    fn contradictions_and_gaps_are_all_reported() {
        let url = ("ADO_ORG_URL", "https://dev.azure.com/acme");
        assert_eq!(problems([("", "")]), ["ADO_ORG_URL", "ADO_PAT"]);
        assert_eq!(problems([url, ("ADO_CLIENT_SECRET", "abcd")]), ["ADO_CLIENT_ID", "ADO_TENANT_ID"]);
        assert_eq!(problems([url, ("ADO_CLIENT_SECRET", "abcd"), ("ADO_PAT", "abcd")]), ["ADO_PAT"]);
        assert_eq!(
            problems([url, ("ADO_PAT", "abcd"), ("AGENT_LABELS", "=x,ok,a=")]),
            ["AGENT_LABELS", "AGENT_LABELS"]
        );
        assert_eq!(
            problems([
                url,
                ("ADO_PAT", "abcd"),
                ("OSCR_REAP", "1"),
                ("RUNNER_NAME", "fixed"),
                ("OSCR_ALLOW_FIXED_NAME", "1")
            ]),
            ["OSCR_REAP"]
        );
        let (_, notes) = read_settings([url, ("ADO_PAT", "abcd"), ("ADO_PROJECT", "p")]).unwrap();
        assert!(notes[0].starts_with("ADO_PROJECT has no effect"), "{notes:?}");
    }

    #[test]
    fn labels_are_user_capabilities() {
        let environment = Environment::from([("AGENT_LABELS", "gpu, java=17 ,board=a b")]);
        let mut reader = Reader::new(&environment, vec![table::COMMON, TABLE]);
        let common = Common::read(&mut reader);
        let names = capabilities(&mut reader, &common);
        let names: Vec<(&str, &str)> = names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(names, [("gpu", "true"), ("java", "17"), ("board", "a b")]);
    }

    #[test]
    fn labels_are_added_to_the_users_whose_values_stay() {
        for setting in ["AGENT_LABELS", "RUNNER_LABELS"] {
            let environment = Environment::from([
                (setting, "GPU=a100"),
                ("OSCR_ADD_LABELS_GPU", "gpu"),
                ("OSCR_ADD_LABELS_OLLAMA", "ai-review"),
            ]);
            let mut reader = Reader::new(&environment, vec![table::COMMON, TABLE]);
            let common = Common::read(&mut reader);
            let capabilities = capabilities(&mut reader, &common);
            let expected = [("GPU", "a100"), ("ai-review", "true")].map(|(name, value)| (name.into(), value.into()));
            assert_eq!(capabilities, expected, "{setting}");
        }
    }
}
