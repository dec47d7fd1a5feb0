//! The agent's environment: an allow-list. Whatever else the container was started with stays with PID 1.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::proxy;
use crate::config::{Environment, Network};
use crate::init::account::Account;
use crate::provider::{AgentFacts, Forges};

/// Variables that any agent and its jobs may see. A prefix ends in `*`.
const ALLOWED: &[&str] = &[
    "PATH",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    // Proved to lie in a place that is emptied.
    TEMPORARY,
    "DEBIAN_FRONTEND",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AGENT_TOOLSDIRECTORY",
    "ImageOS",
    "ImageVersion",
];
/// The variable that names the directory for temporary files.
pub(crate) const TEMPORARY: &str = "TMPDIR";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the environment is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// Our own environment.
    pub environment: &'a Environment,
    /// What `/etc/environment` sets.
    pub system: &'a [(String, String)],
    /// The user that the agent runs as.
    pub account: &'a Account,
    /// The agent.
    pub facts: &'a AgentFacts,
    /// The forges whose secrets it must not see.
    pub forges: Forges,
    /// What the user allows besides (`OSCR_JOB_ENV`).
    pub job_env: &'a [String],
    /// Proxies.
    pub network: &'a Network,
    /// The system's certificates together with `OSCR_CA_FILE`, if that is set.
    pub ca_bundle: Option<&'a Path>,
    /// The shims of the job hooks: started, completed.
    pub hooks: Option<(&'a Path, &'a Path)>,
}

/// Puts the agent's environment together.
#[must_use]
pub(crate) fn build(sources: &Sources<'_>) -> Vec<(OsString, OsString)> {
    let mut env: BTreeMap<String, OsString> = BTreeMap::new();
    env.insert("PATH".to_owned(), DEFAULT_PATH.into());
    env.insert("LANG".to_owned(), "C.UTF-8".into());
    // Set by the image for everybody, so there is no list of what may pass; but none of our secrets has a place there.
    for (name, value) in sources.system.iter().filter(|(name, _)| !is_kept_back(sources, name)) {
        env.insert(name.clone(), value.into());
    }
    for (name, value) in sources.environment.iter() {
        // Docker gives every container a search path; only one that somebody chose says more than the image's file.
        let chosen = name != "PATH" || value != DEFAULT_PATH;
        if chosen && is_allowed(sources, name) && !is_kept_back(sources, name) {
            // What the user hands on stays as it is: only its reader knows what it means.
            let value = if is_read(sources, name) { sources.environment.get(name) } else { Some(value) };
            env.extend(value.map(|value| (name.to_owned(), value.into())));
        }
    }
    for (names, value) in [
        (["http_proxy", "HTTP_PROXY"], &sources.network.http_proxy),
        (["https_proxy", "HTTPS_PROXY"], &sources.network.https_proxy),
        (["no_proxy", "NO_PROXY"], &sources.network.no_proxy),
    ] {
        for name in names {
            if let Some(value) = value {
                env.insert(name.to_owned(), value.into());
            }
        }
    }
    if let Some(variables) = &sources.facts.proxy {
        proxy::name(&mut env, variables, sources.network);
    }
    if let Some(bundle) = sources.ca_bundle {
        for name in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "CURL_CA_BUNDLE"] {
            env.insert(name.to_owned(), bundle.into());
        }
    }
    let account = sources.account;
    env.insert("HOME".to_owned(), account.home.clone().into());
    env.insert("USER".to_owned(), account.name.clone().into());
    env.insert("LOGNAME".to_owned(), account.name.clone().into());
    env.insert("SHELL".to_owned(), account.shell.clone().into());
    for (name, value) in sources.facts.env {
        env.insert((*name).to_owned(), (*value).into());
    }
    if let (Some(variables), Some((started, completed))) = (&sources.facts.hooks, sources.hooks) {
        for (variable, shim) in [(variables.job_started, started), (variables.job_completed, completed)] {
            // A hook that the user named is run by ours, after those in the hook directory.
            if let Some(own) = env.insert(variable.to_owned(), shim.into()) {
                env.insert(format!("OSCR_CHAINED_{variable}"), own);
            }
        }
    }
    env.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn is_allowed(sources: &Sources<'_>, name: &str) -> bool {
    let lists = ALLOWED.iter().chain(sources.facts.env_allowed).copied();
    lists.chain(sources.job_env.iter().map(String::as_str)).any(|pattern| matches(pattern, name))
}

