//! Removing what an agent of ours left: what carries its label, and the anonymous volumes that were noted. Nothing else.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{Docker, DockerError, texts};
use super::label::Label;

/// How long one thing may take to be removed before the next one's turn. Docker itself gives a container that does not die ten
/// seconds.
const REMOVAL: Duration = Duration::from_secs(12);

/// What was removed, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Containers, with their anonymous volumes.
    pub containers: usize,
    pub networks: usize,
    /// Names of images.
    pub images: usize,
    /// Anonymous volumes whose containers were gone already.
    pub volumes: usize,
    /// So many things are still there, or could not be looked for.
    pub left: usize,
    /// Why the first of them is.
    pub why: Option<String>,
}

impl Swept {
    /// Whether anything was removed.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.containers + self.networks + self.images + self.volumes == 0
    }

    /// One thing more that is left.
    pub(crate) fn leave(&mut self, why: String) {
        self.left += 1;
        self.why.get_or_insert(why);
    }

    /// How many were removed now. That one thing cannot be removed says nothing of the next; that nobody answers does.
    fn gone(&mut self, removed: Result<bool, DockerError>) -> Result<usize, DockerError> {
        match removed {
            Ok(there) => Ok(usize::from(there)),
            Err(refused @ DockerError::Refused { .. }) => {
                self.leave(refused.to_string());
                Ok(0)
            }
            Err(silent @ DockerError::Silent { .. }) => Err(silent),
        }
    }
}

impl Docker {
    /// Removes everything with this label, and nothing else. What is gone already is as good as removed.
    ///
    /// # Errors
    /// When nobody answers; what was removed until then is in `swept`.
    pub(crate) async fn sweep(&self, label: &Label, swept: &mut Swept) -> Result<(), DockerError> {
        let labelled = json!({"label": [label]}).to_string();
        let containers = self.look_for(swept, "/containers/json", &[("all", "1"), ("filters", &labelled)]).await?;
        for id in texts(&containers, "Id") {
            // v: its anonymous volumes too.
            let removed = self.remove(&format!("/containers/{id}"), &[("force", "1"), ("v", "1")]).await;
            swept.containers += swept.gone(removed)?;
        }
        let networks = self.look_for(swept, "/networks", &[("filters", &labelled)]).await?;
        for id in texts(&networks, "Id") {
            self.empty_network(id).await?;
            let removed = self.remove(&format!("/networks/{id}"), &[]).await;
            swept.networks += swept.gone(removed)?;
        }
        // Agents build container actions into images whose name is the label.
        let named = json!({"reference": [format!("{label}:*")]}).to_string();
        let images = self.look_for(swept, "/images/json", &[("filters", &named)]).await?;
        let names = images.iter().filter_map(|image| image["RepoTags"].as_array()).flatten().filter_map(Value::as_str);
        for name in names.filter(|name| name.split_once(':').is_some_and(|(repository, _)| repository == label.0)) {
            let removed = self.remove(&format!("/images/{name}"), &[("force", "1")]).await;
            swept.images += swept.gone(removed)?;
        }
        Ok(())
    }

