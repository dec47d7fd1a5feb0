//! The agent's side of a pool: session, messages, requests for jobs; and what its worker reports to a plan.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{capabilities, client};
use crate::agent::assignment::{Job, PlannedStep, StepReport};
use crate::agent::client::{Client, Refusal};
use crate::agent::credential::Credential;
use crate::agent::kind::{CLOSING, Configured, Connection, Kind, Next, Opened, Refresh, Reporter};
use crate::agent::listener::{TERMINATED, field, number, text};
use crate::agent::trace::Trace;
use crate::agent::{ARCH, host_name, pause, version};
use crate::protocol::{CompleteRequest, JobMessage, JobResult, Manners, Message};

/// The routes of the agent's side, below the organisation's address.
pub(super) struct Queue {
    credential: Credential,
    server: String,
    pool: u64,
    /// What a session says of the agent.
    said: Value,
    trace: Arc<Trace>,
    manners: Manners,
    progress: Mutex<Progress>,
}

/// What one try leaves to the next.
#[derive(Debug, Default)]
struct Progress {
    /// With the agent's token, once it has one.
    client: Option<Client>,
    session: String,
    conflict: Option<Instant>,
    /// People were told that something fails.
    failing: bool,
    errors: u32,
}

impl Queue {
    pub(super) fn of(configured: Configured) -> Self {
        let Configured { root, settings, credentials, trace, manners, .. } = configured;
        let name = text(&settings, "agentName");
        let version = version(Kind::Azure, &root);
        let server = text(&settings, "serverUrl").to_owned();
        let said = json!({
            "ownerName": format!("{} (PID: {})", host_name(), std::process::id()),
            "agent": {
                "id": number(&settings, "agentId"),
                "name": name,
                "version": version,
                "osDescription": "Linux",
            },
            "systemCapabilities": capabilities::system(&root, name, &version),
            "userCapabilities": capabilities::user(&root),
        });
        Self {
            credential: Credential::of(&credentials),
            server,
            pool: number(&settings, "poolId"),
            said,
            trace,
            manners,
            progress: Mutex::default(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client with the agent's token, which it asks for once.
    fn authorized(&self) -> Result<Client, Refusal> {
        if let Some(client) = self.progress().client.clone() {
            return Ok(client);
        }
        let token = self.credential.token(&client(&self.credential.address, ""))?;
        let client = client(&self.server, &format!("Bearer {token}"));
        self.progress().client = Some(client.clone());
        Ok(client)
    }

    fn path(&self, rest: &str) -> String {
        format!("/_apis/distributedtask/pools/{}/{rest}", self.pool)
    }

    /// Tells people of a failure, once until it is over.
    fn complain(&self, refusal: &Refusal) {
        if !std::mem::replace(&mut self.progress().failing, true) {
            self.trace.complain_timed(&format!("Agent connect error: {refusal}. Retrying until reconnected."));
        }
    }

    fn conflict(&self) -> Opened {
        let since = *self.progress().conflict.get_or_insert_with(Instant::now);
        self.trace.complain("A session for this agent already exists.");
        if since.elapsed() >= self.manners.time(self.manners.conflict_limit_ms, 240_000) {
            self.trace.complain("The session for this agent already exists; stopped retrying.");
            return Opened::End(TERMINATED);
        }
        Opened::Wait(self.manners.time(self.manners.conflict_retry_ms, 30_000))
    }

    fn try_message(&self, busy: bool) -> Result<Option<Message>, Refusal> {
        let session = self.progress().session.clone();
        let path = self.path(&format!("messages?sessionId={session}&api-version=5.1-preview.1"));
        let silence = std::time::Duration::from_millis(self.manners.silence_ms);
        let client = self.authorized()?;
        let Some(envelope) = client.patient(silence).get::<Envelope>(&path)? else {
            return Ok(None);
        };
        let number = envelope.message_id;
        let message = serde_json::from_str(&envelope.body).map_err(|error| Refusal::Broken(error.to_string()))?;
        if busy && matches!(message, Message::Job { .. }) {
            self.trace.info("Agent", &format!("Skip message deletion for job request message '{number}'."));
            return Ok(None);
        }
        // Upstream logs a failure and goes on; so does the queue here, which hands out each message once.
        let path = self.path(&format!("messages/{number}?sessionId={session}&api-version=5.1-preview.1"));
        let _ = client.delete(&path);
        Ok(Some(message))
    }

    fn keep(&self, id: &str) -> Result<(), Refusal> {
        let path = self.path(&format!("jobrequests/{id}?lockToken=00000000&api-version=5.1-preview.1"));
        self.authorized()?.json::<Value>("PATCH", &path, &json!({"requestId": id.parse::<u64>().ok()})).map(drop)
    }

    /// The offer has the whole job; the first renewal of its lock takes it.
    fn take(&self, id: u64, offered: Option<Box<JobMessage>>) -> Next {
        let taken = self
            .keep(&id.to_string())
            .and_then(|()| offered.ok_or_else(|| Refusal::Broken("the message has no job in it".into())));
        match taken {
            Ok(message) => Next::Job(Box::new(job(&message))),
            Err(Refusal::Status { status: 404 | 409 | 422, message, .. }) => {
                self.trace.info("Agent", &format!("Skipping message Job. {message}"));
                Next::Nothing
            }
            Err(refusal) => {
                self.trace.error("Agent", &format!("Job {id} was not acquired: {refusal}"));
                Next::Nothing
            }
        }
    }
}

/// Whether nobody knows the agent any more. The last is how a token is refused.
fn is_gone(refusal: &Refusal) -> bool {
    let Refusal::Status { status, body, .. } = refusal else { return false };
    let refused = || serde_json::from_str::<Value>(body).is_ok_and(|body| body["error"] == "invalid_client");
    matches!(status, 401 | 404) || (*status == 400 && refused())
}

fn job(message: &JobMessage) -> Job {
    let steps = message.steps.iter().cloned().zip(1..);
    Job {
        id: message.id.to_string(),
        name: message.name.clone(),
        steps: steps.map(|(step, at)| PlannedStep { id: format!("{at}"), step }).collect(),
        whole: json!(message),
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
    fn open_session(&self) -> Opened {
        let path = self.path("sessions?api-version=5.1-preview.1");
        match self.authorized().and_then(|client| client.json::<Value>("POST", &path, &self.said)) {
            Ok(answer) => {
                let mut progress = self.progress();
                text(&answer, "sessionId").clone_into(&mut progress.session);
                progress.failing = false;
                Opened::Yes
            }
            Err(Refusal::Status { status: 409, .. }) => self.conflict(),
            Err(refusal) if is_gone(&refusal) => {
                self.trace.complain(
                    "Failed to create a session. The agent registration has been deleted from the server, please \
                     re-configure.",
                );
                Opened::End(TERMINATED)
            }
            Err(refusal) => {
                self.complain(&refusal);
                Opened::Wait(self.manners.backoff(30_000))
            }
        }
    }

    fn close_session(&self) -> Result<(), Refusal> {
        let path = self.path(&format!("sessions/{}?api-version=5.1-preview.1", self.progress().session));
        self.authorized()?.patient(self.manners.scale.ms(30_000).max(CLOSING)).delete(&path)
    }

    fn next(&self, busy: bool) -> Next {
        let message = match self.try_message(busy) {
            Ok(message) => message,
            Err(refusal) if is_gone(&refusal) => return Next::Gone,
            Err(refusal) => {
                self.complain(&refusal);
                let errors = {
                    let mut progress = self.progress();
                    progress.errors += 1;
                    progress.errors
                };
                let real = if errors <= 5 { pause::between(15_000, 30_000) } else { pause::between(30_000, 60_000) };
                return Next::Wait(self.manners.time(self.manners.backoff_ms, real));
            }
        };
        self.progress().errors = 0;
        if std::mem::take(&mut self.progress().failing) {
            self.trace.say_timed("Agent reconnected.");
        }
        match message {
            None => Next::Nothing,
            Some(Message::Job { id, offered, .. }) => self.take(id, offered),
            Some(Message::Cancel { id, limit_ms }) => {
                Next::Cancel { id: id.to_string(), limit: std::time::Duration::from_millis(limit_ms) }
            }
            Some(Message::Refresh { version }) => {
                Next::Update(Refresh { version, url: String::new(), sha256: String::new() })
            }
        }
    }

    fn renew(&self, job: &Job) -> Result<(), Refusal> {
        self.keep(&job.id)
    }

    fn fail(&self, job: &Job) -> Result<(), Refusal> {
        Plan::of(&self.server, job).complete(JobResult::Failed, &[])
    }

    fn package(&self, refresh: Refresh) -> Result<Refresh, Refusal> {
        let version = &refresh.version;
        let path = format!("/_apis/distributedtask/packages/agent/linux-{ARCH}/{version}?api-version=5.1-preview.1");
        let package = self.authorized()?.get::<Value>(&path)?.unwrap_or_default();
        Ok(Refresh {
            url: text(&package, "downloadUrl").to_owned(),
            sha256: text(&package, "hashValue").to_owned(),
            ..refresh
        })
    }
}

/// Traces the whole message, the scripts included, as upstream.
pub(super) fn job_message(trace: &Trace, whole: &Value) {
    let token = text(whole, "token");
    let printed = format!("{whole:#}");
    let printed = if token.is_empty() { printed } else { printed.replace(token, "***") };
    trace.info("Worker", &format!("Job message:\n {printed}"));
}

/// What a job reports to.
pub(super) struct Plan {
    client: Client,
    id: String,
}

impl Plan {
    pub(super) fn of(server: &str, job: &Job) -> Self {
        let token = field(&job.whole, "token").and_then(Value::as_str).unwrap_or_default();
        Self { client: client(server, &format!("Bearer {token}")), id: job.id.clone() }
    }

    fn path(&self, rest: &str) -> String {
        format!("/_apis/distributedtask/hubs/build/plans/{}/{rest}?api-version=5.1-preview.1", self.id)
    }
}

impl Reporter for Plan {
    fn live(&self, text: &str) {
        let lines: Vec<&str> = text.lines().collect();
        let path = self.path(&format!("timelines/{}/records/{}/feed", self.id, self.id));
        // Nobody keeps them.
        let _ = self.client.post_raw(&path, Some(&json!({"count": lines.len(), "value": lines})));
    }

    fn store(&self, step: &StepReport) -> Result<(), Refusal> {
        self.client.post_text(&self.path(&format!("logs/{}", step.number)), step.text())
    }

    /// The server puts it together by itself.
    fn store_whole(&self, _steps: &[StepReport]) -> Result<(), Refusal> {
        Ok(())
    }

    fn complete(&self, result: JobResult, _steps: &[StepReport]) -> Result<(), Refusal> {
        self.client.post_raw(&self.path("events"), Some(&CompleteRequest { result })).map(drop)
    }
}
