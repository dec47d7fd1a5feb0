//! The requests that OSCR makes of GitHub, and what its refusals mean.

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use super::denied;
use super::jit;
use super::settings::{Credential, Scope, Settings};
use crate::config::{Common, Secret, SecretError, SecretSource};
use crate::provider::http::{Http, Reply};
use crate::provider::{Fault, Files, Registration, Released, Wanted};

/// The REST API below one scope.
#[derive(Debug)]
pub struct Api {
    http: Http,
    base: String,
    scope: Scope,
    credential: Option<SecretSource>,
}

#[derive(Deserialize)]
struct Token {
    token: Secret,
}

#[derive(Deserialize)]
struct Runner {
    id: u64,
    name: String,
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
    filename: String,
}

/// The most pages of a hundred that are read of any list. GitHub allows 10,000 runners in a group.
const PAGES: u64 = 100;

impl Api {
    pub fn new(settings: &Settings, common: &Common) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        let credential = match &settings.credential {
            Credential::Pat(source) => Some(source.clone()),
            Credential::RegistrationToken(_) => None,
        };
        Self {
            http: Http::new(common.network.clone(), &settings.host.api, headers),
            base: settings.host.api.clone(),
            scope: settings.scope.clone(),
            credential,
        }
    }

    /// `…/repos/owner/name/actions`, and so on: what later incarnations need to find a registration again.
    pub fn scope_url(&self) -> String {
        format!("{}{}/actions", self.base, self.scope.api_path())
    }

    pub fn rest(&self) {
        self.http.rest();
    }

    pub async fn registration_token(&self) -> Result<Secret, Fault> {
        let reply = self.ask(Method::POST, &format!("{}/runners/registration-token", self.scope_url()), None).await?;
        let token: Token = self.expect(&reply, 201, "register a runner")?.json()?;
        Ok(token.token)
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
        self.find_below(&self.scope_url(), name).await
    }

    async fn find_below(&self, scope: &str, name: &str) -> Result<Option<u64>, Fault> {
        for page in 1..=PAGES {
            // GitHub's filter finds the exact name, but older servers do not know it and answer with everybody.
            let reply =
                self.ask(Method::GET, &format!("{scope}/runners?name={name}&per_page=100&page={page}"), None).await?;
            let answer: Runners = self.expect(&reply, 200, "list the runners")?.json()?;
            if let Some(runner) = answer.runners.iter().find(|runner| runner.name == name) {
                return Ok(Some(runner.id));
            }
            if answer.runners.is_empty() || page * 100 >= answer.total_count {
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
                Some(id) => id,
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

    pub async fn exists(&self, registration: &Registration) -> Result<bool, Fault> {
        let scope = &registration.scope;
        let Some(id) = registration.id else {
            return Ok(self.find_below(scope, &registration.name).await?.is_some());
        };
        let reply = self.ask(Method::GET, &format!("{scope}/runners/{id}"), None).await?;
        match reply.status {
            404 => Ok(false),
            _ => self.expect(&reply, 200, "look at a runner").map(|_| true),
        }
    }

    pub async fn current_version(&self) -> Result<String, Fault> {
        let reply = self.ask(Method::GET, &format!("{}/runners/downloads", self.scope_url()), None).await?;
        let downloads: Vec<Download> = self.expect(&reply, 200, "list the runner's downloads")?.json()?;
        // actions-runner-linux-x64-2.336.0.tar.gz
        downloads
            .iter()
            .filter_map(|download| download.filename.strip_suffix(".tar.gz")?.rsplit('-').next())
            .find(|version| version.split('.').count() == 3 && version.chars().all(|c| c.is_ascii_digit() || c == '.'))
            .map(str::to_owned)
            .ok_or_else(|| Fault::Unreachable("GitHub names no version of the runner".to_owned()))
    }

    async fn group_id(&self, name: &str) -> Result<u64, Fault> {
        let url = match &self.scope {
            Scope::Repository { .. } => {
                return Err(denied(
                    format!("{} is a repository, and repositories have no runner groups", self.scope),
                    "unset GITHUB_RUNNER_GROUP, or register with the organisation".to_owned(),
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
        Err(denied(
            format!("{} has no runner group {name:?} that this token can see", self.scope),
            "check GITHUB_RUNNER_GROUP, or create the group".to_owned(),
        ))
    }

    async fn ask(&self, method: Method, url: &str, body: Option<&Value>) -> Result<Reply, Fault> {
        let Some(source) = &self.credential else {
            return Err(denied(
                "a registration token cannot ask GitHub's API anything".to_owned(),
                "use GITHUB_PAT to have registrations removed by id".to_owned(),
            ));
        };
        let credential = source.read().map_err(no_secret)?;
        self.http.send(method, url, &credential, body).await
    }

    /// The reply, if it has the status that means success; else what the refusal of `purpose` means.
    fn expect<'r>(&self, reply: &'r Reply, status: u16, purpose: &str) -> Result<&'r Reply, Fault> {
        let message = reply.message();
        let setting = self.credential.as_ref().map_or("GITHUB_PAT", |source| source.setting.as_str());
        let what =
            |says: &str| format!("GitHub refused to {purpose} for {} ({} {message}){says}", self.scope, reply.status);
        match reply.status {
            code if code == status => Ok(reply),
            401 => Err(denied(what(""), format!("the token in {setting} is wrong, expired or revoked: replace it"))),
            403 => Err(denied(what(""), format!("the token in {setting} needs {}", self.scope.permission()))),
            404 => Err(denied(
                what(": it does not exist or the token cannot see it"),
                format!(
                    "check {}, and that the token in {setting} has {}",
                    self.scope.settings(),
                    self.scope.permission()
                ),
            )),
            301 | 302 | 307 | 308 => {
                Err(denied(what(": it has moved"), format!("check {} and GITHUB_HOST", self.scope.settings())))
            }
            400..=499 => Err(denied(what(""), "check the settings that the message names".to_owned())),
            _ => Err(Fault::Unreachable(what(", which is not an answer that we know"))),
        }
    }
}

/// A secret that cannot be read now is a denial: somebody must mount or fill the file.
pub fn no_secret(error: SecretError) -> Fault {
    denied(error.to_string(), "put the token there; it is read anew as soon as the file changes".to_owned())
}
