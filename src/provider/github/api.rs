//! The requests that OSCR makes of GitHub, and what its refusals mean.

use std::time::{Duration, SystemTime};

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::App;
use super::jit;
use super::settings::{Credential, Scope, Settings};
use crate::config::{Common, Secret, SecretSource};
use crate::provider::agents::architecture;
use crate::provider::contract::Package;
use crate::provider::fault::Fault;
use crate::provider::finding::{Finding, compare_versions};
use crate::provider::http::{Authorization, Body, Http, Reply};
use crate::provider::registration::{Files, Registration, Released, Standing, Wanted};
use crate::provider::token_cache::{Minted, TokenCache};

/// The REST API below one scope.
#[derive(Debug)]
pub struct Api {
    /// The client that asks for everything.
    pub http: Http,
    base: String,
    scope: Scope,
    account: Account,
    /// Where replicas share a registration token.
    cache: Option<TokenCache>,
}

/// Who asks.
#[derive(Debug)]
enum Account {
    /// The owner of a personal access token.
    Pat(SecretSource),
    /// A GitHub App.
    App(Box<App>),
    /// Nobody: what we were given lets an agent register, and no more.
    Nobody,
}

#[derive(Deserialize)]
struct Token {
    token: Secret,
    #[serde(default)]
    expires_at: String,
}

#[derive(Deserialize)]
struct Runner {
    id: u64,
    name: String,
    status: String,
    #[serde(default)]
    busy: bool,
}

#[derive(Deserialize)]
struct Runners {
    total_count: u64,
    runners: Vec<Runner>,
}

#[derive(Deserialize)]
struct Groups {
    total_count: u64,
    runner_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct JustInTime {
    runner: Runner,
    encoded_jit_config: Secret,
}

#[derive(Deserialize)]
struct Download {
    os: String,
    architecture: String,
    download_url: String,
    filename: String,
    sha256_checksum: Option<String>,
}

/// The most pages of a hundred that are read of any list. GitHub allows 10,000 runners in a group.
const PAGES: u64 = 100;

/// A token that ends sooner is worth a word.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

impl Api {
    pub fn new(settings: &Settings, common: &Common) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        let account = match &settings.credential {
            Credential::Pat(source) => Account::Pat(source.clone()),
            Credential::App(key) => Account::App(Box::new(App::new(key.clone(), &settings.host.api, &settings.scope))),
            Credential::RegistrationToken(_) | Credential::JitConfig(_) => Account::Nobody,
        };
        Self {
            http: Http::new(common.network.clone(), &settings.host.api, headers),
            base: settings.host.api.clone(),
            scope: settings.scope.clone(),
            account,
            cache: common.token_cache.clone().map(TokenCache::new),
        }
    }

    /// `…/repos/owner/name/actions`, and so on: what later incarnations need to find a registration again.
    pub fn scope_url(&self) -> String {
        format!("{}{}/actions", self.base, self.scope.api_path())
    }

    pub fn rest(&self) {
        self.http.rest();
        if let Account::App(app) = &self.account {
            app.forget();
        }
    }

    /// An address that needs no credential to answer something.
    pub fn open_url(&self) -> String {
        format!("{}/rate_limit", self.base)
    }

