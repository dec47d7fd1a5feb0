//! The forge's control plane, as a test sees it. Every wait is a long poll that the forge answers at the change.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oscr_sim::forge::{Event, ForgeHandle, Job, JobSpec, JobStatus, RequestRecord, RunnerView};
use oscr_sim::patience::{LIMIT, patient};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::docker::POLL;

/// Of the client; the longest of the forge's polls is well below.
const LONGEST: Duration = Duration::from_secs(3600);
/// Of one poll for events.
const POLLED: Duration = Duration::from_secs(60);

/// A client of one forge.
pub struct Forge {
    agent: ureq::Agent,
    base: Mutex<String>,
    /// A forge that is no container.
    own: Mutex<Option<ForgeHandle>>,
}

impl Forge {
    /// A client that is yet to be told where its forge is.
    pub fn nowhere() -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(patient(LONGEST)))
            // The forge is on this machine; a proxy of the user's would not find it.
            .proxy(None)
            .http_status_as_error(false)
            .build()
            .new_agent();
        Self { agent, base: Mutex::default(), own: Mutex::default() }
    }

    /// The forge is this one now, which ends with us.
    pub fn is_now(&self, forge: ForgeHandle) {
        self.moved_to(&forge.address().to_string());
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some(forge);
    }

    /// The forge is at `address` (host:port) now; waits until it answers.
    pub fn moved_to(&self, address: &str) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = format!("http://{address}/_sim");
        // The port is Docker's own proxy's: that it accepts says nothing about the forge behind it.
        let until = Instant::now() + patient(LIMIT);
        while let Err(error) = self.agent.get(self.url("/health")).call() {
            assert!(Instant::now() < until, "the forge does not answer: {error}");
            std::thread::sleep(POLL);
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer<T: DeserializeOwned>(
        &self,
        path: &str,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, String> {
        let mut response = result.map_err(|error| format!("{path}: {error}"))?;
        let status = response.status();
        let text = response.body_mut().read_to_string().map_err(|error| format!("{path}: {error}"))?;
        if !status.is_success() {
            return Err(format!("{path}: {status}: {text}"));
        }
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|error| format!("{path}: {error}: {text}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        self.answer(path, self.agent.get(self.url(path)).call())
    }

    fn must_get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.get(path).unwrap_or_else(|error| panic!("forge: {error}"))
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.answer(path, self.agent.post(self.url(path)).send(body.to_string()))
            .unwrap_or_else(|error| panic!("forge: {error}"))
    }

    /// Changes some of the forge's orders.
    pub fn order(&self, orders: Value) {
        self.post("/orders", &orders);
    }

    /// Has the forge give a runner up at once: its session is over, and its job is abandoned.
    pub fn let_go(&self, id: u64) {
        let path = format!("/runners/{id}/let-go");
        self.answer::<Value>(&path, self.agent.post(self.url(&path)).send(""))
            .unwrap_or_else(|error| panic!("forge: {error}"));
    }

    /// Adds a fault.
    pub fn fault(&self, fault: Value) {
        self.post("/faults", &fault);
    }

    /// No fault is left.
    pub fn clear_faults(&self) {
        self.answer::<Value>("/faults", self.agent.delete(self.url("/faults")).call())
            .unwrap_or_else(|error| panic!("forge: {error}"));
    }

    pub fn submit(&self, job: &JobSpec) -> u64 {
        let body = serde_json::to_value(job).expect("a job is JSON");
        self.post("/jobs", &body)["id"].as_u64().expect("a job's id")
    }

    /// Submits a script for any runner whose name contains `part`.
    pub fn script_on(&self, part: &str, name: &str, script: &str) -> u64 {
        self.submit(&JobSpec { runner: Some(part.to_owned()), ..JobSpec::script(name, script) })
    }

    pub fn jobs(&self) -> Vec<Job> {
        self.must_get("/jobs")
    }

    /// Cancels a job as its user would, if it is not over.
    pub fn cancel(&self, id: u64) {
        let _ = self.agent.post(self.url(&format!("/jobs/{id}/cancel"))).send("");
    }

    pub fn job(&self, id: u64) -> Job {
        self.must_get(&format!("/jobs/{id}"))
    }

    /// Waits until the job is at least so far.
    #[track_caller]
    pub fn wait_job(&self, id: u64, status: JobStatus, within: Duration) -> Job {
        let word = json!(status);
        let word = word.as_str().unwrap_or_default();
        let job: Job = self.must_get(&format!("/jobs/{id}?wait={word}&timeout={}", patient(within).as_secs_f64()));
        assert!(
            job.status as u8 >= status as u8,
            "the job «{}» is {:?} after {within:?}, not {word}:\n{}",
            job.name,
            job.status,
            job.live
        );
        job
    }

    /// Waits until the job is over.
    #[track_caller]
    pub fn finished(&self, id: u64) -> Job {
        self.wait_job(id, JobStatus::Completed, LIMIT)
    }

    /// All registrations.
    pub fn runners(&self) -> Vec<RunnerView> {
        self.must_get("/runners")
    }

    pub fn requests(&self) -> Vec<RequestRecord> {
        self.must_get("/requests")
    }

    /// The requests to the REST API whose path contains `part`.
    pub fn requests_for(&self, part: &str) -> Vec<RequestRecord> {
        self.must_get(&format!("/requests?agent=false&path={part}"))
    }

    /// The events after number `after`; waits for one when there is none yet.
    pub fn events(&self, after: u64, wait: Duration) -> Vec<Event> {
        self.must_get(&format!("/events?after={after}&timeout={}", wait.as_secs_f64()))
    }

    /// What broke the published description of GitHub's API.
    pub fn violations(&self) -> Vec<String> {
        self.must_get("/violations")
    }

    /// Waits for a condition; the runners that meet it, or all runners when the time is over.
    pub fn wait(&self, condition: &str, within: Duration) -> Result<Vec<RunnerView>, String> {
        self.get(&format!("/wait?{condition}&timeout={}", patient(within).as_secs_f64()))
    }

    /// Waits until `n` runners listen.
    #[track_caller]
    pub fn wait_idle(&self, n: usize) -> Vec<RunnerView> {
        self.wait(&format!("min_runners={n}&online=true&idle=true"), LIMIT)
            .unwrap_or_else(|why| panic!("{n} runners should listen: {why}"))
    }

    /// Waits until no registration is left.
    #[track_caller]
    pub fn wait_empty(&self) {
        if let Err(why) = self.wait("runners=0", LIMIT) {
            panic!("no registration should be left: {why}");
        }
    }

    /// Waits until `look` finds something, looking again at each of the forge's events.
    #[track_caller]
    pub fn until<T>(&self, what: &str, within: Duration, look: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + patient(within);
        let mut seen = 0;
        loop {
            // Events first, so that a change between the two looks again.
            let left = deadline.saturating_duration_since(Instant::now());
            let events = self.events(seen, if seen == 0 { Duration::ZERO } else { left.min(POLLED) });
            seen = events.last().map_or(seen, |event| event.n);
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "after {within:?} it was not so that {what}");
        }
    }

    /// The listening runner of the container with this host name, if its id is greater than `after`.
    #[track_caller]
    pub fn wait_runner(&self, host: &str, after: u64) -> RunnerView {
        self.until(&format!("a new runner of {host} listens"), LIMIT, |forge| {
            forge.runners().into_iter().find(|runner| {
                runner.name.contains(host) && runner.id > after && runner.status == "online" && !runner.busy
            })
        })
    }

    /// Everything that helps to understand a failure.
    pub fn report(&self) -> String {
        let mut text = String::new();
        let requests: Result<Vec<RequestRecord>, _> = self.get("/requests?agent=false");
        for r in requests.unwrap_or_default() {
            let _ = writeln!(
                text,
                "  {} {} {} -> {}{}",
                r.at,
                r.method,
                r.path,
                r.status.map_or("none".to_owned(), |status| status.to_string()),
                if r.fault { " (by order)" } else { "" }
            );
        }
        text.push_str("events:\n");
        let events: Result<Vec<Event>, _> = self.get("/events");
        for e in events.unwrap_or_default() {
            let _ = writeln!(
                text,
                "  {} {} {} {} {}",
                e.at,
                e.kind,
                e.runner.unwrap_or_default(),
                e.job_name.unwrap_or_default(),
                e.detail.unwrap_or_default()
            );
        }
        let jobs: Result<Vec<Job>, _> = self.get("/jobs");
        for job in jobs.unwrap_or_default() {
            let _ = writeln!(text, "job «{}» {:?} {:?}:\n{}", job.name, job.status, job.result, job.live);
        }
        let _ = writeln!(text, "breaches of the contract: {:?}", self.get::<Vec<String>>("/violations"));
        text
    }
}
