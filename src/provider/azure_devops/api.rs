//! The requests that OSCR makes of Azure DevOps, and what its refusals mean.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::moved::renamed;
use super::refusal;
use super::settings::{Credential, OURS, Principal, Settings};
use crate::config::{Common, Secret};
use crate::provider::agents::architecture;
use crate::provider::contract::Package;
use crate::provider::fault::Fault;
use crate::provider::finding::{Finding, compare_versions};
use crate::provider::http::{Authorization, Body, Http, Reply, Signature};
use crate::provider::registration::{Registration, Released, Standing};
use crate::shown::quoted;

/// Azure DevOps Server has it since 2019 Update 1.
const VERSION: &str = "api-version=5.1";
/// Azure DevOps itself, as Microsoft Entra ID knows it.
const RESOURCE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";
/// What the answers of Azure DevOps have, or those of Microsoft Entra ID.
const MARKS: Signature = &["activityid", "x-tfs-processid", "x-tfs-serviceerror", "x-vss-e2eid", "x-ms-request-id"];
/// A token is not used any more when it has this long to live.
const MARGIN: Duration = Duration::from_secs(120);
/// Agents that are offline and were made so long ago are nobody's any more.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// The REST API of one organisation or collection.
#[derive(Debug)]
pub(super) struct Api {
    /// The client that asks for everything.
    pub http: Http,
    url: String,
    pool: String,
    credential: Credential,
    pool_id: Cell<Option<u64>>,
    token: RefCell<Option<(Secret, Instant)>>,
    /// The addresses that organisations which were asked have by now, as far as that was said.
    moved: RefCell<Vec<String>>,
    /// That of our own.
    moved_to: RefCell<Option<String>>,
}

#[derive(Deserialize)]
struct List<T> {
    value: Vec<T>,
}

#[derive(Deserialize)]
struct Pool {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    id: u64,
    name: String,
    #[serde(default)]
    status: String,
    created_on: Option<String>,
    status_changed_on: Option<String>,
    user_capabilities: Option<std::collections::BTreeMap<String, String>>,
    assigned_request: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Offered {
    version: Version,
    download_url: String,
    hash_value: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

#[derive(Deserialize)]
struct Token {
    access_token: Secret,
    expires_in: u64,
}

/// How the server tells exceptions apart.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Exception {
    #[serde(default)]
    type_key: String,
}

impl Api {
    pub(super) fn new(settings: &Settings, common: &Common) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Without it a wrong token is answered with a way to a page for signing in.
        headers.insert("x-tfs-fedauthredirect", HeaderValue::from_static("Suppress"));
        Self {
            http: Http::new(common.network.clone(), &settings.url, headers).marked(MARKS),
            url: settings.url.clone(),
            pool: settings.pool.clone(),
            credential: settings.credential.clone(),
            pool_id: Cell::default(),
            token: RefCell::default(),
            moved: RefCell::default(),
            moved_to: RefCell::default(),
        }
    }

    /// The request that finds the pool: what later incarnations need to find a registration again.
    pub(super) fn scope_url(&self) -> String {
        let mut query = String::new();
        // `Url` alone knows how to write a name with spaces into a query.
        if let Ok(url) = Url::parse_with_params("http://x/", [("poolName", &self.pool)]) {
            query.push_str(url.query().unwrap_or_default());
        }
        format!("{}/_apis/distributedtask/pools?{query}", self.url)
    }

    /// An address that needs no credential to answer something.
    pub(super) fn open_url(&self) -> String {
        format!("{}&{VERSION}", self.scope_url())
    }

