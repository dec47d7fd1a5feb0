//! GitHub's own protocol for runners, where the recordings do not lead.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use oscr_sim::forge::{ContainerSpec, ForgeHandle, JobSpec, LostAssignments, Refresh, Refusals, Scope};
use oscr_sim::patience::patient;
use oscr_sim::protocol::{Condition, JobResult, Step};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::common::{LIMIT, api, forge, token};

/// A runner that does what a test tells it.
struct Runner<'a> {
    forge: &'a ForgeHandle,
    id: u64,
    /// The broker's address, with a slash at its end.
    broker: String,
    bearer: String,
    session: String,
}

fn send(method: &str, url: &str, authorization: &str, body: &str) -> (u16, Value) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(patient(LIMIT)));
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    let request = request.body(body.to_owned()).expect("a valid request");
    let mut answer = agent.build().new_agent().run(request).expect("an answer");
    let text = answer.body_mut().read_to_string().expect("a text");
    (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text"))
}

/// A registration by token, as `config.sh` makes it.
fn register(forge: &ForgeHandle, remote: &str, name: &str, more: Value) -> (u16, Value) {
    let mut ask = json!({
        "url": format!("{}/o/r", forge.url()),
        "group_id": 1,
        "name": name,
        "version": "2.336.0",
        "ephemeral": true,
        "labels": [{"name": "self-hosted"}, {"name": "Linux"}, {"name": "linux"}, {"name": "gpu"}],
    });
    if let (Value::Object(ask), Value::Object(more)) = (&mut ask, more) {
        ask.extend(more);
    }
    let url = format!("{}/api/v3/actions/runners/register", forge.url());
    send("POST", &url, &format!("RemoteAuth {remote}"), &ask.to_string())
}

impl<'a> Runner<'a> {
    fn by_token(forge: &'a ForgeHandle, name: &str, more: Value) -> Self {
        let (status, made) = register(forge, &token(forge), name, more);
        assert_eq!(status, 200, "{made}");
        let own = &made["authorization"];
        let id = made["id"].as_u64().expect("an id");
        Self::known(forge, id, text(&own["server_url"]), text(&own["authorization_url"]), text(&own["client_id"]))
    }

    fn just_in_time(forge: &'a ForgeHandle, name: &str) -> Self {
        let ask = json!({"name": name, "runner_group_id": 1, "labels": ["x"]});
        let (_, _, made) = api(forge, "POST", "/repos/o/r/actions/runners/generate-jitconfig", Some(ask));
        let decoded = |value: &Value| -> Value {
            serde_json::from_slice(&STANDARD.decode(text(value)).expect("base64")).expect("JSON")
        };
        let files = decoded(&made["encoded_jit_config"]);
        let (settings, credentials) = (decoded(&files[".runner"]), decoded(&files[".credentials"]));
        // Two addresses, as github.com gives: of the first the runner asks for connection data.
        assert!(text(&settings["ServerUrl"]).ends_with("/_tenant/"), "{settings}");
        let own = &credentials["Data"];
        let id = made["runner"]["id"].as_u64().expect("an id");
        let broker = text(&settings["ServerUrlV2"]).to_owned();
        Self::known(forge, id, &broker, text(&own["AuthorizationUrl"]), text(&own["ClientId"]))
    }

    fn known(forge: &'a ForgeHandle, id: u64, broker: &str, authorization: &str, client: &str) -> Self {
        let claims = URL_SAFE_NO_PAD.encode(json!({"sub": client}).to_string());
        let form = format!("grant_type=client_credentials&client_assertion=e30.{claims}.eA");
        let (status, granted) = send("POST", authorization, "", &form);
        assert_eq!(status, 200);
        let bearer = format!("Bearer {}", text(&granted["access_token"]));
        Self { forge, id, broker: broker.to_owned(), bearer, session: String::new() }
    }

    fn open(&mut self) -> (u16, Value) {
        let ask = json!({"ownerName": "vm", "agent": {"id": self.id, "version": "2.336.0"}});
        let (status, answer) = send("POST", &format!("{}session", self.broker), &self.bearer, &ask.to_string());
        answer["sessionId"].as_str().unwrap_or_default().clone_into(&mut self.session);
        (status, answer)
    }

    fn poll(&self, status: &str) -> (u16, Value) {
        let query = format!("sessionId={}&status={status}&runnerVersion=2.336.0", self.session);
        send("GET", &format!("{}message?{query}", self.broker), &self.bearer, "")
    }

    fn run(&self, call: &str, body: Value) -> (u16, Value) {
        send("POST", &format!("{}/_run/{call}", self.forge.url()), &self.bearer, &body.to_string())
    }

