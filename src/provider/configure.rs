//! The environment as a configuration that holds together: the common settings, and those of the forge that it names.

use std::collections::BTreeMap;

use super::contract::Provider;
use super::forges::Forges;
use crate::config::table::COMMON;
use crate::config::{Common, Environment, Problem, Read, Reader};
use crate::log;
use crate::shown::{quoted, secrets_in};

/// A configuration that holds together.
pub struct Configured {
    /// The settings that every forge has.
    pub common: Common,
    /// The forge.
    pub provider: Box<dyn Provider>,
    /// Things to tell the user that are not wrong.
    pub notes: Vec<String>,
    /// What can be meant, and will do harm.
    pub warnings: Vec<String>,
    /// The effective value of each setting, secrets redacted.
    pub effective: BTreeMap<String, String>,
}

/// Turns the environment into a configuration for one of these forges.
///
/// # Errors
/// Every problem found in it.
pub fn configure(forges: Forges, environment: &Environment) -> Result<Configured, Vec<Problem>> {
    hide(environment);
    let wanted = environment.get("CI_PROVIDER").unwrap_or(forges.usual().name);
    let forge = forges.named(wanted);
    let settings = forge.map_or(&[][..], |forge| forge.settings);
    let mut reader = Reader::new(environment, vec![COMMON, settings]);
    reader.text("CI_PROVIDER");
    let common = Common::read(&mut reader);
    let provider = match forge {
        Some(forge) => (forge.read)(&mut reader, &common),
        None => {
            let names: Vec<&str> = forges.0.iter().map(|forge| forge.name).collect();
            reader.problem(
                "CI_PROVIDER",
                format!("{} is not known", quoted(wanted)),
                format!("use one of: {}", names.join(", ")),
            );
            None
        }
    };
    if provider.as_ref().is_some_and(|provider| provider.agent().hooks.is_none()) && !common.policy.is_default() {
        reader.problem(
            "OSCR_ALLOW_*",
            "this forge's agent has no hook before a job, so nothing could be held against these settings",
            "unset them, and use the forge's own checks: docs/configuration.md says which",
        );
    }
    for other in forges.0.iter().filter(|other| forge.is_some_and(|forge| forge.name != other.name)) {
        reader.note_settings_of(other.name, other.settings);
    }
    match (reader.finish(), provider) {
        (Ok(Read { notes, warnings, effective }), Some(provider)) => {
            Ok(Configured { common, provider, notes, warnings, effective })
        }
        (Err(problems), _) => Err(problems),
        (Ok(_), None) => {
            Err(vec![Problem::of("CI_PROVIDER", "cannot be used with this configuration", "please report this")])
        }
    }
}

