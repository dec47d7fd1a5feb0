//! Asking GitHub: who asks, below which scope, and what a refusal means.

use std::cell::{Cell, RefCell};

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::config::{Common, SecretSource};
use crate::provider::fault::Fault;
use crate::provider::github::app::App;
use crate::provider::github::credential::Credential;
use crate::provider::github::refusal::{cure, see, speaks_of_rights};
use crate::provider::github::scope::Scope;
use crate::provider::github::settings::Settings;
use crate::provider::github::token_cache::{TokenCache, Unspent};
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
    pub(super) base: String,
    pub(super) scope: Scope,
    pub(super) account: Asker,
    credential: Credential,
    /// Whether a runner that was asked for just in time may have been made, although nobody said so.
    pub may_have_made: Cell<bool>,
    /// Where replicas share a registration token.
    pub(super) cache: Option<TokenCache>,
    /// A registration token that nothing is known to be wrong with, for the next try.
    pub(super) kept: RefCell<Option<Unspent>>,
    /// What has another name by now: its address by number, and that name, if it could be asked for.
    pub(super) moved: RefCell<Vec<(String, Option<String>)>>,
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
            credential: settings.credential.clone(),
            may_have_made: Cell::default(),
            cache: settings.token_cache.clone().map(TokenCache::new),
            kept: RefCell::default(),
            moved: RefCell::default(),
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

    /// One request. Where GitHub leads on to the same thing by its number, a question and a removal go there.
    pub(super) async fn ask(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let reply = self.ask_here(method.clone(), url, body).await?;
        match self.by_number(&reply, url) {
            Some(moved) => {
                self.learn_name(&moved).await;
                let follows = matches!(method, Method::GET | Method::DELETE);
                if follows { self.ask_here(method, &moved.url, None).await } else { Ok(reply) }
            }
            None => Ok(reply),
        }
    }

    /// One request. A refused token of the App is made anew once.
    pub(super) async fn ask_here(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let reply = self.ask_once(method.clone(), url, body).await?;
        match &self.account {
            // The App's token may have been revoked, or a clock set, since it was made.
            Asker::App(app) if reply.status == 401 && app.forget() => self.ask_once(method, url, body).await,
            _ => Ok(reply),
        }
    }

    async fn ask_once(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        self.http.ask_as(self.credential.fingerprint());
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

    /// The credential, for people, and what it needs for the scope.
    pub(crate) fn whose(&self) -> (String, &'static str) {
        match &self.account {
            Asker::Pat(source) => (format!("the token in {}", source.setting), self.scope.permission()),
            Asker::App(_) => ("the GitHub App".to_owned(), self.scope.app_permission()),
            Asker::Nobody => ("the token".to_owned(), self.scope.permission()),
        }
    }

    /// The reply, if it has the status that means success; else what the refusal of `purpose` means.
    pub(super) fn expect<'r>(&self, reply: &'r Reply, status: u16, purpose: &str) -> Result<&'r Reply, Fault> {
        if reply.status == status {
            return Ok(reply);
        }
        let (message, address) = (reply.message(), reply.address());
        let (whose, permission) = self.whose();
        let what = |says: &str| {
            let words = format!("{} {message}", reply.status);
            format!(
                "GitHub refused to {purpose} for {} ({}){says}{}",
                self.scope,
                words.trim_end(),
                see(address.as_deref())
            )
        };
        let denied = |says: &str, cure: String| Err(Fault::denied(what(says), cure));
        let by_words = || cure(&message, address.as_deref(), &whose);
        match reply.status {
            code @ 200..=299 => Err(Fault::Unreachable(format!(
                "GitHub was asked to {purpose} for {} and answered {code}, where {status} was expected; what else it said is not shown",
                self.scope
            ))),
            _ if reply.is_redirect() => {
                let (place, cure) = self.whereto(reply);
                denied(&format!(": it has moved to {place}"), cure)
            }
            401 if matches!(self.account, Asker::App(_)) => {
                denied("", "GitHub does not know the token that it has just made: look at the App's page".to_owned())
            }
            400..=499 if let Some(cure) = by_words() => denied("", cure),
            401 => denied("", format!("{whose} is wrong, expired or revoked: replace it")),
            403 if speaks_of_rights(&message) => denied("", format!("{whose} needs {permission}")),
            404 => denied(
                ": it does not exist or the token cannot see it",
                format!("check {}, and that {whose} has {permission}", self.scope.settings()),
            ),
            451 => denied("", "GitHub may not show it for reasons of law: ask whoever administers it".to_owned()),
            403 => denied("", "GitHub's words say what it wants".to_owned()),
            400..=499 => denied("", "check the settings that the message names".to_owned()),
            _ => Err(Fault::Unreachable(what(", which is not an answer that we know"))),
        }
    }
}