    /// Polls for a job, and acknowledges it; its id.
    fn offered(&self) -> String {
        let (status, message) = self.poll("Online");
        assert_eq!((status, &message["messageType"]), (200, &json!("RunnerJobRequest")));
        let body: Value = serde_json::from_str(text(&message["body"])).expect("JSON");
        let id = text(&body["runner_request_id"]).to_owned();
        let ask = json!({"runnerRequestId": id}).to_string();
        assert_eq!(send("POST", &format!("{}acknowledge", self.broker), &self.bearer, &ask).0, 200);
        id
    }

    /// Takes the job that it is offered; its message.
    fn acquired(&self) -> Value {
        let (status, job) = self.run("acquirejob", json!({"jobMessageId": self.offered()}));
        assert_eq!(status, 200, "{job}");
        job
    }
}

#[test]
fn containers_are_tokens_of_a_workflow_and_an_image_is_a_step_without_a_script() {
    let forge = forge();
    let mut runner = Runner::just_in_time(&forge, "jit");
    assert_eq!(runner.open().0, 200);
    let own = ContainerSpec {
        env: [("A".to_owned(), "b".to_owned())].into(),
        volumes: vec!["/data".into()],
        options: Some("--cpus 1".into()),
        ..ContainerSpec::of("node:20")
    };
    let service = ContainerSpec { ports: vec!["6379:6379".into()], ..ContainerSpec::of("redis:7") };
    let step = Step { uses: Some("docker://alpine:3".into()), args: Some("-c true".into()), ..Step::default() };
    let id = forge.submit(JobSpec {
        container: Some(own),
        services: [("redis".to_owned(), service)].into(),
        pull: Some(false),
        ..JobSpec::steps("build", vec![step])
    });
    let job = runner.acquired();
    let map = |pairs: &[(&str, Value)]| -> Value {
        json!({"type": 2, "map": pairs.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Vec<_>>()})
    };
    let list = |item: &str| json!({"type": 1, "seq": [item]});
    let own = [
        ("image", json!("node:20")),
        ("env", map(&[("A", json!("b"))])),
        ("volumes", list("/data")),
        ("options", json!("--cpus 1")),
    ];
    let service = map(&[("image", json!("redis:7")), ("ports", list("6379:6379"))]);
    assert_eq!((&job["jobContainer"], &job["jobServiceContainers"]), (&map(&own), &map(&[("redis", service)])));
    let step = &job["steps"][0];
    assert_eq!(step["reference"], json!({"type": "containerRegistry", "image": "alpine:3"}));
    assert_eq!(step["inputs"], map(&[("args", json!("-c true"))]));
    assert_eq!((&job["requestId"], &job["variables"]["oscr.sim.pull"]["value"]), (&json!(id), &json!("false")));
}

fn deleted(forge: &ForgeHandle, id: u64) -> u16 {
    api(forge, "DELETE", &format!("/repos/o/r/actions/runners/{id}"), None).0
}

#[test]
fn a_job_of_todays_order_is_a_message_of_shell_steps() {
    let forge = forge();
    let mut runner = Runner::just_in_time(&forge, "jit");
    assert_eq!(runner.open().0, 200);
    let last = Step { name: Some("Tidy".into()), run: "rm x".into(), condition: Condition::Always, ..Step::default() };
    let steps = vec![Step { run: "echo hello".into(), ..Step::default() }, last];
    let mut spec = JobSpec::steps("build", steps);
    spec.event = Some("pull_request".into());
    spec.payload = json!({"number": 7, "labels": ["a", null]});
    let id = forge.submit(spec);
    let job = runner.acquired();
    let steps: Vec<_> = job["steps"].as_array().expect("steps").iter().collect();
    let script = |at: usize| &steps[at]["inputs"]["map"][0];
    assert_eq!(script(0), &json!({"Key": "script", "Value": "echo hello"}));
    assert_eq!((&steps[0]["condition"], &steps[1]["condition"]), (&json!("success()"), &json!("always()")));
    assert_eq!((steps[0].get("displayNameToken"), &steps[1]["displayNameToken"]), (None, &json!("Tidy")));
    assert_ne!(steps[0]["id"], steps[1]["id"]);
    let github = job["contextData"]["github"]["d"].as_array().expect("a dictionary");
    let member = |name: &str| &github.iter().find(|pair| pair["k"] == name).expect("it is there")["v"];
    assert_eq!((member("ref"), member("repository")), (&json!("refs/pull/7/merge"), &json!("o/r")));
    let event = json!({"t": 2, "d": [{"k": "labels", "v": {"t": 1, "a": ["a", null]}}, {"k": "number", "v": 7}]});
    assert_eq!(member("event"), &event);
    assert_eq!(forge.runners()[0].version.as_deref(), Some("2.336.0"));

    // What its steps store is its log, until the whole log is there.
    let whole = json!({"workflow_job_run_backend_id": job["jobId"], "step_backend_id": steps[0]["id"]}).to_string();
    let stored = |call: &str, lines: &str| {
        let call = format!("{}/twirp/results.services.receiver.Receiver/{call}", forge.url());
        let (status, place) = send("POST", &call, &runner.bearer, &whole);
        assert_eq!(status, 200);
        assert_eq!(send("PUT", text(&place["logs_url"]), "", &format!("\u{feff}{lines}")).0, 201);
        forge.job(id).expect("it is there").log
    };
    assert_eq!(stored("GetStepLogsSignedBlobURL", "hello\n"), "hello\n");
    assert_eq!(stored("GetStepLogsSignedBlobURL", "bye\n"), "hello\nbye\n");
    assert_eq!(stored("GetStepSummarySignedBlobURL", "# done\n"), "hello\nbye\n");
    assert_eq!(stored("GetJobLogsSignedBlobURL", "all\n"), "all\n");
    assert_eq!(deleted(&forge, runner.id), 422);
    assert_eq!(runner.run("completejob", json!({"jobId": job["jobId"], "conclusion": "succeeded"})).0, 200);
    assert_eq!(forge.wait_job(id, LIMIT).result, Some(JobResult::Succeeded));
    assert_eq!(deleted(&forge, runner.id), 404);
    assert_eq!(runner.run("renewjob", json!({"jobId": job["jobId"]})).0, 404);
    assert_eq!(forge.contract_violations(), Vec::<String>::new());
    // What it said is not taken for what is under test.
    assert!(forge.api_requests().iter().all(|r| r.path.starts_with("/repos/")), "{:#?}", forge.api_requests());
}