    /// What registering needs: the credential, the pool, and last the agent's version.
    pub(super) async fn examine(&self, version: Option<&str>) -> Vec<Finding> {
        let setting = &self.credential.secret().setting;
        let scope = self.scope_url();
        let found = self.find_pool(&scope).await;
        match found.and_then(|found| self.has_not_moved().map(|()| found)) {
            Ok(Some(id)) => {
                let agent = match self.package().await {
                    Ok(package) => {
                        let policy = "an older one is told to update itself before its next job";
                        compare_versions(version, &package.version, "Azure DevOps", policy)
                    }
                    Err(fault) => Finding::fault("agent", &fault),
                };
                let credential = Finding::ok("credential", format!("{setting} may manage the pool"));
                vec![credential, Finding::ok("scope", format!("the pool {} exists (id {id})", self.pool)), agent]
            }
            Ok(None) => vec![
                Finding::ok("credential", format!("Azure DevOps knows {setting}")),
                Finding::fault("scope", &self.no_pool(&scope)),
                Finding::skip("agent", "the pool cannot be seen"),
            ],
            Err(fault) => vec![
                Finding::fault("credential", &fault),
                Finding::skip("scope", "the credential is no good"),
                Finding::skip("agent", "the credential is no good"),
            ],
        }
    }

    /// The pool's number, as the agent has found it.
    pub(super) fn pool_is(&self, id: u64) {
        self.pool_id.set(Some(id));
    }

    /// Finds the pool, which proves the address, the credential and its rights.
    pub(super) async fn pool(&self) -> Result<(), Fault> {
        let scope = self.scope_url();
        // A removal may have found out a moment ago.
        self.has_not_moved()?;
        let found = self.find_pool(&scope).await?;
        self.has_not_moved()?;
        self.pool_is(found.ok_or_else(|| self.no_pool(&scope))?);
        Ok(())
    }

    /// Whether our organisation was where the settings say when it was last asked: an agent would not go after it.
    fn has_not_moved(&self) -> Result<(), Fault> {
        let Some(place) = self.moved_to.take() else { return Ok(()) };
        Err(Fault::denied(format!("{} has moved to {place}", self.url), "write the new address into ADO_ORG_URL"))
    }

    /// The number of a scope's pool, if this credential may manage it.
    async fn find_pool(&self, scope: &str) -> Result<Option<u64>, Fault> {
        let reply = self.ask(Method::GET, &format!("{scope}&actionFilter=manage&{VERSION}")).await?;
        let pools: List<Pool> = self.expect(&reply, "find the pool")?.json()?;
        let wanted = self.pool_of(scope);
        Ok(pools.value.into_iter().find(|pool| pool.name.eq_ignore_ascii_case(&wanted)).map(|pool| pool.id))
    }

    /// The name of a scope's pool.
    fn pool_of(&self, scope: &str) -> String {
        let url = Url::parse(scope).ok();
        let named = url.as_ref().and_then(|url| url.query_pairs().find(|(name, _)| name == "poolName"));
        named.map_or_else(|| self.pool.clone(), |(_, name)| name.into_owned())
    }

    fn no_pool(&self, scope: &str) -> Fault {
        Fault::denied(
            format!("there is no pool {} that this credential may manage", quoted(&self.pool_of(scope))),
            format!("check ADO_POOL; {}", self.credential.cure()),
        )
    }

    /// `…/_apis/distributedtask/pools/7/agents` for a scope.
    async fn agents(&self, scope: &str) -> Result<String, Fault> {
        let ours = scope == self.scope_url();
        let id = match self.pool_id.get().filter(|_| ours) {
            Some(id) => id,
            None => self.find_pool(scope).await?.ok_or_else(|| self.no_pool(scope))?,
        };
        if ours {
            // Found once, however many agents of it are removed.
            self.pool_is(id);
        }
        let pools = scope.split('?').next().unwrap_or(scope);
        Ok(format!("{pools}/{id}/agents"))
    }