/// Has the log blank out what of the environment is a secret wherever it stands, and however a message writes it.
fn hide(environment: &Environment) {
    for secret in environment.iter().flat_map(|(_, value)| secrets_in(value)) {
        log::redact(&secret);
        log::redact(&secret.escape_debug().to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::SettingKind;
    use crate::provider::forges::FORGES;

    #[test]
    fn a_setting_of_another_forge_is_not_called_misspelt() {
        let environment = Environment::from([
            ("CI_PROVIDER", "azure-devops"),
            ("ADO_ORG_URL", "https://dev.azure.com/o"),
            ("ADO_POOL", "p"),
            ("ADO_PAT", "a-token"),
            ("OSCR_TOKEN_CACHE", "/var/cache/tokens"),
            ("OSCR_TOKEN_CASH", "1"),
        ]);
        let configured = configure(FORGES, &environment).map_err(|problems| format!("{problems:?}")).unwrap();
        let notes = |name: &str| {
            let notes = configured.notes.iter().filter(|note| note.starts_with(&format!("{name} ")));
            notes.map(String::as_str).collect::<Vec<_>>()
        };
        assert_eq!(notes("OSCR_TOKEN_CACHE"), ["OSCR_TOKEN_CACHE is a setting for github and has no effect here"]);
        assert_eq!(
            notes("OSCR_TOKEN_CASH"),
            ["OSCR_TOKEN_CASH is no setting of OSCR and has no effect: is it misspelt?"]
        );
    }

    #[test]
    fn a_jobs_end_is_reported_by_the_listener_but_for_githubs_own_host() {
        let reports = |environment| {
            let configured = configure(FORGES, &environment).map_err(|problems| format!("{problems:?}")).unwrap();
            configured.provider.listener_reports()
        };
        let github = |host| Environment::from([("GITHUB_HOST", host), ("GITHUB_OWNER", "o"), ("GITHUB_PAT", "t")]);
        assert!(!reports(github("github.com")) && !reports(github("acme.ghe.com")));
        assert!(reports(github("github.example.com")));
        let azure = [("CI_PROVIDER", "azure-devops"), ("ADO_ORG_URL", "https://dev.azure.com/o"), ("ADO_PAT", "t")];
        assert!(reports(Environment::from(azure)));
    }

    #[test]
    fn no_message_holds_a_secret_whichever_setting_it_stands_in() {
        let word = "hidden1word";
        let values = [
            format!("https://somebody:{word}@host.example/acme/x"),
            format!("https://somebody:{word}/and@more@host.example"),
            format!("somebody:{word}@host.example/acme"),
            format!("a,https://somebody:{word},b@host.example"),
            format!("https://host.example/acme?x=1&access_token={word}"),
            format!("ghp_{word}"),
            format!("acme/github_pat_11ABCDEFG0{word}"),
            format!("\"ghp_{word}\""),
            format!("ACCESS_TOKEN={word}"),
            format!("-----BEGIN RSA PRIVATE KEY-----\\n{word}"),
        ];
        let base = |forge: &str| match forge {
            "github" => vec![("GITHUB_PAT", "a-token"), ("GITHUB_OWNER", "o")],
            _ => vec![("ADO_PAT", "a-token"), ("ADO_ORG_URL", "https://dev.azure.com/o")],
        };
        let others = [
            "REPO_URL",
            "APP_LOGIN",
            "RUNNER_SCOPE",
            "EPHEMERAL",
            "AZP_WORK",
            "AZP_AGENT_NAME",
            "AGENT_TOOLSDIRECTORY",
        ];
        for forge in FORGES.0 {
            let settings = COMMON.iter().chain(forge.settings).flat_map(|setting| {
                let file = setting.kind == SettingKind::Secret;
                setting.names().flat_map(move |name| [Some(name.to_owned()), file.then(|| format!("{name}_FILE"))])
            });
            let names: Vec<String> = settings.flatten().chain(others.map(str::to_owned)).collect();
            for (name, value) in names.iter().flat_map(|name| values.iter().map(move |value| (name, value))) {
                let mut variables = base(forge.name);
                variables.retain(|(other, _)| other != name);
                variables.extend([("CI_PROVIDER", forge.name), (name, value)]);
                let pairs = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
                let said = match configure(FORGES, &Environment::new(pairs)) {
                    Ok(Configured { notes, warnings, effective, provider, .. }) => {
                        format!("{notes:?} {warnings:?} {effective:?} {}", provider.scope())
                    }
                    Err(problems) => problems.iter().map(ToString::to_string).collect(),
                };
                assert!(!said.contains(word), "{name}={value}: {said}");
            }
        }
    }

    #[test]
    fn a_credential_in_an_address_is_a_problem_with_a_cure() {
        for (name, value, forge) in [
            ("REPO_URL", "https://me:pass-word@github.com/o/r", "github"),
            ("GITHUB_HOST", "https://me:pass-word@github.com", "github"),
            ("GITHUB_API_URL", "https://ghp_abcd@api.github.com", "github"),
            ("OSCR_DOCKERD_MIRRORS", "https://me:pass-word@mirror.example", "github"),
            ("DOCKER_HOST", "tcp://me:pass-word@docker:2375", "github"),
            ("ADO_ORG_URL", "https://me:pass-word@dev.azure.com/o", "azure-devops"),
            ("AZP_URL", "https://dev.azure.com/o?sig=pass-word", "azure-devops"),
            ("ADO_AUTHORITY_URL", "https://me:pass-word@login.microsoftonline.com", "azure-devops"),
        ] {
            let credential = if forge == "github" { "GITHUB_PAT" } else { "ADO_PAT" };
            let mut variables = vec![("CI_PROVIDER", forge), (credential, "a-token"), (name, value)];
            if !["REPO_URL", "GITHUB_REPO"].contains(&name) {
                variables.push(("GITHUB_OWNER", "o"));
            }
            if !["ADO_ORG_URL", "AZP_URL"].contains(&name) {
                variables.push(("ADO_ORG_URL", "https://dev.azure.com/o"));
            }
            let pairs = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
            let problems = configure(FORGES, &Environment::new(pairs)).err().unwrap_or_default();
            let [Problem { setting, what, cure }] = &problems[..] else { panic!("{name}: {problems:?}") };
            assert!(setting == name && what.contains("holds a password or a token"), "{problems:?}");
            assert!(cure.contains(&format!("{credential}_FILE")) && cure.contains("revoke"), "{cure}");
        }
    }

    #[test]
    fn fuzz_settings() {
        const TOKEN: &str = "fuzzed-token-that-nobody-may-see";
        crate::fuzz::run("settings", |bytes| {
            use std::os::unix::ffi::OsStrExt;
            let variables = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (&line[..at], &line[at + 1..]);
                let text = String::from_utf8_lossy(name);
                // Files are another matter: their names must not lead to what blocks, and their content is not given here.
                if text.ends_with("_FILE") || text == "OSCR_ROOT" {
                    return None;
                }
                let secret = ["PAT", "TOKEN", "KEY", "SECRET", "JITCONFIG"].iter().any(|word| text.contains(word));
                let value = if secret && !value.is_empty() { TOKEN.as_bytes() } else { value };
                Some((std::ffi::OsStr::from_bytes(name).to_owned(), std::ffi::OsStr::from_bytes(value).to_owned()))
            });
            let environment = Environment::new(variables.collect::<Vec<_>>());
            match configure(FORGES, &environment) {
                Ok(configured) => {
                    let shown = format!("{:?} {:?}", configured.notes, configured.effective);
                    assert!(!shown.contains(TOKEN), "{shown}");
                    configured.effective.keys().cloned().collect::<Vec<_>>().join(" ")
                }
                Err(problems) => {
                    assert!(!problems.is_empty());
                    for problem in &problems {
                        assert!(!problem.cure.is_empty() && !problem.to_string().contains(TOKEN), "{problem}");
                    }
                    problems.iter().map(|problem| crate::fuzz::kind(&problem.to_string())).collect()
                }
            }
        });
    }
}
