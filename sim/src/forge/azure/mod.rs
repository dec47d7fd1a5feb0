//! Azure DevOps' endpoints for agents: those that OSCR uses, and those of the agents themselves (see `agents`).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::orders::PackageFault;
use super::scope::Scope;
use super::state::{DeleteOutcome, Runner};
use super::{Shared, packages, renamed, state, wire};
use crate::agent::Kind;

mod agents;
pub(crate) mod contract;
mod entra;

/// How agents begin their `User-Agent`.
pub(crate) const AGENT: &str = "VSServices/";

/// Whether a path is Azure DevOps', or that of the directory that knows its service principals.
pub(crate) fn is_mine(path: &str) -> bool {
    path.contains("/_apis/") || path.ends_with("/oauth2/v2.0/token") || path.ends_with("/_signin")
}

/// An error as Azure DevOps words it.
fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    let body = json!({
        "$id": "1",
        "innerException": null,
        "message": message,
        "typeName": format!("Microsoft.TeamFoundation.DistributedTask.WebApi.{kind}, Microsoft.TeamFoundation.DistributedTask.WebApi"),
        "typeKey": kind,
        "errorCode": 0,
        "eventId": 3000,
    });
    (status, Json(body)).into_response()
}

fn list(value: &[Value]) -> Response {
    Json(json!({"count": value.len(), "value": value})).into_response()
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Identity {
    /// Somebody with a personal access token, or a service principal.
    Manager,
    /// An agent, with a token that it got by its key.
    Agent(u64),
    /// A worker, with its job's token.
    Job(u64),
}

fn identity(shared: &Shared, headers: &HeaderMap) -> Option<Identity> {
    let (kind, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    shared.read(|s| match kind.to_lowercase().as_str() {
        "basic" => {
            let pair = String::from_utf8(BASE64.decode(value).ok()?).ok()?;
            let (_, token) = pair.split_once(':')?;
            s.orders.pats.iter().any(|pat| pat == token).then_some(Identity::Manager)
        }
        "bearer" => s
            .access_tokens
            .get(value)
            .filter(|until| **until > s.now())
            .map(|_| Identity::Manager)
            .or_else(|| {
                let agent = wire::runner(headers).filter(|id| s.runners.get(id).is_some_and(Runner::is_azure));
                agent.map(Identity::Agent)
            })
            .or_else(|| s.jobs.values().find(|j| j.token == value).map(|j| Identity::Job(j.id))),
        _ => None,
    })
}

/// What somebody gets who is not known, in one of the ways of the real one.
fn sign_in(shared: &Shared, base: &str) -> Response {
    let page = "<!DOCTYPE html><html><head><title>Sign In</title></head><body>Sign in to your account</body></html>";
    let page = ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page);
    match shared.read(|s| s.orders.sign_in) {
        203 => (StatusCode::NON_AUTHORITATIVE_INFORMATION, page).into_response(),
        302 => (StatusCode::FOUND, [(header::LOCATION, format!("{base}/_signin?realm=dev.azure.com"))]).into_response(),
        _ => {
            let challenge = format!("Bearer authorization_uri={base}, Basic realm=\"{base}\", TFS-Federated");
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)], page).into_response()
        }
    }
}

/// What an order makes of an organisation or a pool.
fn refuse_scope(shared: &Shared, name: &str) -> Option<Response> {
    let status = shared.read(|s| {
        let unknown = !s.orders.only_scopes.is_empty() && !s.orders.only_scopes.iter().any(|only| only == name);
        s.orders.deny.get(name).copied().or(unknown.then_some(404))
    })?;
    Some(match status {
        403 => error(
            StatusCode::FORBIDDEN,
            "AccessDeniedException",
            "TF400813: The user is not authorized to access this resource.",
        ),
        404 => error(
            StatusCode::NOT_FOUND,
            "HostShutdownException",
            &format!("TF200016: The following organization does not exist: {name}."),
        ),
        other => error(StatusCode::from_u16(other).unwrap_or(StatusCode::FORBIDDEN), "VssServiceException", "refused"),
    })
}

/// A request, taken apart.
struct Asked {
    shared: Arc<Shared>,
    /// The forge's own address.
    root: String,
    /// The organisation or the collection, without slashes at its ends.
    organization: String,
    identity: Identity,
    query: HashMap<String, String>,
    body: Bytes,
}

