//! GitHub as a provider: what the contract asks, by its agent's commands and its API.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::agent::{self, AGENT, LISTENER};
use super::api::Api;
use super::credential::Credential;
use super::scope::Scope;
use super::settings::{self, Settings};
use super::table::TABLE;
use super::{jit, refusal};
use crate::config::{Common, Reader, SecretSource};
use crate::init::Ended;
use crate::provider::agents::read_json;
use crate::provider::contract::{Answer, Examination, Forge, Package, Provider, Reading, SharedDirectory};
use crate::provider::facts::AgentFacts;
use crate::provider::fault::Fault;
use crate::provider::http::{Http, Repeated};
use crate::provider::registration::{
    Candidate, Grant, Once, Registration, Released, Releasing, Removal, Standing, Step,
};

/// Its line in the list.
pub const FORGE: Forge = Forge { name: "github", agent: &AGENT, settings: TABLE, read };

fn read(reader: &mut Reader<'_>, common: &Common) -> Option<Box<dyn Provider>> {
    let settings = settings::read(reader, common)?;
    let api = Api::new(&settings, common);
    Some(Box::new(GitHub { settings, api }))
}

/// Runners of one scope.
#[derive(Debug)]
struct GitHub {
    settings: Settings,
    api: Api,
}

/// The part of the agent's `.runner` file that we read.
#[derive(Deserialize)]
struct RunnerFile {
    #[serde(rename = "agentId", alias = "AgentId")]
    agent_id: u64,
}

