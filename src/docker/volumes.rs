//! The anonymous volumes of a job's containers, seen while those are there: agents remove their containers and leave the volumes,
//! which carry no label by which they could be found.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use super::client::{Docker, DockerError, LARGEST, texts};
use super::label::Label;

/// How long one connection may last. Jobs of several days are allowed, and it is made again.
const LASTS: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Docker {
    /// Tells the names of the anonymous volumes of containers with this label, of those that are there and of each that is made,
    /// until the daemon hangs up. `true` when `end` came first.
    ///
    /// # Errors
    /// When the daemon refuses, or does not answer.
    pub(crate) async fn follow_volumes(
        &self,
        label: &Label,
        end: &mut Receiver<()>,
        tell: impl Fn(String),
    ) -> Result<bool, DockerError> {
        let made = json!({"type": ["container"], "event": ["create"], "label": [label]}).to_string();
        let mut answer = self.open("/events", &[("filters", &made)], LASTS).await?;
        // What was made before the connection stood.
        let labelled = json!({"label": [label]}).to_string();
        for id in texts(&self.list("/containers/json", &[("all", "1"), ("filters", &labelled)]).await?, "Id") {
            self.anonymous_volumes(id).await?.into_iter().for_each(&tell);
        }
        let mut read = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = answer.chunk() => chunk.map_err(|error| self.silent(&error))?,
                _ = &mut *end => return Ok(true),
            };
            let Some(chunk) = chunk else { return Ok(false) };
            read.extend_from_slice(&chunk);
            while let Some(line) = read.iter().position(|byte| *byte == b'\n') {
                let event: Value = serde_json::from_slice(&read[..line]).unwrap_or_default();
                read.drain(..=line);
                if let Some(id) = event["Actor"]["ID"].as_str() {
                    self.anonymous_volumes(id).await?.into_iter().for_each(&tell);
                }
            }
            if read.len() > LARGEST {
                return Err(self.silent(&format_args!("more than {LARGEST} bytes")));
            }
        }
    }

    /// The volumes that a container was given because nobody named one.
    async fn anonymous_volumes(&self, id: &str) -> Result<Vec<String>, DockerError> {
        let Some(container) = self.container(id).await? else { return Ok(Vec::new()) };
        // Those of other containers that it was lent by `--volumes-from`.
        let mut lent = Vec::new();
        for lender in container["HostConfig"]["VolumesFrom"].as_array().into_iter().flatten() {
            let lender = lender.as_str().and_then(|lender| lender.split(':').next()).unwrap_or_default();
            // What it lent cannot be told any more: then none of them is ours for certain.
            let Some(lender) = self.container(lender).await? else { return Ok(Vec::new()) };
            lent.extend(texts(mounts(&lender), "Name").map(str::to_owned));
        }
        Ok(anonymous(&container, &lent))
    }

    /// What the daemon knows of a container; nothing, if there is none.
    pub(super) async fn container(&self, id: &str) -> Result<Option<Value>, DockerError> {
        match self.ask(Method::GET, &format!("/containers/{id}/json"), &[]).await {
            Ok(body) => Ok(serde_json::from_slice(&body).ok()),
            Err(DockerError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn mounts(container: &Value) -> &[Value] {
    container["Mounts"].as_array().map_or(&[], Vec::as_slice)
}

/// The volumes with a name of 64 hexadecimal digits, which the daemon gives where nobody gives one, but for those that somebody
/// named all the same.
fn anonymous(container: &Value, lent: &[String]) -> Vec<String> {
    let given = &container["HostConfig"];
    let binds = given["Binds"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut named: Vec<&str> = binds.filter_map(|bind| bind.split(':').next()).collect();
    named.extend(texts(given["Mounts"].as_array().map_or(&[], Vec::as_slice), "Source"));
    named.extend(lent.iter().map(String::as_str));
    let random = |name: &&str| {
        name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    };
    let volumes = mounts(container).iter().filter(|mount| mount["Type"] == "volume" && mount["Driver"] == "local");
    let names = volumes.filter_map(|mount| mount["Name"].as_str()).filter(random);
    names.filter(|name| !named.contains(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::super::fake::Fake;
    use super::*;

    fn digits(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn volume(name: &str) -> Value {
        json!({"Type": "volume", "Driver": "local", "Name": name})
    }

    #[test]
    fn a_volume_is_anonymous_if_nobody_named_it() {
        let [ours, bound, mounted, lent] = ['a', 'b', 'c', 'd'].map(digits);
        let container = json!({
            "HostConfig": {
                "Binds": [format!("{bound}:/b:ro"), "/srv:/srv"],
                "Mounts": [{"Type": "volume", "Source": mounted}, {"Type": "volume", "Target": "/t"}],
            },
            "Mounts": [
                volume(&ours), volume(&bound), volume(&mounted), volume(&lent), volume("pgdata"), volume(&digits('A')),
                {"Type": "bind", "Source": "/srv"}, {"Type": "volume", "Driver": "nfs", "Name": digits('e')},
            ],
        });
        assert_eq!(anonymous(&container, &[lent]), [ours]);
        assert!(anonymous(&json!({}), &[]).is_empty() && anonymous(&Value::Null, &[]).is_empty());
    }

    #[tokio::test]
    async fn containers_that_are_there_and_those_that_come_are_looked_at() {
        let (_folder, fake, docker) = Fake::with_client(|asked| match asked {
            _ if asked.starts_with("GET /events?") => (
                200,
                "{\"Actor\":{\"ID\":\"new\"}}\nno event\n{\"Actor\":{\"ID\":\"gone\"}}\n{\"Actor\":{\"ID\":\"borrows\"}}\n",
            ),
            _ if asked.starts_with("GET /containers/json") => (200, r#"[{"Id":"old"}]"#),
            "GET /containers/old/json" => (
                200,
                r#"{"Mounts":[{"Type":"volume","Driver":"local","Name":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}"#,
            ),
            "GET /containers/new/json" => (
                200,
                r#"{"Mounts":[{"Type":"volume","Driver":"local","Name":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}]}"#,
            ),
            // It has the volume of the other one, and one of its own.
            "GET /containers/borrows/json" => (
                200,
                r#"{"HostConfig":{"VolumesFrom":["old:ro"]},"Mounts":[{"Type":"volume","Driver":"local","Name":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
                {"Type":"volume","Driver":"local","Name":"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"}]}"#,
            ),
            _ => (404, ""),
        });
        let told = Mutex::new(Vec::new());
        let (_sender, mut end) = oneshot::channel();
        let tell = |name| told.lock().unwrap().push(name);
        assert!(!docker.follow_volumes(&Label::of(""), &mut end, tell).await.unwrap(), "it hung up");
        assert_eq!(told.into_inner().unwrap(), ['a', 'b', 'c'].map(digits));
        let events = "GET /events?filters=%7B%22event%22%3A%5B%22create%22%5D%2C%22label%22%3A%5B%22e3b0c4%22%5D%2C%22type%22%3A%5B%22container%22%5D%7D";
        assert_eq!(fake.asked()[0], events);
    }
}