/// Whether a variable is one of those that are known here, and is read as a setting is: but for who asks a proxy, whose password may have
/// quotes and blanks.
fn is_read(sources: &Sources<'_>, name: &str) -> bool {
    let of_proxy = sources.facts.proxy.as_ref().is_some_and(|proxy| [proxy.user, proxy.password].contains(&name));
    !of_proxy && ALLOWED.iter().chain(sources.facts.env_allowed).any(|pattern| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// A secret, the name of a secret's file, what only we tell the agent, or what would make its end unreadable.
fn is_kept_back(sources: &Sources<'_>, name: &str) -> bool {
    name.starts_with(sources.facts.input_prefix)
        || sources.facts.env_kept_back.contains(&name)
        || sources.forges.is_secret(name.strip_suffix("_FILE").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table;
    use crate::provider::FORGES;

    fn built<const N: usize>(variables: [(&str, &str); N], job_env: &[String]) -> BTreeMap<String, String> {
        built_with(&[], variables, job_env)
    }

    fn built_with<const N: usize>(
        system: &[(&str, &str)],
        variables: [(&str, &str); N],
        job_env: &[String],
    ) -> BTreeMap<String, String> {
        let system: Vec<(String, String)> =
            system.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment::from(variables);
        let account = crate::init::account::Accounts::below(Path::new("/nonexistent")).resolve("1001").unwrap();
        let reader_environment = Environment::from([("GITHUB_PAT", "pat-value"), ("GITHUB_OWNER", "o")]);
        let mut reader = crate::config::Reader::new(&reader_environment, vec![table::COMMON, FORGES.usual().settings]);
        let common = crate::config::Common::read(&mut reader);
        let provider = (FORGES.usual().read)(&mut reader, &common).unwrap();
        let sources = Sources {
            environment: &environment,
            account: &account,
            facts: provider.agent(),
            forges: FORGES,
            system: &system,
            job_env,
            network: &Network { http_proxy: Some("http://p".to_owned()), ..Network::default() },
            ca_bundle: Some(Path::new("/ca")),
            hooks: Some((Path::new("/s"), Path::new("/c"))),
        };
        let text = |text: OsString| text.into_string().unwrap();
        build(&sources).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn only_what_is_allowed_passes_and_never_a_secret() {
        let env = built(
            [
                ("GITHUB_PAT", "x"),
                ("GITHUB_PAT_FILE", "/x"),
                ("ACCESS_TOKEN", "x"),
                ("ACTIONS_RUNNER_INPUT_JITCONFIG", "x"),
                ("ADO_PAT", "of another provider"),
                ("AWS_SECRET", "x"),
                ("MY_FLAG", "1"),
                ("LC_ALL", "C"),
                ("ACTIONS_RUNNER_DEBUG", "1"),
                ("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1"),
                ("TMPDIR", "/work"),
            ],
            &["MY_*", "GITHUB_PAT", "ACTIONS_*", "ADO_*"].map(str::to_owned),
        );
        let names: Vec<&str> = env.keys().map(String::as_str).collect();
        for absent in
            ["GITHUB_PAT", "GITHUB_PAT_FILE", "ACCESS_TOKEN", "ACTIONS_RUNNER_INPUT_JITCONFIG", "ADO_PAT", "AWS_SECRET"]
        {
            assert!(!names.contains(&absent), "{absent} in {names:?}");
        }
        for present in [
            "MY_FLAG",
            "LC_ALL",
            "ACTIONS_RUNNER_DEBUG",
            "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT",
            "TMPDIR",
            "PATH",
            "HOME",
            "http_proxy",
            "HTTP_PROXY",
            "CURL_CA_BUNDLE",
        ] {
            assert!(names.contains(&present), "{present} in {names:?}");
        }
    }

    #[test]
    fn what_is_known_is_read_as_a_setting_is_and_what_the_user_hands_on_is_not() {
        let own = ["MY_*".to_owned()];
        let env = built(
            [
                ("RUNNER_TOOL_CACHE", "\"/work/_tool\""),
                ("TZ", " Europe/Vienna\r"),
                ("MY_JSON", "\"text\""),
                ("LC_ALL", "''"),
            ],
            &own,
        );
        assert_eq!((env["RUNNER_TOOL_CACHE"].as_str(), env["TZ"].as_str()), ("/work/_tool", "Europe/Vienna"));
        assert_eq!(env["MY_JSON"], "\"text\"");
        assert!(!env.contains_key("LC_ALL"), "{env:?}");
    }

    #[test]
    fn what_the_image_sets_for_everybody_passes_and_gives_way_to_what_somebody_chose() {
        let system = [
            ("PATH", "/opt/tools:/bin"),
            ("JAVA_HOME", "/opt/java"),
            ("LANG", "de_DE.UTF-8"),
            ("GITHUB_PAT", "x"),
            ("ACTIONS_RUNNER_INPUT_TOKEN", "x"),
            ("HOME", "/root"),
        ];
        let env = built_with(&system, [("PATH", DEFAULT_PATH), ("LANG", "fr_FR.UTF-8")], &[]);
        assert_eq!((env["PATH"].as_str(), env["JAVA_HOME"].as_str()), ("/opt/tools:/bin", "/opt/java"));
        assert_eq!(env["LANG"], "fr_FR.UTF-8");
        assert_ne!(env["HOME"], "/root");
        assert!(!env.contains_key("GITHUB_PAT") && !env.contains_key("ACTIONS_RUNNER_INPUT_TOKEN"));
        assert_eq!(built_with(&system, [("PATH", "/mine")], &[])["PATH"], "/mine");
    }

    #[test]
    fn what_changes_the_meaning_of_the_agents_end_is_kept_back_wherever_it_comes_from() {
        let name = "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED";
        let env = built_with(&[(name, "1")], [(name, "1")], &[name.to_owned()]);
        assert!(!env.contains_key(name), "{env:?}");
    }

    #[test]
    fn a_hook_of_the_user_is_chained_behind_ours() {
        let env = built([("ACTIONS_RUNNER_HOOK_JOB_STARTED", "/mine.sh")], &[]);
        assert_eq!(env["ACTIONS_RUNNER_HOOK_JOB_STARTED"], "/s");
        assert_eq!(env["OSCR_CHAINED_ACTIONS_RUNNER_HOOK_JOB_STARTED"], "/mine.sh");
        assert!(!env.contains_key("OSCR_CHAINED_ACTIONS_RUNNER_HOOK_JOB_COMPLETED"));
    }
}
