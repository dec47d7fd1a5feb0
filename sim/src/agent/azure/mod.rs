//! What is Azure DevOps' about the stand-in.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::assignment::Assignment;
use super::client::Client;
use super::kind::{Facts, Gone, Kind, Layout, tools_folder};
use super::{ARCH, ARCH_LABEL};

mod capabilities;
mod configure;
mod proxy;
mod queue;

pub(super) const FACTS: Facts = Facts {
    title: "Agent",
    noun: "agent",
    version: crate::AZURE_AGENT_VERSION,
    listener: "bin/Agent.Listener",
    worker: "bin/Agent.Worker",
    files: &[
        ("config.sh", 0o755, include_str!("layout/config.sh")),
        ("run.sh", 0o755, include_str!("layout/run.sh")),
        ("run-docker.sh", 0o755, include_str!("layout/run-docker.sh")),
        ("env.sh", 0o755, include_str!("layout/env.sh")),
    ],
    commands: &["configure", "remove", "run", "warmup", "reauth"],
    flags: &[
        "acceptteeeula",
        "alwaysextracttask",
        "commit",
        "deploymentgroup",
        "deploymentpool",
        "disableloguploads",
        "environment",
        "gituseschannel",
        "help",
        "once",
        "replace",
        "restreamlogstofiles",
        "sslskipcertvalidation",
        "unattended",
        "usebasicauthforproxy",
        "version",
    ],
    values: &[
        "agent",
        "auth",
        "clientid",
        "clientsecret",
        "collectionname",
        "deploymentgroupname",
        "deploymentpoolname",
        "environmentname",
        "monitorsocketaddress",
        "notificationpipename",
        "notificationsocketaddress",
        "password",
        "pool",
        "projectname",
        "proxypassword",
        "proxyurl",
        "proxyusername",
        "sslcacert",
        "sslclientcert",
        "sslclientcertarchive",
        "sslclientcertkey",
        "sslclientcertpassword",
        "startuptype",
        "tenantid",
        "token",
        "url",
        "username",
        "work",
    ],
    input_prefix: "VSTS_AGENT_INPUT_",
    log_folders: [Some("AGENT_DIAGLOGPATH"), Some("WORKER_DIAGLOGPATH")],
    log_on_stdout: None,
    settings: ".agent",
    configure: configure::configure,
    remove: configure::remove,
    forget: configure::forget,
    before_run: |_, _| Ok(()),
    proxy: proxy::proxy,
    connect: |configured| Arc::new(queue::Queue::of(configured)),
    reporter: |assignment| Arc::new(queue::Plan::of(&assignment.server, &assignment.job)),
    job_message: queue::job_message,
    connected: |_| vec!["Scanning for tool capabilities.".into(), "Connecting to the server.".into()],
    gone: Gone { text: None, clean_up: false },
    lay_out,
    patience: Some(["PROCESS_SIGINT_TIMEOUT", "PROCESS_SIGTERM_TIMEOUT"]),
    hooks: None,
    tracking: ("VSTS_PROCESS_LOOKUP_ID", "vsts_"),
    command_files: &[],
};

/// A client as the official agent is one, by its `User-Agent` above all.
fn client(base: &str, authorization: &str) -> Client {
    let mut headers = vec![
        ("user-agent", format!("VSServices/1.0 VstsAgentCore-linux-{ARCH}/{}", crate::AZURE_AGENT_VERSION)),
        ("accept", "application/json; api-version=5.1-preview.1".into()),
    ];
    if !authorization.is_empty() {
        headers.push(("authorization", authorization.to_owned()));
    }
    Client::new(Kind::Azure, base, headers)
}

/// The value of `Authorization` for a personal access token.
fn basic(pat: &str) -> String {
    format!("Basic {}", BASE64.encode(format!(":{pat}")))
}

fn lay_out(assignment: &Assignment) -> Layout {
    let Assignment { job, work, server, runner, root, .. } = assignment;
    let repository = super::listener::text(&job.whole, "repository");
    let (project, repository) = repository.split_once('/').unwrap_or(("project", repository));
    let pipeline = work.join("1");
    let workspace = pipeline.join("s");
    let temp = work.join("_temp");
    let tools = tools_folder(work, &["AGENT_TOOLSDIRECTORY"]);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let env = vec![
        ("AGENT_BUILDDIRECTORY", text(&pipeline)),
        ("AGENT_HOMEDIRECTORY", text(root)),
        ("AGENT_JOBNAME", job.name.clone()),
        ("AGENT_MACHINENAME", super::host_name()),
        ("AGENT_NAME", runner.clone()),
        ("AGENT_OS", "Linux".into()),
        ("AGENT_OSARCHITECTURE", ARCH_LABEL.into()),
        ("AGENT_ROOTDIRECTORY", text(work)),
        ("AGENT_TEMPDIRECTORY", text(&temp)),
        ("AGENT_TOOLSDIRECTORY", text(&tools)),
        ("AGENT_VERSION", super::version(assignment.kind, root)),
        ("AGENT_WORKFOLDER", text(work)),
        ("BUILD_ARTIFACTSTAGINGDIRECTORY", text(&pipeline.join("a"))),
        ("BUILD_BINARIESDIRECTORY", text(&pipeline.join("b"))),
        ("BUILD_BUILDID", job.id.to_string()),
        ("BUILD_BUILDNUMBER", job.id.to_string()),
        ("BUILD_DEFINITIONNAME", "simulated".into()),
        ("BUILD_REASON", "Manual".into()),
        ("BUILD_REPOSITORY_NAME", repository.into()),
        ("BUILD_SOURCEBRANCH", "refs/heads/main".into()),
        ("BUILD_SOURCESDIRECTORY", text(&workspace)),
        ("BUILD_SOURCEVERSION", "0".repeat(40)),
        ("PIPELINE_WORKSPACE", text(&pipeline)),
        ("SYSTEM_COLLECTIONURI", format!("{server}/")),
        ("SYSTEM_DEFAULTWORKINGDIRECTORY", text(&workspace)),
        ("SYSTEM_TEAMPROJECT", project.into()),
        ("TF_BUILD", "True".into()),
    ];
    Layout {
        folders: vec![
            workspace.clone(),
            pipeline.join("a"),
            pipeline.join("b"),
            pipeline.join("TestResults"),
            work.join("_tasks"),
            work.join("SourceRootMapping"),
            tools,
        ],
        fresh: vec![temp.clone()],
        workspace,
        temp,
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        event: None,
    }
}