    /// The id of the agent with exactly this name.
    pub(super) async fn find(&self, scope: &str, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.find_agent(scope, name).await?.map(|agent| agent.id))
    }

    async fn find_agent(&self, scope: &str, name: &str) -> Result<Option<Agent>, Fault> {
        let agents = self.agents(scope).await?;
        let reply = self.ask(Method::GET, &format!("{agents}?agentName={name}&{VERSION}")).await?;
        let found: List<Agent> = self.expect(&reply, "look for an agent")?.json()?;
        Ok(found.value.into_iter().find(|agent| agent.name.eq_ignore_ascii_case(name)))
    }

    /// Lets a registration go. 404 is success: it is gone.
    pub(super) async fn release(&self, registration: &Registration) -> Result<Released, Fault> {
        let scope = &registration.scope;
        let id = match registration.id {
            Some(id) => id,
            None => match self.find_agent(scope, &registration.name).await? {
                Some(agent) => registration.of_namesake(agent.id, agent.is_offline())?,
                None => return Ok(Released::Gone),
            },
        };
        let agents = self.agents(scope).await?;
        let reply = self.ask(Method::DELETE, &format!("{agents}/{id}?{VERSION}")).await?;
        let exception = reply.json::<Exception>().unwrap_or_default();
        match reply.status {
            404 if !reply.is_page() => Ok(Released::Gone),
            _ if exception.type_key == "TaskAgentJobStillRunningException" => Ok(Released::Busy),
            _ => self.expect(&reply, "remove an agent").map(|_| Released::Gone),
        }
    }

    pub(super) async fn standing(&self, registration: &Registration) -> Result<Standing, Fault> {
        let scope = &registration.scope;
        let agent = match registration.id {
            None => self.find_agent(scope, &registration.name).await?,
            Some(id) => {
                let agents = self.agents(scope).await?;
                let reply =
                    self.ask(Method::GET, &format!("{agents}/{id}?includeAssignedRequest=true&{VERSION}")).await?;
                match reply.status {
                    404 if !reply.is_page() => None,
                    _ => Some(self.expect(&reply, "look at an agent")?.json()?),
                }
            }
        };
        Ok(match agent {
            None => Standing::Unknown,
            Some(agent) if agent.is_offline() => Standing::offline(agent.assigned_request.is_some()),
            Some(Agent { assigned_request: Some(_), .. }) => Standing::Busy,
            Some(_) => Standing::Online,
        })
    }

    /// Agents that OSCR made with this prefix, that are offline, and that are too old to come back.
    pub(super) async fn stale(&self, prefix: &str) -> Result<Vec<Registration>, Fault> {
        let scope = self.scope_url();
        let agents = self.agents(&scope).await?;
        let reply = self.ask(Method::GET, &format!("{agents}?includeCapabilities=true&{VERSION}")).await?;
        let all: List<Agent> = self.expect(&reply, "list the agents")?.json()?;
        let now = SystemTime::now();
        let stale = all.value.into_iter().filter(|agent| agent.is_stale(prefix, now));
        Ok(stale.map(|agent| Registration { id: Some(agent.id), name: agent.name, scope: scope.clone() }).collect())
    }

    pub(super) async fn package(&self) -> Result<Package, Fault> {
        let platform = format!("linux-{}", architecture());
        let url =
            format!("{}/_apis/distributedtask/packages/agent/{platform}?$top=1&api-version=5.1-preview", self.url);
        let reply = self.ask(Method::GET, &url).await?;
        let offered: List<Offered> = self.expect(&reply, "list the agent's packages")?.json()?;
        let Some(offered) = offered.value.into_iter().next() else {
            return Err(Fault::Unreachable(format!("Azure DevOps offers no agent for {platform}")));
        };
        let Version { major, minor, patch } = offered.version;
        let version = format!("{major}.{minor}.{patch}");
        Ok(Package { version, url: offered.download_url, sha256: offered.hash_value })
    }

    /// One request. Where it leads on to the same thing below another name of the organisation or the collection, a question and a
    /// removal go there.
    async fn ask(&self, method: Method, url: &str) -> Result<Reply, Fault> {
        let reply = self.ask_here(method.clone(), url).await?;
        match renamed(&reply, url) {
            Some((place, moved)) => {
                if !self.moved.borrow().contains(&place) {
                    tracing::warn!("what was registered with has another address by now: {place}");
                    self.moved.borrow_mut().push(place.clone());
                }
                if url.starts_with(&format!("{}/", self.url)) {
                    self.moved_to.replace(Some(place));
                }
                self.ask_here(method, &moved).await
            }
            None => Ok(reply),
        }
    }

    async fn ask_here(&self, method: Method, url: &str) -> Result<Reply, Fault> {
        self.http.ask_as(self.credential.fingerprint());
        let principal = match &self.credential {
            Credential::Pat(source) => {
                let token = source.read()?;
                return self.http.send(method, url, Authorization::Password(&token), Body::Empty).await;
            }
            Credential::ServicePrincipal(principal) => principal,
        };
        let token = self.token(principal).await?;
        let reply = self.http.send(method.clone(), url, Authorization::Bearer(&token), Body::Empty).await?;
        if !matches!(reply.status, 401 | 203 | 302) {
            return Ok(reply);
        }
        // It may have been revoked, or a clock set, since it was made.
        self.token.take();
        let token = self.token(principal).await?;
        self.http.send(method, url, Authorization::Bearer(&token), Body::Empty).await
    }

    /// A service principal's token, made anew shortly before the last one ends.
    async fn token(&self, principal: &Principal) -> Result<Secret, Fault> {
        if let Some((token, until)) = self.token.borrow().as_ref()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let secret = principal.secret.read()?;
        let url = format!("{}/{}/oauth2/v2.0/token", principal.authority, principal.tenant);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &principal.client),
            ("client_secret", secret.expose()),
            ("scope", RESOURCE),
        ];
        let reply = self.http.send(Method::POST, &url, Authorization::Nobody, Body::Form(&form)).await?;
        if reply.is_success() && !matches!(reply.status, 200 | 203) {
            let code = reply.status;
            return Err(Fault::Unreachable(format!(
                "Microsoft Entra ID answered {code}, which is not expected; what else it said is not shown"
            )));
        }
        if reply.status != 200 {
            let setting = &principal.secret.setting;
            let check = || format!("check ADO_CLIENT_ID, ADO_TENANT_ID and the secret in {setting}");
            return Err(Fault::denied(
                format!("Microsoft Entra ID gives no token ({})", told(&reply)),
                refusal::cure(&reply.message(), setting, &self.credential.cure()).unwrap_or_else(check),
            ));
        }
        let token: Token = reply.json()?;
        let lives = Duration::from_secs(token.expires_in).saturating_sub(MARGIN);
        self.token.replace(Some((token.access_token.clone(), Instant::now() + lives)));
        Ok(token.access_token)
    }

    /// The reply, if it means success; else what the refusal of `purpose` means.
    fn expect<'r>(&self, reply: &'r Reply, purpose: &str) -> Result<&'r Reply, Fault> {
        let what = || format!("Azure DevOps refused to {purpose} ({})", told(reply));
        let setting = &self.credential.secret().setting;
        let by_words = refusal::cure(&reply.message(), setting, &self.credential.cure());
        match (reply.status, by_words) {
            (200 | 204, _) if reply.is_page() => {
                Err(Fault::Unreachable(format!("a page for people answered, not Azure DevOps ({})", reply.status)))
            }
            (200 | 204, _) => Ok(reply),
            // Some routes answer a wrong token with a page for signing in.
            (401 | 203 | 302, by_words) => {
                // A token that is refused is not worth keeping.
                self.token.take();
                let replace = || format!("the secret in {setting} is wrong, expired or revoked: replace it");
                Err(Fault::denied(what(), by_words.unwrap_or_else(replace)))
            }
            (code @ 200..=299, _) => Err(Fault::Unreachable(format!(
                "Azure DevOps was asked to {purpose} and answered {code}, which is not expected; what else it said is not shown"
            ))),
            (301 | 307 | 308, _) => Err(Fault::denied(
                format!("{}: it has moved to {}", what(), reply.place()),
                "write the new address into ADO_ORG_URL",
            )),
            (400..=499, Some(cure)) => Err(Fault::denied(what(), cure)),
            (403, _) if refusal::speaks_of_rights(&reply.message()) => {
                Err(Fault::denied(what(), self.credential.cure()))
            }
            (403, _) => Err(Fault::denied(what(), "the message says what is wanted")),
            (404, _) => Err(Fault::denied(what(), "check ADO_ORG_URL: nothing of Azure DevOps answers there")),
            (400..=499, _) => Err(Fault::denied(what(), "check the settings that the message names")),
            _ => Err(Fault::Unreachable(format!("{}, which is not an answer that we know", what()))),
        }
    }
}