impl Provider for GitHub {
    fn name(&self) -> &'static str {
        FORGE.name
    }

    fn scope(&self) -> String {
        match self.settings.scope {
            Scope::OfConfiguration => self.settings.scope.to_string(),
            _ => format!("{} on {}", self.settings.scope, self.settings.host.web),
        }
    }

    fn owner(&self) -> Option<String> {
        match &self.settings.scope {
            Scope::Repository { owner, .. } | Scope::Organization(owner) | Scope::Enterprise(owner) => {
                Some(owner.clone())
            }
            Scope::OfConfiguration => None,
        }
    }

    fn agent(&self) -> &'static AgentFacts {
        &AGENT
    }

    fn http(&self) -> &Http {
        &self.api.http
    }

    fn open_url(&self) -> String {
        self.api.open_url()
    }

    fn secrets(&self) -> Vec<&SecretSource> {
        vec![self.settings.credential.source()]
    }

    fn fingerprint(&self) -> Option<String> {
        self.settings.credential.fingerprint()
    }

    fn shared_directories(&self) -> Vec<SharedDirectory<'_>> {
        let shared = |place| SharedDirectory { setting: "OSCR_TOKEN_CACHE", place, threat: "read the token" };
        self.settings.token_cache.as_deref().map(shared).into_iter().collect()
    }

    fn registration(&self, name: &str) -> Registration {
        Registration { id: None, name: name.to_owned(), scope: self.api.scope_url() }
    }

    fn grant<'a>(&'a self, wanted: Candidate<'a>) -> Answer<'a, Grant> {
        Box::pin(async move {
            self.api.may_have_made.set(false);
            match &self.settings.credential {
                Credential::RegistrationToken(source) => {
                    let credential = Some(source.read()?);
                    Ok(Grant { credential, ..Grant::default() })
                }
                Credential::JitConfig(source) => self.given(source, wanted),
                Credential::Pat(_) | Credential::App(_) if self.settings.jit => {
                    let (id, files) = self.api.just_in_time(&self.settings, wanted).await?;
                    let registration = Registration { id: Some(id), ..self.registration(wanted.name) };
                    Ok(Grant { registration: Some(registration), files, ..Grant::default() })
                }
                Credential::Pat(_) | Credential::App(_) => {
                    if let Some(group) = &self.settings.group {
                        self.api.find_group(group).await?;
                    }
                    let credential = Some(self.api.registration_token().await?);
                    Ok(Grant { credential, ..Grant::default() })
                }
            }
        })
    }

    fn may_have_registered(&self) -> bool {
        // A registration token is no registration.
        self.api.may_have_made.get()
    }

    fn configure(&self, grant: &Grant, wanted: Candidate<'_>) -> Option<Step> {
        let token = grant.credential.clone()?;
        let mut args: Vec<String> =
            ["configure", "--unattended", "--disableupdate", "--url"].map(str::to_owned).to_vec();
        args.push(self.settings.web_url());
        args.extend(["--name".to_owned(), wanted.name.to_owned()]);
        args.extend(["--work".to_owned(), wanted.work_directory.display().to_string()]);
        args.extend(["--labels".to_owned(), self.settings.labels.join(",")]);
        if self.settings.no_default_labels {
            args.push("--no-default-labels".to_owned());
        }
        if let Some(group) = &self.settings.group {
            args.extend(["--runnergroup".to_owned(), group.clone()]);
        }
        if !self.settings.persistent {
            args.push("--ephemeral".to_owned());
        }
        Some(Step { program: LISTENER, args, secrets: vec![("ACTIONS_RUNNER_INPUT_TOKEN", token)] })
    }

    fn configure_failed(&self, what: &str, said: &[String]) -> Fault {
        let heard = Repeated::in_words(said);
        if heard.is_limit() {
            return self.api.http.limited(heard.told(what));
        }
        let no_group = said.iter().any(|line| line.contains("runner group named"));
        if let Some(group) = self.settings.group.as_ref().filter(|_| no_group) {
            return Fault::denied(what, format!("check GITHUB_RUNNER_GROUP={group}, or create the group"));
        }
        let denied = |cure: String| Fault::denied(heard.told(what), cure);
        let (whose, permission) = self.api.whose();
        let token = match &self.settings.credential {
            Credential::RegistrationToken(source) => Some(source),
            Credential::Pat(_) | Credential::App(_) | Credential::JitConfig(_) => None,
        };
        let whose = token.map_or(whose, |source| format!("the registration token in {}", source.setting));
        let by_words = refusal::cure(&heard.words, heard.address.as_deref(), &whose);
        match (heard.status, by_words, token) {
            (Some(400 | 403 | 422 | 451), Some(cure), _) => denied(cure),
            (Some(400 | 403 | 422), ..) if heard.words.contains("group") => {
                denied("make room in the runner group, or name another one in GITHUB_RUNNER_GROUP".to_owned())
            }
            (Some(401 | 403 | 404) | None, _, Some(source)) => denied(another_token(source)),
            (Some(403), ..) => {
                self.api.forget_token();
                denied(match refusal::speaks_of_rights(&heard.words) {
                    true => format!("{whose} needs {permission}"),
                    false => "GitHub's words say what it wants".to_owned(),
                })
            }
            (Some(400 | 422), ..) => denied("check the settings that the message names".to_owned()),
            (status, ..) => {
                // The token may be why, and it may be shared.
                if matches!(status, Some(401 | 404)) {
                    self.api.forget_token();
                }
                Fault::Unreachable(what.to_owned())
            }
        }
    }

    fn identify<'a>(&'a self, name: &'a str, directory: &'a Path) -> Answer<'a, Registration> {
        Box::pin(async move {
            let mut registration = self.registration(name);
            let text = fs::read(directory.join(".runner")).unwrap_or_default();
            registration.id = match read_json::<RunnerFile>(&text) {
                Ok(file) => Some(file.agent_id),
                Err(_) if self.settings.credential.asks() => self.api.find(name).await?,
                Err(_) => None,
            };
            // What it was for is done.
            self.api.spend_token();
            Ok(registration)
        })
    }

    fn run(&self, _registration: &Registration, _grant: &Grant) -> Step {
        let mut args: Vec<String> = ["run", "--startuptype", "service"].map(str::to_owned).to_vec();
        if self.settings.persistent {
            // One job, then back to us, so that the slate is clean for the next one.
            args.push("--once".to_owned());
        }
        Step { program: LISTENER, args, secrets: Vec::new() }
    }

    fn read_exit(&self, ended: Ended, job_seen: bool, words: &[String]) -> Reading {
        agent::read_exit(ended, job_seen, words)
    }

    fn listener_reports(&self) -> bool {
        // A server of one's own hears of it by the way of the older protocol.
        !self.settings.host.is_github_com()
    }

    fn releasing(&self, job_done: bool) -> Releasing {
        match &self.settings.credential {
            Credential::Pat(_) | Credential::App(_) => Releasing::Request,
            Credential::JitConfig(_) => Releasing::ByForge,
            // GitHub removes an ephemeral runner after its job, and the agent its own configuration.
            Credential::RegistrationToken(_) if job_done && !self.settings.persistent => Releasing::ByForge,
            Credential::RegistrationToken(source) => {
                let secrets = source.read().map(|token| ("ACTIONS_RUNNER_INPUT_TOKEN", token)).into_iter().collect();
                let step = Step { program: LISTENER, args: vec!["remove".to_owned()], secrets };
                Releasing::Command(Removal {
                    step,
                    busy: &["running a job", "currently running"],
                    refused: &["does not indicate success: 401", "does not indicate success: 403"],
                    cure: another_token(source),
                })
            }
        }
    }

    fn release<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Released> {
        Box::pin(self.api.release(registration))
    }

    fn standing<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Standing> {
        Box::pin(self.api.standing(registration))
    }

    fn starves_old_agents(&self) -> bool {
        self.settings.host.is_github_com()
    }

    fn package(&self) -> Option<Answer<'_, Package>> {
        Some(Box::pin(self.api.package()))
    }

    fn examine<'a>(&'a self, version: Option<&'a str>) -> Examination<'a> {
        Box::pin(self.api.examine(&self.settings, version))
    }

    fn rest(&self) {
        self.api.rest();
    }
}

/// What helps where a registration token is refused.
fn another_token(source: &SecretSource) -> String {
    format!(
        "a registration token lives for an hour: put a new one into {}, or use GITHUB_PAT or a GitHub App",
        source.setting
    )
}

impl GitHub {
    /// The grant in a configuration that was made elsewhere.
    fn given(&self, source: &SecretSource, wanted: Candidate<'_>) -> Result<Grant, Fault> {
        let config = source.read()?;
        let cure = format!("make a new one (generate-jitconfig) and put it into {}", source.setting);
        let given = jit::given(config.expose(), wanted.work_directory).map_err(|why| {
            Fault::denied(
                format!("the just-in-time configuration in {} cannot be used: {why}", source.setting),
                cure.clone(),
            )
        })?;
        let name = given.name.unwrap_or_else(|| wanted.name.to_owned());
        let used_up = Fault::denied(
            format!(
                "the just-in-time configuration in {} has had its job ({name}), and is good for one",
                source.setting
            ),
            cure,
        );
        Ok(Grant {
            registration: Some(Registration { id: given.id, ..self.registration(&name) }),
            files: given.files,
            once: Some(Once { fingerprint: given.fingerprint, used_up }),
            ..Grant::default()
        })
    }
}