#[test]
fn a_busy_runners_poll_is_offered_no_job() {
    let forge = forge();
    let mut runner = Runner::by_token(&forge, "stays", json!({"ephemeral": false}));
    assert_eq!(runner.open().0, 200);
    let first = forge.submit(JobSpec::script("first", "true"));
    let job = runner.acquired();
    assert_eq!(runner.run("completejob", json!({"jobId": job["jobId"], "conclusion": "failed"})).0, 200);
    assert_eq!(forge.wait_job(first, LIMIT).result, Some(JobResult::Failed));
    let second = forge.submit(JobSpec::script("second", "true"));
    forge.order(|o| o.poll_timeout_ms = 0);
    assert_eq!(runner.poll("Busy").0, 202);
    forge.order(|o| o.poll_timeout_ms = 50_000);
    assert_eq!(runner.offered(), second.to_string());
}

#[test]
fn registrations_are_refused_as_the_scope_the_token_and_the_name_demand() {
    let forge = forge();
    let remote = token(&forge);
    let named = || forge.runners().into_iter().map(|r| (r.name, r.labels)).collect::<Vec<_>>();
    assert_eq!(register(&forge, "wrong", "one", json!({})).0, 404);
    assert_eq!(register(&forge, &remote, "one", json!({"url": format!("{}/o/other", forge.url())})).0, 404);
    assert_eq!(register(&forge, &remote, "one", json!({"group_id": 9})).0, 404);
    assert_eq!(named(), []);
    assert_eq!(register(&forge, &remote, "one", json!({})).0, 200);
    assert_eq!(register(&forge, &remote, "one", json!({})).0, 409);
    assert_eq!(register(&forge, &remote, "one", json!({"replace": true})).0, 200);
    let labels = ["self-hosted", "Linux", "gpu"].map(str::to_owned).to_vec();
    assert_eq!(named(), [("one".to_owned(), labels)]);
    // A token for removals takes the runner away, and registers none.
    let (_, _, removal) = api(&forge, "POST", "/repos/o/r/actions/runners/remove-token", None);
    let removal = text(&removal["token"]);
    assert_eq!(register(&forge, removal, "two", json!({})).0, 404);
    let url = format!("{}/api/v3/repos/o/r/actions/runners/{}", forge.url(), forge.runners()[0].id);
    assert_eq!(send("DELETE", &url, &format!("RemoteAuth {removal}"), "").0, 204);
    assert_eq!(named(), []);
}

#[test]
fn a_session_is_refused_while_another_lives_and_as_often_as_ordered() {
    let forge = forge();
    let mut runner = Runner::by_token(&forge, "one", json!({}));
    forge.order(|o| o.session_conflicts = 1);
    let (status, answer) = runner.open();
    assert_eq!((status, &answer["errorKind"]), (409, &json!("TaskAgentSessionConflict")));
    assert_eq!(runner.open().0, 200);
    assert_eq!(runner.open().0, 409);
    assert!(forge.let_go(runner.id));
    assert_eq!(runner.open().0, 200);
    assert_eq!(send("DELETE", &format!("{}session", runner.broker), &runner.bearer, "").0, 204);
    assert_eq!(forge.runners()[0].status, "offline");
    assert_eq!(deleted(&forge, runner.id), 204);
    let (status, answer) = runner.open();
    assert_eq!((status, &answer["errorKind"]), (404, &json!("RunnerNotFound")));
}

