//! The agents' side: registration, sessions, messages, requests for jobs, and the workers' reports.

use axum::Json;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Asked, Identity, error, unknown};
use crate::forge::agents::{new_session, next_message};
use crate::forge::log::untimed;
use crate::forge::scope::Scope;
use crate::forge::state::{Capabilities, Polled, Registration, State};
use crate::forge::wire;
use crate::protocol::{CompleteRequest, Message};

/// What an agent says of itself, at registration and in a session.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Said {
    name: String,
    version: String,
    system_capabilities: std::collections::BTreeMap<String, String>,
    user_capabilities: std::collections::BTreeMap<String, String>,
    agent: Option<Box<Said>>,
}

impl Said {
    fn write_to(&self, s: &mut State, id: u64) {
        let version = self.agent.as_ref().map_or(&self.version, |agent| &agent.version);
        if let Some(runner) = s.runners.get_mut(&id) {
            runner.version = Some(version.clone()).filter(|v| !v.is_empty()).or(runner.version.take());
            runner.capabilities =
                Capabilities { system: self.system_capabilities.clone(), user: self.user_capabilities.clone() };
        }
    }
}

/// A registration as its agent is told of it.
fn registered(asked: &Asked, s: &State, id: u64) -> Response {
    let Some(runner) = s.runners.get(&id) else {
        return unknown();
    };
    Json(json!({
        "id": id,
        "name": runner.name,
        "version": runner.version,
        "enabled": true,
        "status": "offline",
        "authorization": {
            "clientId": wire::client_id(id),
            "authorizationUrl": format!("{}/{}/_apis/oauth2/token", asked.root, asked.organization),
        },
    }))
    .into_response()
}

