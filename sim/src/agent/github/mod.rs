//! What is GitHub's about the stand-in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::arguments::Arguments;
use super::client::{Client, Refusal};
use super::job::Assignment;
use super::kind::{CLOSING, Connection, Facts, Gone, Layout, tools_folder};
use crate::protocol::{CompleteRequest, JobMessage, JobResult, Message, SessionAnswer};

pub(super) mod chatter;
mod configure;
#[cfg_attr(not(test), expect(dead_code, reason = "the worker does not run jobs by the forge's own message yet"))]
pub(super) mod containers;

pub(super) const FACTS: Facts = Facts {
    title: "Runner",
    noun: "runner",
    version: crate::AGENT_VERSION,
    listener: "bin/Runner.Listener",
    worker: "bin/Runner.Worker",
    files: &[
        ("config.sh", 0o755, include_str!("layout/config.sh")),
        ("run.sh", 0o755, include_str!("layout/run.sh")),
        ("run-helper.sh.template", 0o755, include_str!("layout/run-helper.sh.template")),
        ("env.sh", 0o755, include_str!("layout/env.sh")),
        ("safe_sleep.sh", 0o755, include_str!("layout/safe_sleep.sh")),
    ],
    commands: &["configure", "remove", "run", "warmup"],
    flags: &[
        "check",
        "commit",
        "ephemeral",
        "generateserviceconfig",
        "help",
        "local",
        "no-default-labels",
        "once",
        "replace",
        "disableupdate",
        "unattended",
        "version",
        "warmup",
    ],
    values: &[
        "url",
        "token",
        "pat",
        "name",
        "runnergroup",
        "labels",
        "work",
        "jitconfig",
        "monitorsocketaddress",
        "startuptype",
        "username",
        "windowslogonaccount",
        "windowslogonpassword",
    ],
    input_prefix: "ACTIONS_RUNNER_INPUT_",
    log_folders: [None, None],
    log_on_stdout: Some("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT"),
    settings: ".runner",
    config_files: [".credentials", ".credentials_rsaparams", ".runner"],
    configure: configure::configure,
    remove: configure::remove,
    before_run,
    connect: |_root, settings, secret| Arc::new(Queue(client(super::listener::text(settings, "serverUrl"), secret))),
    report: |server, token| Arc::new(Queue(client(server, token))),
    connected: |version| vec!["\n√ Connected to GitHub\n".into(), format!("Current runner version: '{version}'")],
    says_reconnected: false,
    gone: Gone {
        text: Some("The runner no longer exists on the server. Cleaning up local configuration."),
        clean_up: true,
    },
    conflict_code: 5,
    lay_out,
    hooks: Some(["ACTIONS_RUNNER_HOOK_JOB_STARTED", "ACTIONS_RUNNER_HOOK_JOB_COMPLETED"]),
    tracking: ("RUNNER_TRACKING_ID", "github_"),
    command_files: &[
        ("GITHUB_ENV", "set_env"),
        ("GITHUB_PATH", "add_path"),
        ("GITHUB_OUTPUT", "set_output"),
        ("GITHUB_STATE", "save_state"),
        ("GITHUB_STEP_SUMMARY", "step_summary"),
    ],
};

fn client(base: &str, secret: &str) -> Client {
    let mut headers = vec![
        ("user-agent", format!("GitHubActionsRunner-linux/{}", crate::AGENT_VERSION)),
        ("accept", "application/vnd.github+json".into()),
        ("x-github-api-version", "2022-11-28".into()),
        ("x-agent-version", crate::AGENT_VERSION.into()),
    ];
    if !secret.is_empty() {
        headers.push(("authorization", format!("Bearer {secret}")));
    }
    Client::new(base, headers)
}

/// The private routes below `/_agent/`.
#[derive(Debug)]
struct Queue(Client);

impl Connection for Queue {
    fn open_session(&self) -> Result<SessionAnswer, Refusal> {
        self.0.post("/_agent/sessions", None::<&()>)
    }

    fn close_session(&self, session: u64) -> Result<(), Refusal> {
        self.0.patient(CLOSING).delete(&format!("/_agent/sessions/{session}"))
    }

    fn next_message(&self, session: u64) -> Result<Option<Message>, Refusal> {
        self.0.get(&format!("/_agent/sessions/{session}/message"))
    }

    fn acquire(&self, id: u64, _offered: Option<JobMessage>) -> Result<JobMessage, Refusal> {
        self.0.post(&format!("/_agent/jobs/{id}/acquire"), None::<&()>)
    }

