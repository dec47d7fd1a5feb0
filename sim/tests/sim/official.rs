//! What the official runner sent in its lives, replayed against the forge.
//!
//! The recordings in `tests/corpus/official/` were made against a sketch of GitHub. Requests begin in the recorded order, held
//! polls run beside the others; what the forge gives (ids, tokens, addresses) takes the place of what the sketch gave.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oscr_sim::forge::{ForgeHandle, PackageFault, contract};
use oscr_sim::patience::patient;
use oscr_sim::protocol::JobResult;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::{LIMIT, api, forge};

/// Where the sketch was.
const SKETCH: &str = "http://forge";

/// Times were rounded to this: what came so shortly after a poll's end may have been what ended it.
const ROUNDED: f64 = 0.002;

/// Members whose words the runner acts on: they are the recorded ones.
const WORDS: &[&str] = &[
    "blob_storage_type",
    "condition",
    "defaultAccessMappingMoniker",
    "deploymentType",
    "errorKind",
    "jobDisplayName",
    "Key",
    "messageType",
    "moniker",
    "planGroup",
    "planType",
    "scheme",
    "source",
    "timeout",
    "token_schema",
    "token_type",
    "type",
    "Value",
    "version",
];

/// The one service that the runner looks for by its id.
const AREA: &str = "a85b8835-c1a1-4aac-ae97-1c3d0ba72dbd";

/// A request as it was recorded.
#[derive(Debug, Deserialize)]
struct Recorded {
    at: f64,
    took: f64,
    method: String,
    path: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    body: Value,
    status: u16,
    #[serde(default)]
    answer: Value,
}

impl Recorded {
    fn is_poll(&self) -> bool {
        self.path.starts_with("/_broker/message")
    }

    /// Whether GitHub describes it, rather than the runner alone knowing it.
    fn is_rest(&self) -> bool {
        self.auth == "Bearer" && self.path.starts_with("/api/v3/")
    }
}

fn life(name: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/corpus/official/{name}.jsonl"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a recorded request")).collect()
}

/// A poll that the forge holds.
struct Poll {
    /// When its answer came in the recording.
    until: f64,
    recorded: Recorded,
    answer: JoinHandle<(u16, Value)>,
}

/// A recording that is replayed.
struct Replay<'a> {
    name: &'a str,
    forge: &'a ForgeHandle,
    /// What the sketch gave, and what the forge gave in its place.
    instead: BTreeMap<String, String>,
    /// The registration token.
    remote: String,
    client: String,
    runner_token: String,
    job_token: String,
    job: u64,
    held: Vec<Poll>,
    sent: usize,
}

impl<'a> Replay<'a> {
    fn new(name: &'a str, forge: &'a ForgeHandle) -> Self {
        Self {
            name,
            forge,
            instead: BTreeMap::new(),
            remote: String::new(),
            client: String::new(),
            runner_token: String::new(),
            job_token: String::new(),
            job: 0,
            held: Vec::new(),
            sent: 0,
        }
    }

    fn run(mut self) {
        for recorded in life(self.name) {
            self.collect(recorded.at);
            match recorded.path.strip_prefix("/_ctl/") {
                Some(order) => self.order(order, &recorded.body),
                None if recorded.is_poll() => self.poll(recorded),
                None => {
                    let (status, answer) = self.send(&recorded)();
                    self.compare(&recorded, status, &answer);
                }
            }
        }
        self.collect(f64::INFINITY);
        assert_eq!(self.forge.contract_violations(), Vec::<String>::new(), "{}", self.name);
    }

    /// Takes the answers of the polls that were over by then.
    fn collect(&mut self, now: f64) {
        let (over, held) = std::mem::take(&mut self.held).into_iter().partition(|poll| poll.until + ROUNDED < now);
        self.held = held;
        for Poll { recorded, answer, .. } in over {
            let (status, answer) = answer.join().expect("a poll is answered");
            self.compare(&recorded, status, &answer);
        }
    }

