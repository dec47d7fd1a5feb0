//! A GitHub App as the credential: it proves who it is, and is given tokens for the one place where it is installed.
//!
//! A token is asked for when the first request needs one, with no more rights than runners need, and let go together with
//! the client's connections. So each phase that talks to GitHub has a fresh one, the removal after a long job too.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::credential::AppKey;
use super::jwt;
use super::refusal::{cure, see};
use super::scope::Scope;
use crate::config::{Secret, SecretSource};
use crate::provider::fault::Fault;
use crate::provider::http::{Authorization, Body, Http, Reply};

/// A token that ends sooner than this is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// How long a token lives if GitHub's word about it cannot be read. It lives for an hour.
const SHORTEST: Duration = Duration::from_secs(30 * 60);
/// By how much the clocks must turn out to differ for a refused proof to be tried again with the forge's time, in seconds.
const CLOCK_MATTERS: u64 = 30;

/// The App at one scope.
#[derive(Debug)]
pub(super) struct App {
    key: AppKey,
    base: String,
    scope: Scope,
    /// The installation's id, given or looked up.
    installation: Cell<Option<u64>>,
    token: RefCell<Option<AppToken>>,
}

#[derive(Debug)]
struct AppToken {
    token: Secret,
    /// When it ends, by the forge's clock.
    until: SystemTime,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
    #[serde(default)]
    suspended_at: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Secret,
    expires_at: String,
}

impl App {
    /// The App with this key, for runners of `scope` at the API's `base`.
    pub(super) fn new(key: AppKey, base: &str, scope: &Scope) -> Self {
        let installation = Cell::new(key.installation);
        Self { key, base: base.to_owned(), scope: scope.clone(), installation, token: RefCell::default() }
    }

    /// Where its key comes from.
    pub(super) fn source(&self) -> &SecretSource {
        &self.key.key
    }

    /// A token for the scope, the one in use unless it is about to end.
    pub(super) async fn token(&self, http: &Http) -> Result<Secret, Fault> {
        if let Some(minted) = self.token.borrow().as_ref()
            && http.now() + RENEW_BEFORE < minted.until
        {
            return Ok(minted.token.clone());
        }
        self.token.take();
        let installation = match self.installation.get() {
            Some(id) => id,
            None => self.look_up(http).await?,
        };
        let minted = self.mint(http, installation).await?;
        let token = minted.token.clone();
        self.token.replace(Some(minted));
        Ok(token)
    }

    /// Lets the token go. Whether there was one.
    pub(super) fn forget(&self) -> bool {
        self.token.take().is_some()
    }

    async fn look_up(&self, http: &Http) -> Result<u64, Fault> {
        let url = format!("{}{}/installation", self.base, self.scope.api_path());
        let reply = self.ask(http, Method::GET, &url, None).await?;
        if reply.status == 404 {
            return Err(Fault::denied(
                format!(
                    "the GitHub App {} is not installed for {} (404 {})",
                    self.key.issuer,
                    self.scope,
                    reply.message()
                ),
                format!(
                    "install it there (the App's page, Install App), with access to the repository; and check {}",
                    self.scope.settings()
                ),
            ));
        }
        let found: Installation = self.expect(&reply, 200, "find the installation of the GitHub App")?.json()?;
        if found.suspended_at.is_some() {
            return Err(self.suspended());
        }
        self.installation.set(Some(found.id));
        Ok(found.id)
    }

