//! Azure DevOps: dev.azure.com, `*.visualstudio.com`, and Azure DevOps Server with a collection.

mod api;
mod settings;

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::finding::Finding;
use super::http::Http;
use super::{
    AgentFacts, Answer, Entry, Fault, Findings, Grant, LabelledBy, Line, Meaning, Package, Provider, Reading,
    Registration, Released, Releasing, Sign, Standing, Step, StopPlan, Wanted, read_agents_json,
};
use crate::config::SecretSource;
use crate::init::Ended;
use api::Api;
use settings::{Credential, Settings};

/// This provider's line in the list.
pub const ENTRY: Entry = Entry { name: "azure-devops", settings: settings::TABLE, read: settings::read };

const LISTENER: &str = "bin/Agent.Listener";

/// The file of user capabilities: the agent reads it when it configures itself and for each session.
const CAPABILITIES: &str = ".capabilities";

/// The official agent.
pub(crate) const AGENT: AgentFacts = AgentFacts {
    title: "Azure Pipelines agent",
    listener: LISTENER,
    worker: "Agent.Worker",
    words: &[
        Line::timed("Listening for Jobs", Meaning::Listening),
        Line::timed("Running job: ", Meaning::Running),
        Line::timed("Job ", Meaning::Completed(" completed with result: ")),
        // Only its configure step says it, in a picture.
        Line::new("agent v", "", Meaning::Version),
        Line::new("A session for this agent already exists.", "", Meaning::Sign(Sign::Conflict)),
        Line::timed("Agent connect error: ", Meaning::Sign(Sign::Disconnected)),
        Line::timed("Agent reconnected.", Meaning::Sign(Sign::Reconnected)),
    ],
    traces: &[],
    configuration: &[".agent", ".credentials", ".credentials_rsaparams", CAPABILITIES],
    env: &[],
    env_allowed: &[
        "AGENT_ACKNOWLEDGE_NO_UPDATES",
        "AGENT_DOCKER_MTU_VALUE",
        "AGENT_ENABLE_PROGRESSIVE_RETRY_BACKOFF",
        "AZP_AGENT_DOCKER_INIT_OPTION",
        "AZP_AGENT_DOWNGRADE_DISABLED",
        "AZP_AGENT_USE_HOST_GROUP_ID",
        "AZP_ENHANCED_WORKER_CRASH_HANDLING",
        "FAIL_JOB_WHEN_AGENT_DIES",
        "PROCESS_SIGINT_TIMEOUT",
        "PROCESS_SIGTERM_TIMEOUT",
        "USE_GRACEFUL_PROCESS_SHUTDOWN",
        "VSO_AGENT_IGNORE",
        "VSTS_AGENT_CHANNEL_TIMEOUT",
        "VSTS_HTTP_PROXY",
        "VSTS_HTTP_PROXY_PASSWORD",
        "VSTS_HTTP_PROXY_USERNAME",
        "VSTS_HTTP_RETRY",
        "VSTS_HTTP_TIMEOUT",
    ],
    input_prefix: "VSTS_AGENT_INPUT_",
    // Whatever this does not name, and is shorter than 1024 characters, everybody who can see the pool can read.
    unpublished: Some("VSO_AGENT_IGNORE"),
    proxy: Some("VSTS_HTTP_PROXY"),
    // The agent runs nothing of ours around a job.
    docker_label: LabelledBy::Root,
    hooks: None,
    // There is no drain: SIGTERM cancels the job as well, and gives it no more than 30 s to say so.
    stop: StopPlan { finish: None, abort: Signal::SIGINT },
};

/// The provider.
#[derive(Debug)]
pub struct AzureDevOps {
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
        ENTRY.name
    }

    fn scope(&self) -> String {
        format!("the pool {:?} of {}", self.settings.pool, self.settings.url)
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

    fn registration(&self, name: &str) -> Registration {
        Registration { id: None, name: name.to_owned(), scope: self.api.scope_url() }
    }

    fn grant<'a>(&'a self, _wanted: Wanted<'a>) -> Answer<'a, Grant> {
        Box::pin(async move {
            // The agent would find the pool by itself, but its words about what is wrong are for its own log.
            self.api.pool().await?;
            let credential = self.settings.credential.secret().read()?;
            let files = vec![(CAPABILITIES.to_owned(), Zeroizing::new(self.settings.capabilities_file().into_bytes()))];
            Ok(Grant { files, credential: Some(credential), ..Grant::default() })
        })
    }

    fn configure(&self, grant: &Grant, wanted: Wanted<'_>) -> Option<Step> {
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

    fn configure_failed(&self, words: &str) -> Fault {
        let refused = ["AADSTS", "VS30063", "TF400813", "not authorized", "Access denied", "permission"];
        if refused.iter().any(|word| words.contains(word)) {
            return Fault::denied(words, self.settings.credential.cure());
        }
        Fault::Unreachable(words.to_owned())
    }

    fn identify<'a>(&'a self, name: &'a str, root: &'a Path) -> Answer<'a, Registration> {
        Box::pin(async move {
            let mut registration = self.registration(name);
            let text = fs::read(root.join(".agent")).unwrap_or_default();
            registration.id = match read_agents_json::<AgentFile>(&text) {
                Ok(file) => {
                    self.api.pool_is(file.pool_id);
                    Some(file.agent_id)
                }
                Err(_) => self.api.find(&registration.scope, name).await?,
            };
            Ok(registration)
        })
    }

    fn run(&self) -> Step {
        // For a registration that is kept too: one job, then back to us, so that the slate is clean for the next one.
        Step { program: LISTENER, args: ["run", "--once"].map(str::to_owned).into(), secrets: Vec::new() }
    }

    fn read_exit(&self, ended: Ended, job_seen: bool) -> Reading {
        let title = AGENT.title;
        match ended {
            // Asked to update itself after its job: the next one will say so before it takes another.
            Ended::Code(0 | 2 | 3 | 4) if job_seen => Reading::Done,
            Ended::Code(0) => {
                Reading::Lost(format!("the {title} ended by itself without a job: its registration may be gone"))
            }
            Ended::Code(1) => {
                Reading::Lost(format!("the {title} gave up (code 1): its registration is gone, or was refused"))
            }
            Ended::Code(2) => {
                Reading::Retry(format!("the {title} ended with a fault that it calls retryable (code 2)"))
            }
            Ended::Code(code @ (3 | 4)) => {
                Reading::Outdated(format!("Azure DevOps wants another version of the {title} (code {code})"))
            }
            Ended::Code(code @ (126 | 127)) => Reading::Fatal(format!("the {title} cannot run here (code {code})")),
            other => Reading::Retry(format!("the {title} died ({other})")),
        }
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

    fn package(&self) -> Answer<'_, Package> {
        Box::pin(self.api.package())
    }

    fn examine<'a>(&'a self, version: Option<&'a str>) -> Findings<'a> {
        Box::pin(async move {
            let mut found = self.api.examine(version).await;
            let capabilities: Vec<&str> = self.settings.capabilities.iter().map(|(name, _)| name.as_str()).collect();
            let labels = Finding::ok("labels", format!("user capabilities: {}", capabilities.join(", ")));
            found.insert(found.len().saturating_sub(1), labels);
            found
        })
    }
}