/// The one entry: decides by path segments.
pub(crate) async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, super::gate::BODY_LIMIT).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let host = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("forge");
    let root = format!("http://{host}");
    if let Some(tenant) = path.strip_suffix("/oauth2/v2.0/token") {
        return entra::token(&shared, tenant.trim_matches('/'), &parts.method, &body);
    }
    let Some((organization, rest)) = path.split_once("/_apis/") else {
        return ([(header::CONTENT_TYPE, "text/html")], "<html><body>Sign in</body></html>").into_response();
    };
    if (&parts.method, rest) == (&Method::POST, "oauth2/token") {
        return wire::grant(&shared, &body);
    }
    let organization = organization.trim_matches('/').to_owned();
    let Some(identity) = identity(&shared, &parts.headers) else {
        return sign_in(&shared, &format!("{root}/{organization}"));
    };
    if let Some(refusal) = refuse_scope(&shared, &organization) {
        return refusal;
    }
    let asked_for = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let tail = format!("{rest}{asked_for}");
    if let Some(leads_on) = renamed::lead_organization(&shared, &parts.method, &organization, &root, &tail) {
        return leads_on;
    }
    let query = Query::<HashMap<String, String>>::try_from_uri(&parts.uri).map(|q| q.0).unwrap_or_default();
    let asked = Asked { shared, root, organization, identity, query, body };
    let segments: Vec<&str> = rest.split('/').filter(|s| !s.is_empty()).collect();
    route(&asked, &parts.method, &segments).await
}

async fn route(asked: &Asked, method: &Method, segments: &[&str]) -> Response {
    match (method, segments) {
        (&Method::GET, ["connectionData"]) => connection_data(asked),
        (&Method::GET, ["distributedtask", "pools"]) => asked.pools(),
        (&Method::GET, ["distributedtask", "packages", "agent", platform]) => asked.packages(platform).await,
        // How an agent asks that is told to be this version.
        (&Method::GET, ["distributedtask", "packages", "agent", platform, version]) => {
            match asked.package(platform, version).await {
                Some(package) => Json(package).into_response(),
                None => unknown(),
            }
        }
        (_, ["distributedtask", "hubs", "build", "plans", id, rest @ ..]) => asked.plan(method, id.parse().ok(), rest),
        (_, ["distributedtask", "pools", id, rest @ ..]) => {
            let pools = asked.shared.read(|s| s.orders.pools.clone());
            let at = id.parse::<usize>().ok().and_then(|id| id.checked_sub(1));
            let Some(name) = at.and_then(|at| pools.get(at)) else {
                let text = format!("No agent pool found with identifier {id}.");
                return error(StatusCode::NOT_FOUND, "TaskAgentPoolNotFoundException", &text);
            };
            let scope = Scope::Pool(asked.organization.clone(), name.clone());
            if let Some(refusal) = refuse_scope_of(asked, &scope) {
                return refusal;
            }
            match (method, rest) {
                (&Method::GET, []) => Json(asked.pool(id.parse().unwrap_or_default(), name)).into_response(),
                (&Method::GET, ["agents"]) => asked.agents(&scope),
                (&Method::GET, ["agents", id]) => asked.agent(&scope, id),
                (&Method::DELETE, ["agents", id]) => asked.delete(&scope, id),
                (&Method::POST, ["agents"]) => asked.add_agent(scope),
                (&Method::PUT, ["agents", id]) => asked.replace_agent(&scope, id),
                (_, ["sessions", rest @ ..]) => asked.session(method, &scope, rest),
                (_, ["messages", rest @ ..]) => asked.message(method, rest).await,
                (&Method::PATCH, ["jobrequests", id]) => asked.job_request(id),
                _ => unknown(),
            }
        }
        _ => unknown(),
    }
}

fn unknown() -> Response {
    error(StatusCode::NOT_FOUND, "VssResourceNotFoundException", "The controller for this path was not found.")
}

fn refuse_scope_of(asked: &Asked, scope: &Scope) -> Option<Response> {
    // `only_scopes` names organisations; a pool is refused by `deny` alone.
    let denied = asked.shared.read(|s| s.orders.deny.contains_key(&scope.to_string()));
    if denied { refuse_scope(&asked.shared, &scope.to_string()) } else { None }
}

fn connection_data(asked: &Asked) -> Response {
    let name = match asked.identity {
        Identity::Manager => "Somebody",
        Identity::Agent(_) | Identity::Job(_) => "Build Service",
    };
    let user = json!({"id": "00000000-0000-0000-0000-000000000001", "providerDisplayName": name, "isActive": true});
    Json(json!({
        "authenticatedUser": user,
        "authorizedUser": user,
        "instanceId": "00000000-0000-0000-0000-000000000002",
        "deploymentType": "hosted",
        "locationServiceData": {"defaultAccessMappingMoniker": "PublicAccessMapping"},
    }))
    .into_response()
}

fn agent_json(s: &state::State, runner: &Runner, query: &HashMap<String, String>) -> Value {
    let asked_for = |name: &str| query.get(name).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let mut agent = json!({
        "id": runner.id,
        "name": runner.name,
        "version": runner.version.as_deref().unwrap_or(Kind::Azure.version()),
        "osDescription": "Linux",
        "enabled": true,
        "status": if s.is_online(runner) { "online" } else { "offline" },
        "provisioningState": "Provisioned",
        "accessPoint": "CodexAccessMapping",
        "maxParallelism": 1,
        "createdOn": runner.created.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    });
    if asked_for("includeCapabilities") {
        agent["systemCapabilities"] = json!(runner.capabilities.system);
        agent["userCapabilities"] = json!(runner.capabilities.user);
    }
    if asked_for("includeAssignedRequest")
        && let Some(job) = runner.job.and_then(|id| s.jobs.get(&id))
    {
        agent["assignedRequest"] = json!({
            "requestId": job.id,
            "jobName": job.name,
            "queueTime": job.queued_at.to_string(),
            "planType": "Build",
        });
    }
    agent
}