#[test]
fn a_job_that_is_refused_for_good_keeps_its_runner_busy_until_it_is_let_go() {
    let forge = forge();
    let mut runner = Runner::by_token(&forge, "one", json!({}));
    assert_eq!(runner.open().0, 200);
    forge.order(|o| o.refuse_acquire = Some(Refusals { status: 409, times: Some(1) }));
    let job = forge.submit(JobSpec::script("gone", "true"));
    let (status, answer) = runner.run("acquirejob", json!({"jobMessageId": runner.offered()}));
    assert_eq!((status, &answer["source"]), (409, &json!("actions-run-service")));
    assert_eq!(deleted(&forge, runner.id), 422);
    assert!(forge.let_go(runner.id));
    assert_eq!(forge.wait_job(job, LIMIT).result, Some(JobResult::Abandoned));
    assert_eq!(deleted(&forge, runner.id), 404);
}

#[test]
fn an_assignment_that_is_lost_is_offered_to_another_runner() {
    let forge = forge();
    let [mut first, mut second] = ["one", "two"].map(|name| Runner::by_token(&forge, name, json!({})));
    assert_eq!(first.open().0, 200);
    forge.order(|o| o.lost_assignments = Some(LostAssignments { times: 1, status: 404, consume: true }));
    let job = forge.submit(JobSpec::script("moves", "true"));
    assert_eq!(first.run("acquirejob", json!({"jobMessageId": first.offered()})).0, 404);
    assert_eq!(second.open().0, 200);
    assert_eq!(second.acquired()["requestId"], job);
    assert_eq!(forge.job(job).and_then(|j| j.runner), Some("two".into()));
}

#[test]
fn a_planted_runner_has_its_jobs_by_this_protocol_too() {
    let forge = forge();
    let id = forge.plant_runner(&Scope::Repository("o".into(), "r".into()), "planted", true);
    let client = format!("00000001-0000-4000-8000-{id:012x}");
    let url = forge.url();
    let mut runner = Runner::known(&forge, id, &format!("{url}/_broker/"), &format!("{url}/_oauth/token"), &client);
    assert_eq!(runner.open().0, 200);
    let job = forge.submit(JobSpec::script("cancelled", "sleep 300"));
    let taken = runner.acquired();
    assert!(forge.cancel_job(job));
    let (_, message) = runner.poll("Busy");
    assert_eq!(message["messageType"], "JobCancellation");
    let body: Value = serde_json::from_str(text(&message["body"])).expect("JSON");
    assert_eq!(body, json!({"jobId": taken["jobId"], "timeout": "00:05:00"}));
}

#[test]
fn an_order_to_update_offers_the_forges_own_package_under_its_checksum() {
    let forge = forge();
    let mut runner = Runner::just_in_time(&forge, "jit");
    assert_eq!(runner.open().0, 200);
    let told = |url: Option<&str>, sha256: &str| -> Value {
        forge.order(|o| {
            o.refresh = Some(Refresh { version: "9.9.9".into(), url: url.map(str::to_owned), sha256: sha256.into() })
        });
        let (status, message) = runner.poll("Online");
        assert_eq!((status, &message["messageType"]), (200, &json!("RunnerRefresh")));
        serde_json::from_str(text(&message["body"])).expect("JSON")
    };
    let here = told(None, "");
    let mut answer = ureq::get(text(&here["download_url"])).call().expect("an archive");
    let archive = answer.body_mut().with_config().limit(1 << 30).read_to_vec().expect("the whole archive");
    let sum: String = Sha256::digest(&archive).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(here["sha256_checksum"], json!(sum));
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
    let mut version = String::new();
    for entry in tar.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        if entry.path().is_ok_and(|path| path.ends_with("bin/version")) {
            std::io::Read::read_to_string(&mut entry, &mut version).expect("a text");
        }
    }
    assert_eq!(version, "9.9.9");

    assert_eq!(told(None, "5ca1ab1e")["sha256_checksum"], "5ca1ab1e");
    let elsewhere = told(Some("http://elsewhere/it.tar.gz"), "");
    assert_eq!(
        (&elsewhere["download_url"], &elsewhere["sha256_checksum"]),
        (&json!("http://elsewhere/it.tar.gz"), &json!(""))
    );
}
