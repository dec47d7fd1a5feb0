//! GitHub's listener against the broker: session, held polls, the words and the patience of each way to fail.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chatter::{Phase, success};
use super::identity::{Identity, client};
use super::message;
use super::refresh::refresh;
use super::services::Service;
use crate::agent::assignment::Job;
use crate::agent::client::Refusal;
use crate::agent::kind::{CLOSING, Configured, Connection, Next, Opened, Refresh};
use crate::agent::listener::{CONFLICT, DEPRECATED, RETRYABLE, TERMINATED, text};
use crate::agent::narrator::Narrator;
use crate::agent::trace::Trace;
use crate::agent::{ARCH_LABEL, flag, host_name, pause, version};
use crate::protocol::Manners;

/// So many tries in a row make one round of failing; people are told of the first.
const TRIES: u32 = 5;
/// After so many rounds the listener gives up.
const ROUNDS: u32 = 10;
/// Milliseconds between the tries of a round. Chance chose them once, and every runner has the same.
const BETWEEN_TRIES: [u64; 4] = [10_574, 13_959, 8_790, 8_743];
/// And between rounds: of the first five, and of those after them.
const BETWEEN_ROUNDS: [u64; 2] = [25_925, 45_000];

/// A listener's way to its broker.
pub(super) struct Broker {
    identity: Identity,
    version: String,
    root: PathBuf,
    trace: Arc<Trace>,
    narrator: Arc<Narrator>,
    manners: Manners,
    progress: Mutex<Progress>,
}

/// What one try leaves to the next.
#[derive(Debug, Default)]
struct Progress {
    located: bool,
    token: Option<String>,
    session: Option<String>,
    /// The session is over, and what a poll brings is nobody's any more.
    closed: bool,
    /// People were told that there is no session.
    told: bool,
    conflict: Option<Instant>,
    /// Tries that failed since the last message. A poll that goes well in between does not set them back.
    tries: u32,
    rounds: u32,
    /// Jobs in a row that were passed over.
    skipped: u32,
}

