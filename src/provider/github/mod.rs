//! GitHub: github.com, GitHub Enterprise Cloud with data residency (`*.ghe.com`), GitHub Enterprise Server.

mod api;
mod app;
mod jit;
mod jwt;
mod settings;

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde::Deserialize;

use super::http::Http;
use super::{
    AgentFacts, Answer, Entry, Fault, Findings, Grant, HookVariables, LabelledBy, Line, Meaning, Once, Package,
    Provider, Reading, Registration, Released, Releasing, Sign, Standing, Step, StopPlan, Wanted, read_agents_json,
};
use crate::config::SecretSource;
use crate::init::Ended;
use api::Api;
use settings::{Credential, Settings};

/// This provider's line in the list.
pub const ENTRY: Entry = Entry { name: "github", settings: settings::TABLE, read: settings::read };

const LISTENER: &str = "bin/Runner.Listener";

/// The official runner.
pub(crate) const AGENT: AgentFacts = AgentFacts {
    title: "GitHub Actions runner",
    listener: LISTENER,
    worker: "Runner.Worker",
    words: &[
        Line::timed("Listening for Jobs", Meaning::Listening),
        Line::timed("Running job: ", Meaning::Running),
        Line::timed("Job ", Meaning::Completed(" completed with result: ")),
        Line::new("Current runner version: '", "'", Meaning::Version),
        Line::new("Registration ", " was not found.", Meaning::Sign(Sign::Unknown)),
        Line::new("An error occurred: Registration ", " was not found.", Meaning::Sign(Sign::Unknown)),
        Line::timed("Runner connect error: Registration ", Meaning::Sign(Sign::Unknown)),
        Line::new("A session for this runner already exists.", "", Meaning::Sign(Sign::Conflict)),
        Line::timed("Runner connect error: ", Meaning::Sign(Sign::Disconnected)),
        // Of a server's own (GHES); github.com's runner says nothing when its polls work again.
        Line::timed("Runner reconnected.", Meaning::Sign(Sign::Reconnected)),
    ],
    traces: &[
        ("BrokerMessageListener", "Acknowledging runner request ", Sign::Acquiring),
        ("Runner", "Acknowledge returned job-not-found ", Sign::Refused),
        ("Runner", "Skipping message Job.", Sign::Skipped),
    ],
    configuration: &[".runner", ".credentials", ".credentials_rsaparams"],
    env: &[
        // Without it, a version that GitHub refuses ends the listener with 1, like many other things.
        ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1"),
        // Without it, a listener that passes its job over says nothing.
        ("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1"),
        // By its prefix each line of a job's message is known, and shown to nobody.
        ("ACTIONS_RUNNER_DISABLE_STDOUT_MULTILINE_LOG_PREFIXING", "0"),
    ],
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
    docker_label: LabelledBy::File(".runner"),
    hooks: Some(HookVariables {
        job_started: "ACTIONS_RUNNER_HOOK_JOB_STARTED",
        job_completed: "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
    }),
    unpublished: None,
    proxy: None,
    // There is no drain: SIGTERM cancels the job as well, and gives it no more than 30 s to say so.
    stop: StopPlan { finish: None, abort: Signal::SIGINT },
};

/// The provider.
#[derive(Debug)]
pub struct GitHub {
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
        ENTRY.name
    }

    fn scope(&self) -> String {
        match self.settings.scope {
            settings::Scope::OfConfiguration => self.settings.scope.to_string(),
            _ => format!("{} on {}", self.settings.scope, self.settings.host.web),
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

    fn registration(&self, name: &str) -> Registration {
        Registration { id: None, name: name.to_owned(), scope: self.api.scope_url() }
    }

    fn grant<'a>(&'a self, wanted: Wanted<'a>) -> Answer<'a, Grant> {
        Box::pin(async move {
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
                    let credential = Some(self.api.registration_token().await?);
                    Ok(Grant { credential, ..Grant::default() })
                }
            }
        })
    }

    fn configure(&self, grant: &Grant, wanted: Wanted<'_>) -> Option<Step> {
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

    fn configure_failed(&self, words: &str) -> Fault {
        match &self.settings.credential {
            Credential::Pat(_) | Credential::App(_) | Credential::JitConfig(_) => {
                // The token may be why, and it may be shared.
                self.api.forget_token();
                Fault::Unreachable(words.to_owned())
            }
            Credential::RegistrationToken(source) => Fault::denied(
                words,
                format!(
                    "a registration token lives for an hour: put a new one into {}, or use GITHUB_PAT or a GitHub App",
                    source.setting
                ),
            ),
        }
    }

    fn identify<'a>(&'a self, name: &'a str, root: &'a Path) -> Answer<'a, Registration> {
        Box::pin(async move {
            let mut registration = self.registration(name);
            let text = fs::read(root.join(".runner")).unwrap_or_default();
            registration.id = match read_agents_json::<RunnerFile>(&text) {
                Ok(file) => Some(file.agent_id),
                Err(_) if self.settings.credential.asks() => self.api.find(name).await?,
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

    fn releasing(&self, job_done: bool) -> Releasing {
        match &self.settings.credential {
            Credential::Pat(_) | Credential::App(_) => Releasing::Request,
            Credential::JitConfig(_) => Releasing::ByForge,
            // GitHub removes an ephemeral runner after its job, and the agent its own configuration.
            Credential::RegistrationToken(_) if job_done && !self.settings.persistent => Releasing::ByForge,
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

    fn standing<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Standing> {
        Box::pin(self.api.standing(registration))
    }

    fn starves_old_agents(&self) -> bool {
        self.settings.host.is_github_com()
    }

    fn package(&self) -> Answer<'_, Package> {
        Box::pin(self.api.package())
    }

    fn examine<'a>(&'a self, version: Option<&'a str>) -> Findings<'a> {
        Box::pin(self.api.examine(&self.settings, version))
    }

    fn rest(&self) {
        self.api.rest();
    }
}

impl GitHub {
    /// The grant in a configuration that was made elsewhere.
    fn given(&self, source: &SecretSource, wanted: Wanted<'_>) -> Result<Grant, Fault> {
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