    /// What registering needs, in order; see [`crate::provider::Provider::examine`].
    pub async fn examine(&self, settings: &Settings, version: Option<&str>) -> Vec<Finding> {
        let labels = Self::examine_labels(settings);
        if matches!(self.account, Account::Nobody) {
            let what = "it lets an agent register, and cannot ask anything: whether it is good shows when it is used";
            let cure = "GITHUB_PAT or a GitHub App can be looked at, and let OSCR clean up after itself";
            let skip = |topic| Finding::skip(topic, "the credential cannot ask");
            return vec![Finding::warn("credential", what, cure), skip("scope"), labels, skip("agent")];
        }
        // Costs nothing of the limit, and answers every credential that is one.
        let known = self.ask(Method::GET, &self.open_url(), None).await;
        let known = match known.as_ref().map(|reply| (reply, reply.status)) {
            // A server without limits says 404.
            Ok((reply, 200 | 404)) => Ok(reply),
            Ok((reply, _)) => self.expect(reply, 200, "say whose token this is"),
            Err(fault) => Err(fault.clone()),
        };
        let reply = match known {
            Ok(reply) => reply,
            Err(fault) => {
                let skip = |topic| Finding::skip(topic, "the credential is no good");
                return vec![Finding::fault("credential", &fault), skip("scope"), labels, skip("agent")];
            }
        };
        let mut found = vec![Self::examine_end(reply)];
        let list = self.ask(Method::GET, &format!("{}/runners?per_page=1", self.scope_url()), None).await;
        // Who may not manage a scope, or not now, can see it all the same.
        let about = match &list {
            Ok(Reply { status: 403, .. }) | Err(Fault::Limited { .. }) => "credential",
            _ => "scope",
        };
        let list = list.and_then(|reply| self.expect(&reply, 200, "list the runners")?.json::<Runners>());
        match list {
            Ok(runners) => {
                found.push(Finding::ok("scope", format!("{} has {} runners", self.scope, runners.total_count)))
            }
            Err(fault) => {
                found.push(Finding::fault(about, &fault));
                let skip = |topic| Finding::skip(topic, "the scope cannot be seen");
                found.extend([labels, skip("agent")]);
                return found;
            }
        }
        // A new one, not one that another replica shares.
        found.push(match self.mint().await {
            Ok(_) => Finding::ok(
                "credential",
                "may register runners (a registration token was made to see it; unused, it ends within an hour)",
            ),
            Err(fault) => Finding::fault("credential", &fault),
        });
        if let Some(group) = &settings.group {
            found.push(match self.group_id(group).await {
                Ok(id) => Finding::ok("group", format!("{group} exists (id {id})")),
                Err(fault) => Finding::fault("group", &fault),
            });
        }
        found.push(labels);
        found.push(match self.package().await {
            Ok(package) => {
                let policy = "30 days after a newer one came out, it is given no more jobs";
                compare_versions(version, &package.version, "GitHub", policy)
            }
            Err(fault) => Finding::fault("agent", &fault),
        });
        found
    }

    /// The credential works; until when?
    fn examine_end(reply: &Reply) -> Finding {
        let left = reply.left.map(|left| format!(", {left} requests left")).unwrap_or_default();
        // "2026-12-31 23:59:59 UTC"; with an offset instead of UTC for some.
        let end = reply.header("github-authentication-token-expiration");
        let Some(end) = end else {
            return Finding::ok("credential", format!("GitHub knows it{left}"));
        };
        let date = end.get(..10).and_then(|date| humantime::parse_rfc3339_weak(&format!("{date} 00:00:00")).ok());
        let text = format!("GitHub knows it until {end}{left}");
        match date.map(|date| date.duration_since(SystemTime::now()).unwrap_or_default()) {
            Some(rest) if rest < ENDS_SOON => Finding::warn("credential", text, "replace it in time"),
            _ => Finding::ok("credential", text),
        }
    }

    fn examine_labels(settings: &Settings) -> Finding {
        let mut labels = settings.labels.clone();
        if !settings.no_default_labels {
            labels = settings.jit_labels();
        }
        let shown = labels.join(", ");
        if labels.iter().any(|label| label.eq_ignore_ascii_case("self-hosted")) {
            return Finding::ok("labels", shown);
        }
        Finding::warn(
            "labels",
            format!("{shown}: a job whose runs-on has self-hosted does not come here"),
            "add self-hosted to RUNNER_LABELS, unless that is meant",
        )
    }

    pub async fn registration_token(&self) -> Result<Secret, Fault> {
        let credential = match &self.account {
            Account::Pat(source) => source,
            Account::App(app) => app.source(),
            Account::Nobody => return self.mint().await.map(|minted| minted.token),
        };
        match &self.cache {
            Some(cache) => {
                let credential = credential.read()?;
                cache.token(&self.scope_url(), &credential, self.mint()).await
            }
            None => self.mint().await.map(|minted| minted.token),
        }
    }

    /// The registration token in use was refused: no replica shall use it again.
    pub fn forget_token(&self) {
        if let Some(cache) = &self.cache {
            cache.forget();
        }
    }

    async fn mint(&self) -> Result<Minted, Fault> {
        let reply = self.ask(Method::POST, &format!("{}/runners/registration-token", self.scope_url()), None).await?;
        let token: Token = self.expect(&reply, 201, "register a runner")?.json()?;
        // By the forge's clock, which need not be ours. Without a date that makes sense it is not shared.
        let lives =
            moment(&token.expires_at).and_then(|until| until.duration_since(self.http.now()).ok()).unwrap_or_default();
        Ok(Minted { token: token.token, lives })
    }