    /// Removes an anonymous volume that a job's container had. `false` when it stays ours to remove. One that a container without
    /// any of our labels uses has become somebody else's.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) async fn sweep_volume(
        &self,
        name: &str,
        labels: &[Label],
        swept: &mut Swept,
    ) -> Result<bool, DockerError> {
        match self.remove(&format!("/volumes/{name}"), &[]).await {
            Err(DockerError::Refused { status: 409, .. }) if self.is_adopted(name, labels).await? => Ok(true),
            removed => {
                let gone = removed.is_ok();
                swept.volumes += swept.gone(removed)?;
                Ok(gone)
            }
        }
    }

    /// Whether a container that is not ours uses a volume.
    async fn is_adopted(&self, volume: &str, labels: &[Label]) -> Result<bool, DockerError> {
        let using = json!({"volume": [volume]}).to_string();
        let users = self.list("/containers/json", &[("all", "1"), ("filters", &using)]).await;
        let ours = |user: &Value| labels.iter().any(|label| user["Labels"].get(&label.0).is_some());
        match users {
            Ok(users) => Ok(users.iter().any(|user| !ours(user))),
            Err(DockerError::Refused { .. }) => Ok(false),
            Err(silent) => Err(silent),
        }
    }

    /// Takes whatever is still in a network out of it: a container that a job made by itself stays, and our network need not.
    async fn empty_network(&self, id: &str) -> Result<(), DockerError> {
        let network = match self.ask(Method::GET, &format!("/networks/{id}"), &[]).await {
            Ok(body) => serde_json::from_slice::<Value>(&body).unwrap_or_default(),
            // Removing it will be refused too, and say more.
            Err(DockerError::Refused { .. }) => return Ok(()),
            Err(silent) => return Err(silent),
        };
        let Some(members) = network["Containers"].as_object() else { return Ok(()) };
        for (container, end) in members {
            // An end whose container is gone is known by its name alone.
            let member = match container.strip_prefix("ep-") {
                Some(_) => end["Name"].as_str().unwrap_or(container),
                None => container,
            };
            let body = json!({"Container": member, "Force": true});
            match self.post(&format!("/networks/{id}/disconnect"), &body).await {
                Err(silent @ DockerError::Silent { .. }) => return Err(silent),
                Ok(_) | Err(DockerError::Refused { .. }) => {}
            }
        }
        Ok(())
    }

    /// What a list has; nothing, and one thing more left, where it is refused.
    async fn look_for(&self, swept: &mut Swept, path: &str, query: &[(&str, &str)]) -> Result<Vec<Value>, DockerError> {
        let found = self.list(path, query).await;
        match found {
            Err(refused @ DockerError::Refused { .. }) => {
                swept.leave(refused.to_string());
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// Whether it was there.
    async fn remove(&self, path: &str, query: &[(&str, &str)]) -> Result<bool, DockerError> {
        match timeout(REMOVAL, self.ask(Method::DELETE, path, query)).await {
            Ok(Err(DockerError::Refused { status: 404, .. })) => Ok(false),
            Ok(other) => other.map(|_| true),
            Err(_) => Err(self.refused(0, format!("{path} takes longer than {} s to be removed", REMOVAL.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    const FILTER: &str = "filters=%7B%22label%22%3A%5B%22e3b0c4%22%5D%7D";

    #[tokio::test]
    async fn a_sweep_removes_what_has_the_label_and_nothing_else() {
        let (_folder, fake, docker) = Fake::with_client(|asked| match asked {
            _ if asked.starts_with("GET /containers/json") => (200, r#"[{"Id":"c1"},{"Id":"c2"}]"#),
            _ if asked.starts_with("DELETE /containers/c2") => (404, r#"{"message":"No such container"}"#),
            "GET /networks/n1" => (200, r#"{"Containers":{"other":{"Name":"mine"},"ep-1":{"Name":"gone"}}}"#),
            _ if asked.starts_with("GET /networks?") => (200, r#"[{"Id":"n1"}]"#),
            _ if asked.starts_with("GET /images") => {
                (200, r#"[{"RepoTags":["e3b0c4:one","keep/e3b0c4:two","node:20"]},{"RepoTags":null}]"#)
            }
            _ => (204, ""),
        });
        let mut swept = Swept::default();
        docker.sweep(&Label::of(""), &mut swept).await.unwrap();
        assert_eq!((swept.containers, swept.networks, swept.images, swept.left), (1, 1, 1, 0), "{swept:?}");
        let mut asked = fake.asked();
        assert_eq!(asked.remove(0), format!("GET /containers/json?all=1&{FILTER}"));
        let disconnect =
            |member: &str| format!(r#"POST /networks/n1/disconnect {{"Container":"{member}","Force":true}}"#);
        let mut members: Vec<String> = asked.drain(4..6).collect();
        members.sort();
        assert_eq!(members, [disconnect("gone"), disconnect("other")]);
        let networks = format!("GET /networks?{FILTER}");
        let rest = [
            "DELETE /containers/c1?force=1&v=1",
            "DELETE /containers/c2?force=1&v=1",
            &networks,
            "GET /networks/n1",
            "DELETE /networks/n1",
            "GET /images/json?filters=%7B%22reference%22%3A%5B%22e3b0c4%3A%2A%22%5D%7D",
            "DELETE /images/e3b0c4:one?force=1",
        ];
        assert_eq!(asked, rest);
    }

    #[tokio::test]
    async fn what_is_refused_hinders_nothing_else() {
        let (_folder, fake, docker) = Fake::with_client(|asked| match asked {
            _ if asked.starts_with("GET /containers/json") => (200, r#"[{"Id":"c1"},{"Id":"c2"}]"#),
            _ if asked.starts_with("DELETE /containers/c1") => (500, r#"{"message":"busy"}"#),
            "DELETE /networks/n1" => (403, r#"{"message":"active endpoints"}"#),
            _ if asked.starts_with("GET /networks?") => (200, r#"[{"Id":"n1"},{"Id":"n2"}]"#),
            _ if asked.starts_with("GET /images") => (403, ""),
            _ => (204, ""),
        });
        let mut swept = Swept::default();
        docker.sweep(&Label::of(""), &mut swept).await.unwrap();
        assert_eq!((swept.containers, swept.networks, swept.left), (1, 1, 3), "{swept:?} {:?}", fake.asked());
        assert!(swept.why.is_some_and(|why| why.contains("500: busy")));
    }

    #[tokio::test]
    async fn a_volume_is_removed_without_force_and_left_to_whoever_else_uses_it() {
        let (_folder, fake, docker) = Fake::with_client(|asked| match asked {
            "DELETE /volumes/free" => (204, ""),
            "DELETE /volumes/gone" => (404, ""),
            _ if asked.starts_with("GET /containers/json") && asked.contains("adopted") => {
                (200, r#"[{"Labels":{"e3b0c4":""}},{"Labels":{"other":""}}]"#)
            }
            _ if asked.starts_with("GET /containers/json") => (200, r#"[{"Labels":{"e3b0c4":""}}]"#),
            _ => (409, r#"{"message":"volume is in use"}"#),
        });
        let labels = [Label::of("")];
        for (volume, done, removed, left) in
            [("free", true, 1, 0), ("gone", true, 0, 0), ("adopted", true, 0, 0), ("ours", false, 0, 1)]
        {
            let mut swept = Swept::default();
            assert_eq!(docker.sweep_volume(volume, &labels, &mut swept).await.unwrap(), done, "{volume}");
            assert_eq!((swept.volumes, swept.left), (removed, left), "{volume}");
        }
        assert!(fake.asked().iter().all(|asked| !asked.contains("force")), "{:?}", fake.asked());
    }
}