    /// An order to the sketch, given to the forge.
    fn order(&mut self, order: &str, said: &Value) {
        let orders = match order {
            "job" => {
                let run = said["run"].as_array().expect("scripts");
                let steps: Vec<Value> = run.iter().map(|script| json!({"run": script})).collect();
                let job = json!({"name": said["name"], "repository": "acme/app", "steps": steps});
                let (status, _, made) = api(self.forge, "POST", "/_sim/jobs", Some(job));
                assert_eq!(status, 201);
                self.job = made["id"].as_u64().expect("a job's id");
                return;
            }
            "cancel" => {
                let (status, ..) = api(self.forge, "POST", &format!("/_sim/jobs/{}/cancel", self.job), None);
                assert_eq!(status, 202);
                return;
            }
            "fail" => json!({"refuse_polls": {"status": said["status"], "times": said["n"]}}),
            "ack" => json!({"refuse_acknowledge": {"status": said["status"], "times": 1}}),
            "acquire" => json!({"refuse_acquire": {"status": said["status"], "times": 1}}),
            "renew" => json!({"refuse_renew": {"status": said["status"]}}),
            "forget" => json!({"forget_polls": 1}),
            "deprecate" => json!({"deprecated": true}),
            "refresh" => json!({"refresh": said}),
            other => panic!("{}: no order {other}", self.name),
        };
        assert_eq!(api(self.forge, "POST", "/_sim/orders", Some(orders)).0, 204);
    }

    fn poll(&mut self, recorded: Recorded) {
        // One that found nothing finds nothing at once: what else happened in its time was not for it.
        self.forge.order(|o| o.poll_timeout_ms = if recorded.status == 202 { 0 } else { 50_000 });
        let send = self.send(&recorded);
        if recorded.status == 202 {
            let (status, answer) = send();
            return self.compare(&recorded, status, &answer);
        }
        self.held.push(Poll { until: recorded.at + recorded.took, recorded, answer: thread::spawn(send) });
        let sent = self.sent;
        self.forge.wait("the poll arrives", LIMIT, |s| s.requests.len() >= sent);
    }