/// The number of a session, of its form with zeros in front.
fn session_number(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl Asked {
    fn said(&self) -> Said {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(super) fn add_agent(&self, scope: Scope) -> Response {
        if let Some(refusal) = self.refuse_management(&scope) {
            return refusal;
        }
        let said = self.said();
        if said.name.is_empty() || said.name.len() > 64 {
            return error(StatusCode::BAD_REQUEST, "ArgumentException", "An agent's name has 1 to 64 characters.");
        }
        self.shared.change(|s| {
            if s.named(&scope, &said.name).is_some() {
                let text = format!("{scope} already contains an agent with name {}.", said.name);
                return error(StatusCode::CONFLICT, "TaskAgentExistsException", &text);
            }
            let ask =
                Registration { name: said.name.clone(), version: said.version.clone(), ..Registration::default() };
            let id = s.add_runner(scope.clone(), &[], &ask);
            said.write_to(s, id);
            registered(self, s, id)
        })
    }

    /// `configure --replace`: the same id, another agent.
    pub(super) fn replace_agent(&self, scope: &Scope, id: &str) -> Response {
        if let Some(refusal) = self.refuse_management(scope) {
            return refusal;
        }
        let said = self.said();
        self.shared.change(|s| {
            let Some(id) = s.registered(scope).find(|r| r.id.to_string() == id).map(|r| r.id) else {
                return Self::no_agent(id);
            };
            said.write_to(s, id);
            registered(self, s, id)
        })
    }

    pub(super) fn session(&self, method: &Method, scope: &Scope, rest: &[&str]) -> Response {
        let Identity::Agent(agent) = self.identity else {
            return error(StatusCode::FORBIDDEN, "AccessDeniedException", "Only an agent has sessions.");
        };
        match (method, rest) {
            (&Method::POST, []) => {
                let said = self.said();
                self.shared.change(|s| {
                    if !s.registered(scope).any(|r| r.id == agent) {
                        return Self::no_agent(&agent.to_string());
                    }
                    said.write_to(s, agent);
                    let Some(session) = new_session(s, agent) else {
                        let text = "The task agent already has an active session.";
                        return error(StatusCode::CONFLICT, "TaskAgentSessionConflictException", text);
                    };
                    Json(json!({"sessionId": format!("00000000-0000-0000-0000-{session:012}")})).into_response()
                })
            }
            (&Method::DELETE, [id]) => {
                self.shared.change(|s| s.close_session(session_number(id)));
                StatusCode::NO_CONTENT.into_response()
            }
            _ => unknown(),
        }
    }

    pub(super) async fn message(&self, method: &Method, rest: &[&str]) -> Response {
        let session = session_number(self.query.get("sessionId").map_or("", String::as_str));
        match (method, rest) {
            (&Method::GET, []) => match next_message(&self.shared, session).await {
                Polled::Message(message) => self.envelope(message),
                Polled::Nothing | Polled::Ended => StatusCode::ACCEPTED.into_response(),
                Polled::Gone => error(
                    StatusCode::UNAUTHORIZED,
                    "TaskAgentAccessTokenExpiredException",
                    "The agent's access token has been revoked.",
                ),
            },
            // It was handed out once already.
            (&Method::DELETE, [_]) => StatusCode::NO_CONTENT.into_response(),
            _ => unknown(),
        }
    }

    fn envelope(&self, mut message: Message) -> Response {
        let kind = match &mut message {
            Message::Job { id, offered, .. } => {
                *offered = self.shared.read(|s| s.job_message(*id)).map(Box::new);
                "PipelineAgentJobRequest"
            }
            Message::Cancel { .. } => "JobCancellation",
            Message::Refresh { .. } => "AgentRefresh",
        };
        let number = self.shared.lock().next_request();
        let body = serde_json::to_string(&message).expect("messages have only string keys");
        Json(json!({"messageId": number, "messageType": kind, "body": body})).into_response()
    }

    /// Renews the lock of a request for a job; the first time is what takes the job.
    pub(super) fn job_request(&self, id: &str) -> Response {
        let Identity::Agent(agent) = self.identity else {
            return error(StatusCode::FORBIDDEN, "AccessDeniedException", "Only an agent has requests.");
        };
        let number: u64 = id.parse().unwrap_or_default();
        let kept = self.shared.change(|s| s.renew(number) || s.acquire(number, Some(agent)).is_ok());
        if kept {
            return Json(json!({"requestId": number, "lockedUntil": jiff::Timestamp::now().to_string()}))
                .into_response();
        }
        let text = format!("Job request {id} not found.");
        error(StatusCode::NOT_FOUND, "TaskAgentJobNotFoundException", &text)
    }

    /// What a worker reports: its log, and how its job ended.
    pub(super) fn plan(&self, method: &Method, id: Option<u64>, rest: &[&str]) -> Response {
        let Some(id) = id.filter(|id| self.identity == Identity::Job(*id)) else {
            return error(StatusCode::FORBIDDEN, "AccessDeniedException", "Another plan's token.");
        };
        match (method, rest) {
            (&Method::POST, ["logs", number]) => {
                let text = untimed(&String::from_utf8_lossy(&self.body));
                self.shared.change(|s| {
                    if let Some(job) = s.jobs.get_mut(&id) {
                        job.log.push_str(&text);
                    }
                });
                Json(json!({"id": number.parse::<u64>().unwrap_or(1)})).into_response()
            }
            // Lines while they come.
            (&Method::POST, ["timelines", _, "records", _, "feed"]) => {
                let lines: Value = serde_json::from_slice(&self.body).unwrap_or_default();
                let lines = lines["value"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let text: String = lines.flat_map(|line| [line, "\n"]).collect();
                self.shared.change(|s| {
                    if let Some(job) = s.jobs.get_mut(&id) {
                        job.live.push_str(&text);
                    }
                });
                StatusCode::OK.into_response()
            }
            (&Method::POST, ["events"]) => match serde_json::from_slice::<CompleteRequest>(&self.body) {
                Ok(ask) => {
                    self.shared.change(|s| s.complete(id, ask.result));
                    Json(Value::Null).into_response()
                }
                Err(why) => error(StatusCode::BAD_REQUEST, "ArgumentException", &why.to_string()),
            },
            _ => unknown(),
        }
    }
}
