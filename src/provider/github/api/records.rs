//! GitHub's records of runners: found, made just in time, looked at, and removed.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::ask::{Api, PAGES};
use crate::config::Secret;
use crate::provider::fault::Fault;
use crate::provider::github::jit;
use crate::provider::github::scope::Scope;
use crate::provider::github::settings::Settings;
use crate::provider::registration::{Candidate, Files, Registration, Released, Standing};
use crate::shown::quoted;

#[derive(Deserialize)]
pub(super) struct RunnerRecord {
    id: u64,
    name: String,
    status: String,
    #[serde(default)]
    busy: bool,
}

#[derive(Deserialize)]
pub(super) struct Runners {
    pub(super) total_count: u64,
    runners: Vec<RunnerRecord>,
}

#[derive(Deserialize)]
pub(super) struct Groups {
    total_count: u64,
    runner_groups: Vec<Group>,
}

#[derive(Deserialize)]
pub(super) struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
pub(super) struct JustInTime {
    runner: RunnerRecord,
    encoded_jit_config: Secret,
}

impl Api {
    /// Makes one, with the files that configure an agent for it.
    pub(crate) async fn just_in_time(&self, settings: &Settings, wanted: Candidate<'_>) -> Result<(u64, Files), Fault> {
        let group = match &settings.group {
            Some(name) => self.group_id(name).await?.ok_or_else(|| self.no_group(name))?,
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
        self.may_have_made.set(true);
        let reply = self.ask(Method::POST, &url, Some(&body)).await.inspect_err(|fault| {
            let answered = matches!(fault, Fault::Denied { .. } | Fault::NameTaken { .. });
            let unheard = !answered && self.http.was_sent();
            self.may_have_made.set(unheard);
        })?;
        // Whatever else a refusal means.
        self.may_have_made.set(!(400..500).contains(&reply.status));
        if reply.status == 409 {
            return Err(Fault::NameTaken { name: wanted.name.to_owned(), by: None });
        }
        let answer: JustInTime = self.expect(&reply, 201, "make a just-in-time configuration")?.json()?;
        match jit::decode(answer.encoded_jit_config.expose()) {
            Ok(files) => Ok((answer.runner.id, jit::without_updates(files))),
            Err(why) => {
                // The registration exists already; without its files it would stay for ever.
                let url = format!("{}/runners/{}", self.scope_url(), answer.runner.id);
                let _ = self.ask(Method::DELETE, &url, None).await;
                Err(Fault::Unreachable(format!("GitHub's just-in-time configuration cannot be used: {why}")))
            }
        }
    }

    /// The id of the runner with exactly this name.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<u64>, Fault> {
        Ok(self.find_below(&self.scope_url(), name).await?.map(|runner| runner.id))
    }

    async fn find_below(&self, scope: &str, name: &str) -> Result<Option<RunnerRecord>, Fault> {
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
    pub(crate) async fn release(&self, registration: &Registration) -> Result<Released, Fault> {
        let scope = &registration.scope;
        let id = match registration.id {
            Some(id) => id,
            None => match self.find_below(scope, &registration.name).await? {
                Some(runner) => registration.of_namesake(runner.id, runner.status == "offline")?,
                None => return Ok(Released::Gone),
            },
        };
        let reply = self.ask(Method::DELETE, &format!("{scope}/runners/{id}"), None).await?;
        match reply.status {
            404 if !reply.is_page() => Ok(Released::Gone),
            422 => Ok(Released::Busy),
            _ => self.expect(&reply, 204, "remove a runner").map(|_| Released::Gone),
        }
    }

    /// What GitHub thinks of a registration.
    pub(crate) async fn standing(&self, registration: &Registration) -> Result<Standing, Fault> {
        let scope = &registration.scope;
        let runner = match registration.id {
            None => self.find_below(scope, &registration.name).await?,
            Some(id) => {
                let reply = self.ask(Method::GET, &format!("{scope}/runners/{id}"), None).await?;
                match reply.status {
                    404 if !reply.is_page() => None,
                    _ => Some(self.expect(&reply, 200, "look at a runner")?.json()?),
                }
            }
        };
        Ok(match runner {
            None => Standing::Unknown,
            Some(RunnerRecord { status, busy, .. }) if status == "offline" => Standing::offline(busy),
            Some(RunnerRecord { busy: true, .. }) => Standing::Busy,
            Some(_) => Standing::Online,
        })
    }

    /// Makes sure that there is a runner group of this name before anything is made for it. Who may not list them may still register.
    pub(crate) async fn find_group(&self, name: &str) -> Result<(), Fault> {
        match self.group_id(name).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.no_group(name)),
            Err(Fault::Denied { what, .. }) => {
                tracing::debug!("the runner group cannot be looked up: {what}");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// The id of the runner group with this name, if this credential sees one.
    pub(super) async fn group_id(&self, name: &str) -> Result<Option<u64>, Fault> {
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
                return Ok(Some(group.id));
            }
            if groups.runner_groups.is_empty() || page * 100 >= groups.total_count {
                break;
            }
        }
        Ok(None)
    }

    pub(super) fn no_group(&self, name: &str) -> Fault {
        Fault::denied(
            format!("{} has no runner group {} that this token can see", self.scope, quoted(name)),
            "check GITHUB_RUNNER_GROUP, or create the group",
        )
    }
}