impl Broker {
    pub(super) fn new(configured: Configured) -> Self {
        Self {
            identity: Identity::of(&configured),
            version: version(crate::agent::Kind::GitHub, &configured.root),
            root: configured.root,
            trace: configured.trace,
            narrator: configured.narrator,
            manners: configured.manners,
            progress: Mutex::default(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> &str {
        if self.identity.broker.is_empty() { &self.identity.server } else { &self.identity.broker }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.manners.silence_ms)
    }

    /// The token that it has, or a new one.
    fn token(&self) -> Result<String, Refusal> {
        if let Some(token) = self.progress().token.clone() {
            return Ok(token);
        }
        self.new_token()
    }

    fn new_token(&self) -> Result<String, Refusal> {
        let token = self.identity.token(self.silence())?;
        self.progress().token = Some(token.clone());
        Ok(token)
    }

    fn agent(&self) -> Value {
        json!({
            "id": self.identity.agent_id,
            "name": self.identity.name,
            "version": self.version,
            "osDescription": os_description(),
            "ephemeral": null,
            "status": 0,
            "provisioningState": null,
        })
    }

    /// Of two addresses the first is asked where the services are.
    fn locate(&self) -> Result<(), Refusal> {
        if !self.progress().located && self.identity.server != self.address() {
            let client = client(&self.identity.server, "", "").patient(self.silence());
            for _ in 0..3 {
                let found =
                    client.get::<Value>("_apis/connectionData?connectOptions=1&lastChangeId=-1&lastChangeId64=-1")?;
                cache_locations(&self.manners, &found.unwrap_or_default());
            }
        }
        self.progress().located = true;
        success(&self.trace, "Connected to GitHub");
        Ok(())
    }

    fn try_session(&self) -> Result<String, Refusal> {
        let token = self.token()?;
        let ask = json!({
            "sessionId": "00000000-0000-0000-0000-000000000000",
            "ownerName": format!("{} (PID: {})", host_name(), std::process::id()),
            "agent": self.agent(),
            "useFipsEncryption": false,
        });
        let client = client(self.address(), "Bearer", &token).patient(self.silence());
        let answer: Value = client.json("POST", "session", &ask)?;
        let session = text(&answer, "sessionId").to_owned();
        self.narrator.session(&session);
        Ok(session)
    }

    fn no_session(&self, refusal: &Refusal) -> Opened {
        let wait = self.manners.backoff(30_000);
        match refusal {
            Refusal::Status { status: 409, .. } => self.conflict(),
            Refusal::Status { status: 400 | 401, body, .. } if !body.contains("was not found.") => {
                self.trace.complain(
                    "Failed to create a session. The runner registration has been deleted from the server, please \
                     re-configure. Runner registrations are automatically deleted for runners that have not connected \
                     to the service recently.",
                );
                Opened::End(TERMINATED)
            }
            Refusal::Status { status: 400 | 401, message, .. } => {
                self.trace.error("BrokerMessageListener", message);
                self.trace.error("BrokerMessageListener", &format!("Retriable exception: {message}"));
                self.trace.complain_timed(&format!("Runner connect error: {message}. Retrying until reconnected."));
                Opened::Wait(wait)
            }
            refusal => {
                if !std::mem::replace(&mut self.progress().told, true) {
                    let why = match refusal {
                        Refusal::Status { message, .. } => format!("Failed to create broker session: {message}"),
                        Refusal::Broken(why) => why.clone(),
                    };
                    self.trace.complain_timed(&format!("Runner connect error: {why}. Retrying until reconnected."));
                }
                Opened::Wait(wait)
            }
        }
    }

    fn conflict(&self) -> Opened {
        let since = *self.progress().conflict.get_or_insert_with(Instant::now);
        if !std::mem::replace(&mut self.progress().told, true) {
            self.trace.complain_timed("Runner connect error: Error: Conflict. Retrying until reconnected.");
        }
        self.trace.complain("A session for this runner already exists.");
        if since.elapsed() >= self.manners.time(self.manners.conflict_limit_ms, 240_000) {
            self.trace.complain("The session for this runner already exists; stopped retrying.");
            return Opened::End(CONFLICT);
        }
        Opened::Wait(self.manners.time(self.manners.conflict_retry_ms, 30_000))
    }

    /// What follows the session's id in the addresses of a poll and an acknowledgement.
    fn query(&self, session: &str, status: &str) -> String {
        let version = &self.version;
        format!("sessionId={session}&status={status}&runnerVersion={version}&os=Linux&architecture={ARCH_LABEL}")
    }

    /// A request whose token may be out of date: it is asked for anew once, and nothing is said of it.
    fn authorized<T>(&self, request: impl Fn(&str) -> Result<T, Refusal>) -> Result<T, Refusal> {
        match request(&self.token()?) {
            Err(Refusal::Status { status: 401, .. }) => request(&self.new_token()?),
            other => other,
        }
    }

    fn try_poll(&self, busy: bool) -> Result<Option<Value>, Refusal> {
        let session = self.progress().session.clone().unwrap_or_default();
        let status = if busy { "Busy" } else { "Online" };
        let path = format!("message?{}&disableUpdate={}", self.query(&session, status), self.identity.disable_update);
        // What a gateway says is tried again below the runner's own tries.
        let mut left = 3;
        loop {
            let answer = self.authorized(|token| {
                client(self.address(), "Bearer", token).patient(self.silence()).get::<Value>(&path)
            });
            match answer {
                Err(Refusal::Status { status: 502..=504, .. }) if left > 0 => {
                    left -= 1;
                    thread::sleep(self.manners.backoff(10_000));
                }
                answer => return answer,
            }
        }
    }

    fn no_message(&self, refusal: &Refusal) -> Next {
        match refusal {
            Refusal::Status { status: 403, message, body } => {
                let version = &self.version;
                let words = if body.contains("RunnerVersionTooOld") {
                    message.clone()
                } else {
                    format!("Error: Forbidden Runner version v{version} is deprecated and cannot receive messages.")
                };
                self.trace.complain(&format!("An error occurred: {words}"));
                let told = flag("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE");
                Next::End(if told { DEPRECATED } else { TERMINATED })
            }
            Refusal::Status { status: 404, body, .. } if body.contains("RunnerNotFound") => Next::Gone,
            Refusal::Status { status: 404, body, .. } if body.contains("RunnerSessionInvalid") => {
                match self.try_session() {
                    Ok(session) => {
                        self.progress().session = Some(session);
                        Next::Nothing
                    }
                    Err(refusal) => self.failed(&refusal),
                }
            }
            Refusal::Status { status: 429, .. } => Next::Wait(self.manners.backoff(10_000)),
            refusal => self.failed(refusal),
        }
    }

    /// A try that failed. Five make a round, of which people hear; ten rounds end the listener.
    fn failed(&self, refusal: &Refusal) -> Next {
        let mut progress = self.progress();
        progress.tries += 1;
        if progress.tries < TRIES {
            return Next::Wait(self.manners.backoff(BETWEEN_TRIES[progress.tries as usize - 1]));
        }
        progress.tries = 0;
        progress.rounds += 1;
        let (rounds, first) = (progress.rounds, progress.rounds == 1);
        drop(progress);
        let why = match refusal {
            Refusal::Status { status, message, .. } => format!(
                "Failed to get job message. Request to {}message failed with status: {status}. Error message Error: \
                 {message}",
                self.address()
            ),
            Refusal::Broken(why) => why.clone(),
        };
        if rounds >= ROUNDS {
            self.trace.complain(&format!("An error occurred: {why}"));
            return Next::End(RETRYABLE);
        }
        if first {
            self.trace.complain_timed(&format!("Runner connect error: {why}. Retrying until reconnected."));
        }
        Next::Wait(self.manners.backoff(BETWEEN_ROUNDS[usize::from(rounds > 5)]))
    }

    fn understand(&self, message: &Value, busy: bool) -> Next {
        let body: Value = serde_json::from_str(text(message, "body")).unwrap_or_default();
        match text(message, "messageType") {
            "RunnerJobRequest" if busy => {
                let id = text(&body, "runner_request_id");
                self.trace.info("Runner", &format!("Skip message deletion for job request message '{id}'."));
                Next::Nothing
            }
            "RunnerJobRequest" => self.take(&body),
            "JobCancellation" => Next::Cancel {
                id: text(&body, "jobId").to_owned(),
                limit: message::span(text(&body, "timeout")).saturating_sub(Duration::from_secs(15)),
            },
            "RunnerRefresh" => Next::Update(Refresh {
                version: text(&body, "target_version").to_owned(),
                url: text(&body, "download_url").to_owned(),
                sha256: text(&body, "sha256_checksum").to_owned(),
            }),
            "RunnerRefreshConfig" => {
                refresh(&self.root, &self.trace, &body);
                Next::Nothing
            }
            other => {
                self.trace.error("Runner", &format!("Received message with unsupported message type {other}."));
                Next::Nothing
            }
        }
    }

    /// Acknowledges a job that was offered, and asks for it.
    fn take(&self, offer: &Value) -> Next {
        let id = text(offer, "runner_request_id").to_owned();
        if offer["should_acknowledge"] == true {
            self.trace.info("BrokerMessageListener", &format!("Acknowledging runner request '{id}'."));
            let session = self.progress().session.clone().unwrap_or_default();
            let path = format!("acknowledge?{}", self.query(&session, "Online"));
            let ask = json!({"runnerRequestId": id});
            let answer = self.authorized(|token| {
                client(self.address(), "Bearer", token).patient(self.silence()).post_raw(&path, Some(&ask))
            });
            match answer {
                Err(Refusal::Status { status: 404, .. }) => {
                    let text = format!(
                        "Acknowledge returned job-not-found for ephemeral runner request '{id}'. Exiting runner."
                    );
                    self.trace.info("Runner", &text);
                    return Next::Consumed;
                }
                Err(refusal) => self.trace.error("BrokerMessageListener", &format!("Acknowledge: {refusal}")),
                Ok(_) => {}
            }
        }
        self.narrator.tell(Phase::JobOffered);
        let ask = json!({
            "jobMessageId": text(offer, "id"),
            "runnerOS": "Linux",
            "billingOwnerId": text(offer, "billing_owner_id"),
        });
        match self.acquire(text(offer, "run_service_url"), &ask) {
            Ok(whole) => {
                let mut progress = self.progress();
                (progress.skipped, progress.tries, progress.rounds) = (0, 0, 0);
                Next::Job(Box::new(message::job(whole)))
            }
            Err(Refusal::Status { status: 404 | 409 | 422, message, .. }) => {
                let text = format!("Skipping message Job. Job message not found '{}'. {message}", text(offer, "id"));
                self.trace.info("Runner", &text);
                self.passed_over()
            }
            Err(refusal) => {
                self.trace.error("Runner", &format!("Job {id} was not acquired: {refusal}"));
                self.passed_over()
            }
        }
    }

    /// Polls on: at once, then after a second, and twice that each time up to a minute.
    fn passed_over(&self) -> Next {
        let mut progress = self.progress();
        let doubled = 2_u64.saturating_pow(progress.skipped.saturating_sub(1)).min(60);
        let wait = if progress.skipped == 0 { Duration::ZERO } else { self.manners.backoff(doubled * 1000) };
        progress.skipped += 1;
        Next::Wait(wait)
    }

    /// Five tries with the run service, unless it says that another changes nothing.
    fn acquire(&self, run_service: &str, ask: &Value) -> Result<Value, Refusal> {
        let mut pauses = [6_000, 15_000, 6_000, 14_000].into_iter();
        // It asks for the job with a token of its own.
        let mut token = self.new_token();
        loop {
            let answer = token.and_then(|token| {
                client(run_service, "Bearer", &token).patient(self.silence()).json("POST", "acquirejob", ask)
            });
            let pause = match &answer {
                Err(Refusal::Status { status: 404 | 409 | 422, .. }) | Ok(_) => return answer,
                Err(_) => pauses.next(),
            };
            let Some(pause) = pause else { return answer };
            thread::sleep(self.manners.backoff(pause));
            token = self.token();
        }
    }
}

impl Connection for Broker {
    fn open_session(&self) -> Opened {
        let session = match self.locate().and_then(|()| self.token()) {
            // Of this nobody hears.
            Err(Refusal::Status { status: 500.., .. }) if self.progress().located => {
                return Opened::Wait(self.manners.backoff(10_000));
            }
            Err(refusal) => Err(refusal),
            Ok(_) => self.try_session(),
        };
        match session {
            Ok(session) => {
                self.progress().session = Some(session);
                Opened::Yes
            }
            // A token that was granted long ago may be no good any more.
            Err(refusal) => {
                self.progress().token = None;
                self.no_session(&refusal)
            }
        }
    }

    fn close_session(&self) -> Result<(), Refusal> {
        self.progress().closed = true;
        let token = self.token()?;
        // Thirty seconds with the official runner.
        let patience = self.manners.scale.ms(30_000).max(CLOSING);
        client(self.address(), "Bearer", &token).patient(patience).delete("session")
    }

    fn next(&self, busy: bool) -> Next {
        match self.try_poll(busy) {
            _ if self.progress().closed => Next::Nothing,
            Ok(None) => Next::Nothing,
            Ok(Some(message)) => self.understand(&message, busy),
            Err(refusal) => self.no_message(&refusal),
        }
    }

    fn renew(&self, job: &Job) -> Result<(), Refusal> {
        Service::of(&job.whole).renew()
    }

    fn fail(&self, job: &Job) -> Result<(), Refusal> {
        Service::of(&job.whole).complete(crate::protocol::JobResult::Failed, &[])
    }

    fn package(&self, refresh: Refresh) -> Result<Refresh, Refusal> {
        Ok(refresh)
    }
}

fn os_description() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |name| name.trim_matches('"').to_owned())
}

/// Keeps where the services are, below the user's own configuration. Without one the place is the system's, which the user cannot
/// write: it is tried ten times.
fn cache_locations(manners: &Manners, found: &Value) {
    let own = std::env::var_os("localappdata").filter(|folder| !folder.is_empty()).map(std::path::PathBuf::from);
    let config = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")).filter(|folder| folder.is_dir());
    let base = own.or(config).unwrap_or_else(|| "/usr/share".into());
    let folder = base.join("GitHubActionsService/8.0/Cache");
    for _ in 0..10 {
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("LocationServerMap.json"), found.to_string()));
        if written.is_ok() {
            return;
        }
        thread::sleep(manners.scale.ms(pause::between(50, 150)));
    }
}
