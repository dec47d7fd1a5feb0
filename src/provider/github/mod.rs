//! GitHub: github.com, GitHub Enterprise Cloud with data residency (`*.ghe.com`), GitHub Enterprise Server.

mod api;
mod jit;
mod settings;

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{
    AgentFacts, Answer, Entry, Fault, Grant, HookVariables, Provider, Reading, Registration, Released, Releasing, Step,
    Wanted,
};
use crate::config::{Secret, SecretSource};
use crate::init::Ended;
use api::Api;
use settings::{Credential, Settings};

/// This provider's line in the list.
pub const ENTRY: Entry = Entry { name: "github", settings: settings::TABLE, read: settings::read };

const LISTENER: &str = "bin/Runner.Listener";

const AGENT: AgentFacts = AgentFacts {
    title: "GitHub Actions runner",
    listener: LISTENER,
    worker: "Runner.Worker",
    listening_marker: "Listening for Jobs",
    running_marker: "Running job: ",
    configuration: &[".runner", ".credentials", ".credentials_rsaparams"],
    // Without the first, a version that GitHub refuses ends the listener with 1, like many other things.
    env: &[("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1")],
    env_allowed: &[
        "ACTIONS_RUNNER_*",
        "ACTIONS_CACHE_URL",
        "ACTIONS_RESULTS_URL",
        "GITHUB_ACTIONS_RUNNER_*",
        "GITHUB_ACTIONS_SERVICE_EXIT_AFTER_N_FAILURES",
        "PIPELINE_JOB_OOMSCOREADJ",
        "RUNNER_TOOL_CACHE",
        "RUNNER_TOOLSDIRECTORY",
        "RUNNER_LOGSIZE",
        "RUNNER_LOGRETENTION",
        "RUNNER_PERFLOG",
        "WORKER_LOGSIZE",
        "WORKER_LOGRETENTION",
    ],
    input_prefix: "ACTIONS_RUNNER_INPUT_",
    hooks: Some(HookVariables {
        job_started: "ACTIONS_RUNNER_HOOK_JOB_STARTED",
        job_completed: "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
    }),
};

/// The provider.
#[derive(Debug)]
pub struct GitHub {
    settings: Settings,
    api: Api,
}

/// The part of the agent's `.runner` file that we read. The agent writes it with a byte order mark.
#[derive(Deserialize)]
struct RunnerFile {
    #[serde(rename = "agentId", alias = "AgentId")]
    agent_id: u64,
}

impl Provider for GitHub {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn scope(&self) -> String {
        format!("{} on {}", self.settings.scope, self.settings.host.web)
    }

    fn agent(&self) -> &'static AgentFacts {
        &AGENT
    }

    fn secrets(&self) -> Vec<&SecretSource> {
        match &self.settings.credential {
            Credential::Pat(source) | Credential::RegistrationToken(source) => vec![source],
        }
    }

    fn registration(&self, name: &str) -> Registration {
        Registration { id: None, name: name.to_owned(), scope: self.api.scope_url() }
    }

    fn grant<'a>(&'a self, wanted: Wanted<'a>) -> Answer<'a, Grant> {
        Box::pin(async move {
            match &self.settings.credential {
                Credential::RegistrationToken(source) => Ok(Grant::Token(source.read().map_err(api::no_secret)?)),
                Credential::Pat(_) if self.settings.jit => {
                    let (id, files) = self.api.just_in_time(&self.settings, wanted).await?;
                    let registration = Registration { id: Some(id), ..self.registration(wanted.name) };
                    Ok(Grant::Files { registration, files })
                }
                Credential::Pat(_) => self.api.registration_token().await.map(Grant::Token),
            }
        })
    }

    fn configure(&self, token: &Secret, wanted: Wanted<'_>) -> Step {
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
        Step { program: LISTENER, args, secrets: vec![("ACTIONS_RUNNER_INPUT_TOKEN", token.clone())] }
    }

    fn configure_failed(&self, words: &str) -> Fault {
        match &self.settings.credential {
            Credential::Pat(_) => Fault::Unreachable(words.to_owned()),
            Credential::RegistrationToken(source) => denied(
                words.to_owned(),
                format!(
                    "a registration token lives for an hour: put a new one into {}, or use GITHUB_PAT",
                    source.setting
                ),
            ),
        }
    }

    fn identify<'a>(&'a self, name: &'a str, root: &'a Path) -> Answer<'a, Registration> {
        Box::pin(async move {
            let mut registration = self.registration(name);
            let text = fs::read(root.join(".runner")).unwrap_or_default();
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
            registration.id = match serde_json::from_slice::<RunnerFile>(text) {
                Ok(file) => Some(file.agent_id),
                Err(_) if matches!(self.settings.credential, Credential::Pat(_)) => self.api.find(name).await?,
                Err(_) => None,
            };
            Ok(registration)
        })
    }

    fn run(&self) -> Step {
        let mut args: Vec<String> = ["run", "--startuptype", "service"].map(str::to_owned).to_vec();
        if self.settings.persistent {
            // One job, then back to us, so that the slate is clean for the next one.
            args.push("--once".to_owned());
        }
        Step { program: LISTENER, args, secrets: Vec::new() }
    }

    fn read_exit(&self, ended: Ended, job_seen: bool) -> Reading {
        let title = AGENT.title;
        match ended {
            _ if job_seen && matches!(ended, Ended::Code(0 | 2)) => Reading::Done,
            Ended::Code(0) => {
                Reading::Lost(format!("the {title} ended by itself: its registration is gone or consumed"))
            }
            Ended::Code(1) => {
                Reading::Lost(format!("the {title} gave up (code 1): its registration is not known any more"))
            }
            Ended::Code(2) => {
                Reading::Retry(format!("the {title} ended with a fault that it calls retryable (code 2)"))
            }
            Ended::Code(code @ (3 | 4)) => {
                Reading::Outdated(format!("the {title} was told to update itself (code {code})"))
            }
            Ended::Code(5) => Reading::Retry(format!("the {title} found another session under its name (code 5)")),
            Ended::Code(6) => Reading::Retry(format!("the {title} was given a new configuration (code 6)")),
            Ended::Code(7) => {
                Reading::Outdated(format!("GitHub does not accept this version of the {title} any more (code 7)"))
            }
            Ended::Code(code @ (126 | 127)) => Reading::Fatal(format!("the {title} cannot run here (code {code})")),
            other => Reading::Retry(format!("the {title} died ({other})")),
        }
    }

    fn releasing(&self) -> Releasing {
        match &self.settings.credential {
            Credential::Pat(_) => Releasing::Request,
            Credential::RegistrationToken(source) => Releasing::Command(Step {
                program: LISTENER,
                args: vec!["remove".to_owned()],
                secrets: source.read().map(|token| ("ACTIONS_RUNNER_INPUT_TOKEN", token)).into_iter().collect(),
            }),
        }
    }

    fn release<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Released> {
        Box::pin(self.api.release(registration))
    }

    fn exists<'a>(&'a self, registration: &'a Registration) -> Answer<'a, bool> {
        Box::pin(self.api.exists(registration))
    }

    fn current_version(&self) -> Answer<'_, String> {
        Box::pin(self.api.current_version())
    }

    fn rest(&self) {
        self.api.rest();
    }
}

/// Whether a fault is one that only a person can end.
fn denied(what: String, cure: String) -> Fault {
    Fault::Denied { what, cure }
}