    /// The request with what this forge gave.
    fn send(&mut self, recorded: &Recorded) -> impl FnOnce() -> (u16, Value) + Send + 'static {
        self.sent += 1;
        let mut request = ureq::http::Request::builder()
            .method(recorded.method.as_str())
            .uri(self.address(&recorded.path))
            .header("user-agent", "GitHubActionsRunner-linux-x64/2.336.0");
        if let Some(value) = self.authorization(recorded) {
            request = request.header("authorization", value);
        }
        if recorded.is_rest() {
            // What `oscr-entry` sent.
            request =
                request.header("accept", "application/vnd.github+json").header("x-github-api-version", "2022-11-28");
        }
        let body = match &recorded.body {
            Value::Null => String::new(),
            Value::String(text) => text.replace("<jwt>", &assertion(&self.client)),
            body => self.put_in("", body).to_string(),
        };
        let request = request.body(body).expect("a valid request");
        move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patient(LIMIT)));
            let mut answer = config.build().new_agent().run(request).expect("an answer");
            let text = answer.body_mut().read_to_string().expect("a text");
            (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
        }
    }

    fn authorization(&self, recorded: &Recorded) -> Option<String> {
        let own = recorded.path.starts_with("/_broker/") || recorded.path == "/_run/acquirejob";
        match recorded.auth.as_str() {
            "" => None,
            "RemoteAuth" => Some(format!("RemoteAuth {}", self.remote)),
            _ if recorded.is_rest() => Some(format!("Bearer {}", self.forge.pat())),
            _ if own => Some(format!("Bearer {}", self.runner_token)),
            _ => Some(format!("Bearer {}", self.job_token)),
        }
    }

    /// An address of the sketch as the forge has it.
    fn address(&self, path: &str) -> String {
        let whole = format!("{SKETCH}{path}");
        // What is longest is most its own.
        let known = |(old, _): &(&String, &String)| old.starts_with(SKETCH) && whole.starts_with(old.as_str());
        let (old, new) = self
            .instead
            .iter()
            .filter(known)
            .max_by_key(|(old, _)| old.len())
            .map_or_else(|| (SKETCH.to_owned(), self.forge.url()), |(old, new)| (old.clone(), new.clone()));
        let mut rest = String::new();
        for part in whole[old.len()..].split_inclusive(['/', '?', '&', '=']) {
            let end = part.trim_end_matches(['/', '?', '&', '=']);
            rest.push_str(self.instead.get(end).map_or(end, String::as_str));
            rest.push_str(&part[end.len()..]);
        }
        new + &rest
    }

    /// A body with what this forge gave. Numbers are replaced where they are ids alone.
    fn put_in(&self, member: &str, value: &Value) -> Value {
        match value {
            Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), self.put_in(k, v))).collect(),
            Value::Array(items) => items.iter().map(|item| self.put_in(member, item)).collect(),
            Value::String(text) if text.starts_with(SKETCH) => json!(text.replacen(SKETCH, &self.forge.url(), 1)),
            Value::String(text) => json!(self.instead.get(text).unwrap_or(text)),
            Value::Number(id) if member == "id" => match self.instead.get(&id.to_string()) {
                Some(new) => new.parse().expect("a number was learned"),
                None => value.clone(),
            },
            other => other.clone(),
        }
    }

    /// Learns from an answer what stands for what, and keeps its tokens.
    fn compare(&mut self, recorded: &Recorded, status: u16, answer: &Value) {
        let at = format!("{}: {} {}", self.name, recorded.method, recorded.path);
        assert_eq!(status, recorded.status, "{at}: {answer}");
        if recorded.is_rest() {
            self.keep_rest(recorded, answer);
            return;
        }
        let path = recorded.path.strip_prefix("/api/v3").unwrap_or(&recorded.path);
        if path.starts_with("/repos/") {
            let broken = contract::check_answer(
                &recorded.method,
                path.split('?').next().unwrap_or(path),
                status,
                answer.to_string().as_bytes(),
            );
            let broken: Vec<String> = broken.into_iter().filter(|fault| !is_rightly_undescribed(fault)).collect();
            assert!(broken.is_empty(), "{at}: {broken:#?}");
        }
        if path != "/none.tar.gz" {
            self.learn(&at, "", &recorded.answer, answer);
        }
        match path {
            "/_oauth/token" => self.runner_token = text(&answer["access_token"]),
            "/_run/acquirejob" if status == 200 => {
                let access = &answer["resources"]["endpoints"][0]["authorization"]["parameters"]["AccessToken"];
                self.job_token = text(access);
            }
            "/actions/runners/register" => self.client = text(&answer["authorization"]["client_id"]),
            _ => {}
        }
    }

    /// What later requests need of the answers that GitHub describes; the forge's gate held them against the description.
    fn keep_rest(&mut self, recorded: &Recorded, answer: &Value) {
        if recorded.path.ends_with("/registration-token") {
            self.remote = text(&answer["token"]);
        }
        if recorded.path.ends_with("/generate-jitconfig") {
            let (old, new) = (&recorded.answer["runner"]["id"], &answer["runner"]["id"]);
            self.instead.insert(old.to_string(), new.to_string());
            let files = decoded(&answer["encoded_jit_config"]);
            let (runner, credentials) = (decoded(&files[".runner"]), decoded(&files[".credentials"]));
            assert_eq!(runner["AgentId"], new.to_string());
            self.client = text(&credentials["Data"]["ClientId"]);
            let broker = text(&runner["ServerUrlV2"]);
            self.instead.insert(format!("{SKETCH}/_broker/"), format!("{}/", broker.trim_end_matches('/')));
            self.instead.insert(format!("{SKETCH}/_oauth/token"), text(&credentials["Data"]["AuthorizationUrl"]));
        }
    }

    /// Each member that was recorded is there, of the same type; what the runner acts on is the same, and other texts and ids that
    /// differ stand for one another.
    fn learn(&mut self, at: &str, member: &str, old: &Value, new: &Value) {
        match (old, new) {
            (Value::Null, _) => {}
            (Value::Object(members), Value::Object(have)) => {
                for (name, value) in members {
                    let own = have.get(name).unwrap_or_else(|| panic!("{at}: {name} is missing in {new}"));
                    self.learn(&format!("{at}.{name}"), name, value, own);
                }
            }
            (Value::Array(items), Value::Array(have)) => {
                for (index, item) in items.iter().enumerate() {
                    // Members of a context stand in any order.
                    let same = |other: &&Value| item.get("k").is_some() && other["k"] == item["k"];
                    let own = have.iter().find(same).or(have.get(index).filter(|_| item.get("k").is_none()));
                    let own = own.unwrap_or_else(|| panic!("{at}: {item} is missing in {new}"));
                    self.learn(&format!("{at}[{index}]"), member, item, own);
                }
            }
            (Value::String(old), Value::String(new)) => {
                let inner = |text: &str| serde_json::from_str(text).ok().filter(Value::is_object);
                if let (Some(old), Some(new)) = (inner(old), inner(new)) {
                    return self.learn(at, member, &old, &new);
                }
                if WORDS.contains(&member) || old == AREA {
                    assert_eq!(new, old, "{at}");
                }
                // Nothing of a job's contexts comes back.
                let stays = ["<jwt>", ""].contains(&old.as_str()) || ["k", "v"].contains(&member);
                if !stays && old != new {
                    self.instead.insert(old.clone(), new.clone());
                }
            }
            (Value::Number(old), Value::Number(new)) => {
                if ["statusCode", "expires_in", "version"].contains(&member) {
                    assert_eq!(new, old, "{at}");
                }
                if member == "id" {
                    self.instead.insert(old.to_string(), new.to_string());
                }
            }
            (Value::Bool(old), Value::Bool(new)) => assert_eq!(new, old, "{at}"),
            _ => panic!("{at}: {new} instead of {old}"),
        }
    }
}