    pub async fn just_in_time(&self, settings: &Settings, wanted: Wanted<'_>) -> Result<(u64, Files), Fault> {
        let group = match &settings.group {
            Some(name) => self.group_id(name).await?,
            // The default group always has this id.
            None => 1,
        };
        let body = json!({
            "name": wanted.name,
            "runner_group_id": group,
            "labels": settings.jit_labels(),
            "work_folder": wanted.work_directory,
        });
        let url = format!("{}/runners/generate-jitconfig", self.scope_url());
        let reply = self.ask(Method::POST, &url, Some(&body)).await?;
        if reply.status == 409 {
            return Err(Fault::NameTaken(wanted.name.to_owned()));
        }
        let answer: JustInTime = self.expect(&reply, 201, "make a just-in-time configuration")?.json()?;
        match jit::decode(answer.encoded_jit_config.expose()) {
            Ok(files) => Ok((answer.runner.id, files)),
            Err(why) => {
                // The registration exists already; without its files it would stay for ever.
                let url = format!("{}/runners/{}", self.scope_url(), answer.runner.id);
                let _ = self.ask(Method::DELETE, &url, None).await;
                Err(Fault::Unreachable(format!("GitHub's just-in-time configuration cannot be used: {why}")))
            }
        }
    }

    /// The id of the runner with exactly this name.
    pub async fn find(&self, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.find_below(&self.scope_url(), name).await?.map(|runner| runner.id))
    }

    async fn find_below(&self, scope: &str, name: &str) -> Result<Option<Runner>, Fault> {
        for page in 1..=PAGES {
            // GitHub's filter finds the exact name, but older servers do not know it and answer with everybody.
            let reply =
                self.ask(Method::GET, &format!("{scope}/runners?name={name}&per_page=100&page={page}"), None).await?;
            let answer: Runners = self.expect(&reply, 200, "list the runners")?.json()?;
            let empty = answer.runners.is_empty();
            if let Some(runner) = answer.runners.into_iter().find(|runner| runner.name == name) {
                return Ok(Some(runner));
            }
            if empty || page * 100 >= answer.total_count {
                break;
            }
        }
        Ok(None)
    }

    /// Lets a registration go. 404 is success: GitHub removes an ephemeral runner by itself.
    pub async fn release(&self, registration: &Registration) -> Result<Released, Fault> {
        let scope = &registration.scope;
        let id = match registration.id {
            Some(id) => id,
            None => match self.find_below(scope, &registration.name).await? {
                Some(runner) => runner.id,
                None => return Ok(Released::Gone),
            },
        };
        let reply = self.ask(Method::DELETE, &format!("{scope}/runners/{id}"), None).await?;
        match reply.status {
            404 => Ok(Released::Gone),
            422 => Ok(Released::Busy),
            _ => self.expect(&reply, 204, "remove a runner").map(|_| Released::Gone),
        }
    }

    pub async fn standing(&self, registration: &Registration) -> Result<Standing, Fault> {
        let scope = &registration.scope;
        let runner = match registration.id {
            None => self.find_below(scope, &registration.name).await?,
            Some(id) => {
                let reply = self.ask(Method::GET, &format!("{scope}/runners/{id}"), None).await?;
                match reply.status {
                    404 => None,
                    _ => Some(self.expect(&reply, 200, "look at a runner")?.json()?),
                }
            }
        };
        Ok(match runner {
            None => Standing::Unknown,
            Some(Runner { status, .. }) if status == "offline" => Standing::Offline,
            Some(Runner { busy: true, .. }) => Standing::Busy,
            Some(_) => Standing::Online,
        })
    }

    pub async fn package(&self) -> Result<Package, Fault> {
        let reply = self.ask(Method::GET, &format!("{}/runners/downloads", self.scope_url()), None).await?;
        self.expect(&reply, 200, "list the runner's downloads")?.json().and_then(package_of)
    }

    async fn group_id(&self, name: &str) -> Result<u64, Fault> {
        let url = match &self.scope {
            Scope::Repository { .. } | Scope::OfConfiguration => {
                return Err(Fault::denied(
                    format!("{} is a repository, and repositories have no runner groups", self.scope),
                    "unset GITHUB_RUNNER_GROUP, or register with the organisation",
                ));
            }
            Scope::Organization(_) | Scope::Enterprise(_) => {
                format!("{}/runner-groups", self.scope_url())
            }
        };
        for page in 1..=PAGES {
            let reply = self.ask(Method::GET, &format!("{url}?per_page=100&page={page}"), None).await?;
            let groups: Groups = self.expect(&reply, 200, "list the runner groups")?.json()?;
            if let Some(group) = groups.runner_groups.iter().find(|group| group.name.eq_ignore_ascii_case(name)) {
                return Ok(group.id);
            }
            if groups.runner_groups.is_empty() || page * 100 >= groups.total_count {
                break;
            }
        }
        Err(Fault::denied(
            format!("{} has no runner group {name:?} that this token can see", self.scope),
            "check GITHUB_RUNNER_GROUP, or create the group",
        ))
    }

    async fn ask(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let reply = self.ask_once(method.clone(), url, body).await?;
        match &self.account {
            // The App's token may have been revoked, or a clock set, since it was made.
            Account::App(app) if reply.status == 401 && app.forget() => self.ask_once(method, url, body).await,
            _ => Ok(reply),
        }
    }

    async fn ask_once(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let credential = match &self.account {
            Account::Pat(source) => source.read()?,
            Account::App(app) => app.token(&self.http).await?,
            Account::Nobody => {
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
    fn expect<'r>(&self, reply: &'r Reply, status: u16, purpose: &str) -> Result<&'r Reply, Fault> {
        let message = reply.message();
        let (whose, permission) = match &self.account {
            Account::Pat(source) => (format!("the token in {}", source.setting), self.scope.permission()),
            Account::App(_) => ("the GitHub App".to_owned(), self.scope.app_permission()),
            Account::Nobody => ("the token".to_owned(), self.scope.permission()),
        };
        let what =
            |says: &str| format!("GitHub refused to {purpose} for {} ({} {message}){says}", self.scope, reply.status);
        match reply.status {
            code if code == status => Ok(reply),
            401 if matches!(self.account, Account::App(_)) => Err(Fault::denied(
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

/// The one of all downloads that is for this machine.
fn package_of(downloads: Vec<Download>) -> Result<Package, Fault> {
    let architecture = architecture();
    let ours = downloads.into_iter().find(|download| download.os == "linux" && download.architecture == architecture);
    ours.and_then(|download| {
        // actions-runner-linux-x64-2.338.0.tar.gz
        let version = download.filename.strip_suffix(".tar.gz")?.rsplit('-').next()?;
        let plain = version.split('.').count() == 3 && version.chars().all(|c| c.is_ascii_digit() || c == '.');
        plain.then(|| Package {
            version: version.to_owned(),
            url: download.download_url,
            sha256: download.sha256_checksum,
        })
    })
    .ok_or_else(|| Fault::Unreachable(format!("GitHub names no version of the runner for linux {architecture}")))
}

/// A time as GitHub writes it: `2026-11-21T05:00:00.000-08:00`, or with `Z`.
fn moment(text: &str) -> Option<SystemTime> {
    let at = text.len().checked_sub(6)?;
    let (local, offset) = if text.is_char_boundary(at) { text.split_at(at) } else { return None };
    let (sign, hours, minutes) = match offset.as_bytes() {
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => (*sign, offset[1..3].parse().ok()?, offset[4..].parse().ok()?),
        _ => return humantime::parse_rfc3339(text).ok(),
    };
    let (hours, minutes): (u64, u64) = (hours, minutes);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    if sign == b'+' { local.checked_sub(offset) } else { local.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_wherever_on_earth_they_were_written() {
        let utc = humantime::parse_rfc3339("2026-11-21T13:00:00Z").unwrap();
        for text in [
            "2026-11-21T05:00:00.000-08:00",
            "2026-11-21T13:00:00Z",
            "2026-11-21T13:00:00.000+00:00",
            "2026-11-21T18:30:00+05:30",
        ] {
            assert_eq!(moment(text), Some(utc), "{text}");
        }
        for text in
            ["", "soon", "2026-11-21", "2026-11-21T05:00:00.000-8:00", "2026-11-21T05:00:00.000-aa:bb", "ééééééé"]
        {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn fuzz_api() {
        use crate::provider::http::Reply;
        crate::fuzz::run("api-github", |bytes| {
            let reply = Reply::of(200, bytes);
            crate::fuzz::assert_plain(&reply.message());
            assert!(reply.message().chars().count() <= 300);
            let taken = [
                reply.json::<Token>().is_ok(),
                reply.json::<Runner>().is_ok(),
                reply.json::<Runners>().is_ok(),
                reply.json::<Groups>().is_ok(),
                reply.json::<JustInTime>().is_ok(),
            ];
            let package = reply.json::<Vec<Download>>().map(package_of);
            if let Ok(Ok(package)) = &package {
                assert!(package.version.chars().all(|c| c.is_ascii_digit() || c == '.'));
            }
            (taken, package.map(|package| package.is_ok()).is_ok())
        });
    }
}
