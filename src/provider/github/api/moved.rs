//! What has another name by now: GitHub leads on to it by its number, and is asked for its name.

use reqwest::{Method, Url};
use serde::Deserialize;

use super::ask::Api;
use crate::provider::github::scope::Scope;
use crate::provider::http::Reply;

/// How GitHub's addresses by number begin, below that of the API.
const BY_NUMBER: [&str; 2] = ["/repositories/", "/organizations/"];

/// Where something is by its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// The repository or the organisation.
    owner: String,
    /// What was asked for.
    pub(super) url: String,
}

#[derive(Deserialize)]
struct NewName {
    full_name: Option<String>,
    login: Option<String>,
}

impl Api {
    /// Where this reply leads on to, if that is what was `asked` for, at the same origin and by number.
    pub(super) fn by_number(&self, reply: &Reply, asked: &str) -> Option<Moved> {
        moved(reply, asked, &self.base)
    }

    /// Asks for the name of what has moved, and says it, once.
    pub(super) async fn learn_name(&self, moved: &Moved) {
        if self.moved.borrow().iter().any(|(owner, _)| *owner == moved.owner) {
            return;
        }
        let Ok(reply) = self.ask_here(Method::GET, &moved.owner, None).await else { return };
        let named = if reply.status == 200 { reply.json::<NewName>().ok() } else { None };
        let name = named.and_then(|named| named.full_name.or(named.login)).map(|name| crate::plain::plain(&name));
        if let Some(name) = &name {
            tracing::warn!("what was registered with has another name at GitHub by now: {name}");
        }
        self.moved.borrow_mut().push((moved.owner.clone(), name));
    }

    /// Where the scope has gone, for people, and what to do about it.
    pub(super) fn whereto(&self, reply: &Reply) -> (String, String) {
        let settings = self.scope.settings();
        let place = reply.place();
        let owner = BY_NUMBER.iter().find_map(|prefix| {
            let (base, rest) = place.split_once(prefix)?;
            Some(format!("{base}{prefix}{}", rest.split('/').next()?))
        });
        let moved = self.moved.borrow();
        let name = moved.iter().find(|(known, _)| owner.as_ref().is_some_and(|owner| known.ends_with(owner.as_str())));
        match name {
            Some((_, Some(name))) => {
                let set = match (&self.scope, name.split_once('/')) {
                    (Scope::Repository { .. }, Some((owner, repository))) => {
                        format!("set GITHUB_OWNER to {owner} and GITHUB_REPO to {repository}")
                    }
                    _ => format!("set {settings} to {name}"),
                };
                (name.clone(), set)
            }
            _ => (place, format!("check {settings} and GITHUB_HOST: no credential is sent after it")),
        }
    }
}

fn moved(reply: &Reply, asked: &str, base: &str) -> Option<Moved> {
    let target = reply.leads_on(asked)?;
    let asked = Url::parse(asked).ok()?;
    let below = Url::parse(base).ok()?.path().trim_end_matches('/').to_owned();
    let path = target.path().strip_prefix(&below)?;
    let prefix = BY_NUMBER.iter().find(|prefix| path.starts_with(**prefix))?;
    let (number, rest) = path[prefix.len()..].split_once('/')?;
    let tail = format!("/{rest}");
    let same = tail.starts_with("/actions/") && asked.path().ends_with(&tail);
    let by_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if !same || !by_number || target.query().is_some_and(|query| asked.query() != Some(query)) {
        return None;
    }
    let owner = format!("{base}{prefix}{number}");
    let query = asked.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(Moved { url: format!("{owner}{tail}{query}"), owner })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_thing_at_the_same_origin_and_by_number_is_gone_after() {
        let asked = "https://api.github.com/repos/old/actions/actions/runners/7";
        let leads = |location: &str, asked: &str, base: &str| {
            moved(&Reply::leading(301, location), asked, base).map(|moved| (moved.owner, moved.url))
        };
        let github = "https://api.github.com";
        let good = "https://api.github.com/repositories/42/actions/runners/7";
        assert_eq!(
            leads(good, asked, github),
            Some(("https://api.github.com/repositories/42".to_owned(), good.to_owned()))
        );
        let listed = "https://ghe.example/api/v3/orgs/old/actions/runners?name=a&page=1";
        let location = "/api/v3/organizations/5/actions/runners";
        let (owner, url) = leads(location, listed, "https://ghe.example/api/v3").unwrap();
        assert_eq!(owner, "https://ghe.example/api/v3/organizations/5");
        assert_eq!(url, "https://ghe.example/api/v3/organizations/5/actions/runners?name=a&page=1");
        for elsewhere in [
            "https://api.github.com/repositories/42/actions/runners/8",
            "https://api.github.com/repositories/42/actions/runners",
            "https://api.github.com/repositories/42/actions/runners/7?name=b",
            "https://api.github.com/repositories/42",
            "https://api.github.com/repositories/new/actions/runners/7",
            "https://api.github.com/repositories//actions/runners/7",
            "https://api.github.com/repos/new/name/actions/runners/7",
            "https://api.github.com/user/7/actions/runners/7",
            "https://example.com/repositories/42/actions/runners/7",
            "http://api.github.com/repositories/42/actions/runners/7",
        ] {
            assert_eq!(leads(elsewhere, asked, github), None, "{elsewhere}");
        }
    }
}