/// Repositories have no runner groups by GitHub's description, and its REST API and ours answer 404 to everybody else. The
/// runner asks all the same, with the token of its registration, and the sketch and the forge tell it of the one there is.
fn is_rightly_undescribed(fault: &str) -> bool {
    fault.contains("/repos/acme/app/actions/runner-groups") && fault.ends_with("no such operation")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

fn decoded(value: &Value) -> Value {
    let bytes = STANDARD.decode(text(value)).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What a runner says to get a token; nobody looks at the signature.
fn assertion(client: &str) -> String {
    let claims = json!({"sub": client, "iss": client, "aud": "forge"});
    [r#"{"typ":"JWT","alg":"PS256"}"#, &claims.to_string(), "none"].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

/// A forge that ends a deleted runner's poll at once, as the sketch did, not when its time is over, as GitHub does.
fn forge_like_the_sketch() -> ForgeHandle {
    let forge = forge();
    forge.order(|o| o.end_polls_on_delete = true);
    forge
}

/// Replays a life; how its jobs ended, in order.
fn results(name: &str) -> Vec<Option<JobResult>> {
    let forge = forge_like_the_sketch();
    Replay::new(name, &forge).run();
    forge.jobs().iter().map(|job| job.result).collect()
}

#[test]
fn lives_by_token_and_just_in_time_end_as_they_did() {
    assert_eq!(results("token-life"), [Some(JobResult::Succeeded)]);
    assert_eq!(results("jit-life"), [Some(JobResult::Succeeded)]);
}

#[test]
fn jobs_that_fail_or_set_outputs_end_as_they_did() {
    assert_eq!(results("failing"), [Some(JobResult::Failed)]);
    assert_eq!(results("outputs-env"), [Some(JobResult::Succeeded)]);
}

#[test]
fn a_job_that_is_cancelled_and_one_that_is_interrupted_end_as_they_did() {
    assert_eq!(results("cancel"), [Some(JobResult::Canceled)]);
    // The runner printed "Canceled", and told the forge this.
    assert_eq!(results("drain-twice"), [Some(JobResult::Failed)]);
}

#[test]
fn refusals_of_acknowledge_acquire_and_renew_meet_the_runner_as_they_did() {
    assert_eq!(results("ack-404"), [None]);
    assert_eq!(results("acquire-500"), [Some(JobResult::Succeeded)]);
    assert_eq!(results("ghost-404"), [Some(JobResult::Abandoned), Some(JobResult::Succeeded)]);
    assert_eq!(results("renew-404"), [None]);
}

#[test]
fn polls_that_fail_meet_the_runner_as_they_did() {
    for name in ["polls-401", "polls-500", "forget-idle", "deprecate"] {
        assert_eq!(results(name), [], "{name}");
    }
}

#[test]
fn a_runner_that_is_told_to_update_polls_on() {
    let forge = forge_like_the_sketch();
    // The sketch offered a file that it did not have.
    forge.order(|o| o.package_fault = Some(PackageFault::Missing));
    Replay::new("refresh", &forge).run();
}

#[test]
fn each_recording_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/official");
    let own = include_str!("official.rs");
    for entry in fs::read_dir(folder).expect("the recordings").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".jsonl") {
            assert!(own.contains(&format!("\"{name}\"")), "{name}.jsonl is replayed by no test");
        }
    }
}
