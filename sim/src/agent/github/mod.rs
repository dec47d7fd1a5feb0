//! What is GitHub's about the stand-in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use serde_json::Value;

use super::ARCH_LABEL;
use super::arguments::Arguments;
use super::assignment::Assignment;
use super::kind::{Facts, Gone, Layout, tools_folder};

mod broker;
pub(super) mod chatter;
mod configure;
pub(super) mod containers;
mod identity;
mod message;
mod proxy;
mod refresh;
mod services;

/// The members of the context `github` that each step finds in its environment.
const CONTEXT: [&str; 23] = [
    "actor",
    "actor_id",
    "api_url",
    "base_ref",
    "event_name",
    "graphql_url",
    "head_ref",
    "job",
    "ref",
    "ref_name",
    "ref_type",
    "repository",
    "repository_id",
    "repository_owner",
    "retention_days",
    "run_attempt",
    "run_id",
    "run_number",
    "server_url",
    "sha",
    "triggering_actor",
    "workflow",
    "workflow_ref",
];

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
    configure: configure::configure,
    remove: configure::remove,
    forget: configure::forget,
    before_run,
    proxy: proxy::proxy,
    connect: |configured| Arc::new(broker::Broker::new(configured)),
    reporter: |assignment| Arc::new(services::Results::new(assignment)),
    job_message: chatter::message::job_message,
    connected: |version| vec![format!("Current runner version: '{version}'")],
    gone: Gone {
        text: Some("The runner no longer exists on the server. Cleaning up local configuration."),
        clean_up: true,
    },
    lay_out,
    patience: None,
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

fn lay_out(assignment: &Assignment) -> Layout {
    let Assignment { job, work, runner, .. } = assignment;
    let context = message::github(&job.whole);
    let of_context = |name: &str| context.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let repository = of_context("repository");
    let repository = repository.split_once('/').map_or("repository", |(_, name)| name).to_owned();
    let workspace = work.join(&repository).join(&repository);
    let temp = work.join("_temp");
    let tools = tools_folder(work, &["RUNNER_TOOLSDIRECTORY", "AGENT_TOOLSDIRECTORY", "RUNNER_TOOL_CACHE"]);
    let event = temp.join("_github_workflow/event.json");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut env: Vec<(String, String)> = CONTEXT
        .into_iter()
        .map(|name| (format!("GITHUB_{}", name.to_uppercase()), of_context(name)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    env.extend(
        [
            ("CI", "true".into()),
            ("GITHUB_ACTIONS", "true".into()),
            ("GITHUB_EVENT_PATH", text(&event)),
            ("GITHUB_WORKSPACE", text(&workspace)),
            ("RUNNER_ARCH", ARCH_LABEL.into()),
            ("RUNNER_ENVIRONMENT", "self-hosted".into()),
            ("RUNNER_NAME", runner.clone()),
            ("RUNNER_OS", "Linux".into()),
            ("RUNNER_TEMP", text(&temp)),
            ("RUNNER_TOOL_CACHE", text(&tools)),
            ("RUNNER_WORKSPACE", workspace.parent().map(text).unwrap_or_default()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    Layout {
        folders: vec![
            workspace.clone(),
            temp.join("_github_workflow"),
            temp.join("_runner_file_commands"),
            work.join("_PipelineMapping").join(of_context("repository")),
            tools,
        ],
        fresh: vec![temp.clone(), work.join("_actions")],
        workspace,
        temp,
        env,
        event: Some((event, context.get("event").cloned().unwrap_or_default().to_string())),
    }
}
