//! Asking GitHub: who asks, below which scope, and what a refusal means.

use std::cell::Cell;

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::config::{Common, SecretSource};
use crate::provider::fault::Fault;
use crate::provider::github::app::App;
use crate::provider::github::credential::Credential;
use crate::provider::github::scope::Scope;
use crate::provider::github::settings::Settings;
use crate::provider::github::token_cache::TokenCache;
use crate::provider::http::{Authorization, Body, Http, Reply, Signature};

/// The most pages of a hundred that are read of any list. GitHub allows 10,000 runners in a group.
pub(super) const PAGES: u64 = 100;

/// What GitHub's answers have, its own server's too.
const MARKS: Signature = &["x-github-request-id"];

/// The REST API below one scope.
#[derive(Debug)]
pub(crate) struct Api {
    /// The client that asks for everything.
    pub http: Http,
    base: String,
    pub(super) scope: Scope,
    pub(super) account: Asker,
    /// Whether a runner that was asked for just in time may have been made, although nobody said so.
    pub may_have_made: Cell<bool>,
    /// Where replicas share a registration token.
    pub(super) cache: Option<TokenCache>,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Asker {
    /// The owner of a personal access token.
    Pat(SecretSource),
    /// A GitHub App.
    App(Box<App>),
    /// Nobody: what we were given lets an agent register, and no more.
    Nobody,
}

impl Api {
    pub(crate) fn new(settings: &Settings, common: &Common) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        let account = match &settings.credential {
            Credential::Pat(source) => Asker::Pat(source.clone()),
            Credential::App(key) => Asker::App(Box::new(App::new(key.clone(), &settings.host.api, &settings.scope))),
            Credential::RegistrationToken(_) | Credential::JitConfig(_) => Asker::Nobody,
        };
        Self {
            http: Http::new(common.network.clone(), &settings.host.api, headers).marked(MARKS),
            base: settings.host.api.clone(),
            scope: settings.scope.clone(),
            account,
            may_have_made: Cell::default(),
            cache: settings.token_cache.clone().map(TokenCache::new),
        }
    }

    /// `…/repos/owner/name/actions`, and so on: what later incarnations need to find a registration again.
    pub(crate) fn scope_url(&self) -> String {
        format!("{}{}/actions", self.base, self.scope.api_path())
    }

    pub(crate) fn rest(&self) {
        self.http.rest();
        if let Asker::App(app) = &self.account {
            app.forget();
        }
    }

    /// An address that needs no credential to answer something.
    pub(crate) fn open_url(&self) -> String {
        format!("{}/rate_limit", self.base)
    }

    /// One request. A refused token of the App is made anew once.
    pub(super) async fn ask(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let reply = self.ask_once(method.clone(), url, body).await?;
        match &self.account {
            // The App's token may have been revoked, or a clock set, since it was made.
            Asker::App(app) if reply.status == 401 && app.forget() => self.ask_once(method, url, body).await,
            _ => Ok(reply),
        }
    }

    async fn ask_once(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let credential = match &self.account {
            Asker::Pat(source) => source.read()?,
            Asker::App(app) => app.token(&self.http).await?,
            Asker::Nobody => {
                return Err(Fault::denied(
                    "what was given lets an agent register, and cannot ask GitHub's API anything",
                    "use GITHUB_PAT or a GitHub App to have registrations removed by id",
                ));
            }
        };
        let body = body.map_or(Body::Empty, Body::Json);
        self.http.send(method, url, Authorization::Bearer(&credential), body).await
    }

    /// The reply, if it has the status that means success; else what the refusal of `purpose` means.
    pub(super) fn expect<'r>(&self, reply: &'r Reply, status: u16, purpose: &str) -> Result<&'r Reply, Fault> {
        let message = reply.message();
        let (whose, permission) = match &self.account {
            Asker::Pat(source) => (format!("the token in {}", source.setting), self.scope.permission()),
            Asker::App(_) => ("the GitHub App".to_owned(), self.scope.app_permission()),
            Asker::Nobody => ("the token".to_owned(), self.scope.permission()),
        };
        let what =
            |says: &str| format!("GitHub refused to {purpose} for {} ({} {message}){says}", self.scope, reply.status);
        match reply.status {
            code if code == status => Ok(reply),
            401 if matches!(self.account, Asker::App(_)) => Err(Fault::denied(
                what(""),
                "GitHub does not know the token that it has just made: look at the App's page",
            )),
            401 => Err(Fault::denied(what(""), format!("{whose} is wrong, expired or revoked: replace it"))),
            403 => Err(Fault::denied(what(""), format!("{whose} needs {permission}"))),
            404 => Err(Fault::denied(
                what(": it does not exist or the token cannot see it"),
                format!("check {}, and that {whose} has {permission}", self.scope.settings()),
            )),
            301 | 302 | 307 | 308 => {
                Err(Fault::denied(what(": it has moved"), format!("check {} and GITHUB_HOST", self.scope.settings())))
            }
            400..=499 => Err(Fault::denied(what(""), "check the settings that the message names")),
            _ => Err(Fault::Unreachable(what(", which is not an answer that we know"))),
        }
    }
}