impl Asked {
    fn pool(&self, id: usize, name: &str) -> Value {
        let scope = Scope::Pool(self.organization.clone(), name.to_owned());
        json!({
            "id": id,
            "name": name,
            "isHosted": false,
            "poolType": "automation",
            "autoUpdate": true,
            "size": self.shared.read(|s| s.registered(&scope).count()),
        })
    }

    fn pools(&self) -> Response {
        let (pools, seen_only) = self.shared.read(|s| (s.orders.pools.clone(), s.orders.unmanaged_pools.clone()));
        let manage = self.query.get("actionFilter").is_some_and(|f| f.eq_ignore_ascii_case("manage"));
        let found: Vec<Value> = (1_usize..)
            .zip(&pools)
            .filter(|(_, name)| self.query.get("poolName").is_none_or(|wanted| wanted.eq_ignore_ascii_case(name)))
            .filter(|(_, name)| !manage || !seen_only.contains(name))
            .map(|(id, name)| self.pool(id, name))
            .collect();
        list(&found)
    }

    fn agents(&self, scope: &Scope) -> Response {
        let found: Vec<Value> = self.shared.read(|s| {
            s.registered(scope)
                .filter(|r| self.query.get("agentName").is_none_or(|wanted| r.name.eq_ignore_ascii_case(wanted)))
                .map(|r| agent_json(s, r, &self.query))
                .collect()
        });
        list(&found)
    }

    fn no_agent(id: &str) -> Response {
        error(StatusCode::NOT_FOUND, "TaskAgentNotFoundException", &format!("No agent found with identifier {id}."))
    }

    fn agent(&self, scope: &Scope, id: &str) -> Response {
        let found = self
            .shared
            .read(|s| s.registered(scope).find(|r| r.id.to_string() == id).map(|r| agent_json(s, r, &self.query)));
        found.map_or_else(|| Self::no_agent(id), |agent| Json(agent).into_response())
    }

    /// Refuses whoever may not manage the pool.
    fn refuse_management(&self, scope: &Scope) -> Option<Response> {
        let Scope::Pool(_, pool) = scope else {
            return Some(unknown());
        };
        let seen_only = self.shared.read(|s| s.orders.unmanaged_pools.contains(pool));
        (self.identity != Identity::Manager || seen_only).then(|| {
            let text = format!(
                "Access denied. Somebody needs Manage permissions for pool {pool} to perform the action. For more \
                 information, contact the Azure DevOps Server administrator."
            );
            error(StatusCode::FORBIDDEN, "AccessDeniedException", &text)
        })
    }

    fn delete(&self, scope: &Scope, id: &str) -> Response {
        if let Some(refusal) = self.refuse_management(scope) {
            return refusal;
        }
        let number = id.parse().unwrap_or_default();
        match self.shared.change(|s| s.delete_runner(scope, number)) {
            DeleteOutcome::Deleted => StatusCode::NO_CONTENT.into_response(),
            DeleteOutcome::Missing => Self::no_agent(id),
            DeleteOutcome::Busy(name) => {
                let Scope::Pool(_, pool) = scope else {
                    return unknown();
                };
                let text = format!("Agent \"{name}\" is running a job for pool \"{pool}\"");
                error(StatusCode::BAD_REQUEST, "TaskAgentJobStillRunningException", &text)
            }
        }
    }

    async fn packages(&self, platform: &str) -> Response {
        let version = self.shared.read(|s| s.orders.latest_azure_version.clone());
        list(self.package(platform, &version).await.as_slice())
    }

    /// The package of a version, if it is offered.
    async fn package(&self, platform: &str, version: &str) -> Option<Value> {
        let none = self.shared.read(|s| s.orders.package_fault == Some(PackageFault::None));
        let own = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-x64" };
        if none || platform != own {
            return None;
        }
        let hash = packages::offer(&self.shared, Kind::Azure, version).await?;
        let numbers: Vec<u64> = version.split('.').filter_map(|part| part.parse().ok()).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
        let filename = format!("vsts-agent-{platform}-{version}.tar.gz");
        Some(json!({
            "type": "agent",
            "platform": platform,
            "createdOn": "2026-11-01T00:00:00Z",
            "version": {"major": number(0), "minor": number(1), "patch": number(2)},
            "downloadUrl": format!("{}/agent/{version}/{filename}", self.root),
            "filename": filename,
            "hashValue": hash,
        }))
    }
}
