//! What is Azure DevOps' about the stand-in.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Refusal};
use super::job::Assignment;
use super::kind::{CLOSING, Connection, Facts, Gone, Kind, Layout, tools_folder};
use super::listener::{field, text};
use crate::protocol::{CompleteRequest, JobMessage, JobResult, Message, SessionAnswer};

mod capabilities;
mod configure;

pub(super) const FACTS: Facts = Facts {
    title: "Agent",
    noun: "agent",
    version: crate::AZURE_AGENT_VERSION,
    listener: "bin/Agent.Listener",
    worker: "bin/Agent.Worker",
    files: &[
        ("config.sh", 0o755, include_str!("layout/config.sh")),
        ("run.sh", 0o755, include_str!("layout/run.sh")),
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
    config_files: [".credentials", ".credentials_rsaparams", ".agent"],
    configure: configure::configure,
    remove: configure::remove,
    before_run: |_, _| Ok(()),
    connect,
    report: |server, token| Arc::new(Queue::new(server, &format!("Bearer {token}"))),
    connected: |_| vec!["Scanning for tool capabilities.".into(), "Connecting to the server.".into()],
    says_reconnected: true,
    gone: Gone { text: None, clean_up: false },
    conflict_code: 1,
    lay_out,
    hooks: None,
    tracking: ("VSTS_PROCESS_LOOKUP_ID", "vsts_"),
    command_files: &[],
};

/// A client as the official agent is one, by its `User-Agent` above all.
fn client(base: &str, authorization: &str) -> Client {
    let mut headers = vec![
        ("user-agent", format!("VSServices/1.0 VstsAgentCore-linux-x64/{}", crate::AZURE_AGENT_VERSION)),
        ("accept", "application/json; api-version=5.1-preview.1".into()),
    ];
    if !authorization.is_empty() {
        headers.push(("authorization", authorization.to_owned()));
    }
    Client::new(base, headers)
}

/// The value of `Authorization` for a personal access token.
fn basic(pat: &str) -> String {
    format!("Basic {}", BASE64.encode(format!(":{pat}")))
}

/// The routes of the agent's side, below the organisation's address.
#[derive(Debug)]
struct Queue {
    client: Client,
    pool: u64,
    /// What a session says of the agent.
    session: Value,
}

fn connect(root: &Path, settings: &Value, secret: &str) -> Arc<dyn Connection> {
    let number = |name: &str| field(settings, name).and_then(Value::as_u64).unwrap_or_default();
    let name = text(settings, "agentName");
    let version = super::version(Kind::Azure, root);
    let mut queue = Queue::new(text(settings, "serverUrl"), &format!("Bearer {secret}"));
    queue.pool = number("poolId");
    queue.session = json!({
        "ownerName": format!("{} (PID: {})", super::host_name(), std::process::id()),
        "agent": {
            "id": number("agentId"),
            "name": name,
            "version": version,
            "osDescription": "Linux",
        },
        "systemCapabilities": capabilities::system(root, name, &version),
        "userCapabilities": capabilities::user(root),
    });
    Arc::new(queue)
}

impl Queue {
    fn new(base: &str, authorization: &str) -> Self {
        Self { client: client(base, authorization), pool: 0, session: Value::Null }
    }

    fn path(&self, rest: &str) -> String {
        format!("/_apis/distributedtask/pools/{}/{rest}", self.pool)
    }
}

/// What the queue hands out: the message proper is a text within.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    message_id: u64,
    body: String,
}

impl Connection for Queue {
    fn open_session(&self) -> Result<SessionAnswer, Refusal> {
        self.client.json("POST", &self.path("sessions?api-version=5.1-preview.1"), &self.session)
    }

    fn close_session(&self, session: u64) -> Result<(), Refusal> {
        self.client.patient(CLOSING).delete(&self.path(&format!("sessions/{session}?api-version=5.1-preview.1")))
    }

    fn next_message(&self, session: u64) -> Result<Option<Message>, Refusal> {
        let path = self.path(&format!("messages?sessionId={session}&api-version=5.1-preview.1"));
        let Some(envelope) = self.client.get::<Envelope>(&path)? else {
            return Ok(None);
        };
        let number = envelope.message_id;
        let message = serde_json::from_str(&envelope.body).map_err(|error| Refusal::Broken(error.to_string()))?;
        // Upstream logs a failure and goes on; so does the queue here, which hands out each message once.
        let _ =
            self.client.delete(&self.path(&format!("messages/{number}?sessionId={session}&api-version=5.1-preview.1")));
        Ok(Some(message))
    }

    /// The offer has the whole job; the first renewal of its lock takes it.
    fn acquire(&self, id: u64, offered: Option<JobMessage>) -> Result<JobMessage, Refusal> {
        self.renew(id)?;
        offered.ok_or_else(|| Refusal::Broken("the message has no job in it".into()))
    }

    fn renew(&self, id: u64) -> Result<(), Refusal> {
        let path = self.path(&format!("jobrequests/{id}?lockToken=00000000&api-version=5.1-preview.1"));
        self.client.json::<Value>("PATCH", &path, &json!({"requestId": id})).map(drop)
    }

    fn log(&self, id: u64, text: String) -> Result<(), Refusal> {
        let path = format!("/_apis/distributedtask/hubs/build/plans/{id}/logs/1?api-version=5.1-preview.1");
        self.client.post_text(&path, text)
    }

    fn complete(&self, id: u64, result: JobResult) -> Result<(), Refusal> {
        let path = format!("/_apis/distributedtask/hubs/build/plans/{id}/events?api-version=5.1-preview.1");
        self.client.post_raw(&path, Some(&CompleteRequest { result })).map(drop)
    }

    fn look_for_package(&self) -> Result<(), Refusal> {
        let path = "/_apis/distributedtask/packages/agent/linux-x64?$top=1&api-version=5.1-preview.1";
        self.client.get::<Value>(path).map(drop)
    }
}

fn lay_out(assignment: &Assignment) -> Layout {
    let Assignment { job, work, server, runner, root, .. } = assignment;
    let (project, repository) = job.repository.split_once('/').unwrap_or(("project", &job.repository));
    let pipeline = work.join("1");
    let workspace = pipeline.join("s");
    let temp = work.join("_temp");
    let tools = tools_folder(work, &["AGENT_TOOLSDIRECTORY"]);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let arch = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    let env = vec![
        ("AGENT_BUILDDIRECTORY", text(&pipeline)),
        ("AGENT_HOMEDIRECTORY", text(root)),
        ("AGENT_JOBNAME", job.name.clone()),
        ("AGENT_MACHINENAME", super::host_name()),
        ("AGENT_NAME", runner.clone()),
        ("AGENT_OS", "Linux".into()),
        ("AGENT_OSARCHITECTURE", arch.into()),
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
        env,
        event: None,
    }
}