    fn renew(&self, id: u64) -> Result<(), Refusal> {
        self.0.post_raw(&format!("/_agent/jobs/{id}/renew"), None::<&()>).map(drop)
    }

    fn log(&self, id: u64, text: String) -> Result<(), Refusal> {
        self.0.post_text(&format!("/_agent/jobs/{id}/log"), text)
    }

    fn complete(&self, id: u64, result: JobResult) -> Result<(), Refusal> {
        self.0.post_raw(&format!("/_agent/jobs/{id}/complete"), Some(&CompleteRequest { result })).map(drop)
    }

    fn look_for_package(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Writes the files of a JIT configuration.
fn before_run(root: &Path, arguments: &Arguments) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(encoded) = arguments.value("jitconfig") else {
        return Ok(());
    };
    let bad = |error: &dyn std::fmt::Display| format!("Invalid JIT configuration: {error}");
    let decoded = BASE64.decode(encoded.trim()).map_err(|e| bad(&e))?;
    let files: BTreeMap<String, String> = serde_json::from_slice(&decoded).map_err(|e| bad(&e))?;
    for (name, content) in files {
        let content = BASE64.decode(content).map_err(|e| bad(&e))?;
        let path = root.join(&name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        if name == ".credentials_rsaparams" {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(|e| bad(&e))?;
        }
    }
    Ok(())
}

/// What GitHub gives as the ref: the merge of a pull request, what was pushed, else the default branch.
fn reference(event: &str, payload: &serde_json::Value) -> String {
    match (event, &payload["number"], &payload["ref"]) {
        ("pull_request", serde_json::Value::Number(number), _) => format!("refs/pull/{number}/merge"),
        ("push", _, serde_json::Value::String(pushed)) => pushed.clone(),
        _ => "refs/heads/main".into(),
    }
}

fn lay_out(assignment: &Assignment) -> Layout {
    let Assignment { job, work, server, runner, .. } = assignment;
    let (owner, repository) = job.repository.split_once('/').unwrap_or((&job.repository, "repository"));
    let workspace = work.join(repository).join(repository);
    let temp = work.join("_temp");
    let tools = tools_folder(work, &["RUNNER_TOOLSDIRECTORY", "AGENT_TOOLSDIRECTORY", "RUNNER_TOOL_CACHE"]);
    let event = temp.join("_github_workflow/event.json");
    let reference = reference(&job.event, &job.payload);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let arch = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    let env = vec![
        ("CI", "true".into()),
        ("GITHUB_ACTIONS", "true".into()),
        ("GITHUB_ACTOR", "octocat".into()),
        ("GITHUB_API_URL", format!("{server}/api/v3")),
        ("GITHUB_EVENT_NAME", job.event.clone()),
        ("GITHUB_EVENT_PATH", text(&event)),
        ("GITHUB_JOB", job.name.clone()),
        ("GITHUB_REF", reference.clone()),
        ("GITHUB_REF_NAME", reference.splitn(3, '/').last().unwrap_or_default().into()),
        ("GITHUB_REPOSITORY", job.repository.clone()),
        ("GITHUB_REPOSITORY_OWNER", owner.into()),
        ("GITHUB_RUN_ATTEMPT", "1".into()),
        ("GITHUB_RUN_ID", job.id.to_string()),
        ("GITHUB_RUN_NUMBER", job.id.to_string()),
        ("GITHUB_SERVER_URL", server.clone()),
        ("GITHUB_SHA", "0".repeat(40)),
        ("GITHUB_WORKFLOW", "simulated".into()),
        ("GITHUB_WORKFLOW_REF", format!("{}/.github/workflows/ci.yml@refs/heads/main", job.repository)),
        ("GITHUB_WORKSPACE", text(&workspace)),
        ("RUNNER_ARCH", arch.into()),
        ("RUNNER_ENVIRONMENT", "self-hosted".into()),
        ("RUNNER_NAME", runner.clone()),
        ("RUNNER_OS", "Linux".into()),
        ("RUNNER_TEMP", text(&temp)),
        ("RUNNER_TOOL_CACHE", text(&tools)),
        ("RUNNER_WORKSPACE", workspace.parent().map(text).unwrap_or_default()),
    ];
    Layout {
        folders: vec![
            workspace.clone(),
            temp.join("_github_workflow"),
            temp.join("_runner_file_commands"),
            work.join("_PipelineMapping"),
            tools,
        ],
        fresh: vec![temp.clone(), work.join("_actions")],
        workspace,
        temp,
        env,
        event: Some(event),
    }
}