/// An answer's number, its words, and where more of them are.
fn told(reply: &Reply) -> String {
    let words = format!("{} {}", reply.status, reply.message());
    let see = reply.address().map_or_else(String::new, |address| format!("; see {address}"));
    format!("{}{see}", words.trim_end())
}

impl Agent {
    fn is_offline(&self) -> bool {
        self.status.eq_ignore_ascii_case("offline")
    }

    fn is_stale(&self, prefix: &str, now: SystemTime) -> bool {
        let old = |date: &Option<String>| {
            let date = date.as_deref().and_then(|date| humantime::parse_rfc3339(date).ok());
            date.and_then(|date| now.duration_since(date).ok()).is_some_and(|age| age > STALE)
        };
        let ours = self.user_capabilities.as_ref().and_then(|all| all.get(OURS)).is_some_and(|own| own == prefix);
        let named = self.name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
        let quiet = self.status_changed_on.is_none() || old(&self.status_changed_on);
        ours && named && self.is_offline() && old(&self.created_on) && quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_offline_agents_of_ours_are_stale() {
        let agent = |change: fn(&mut Agent)| {
            let mut agent = Agent {
                id: 1,
                name: "ci-host-0001".to_owned(),
                status: "offline".to_owned(),
                created_on: Some("2026-11-01T10:00:00.123Z".to_owned()),
                status_changed_on: Some("2026-11-01T11:00:00Z".to_owned()),
                user_capabilities: Some([(OURS.to_owned(), "ci".to_owned())].into()),
                assigned_request: None,
            };
            change(&mut agent);
            let now = humantime::parse_rfc3339("2026-11-02T12:00:00Z").unwrap();
            agent.is_stale("ci", now)
        };
        assert!(agent(|_| {}));
        assert!(agent(|agent| agent.status_changed_on = None));
        assert!(!agent(|agent| agent.status = "online".to_owned()));
        assert!(!agent(|agent| agent.created_on = Some("2026-11-02T00:00:00Z".to_owned())));
        assert!(!agent(|agent| agent.status_changed_on = Some("2026-11-02T11:00:00Z".to_owned())));
        assert!(!agent(|agent| agent.created_on = None));
        assert!(!agent(|agent| agent.name = "cinema-1".to_owned()));
        assert!(!agent(|agent| agent.user_capabilities = None));
        assert!(!agent(|agent| agent.user_capabilities = Some([(OURS.to_owned(), "other".to_owned())].into())));
    }

    #[test]
    fn fuzz_api() {
        crate::fuzz::run("api-azure-devops", |bytes| {
            let reply = Reply::of(200, bytes);
            crate::fuzz::assert_plain(&Reply::of(403, bytes).message());
            let agents = reply.json::<List<Agent>>();
            let stale = agents.iter().flat_map(|list| &list.value);
            let stale = stale.filter(|agent| agent.is_stale("prefix", SystemTime::now())).count();
            (
                reply.json::<List<Pool>>().is_ok(),
                agents.is_ok(),
                stale.min(3),
                reply.json::<List<Offered>>().is_ok(),
                reply.json::<Token>().is_ok(),
                reply.json::<Exception>().is_ok(),
            )
        });
    }
}
