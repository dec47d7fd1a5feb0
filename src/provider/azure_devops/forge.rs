//! Azure DevOps as a provider: what the contract asks, by its agent's commands and its API.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::agent::{self, AGENT, CAPABILITIES, LISTENER};
use super::api::Api;
use super::exceptions::BYPASS;
use super::refusal;
use super::settings::{self, Credential, Settings};
use crate::config::{Common, Reader, SecretSource};
use crate::init::Ended;
use crate::provider::agents::read_json;
use crate::provider::contract::{Answer, Examination, Forge, Package, Provider, Reading};
use crate::provider::facts::AgentFacts;
use crate::provider::fault::Fault;
use crate::provider::finding::Finding;
use crate::provider::http::{Http, speaks_of_limit};
use crate::provider::registration::{Candidate, Grant, Registration, Released, Releasing, Standing, Step};
use crate::shown::quoted;

/// Its line in the list.
pub const FORGE: Forge = Forge { name: "azure-devops", agent: &AGENT, settings: settings::TABLE, read };

fn read(reader: &mut Reader<'_>, common: &Common) -> Option<Box<dyn Provider>> {
    let settings = settings::read(reader, common)?;
    let api = Api::new(&settings, common);
    Some(Box::new(AzureDevOps { settings, api }))
}

/// Words of an agent whose configure step was refused.
const REFUSALS: [&str; 8] =
    ["AADSTS", "VS30063", "VS403", "TF400813", "TF14045", "not authorized", "Access denied", "permission"];

/// One organisation or collection.
#[derive(Debug)]
struct AzureDevOps {
    settings: Settings,
    api: Api,
}

/// The part of the agent's `.agent` file that we read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AgentFile {
    #[serde(alias = "AgentId")]
    agent_id: u64,
    #[serde(alias = "PoolId")]
    pool_id: u64,
}

impl Provider for AzureDevOps {
    fn name(&self) -> &'static str {
        FORGE.name
    }

    fn scope(&self) -> String {
        format!("the pool {} of {}", quoted(&self.settings.pool), self.settings.url)
    }

    fn owner(&self) -> Option<String> {
        let url = self.settings.url.trim_end_matches('/');
        url.rsplit('/').next().map(str::to_owned)
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
        vec![self.settings.credential.secret()]
    }

    fn fingerprint(&self) -> Option<String> {
        self.settings.credential.fingerprint()
    }

    fn registration(&self, name: &str) -> Registration {
        Registration { id: None, name: name.to_owned(), scope: self.api.scope_url() }
    }

    fn grant<'a>(&'a self, _wanted: Candidate<'a>) -> Answer<'a, Grant> {
        Box::pin(async move {
            // The agent would find the pool by itself, but its words about what is wrong are for its own log.
            self.api.pool().await?;
            let credential = self.settings.credential.secret().read()?;
            let mut files =
                vec![(CAPABILITIES.to_owned(), Zeroizing::new(self.settings.capabilities_file().into_bytes()))];
            if let Some(patterns) = &self.settings.bypass {
                files.push((BYPASS.to_owned(), Zeroizing::new(patterns.clone().into_bytes())));
            }
            Ok(Grant { files, credential: Some(credential), ..Grant::default() })
        })
    }

    fn may_have_registered(&self) -> bool {
        // The agent's configure step makes it.
        false
    }

    fn configure(&self, grant: &Grant, wanted: Candidate<'_>) -> Option<Step> {
        let secret = grant.credential.clone()?;
        let mut args: Vec<String> = ["configure", "--unattended", "--acceptTeeEula", "--url"].map(str::to_owned).into();
        args.push(self.settings.url.clone());
        args.extend(["--pool".to_owned(), self.settings.pool.clone()]);
        args.extend(["--agent".to_owned(), wanted.name.to_owned()]);
        args.extend(["--work".to_owned(), wanted.work_directory.display().to_string()]);
        let variable = match &self.settings.credential {
            Credential::Pat(_) => {
                args.extend(["--auth", "PAT"].map(str::to_owned));
                "VSTS_AGENT_INPUT_TOKEN"
            }
            Credential::ServicePrincipal(principal) => {
                args.extend(["--auth".to_owned(), "SP".to_owned()]);
                args.extend(["--clientid".to_owned(), principal.client.clone()]);
                args.extend(["--tenantid".to_owned(), principal.tenant.clone()]);
                "VSTS_AGENT_INPUT_CLIENTSECRET"
            }
        };
        Some(Step { program: LISTENER, args, secrets: vec![(variable, secret)] })
    }

    fn configure_failed(&self, what: &str, said: &[String]) -> Fault {
        if said.iter().any(|line| speaks_of_limit(line)) {
            return self.api.http.limited(what.to_owned());
        }
        let setting = &self.settings.credential.secret().setting;
        // The last that says something.
        let words = said.iter().rev().find(|line| REFUSALS.iter().any(|known| line.contains(known)));
        match words {
            Some(words) => {
                let rights = self.settings.credential.cure();
                Fault::denied(what, refusal::cure(words, setting, &rights).unwrap_or(rights))
            }
            None => Fault::Unreachable(what.to_owned()),
        }
    }

    fn identify<'a>(&'a self, name: &'a str, directory: &'a Path) -> Answer<'a, Registration> {
        Box::pin(async move {
            let mut registration = self.registration(name);
            let text = fs::read(directory.join(".agent")).unwrap_or_default();
            registration.id = match read_json::<AgentFile>(&text) {
                Ok(file) => {
                    self.api.pool_is(file.pool_id);
                    Some(file.agent_id)
                }
                Err(_) => self.api.find(&registration.scope, name).await?,
            };
            Ok(registration)
        })
    }

    fn run(&self, _registration: &Registration, _grant: &Grant) -> Step {
        // For a registration that is kept too: one job, then back to us, so that the slate is clean for the next one.
        Step { program: LISTENER, args: ["run", "--once"].map(str::to_owned).into(), secrets: Vec::new() }
    }

    fn read_exit(&self, ended: Ended, job_seen: bool, _words: &[String]) -> Reading {
        agent::read_exit(ended, job_seen)
    }

    fn listener_reports(&self) -> bool {
        true
    }

    fn releasing(&self, _job_done: bool) -> Releasing {
        // After its one job the agent stays listed, offline.
        Releasing::Request
    }

    fn release<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Released> {
        Box::pin(self.api.release(registration))
    }

    fn standing<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Standing> {
        Box::pin(self.api.standing(registration))
    }

    fn stale(&self) -> Answer<'_, Vec<Registration>> {
        Box::pin(async move {
            match &self.settings.reap {
                Some(prefix) => self.api.stale(prefix).await,
                None => Ok(Vec::new()),
            }
        })
    }

    fn package(&self) -> Option<Answer<'_, Package>> {
        Some(Box::pin(self.api.package()))
    }

    fn examine<'a>(&'a self, version: Option<&'a str>) -> Examination<'a> {
        Box::pin(async move {
            let mut found = self.api.examine(version).await;
            let capabilities: Vec<&str> = self.settings.capabilities.iter().map(|(name, _)| name.as_str()).collect();
            let labels = Finding::ok("labels", format!("user capabilities: {}", capabilities.join(", ")));
            found.insert(found.len().saturating_sub(1), labels);
            found
        })
    }
}