    async fn mint(&self, http: &Http, installation: u64) -> Result<AppToken, Fault> {
        let body = match &self.scope {
            Scope::Repository { name, .. } => {
                json!({ "repositories": [name], "permissions": { "administration": "write" } })
            }
            Scope::Organization(_) | Scope::Enterprise(_) | Scope::OfConfiguration => {
                json!({ "permissions": { "organization_self_hosted_runners": "write" } })
            }
        };
        let url = format!("{}/app/installations/{installation}/access_tokens", self.base);
        let reply = self.ask(http, Method::POST, &url, Some(&body)).await?;
        let message = reply.message();
        if !matches!(reply.status, 201 | 401) {
            // It may have been installed anew, under another id.
            self.installation.set(self.key.installation);
        }
        let what = || format!("GitHub gives the App {} no token ({} {message})", self.key.issuer, reply.status);
        match reply.status {
            404 if self.key.installation.is_some() => {
                return Err(Fault::denied(
                    what(),
                    format!(
                        "GITHUB_APP_INSTALLATION_ID={installation} is no installation of this App: correct it, or unset it to have it looked up"
                    ),
                ));
            }
            404 => return Err(Fault::denied(what(), "the App was uninstalled: install it again")),
            422 if message.contains("ermission") => {
                return Err(Fault::denied(
                    what(),
                    format!(
                        "grant the App {} (the App's page, Permissions), and have the installation's owner accept it",
                        self.scope.app_permission()
                    ),
                ));
            }
            422 => {
                return Err(Fault::denied(
                    what(),
                    format!(
                        "let the installation have {} (the installation's page, Repository access); and check {}",
                        self.scope,
                        self.scope.settings()
                    ),
                ));
            }
            _ => {}
        }
        let token: Token = self.expect(&reply, 201, "make a token for the GitHub App")?.json()?;
        let until = humantime::parse_rfc3339_weak(&token.expires_at).unwrap_or_else(|_| http.now() + SHORTEST);
        Ok(AppToken { token: token.token, until })
    }

    /// One request as the App itself. If GitHub refuses the proof and its clock turns out to be another, there is one more,
    /// dated by that clock.
    async fn ask(&self, http: &Http, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let before = http.clock_offset();
        let reply = self.ask_once(http, method.clone(), url, body).await?;
        if reply.status == 401 && before.abs_diff(http.clock_offset()) > CLOCK_MATTERS {
            tracing::debug!("signing again by the forge's clock");
            return self.ask_once(http, method, url, body).await;
        }
        Ok(reply)
    }

    async fn ask_once(&self, http: &Http, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let key = self.key.key.read()?;
        let proof = jwt::sign(&self.key.issuer, &key, http.now()).map_err(|error| {
            Fault::denied(
                format!("the key in {} cannot be used: {error}", self.key.key.setting),
                "put the App's private key there",
            )
        })?;
        http.send(method, url, Authorization::Bearer(&proof), body.map_or(Body::Empty, Body::Json)).await
    }

    fn expect<'r>(&self, reply: &'r Reply, status: u16, purpose: &str) -> Result<&'r Reply, Fault> {
        if reply.status == status {
            return Ok(reply);
        }
        let (message, address) = (reply.message(), reply.address());
        let what = || {
            let words = format!("{} {message}", reply.status);
            let see = see(address.as_deref());
            format!("GitHub refused to {purpose} {} ({}){see}", self.key.issuer, words.trim_end())
        };
        match reply.status {
            code @ 200..=299 => Err(Fault::Unreachable(format!(
                "GitHub was asked to {purpose} {} and answered {code}, where {status} was expected; what else it said is not shown",
                self.key.issuer
            ))),
            401 if message.contains("'exp'") || message.contains("'iat'") || message.contains("xpiration") => Err(
                Fault::denied(what(), "set this machine's clock right: GitHub takes the proof for too old or too new"),
            ),
            401 => Err(Fault::denied(
                what(),
                format!(
                    "the key in {} is not one of this App: check that it belongs to GITHUB_APP_ID={} and was not revoked",
                    self.key.key.setting, self.key.issuer
                ),
            )),
            403 if message.contains("suspended") => Err(self.suspended()),
            400..=499 if let Some(cure) = cure(&message, address.as_deref(), "the GitHub App") => {
                Err(Fault::denied(what(), cure))
            }
            403 | 404 => Err(Fault::denied(what(), "check GITHUB_APP_ID and GITHUB_HOST: there may be no such App")),
            301 | 302 | 307 | 308 => Err(Fault::denied(
                format!("{}: it has moved to {}", what(), reply.place()),
                format!("check {} and GITHUB_HOST: no credential is sent after it", self.scope.settings()),
            )),
            400..=499 => Err(Fault::denied(what(), "check the App's settings that the message names")),
            _ => Err(Fault::Unreachable(format!("{}, which is not an answer that we know", what()))),
        }
    }

    fn suspended(&self) -> Fault {
        Fault::denied(
            format!("the installation of the GitHub App {} for {} is suspended", self.key.issuer, self.scope),
            "have its owner unsuspend it (Settings, Installed GitHub Apps, Configure)",
        )
    }
}
