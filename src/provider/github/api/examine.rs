//! What `oscr-entry doctor` finds out about the credential and the scope.

use std::time::{Duration, SystemTime};

use reqwest::Method;

use super::ask::{Api, Asker};
use super::records::Runners;
use crate::provider::fault::Fault;
use crate::provider::finding::{Finding, compare_versions};
use crate::provider::github::settings::Settings;
use crate::provider::http::Reply;

/// A token that ends sooner is worth a word.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

impl Api {
    /// What registering needs, in order; see [`crate::provider::Provider::examine`].
    pub(crate) async fn examine(&self, settings: &Settings, version: Option<&str>) -> Vec<Finding> {
        let labels = Self::examine_labels(settings);
        if matches!(self.account, Asker::Nobody) {
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
                Ok(Some(id)) => Finding::ok("group", format!("{group} exists (id {id})")),
                Ok(None) => Finding::fault("group", &self.no_group(group)),
                // By token, the agent finds it with what it is given.
                Err(Fault::Denied { what, .. }) if !settings.jit => {
                    Finding::warn("group", what, format!("see that there is a runner group {group}"))
                }
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
}
