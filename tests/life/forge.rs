//! The simulated forge of one test: its agents are quick, its leases held, and it is held against GitHub's description when the
//! test ends.

use oscr_sim::forge::{Fault, Forge as Simulated, ForgeHandle, JobSpec, Match, Options, RunnerView, Snapshot};
pub use oscr_sim::patience::LIMIT;
use oscr_sim::scale::Scale;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;

/// What all requests of a repository's runners have in common.
pub const BELOW: &str = "/repos/o/r/actions/runners";

/// A forge that ends with the test.
pub struct Forge(ForgeHandle);

impl Deref for Forge {
    type Target = ForgeHandle;

    fn deref(&self) -> &ForgeHandle {
        &self.0
    }
}

impl Forge {
    /// A forge whose agents do not keep a test waiting, and which gives nobody up before it is told to.
    pub fn start() -> Self {
        Self::of(
            Simulated::start_at_port_80().expect("port 80 of a loopback address: nobody may have it at all of them"),
        )
    }

    /// The same at a port that its address names.
    #[allow(dead_code, reason = "the table of faults does not need it")]
    pub fn start_at_another_port() -> Self {
        Self::of(Simulated::start(Options::default()).expect("a free port"))
    }

    fn of(forge: ForgeHandle) -> Self {
        forge.order(|orders| {
            orders.time_scale = Scale(0.02);
            orders.agent_backoff_ms = Some(100);
            orders.sigint_ms = Some(100);
            orders.sigterm_ms = Some(100);
            orders.conflict_retry_ms = Some(100);
            orders.hold_leases = true;
        });
        Self(forge)
    }

    /// Waits for one runner that listens; its id and name. One that is kept listens anew after each job: the session that had
    /// the job is about to end.
    #[track_caller]
    pub fn listening(&self) -> (u64, String) {
        let idle = |seen: &Snapshot| {
            let last = |kind: &str, name: &str| {
                seen.events.iter().rposition(|event| event.kind == kind && event.runner.as_deref() == Some(name))
            };
            let mut idle = seen.runners.iter().filter(|r| r.status == "online" && !r.busy);
            let (first, second) = (idle.next()?, idle.next());
            let anew = last("runner_online", &first.name) > last("job_finished", &first.name);
            // One that has a session and did not ask for anything yet may still be told that it is gone.
            let asked = |method: &str, ends: [&str; 2]| {
                let mut to = seen.requests.iter().filter(|r| r.method == method);
                to.rfind(|r| ends.iter().any(|end| r.path.ends_with(end))).map(|r| r.n)
            };
            let polled = asked("GET", ["/message", "/messages"]) >= asked("POST", ["/_broker/session", "/sessions"]);
            (second.is_none() && anew && polled).then(|| (first.id, first.name.clone()))
        };
        let seen = self.wait("one runner that listens", LIMIT, |seen| idle(seen).is_some());
        idle(&seen).expect("it was there a moment ago")
    }

    /// Waits until one runner is there, another one than this, and listens.
    #[track_caller]
    pub fn another(&self, than: u64) -> RunnerView {
        let ready = |seen: &Snapshot| match seen.runners.as_slice() {
            [only] => only.id != than && only.status == "online",
            _ => false,
        };
        self.wait("another runner, alone", LIMIT, ready).runners.remove(0)
    }

    /// Queues a job of one script.
    pub fn job(&self, script: &str) -> u64 {
        self.submit(JobSpec::script("job", script))
    }

    /// Waits until the job has written `text`.
    #[track_caller]
    pub fn wait_log(&self, job: u64, text: &str) {
        let written = |seen: &Snapshot| seen.jobs.iter().any(|known| known.id == job && known.live.contains(text));
        self.wait(&format!("job {job} says {text:?}"), LIMIT, written);
    }

    /// Waits until so many requests came to a path that ends so.
    #[track_caller]
    pub fn wait_requests(&self, ending: &str, count: usize) {
        let came = |seen: &Snapshot| {
            let to = |path: &str| path.ends_with(ending);
            seen.requests.iter().filter(|r| to(&r.path)).count() >= count
        };
        self.wait(&format!("{count} requests to …{ending}"), LIMIT, came);
    }

    /// Waits until no registration is left.
    #[track_caller]
    pub fn wait_nobody(&self) {
        self.wait("no registration", LIMIT, |seen| seen.runners.is_empty());
    }

    /// The id of the runner that has a job.
    #[track_caller]
    pub fn runner_of(&self, job: u64) -> u64 {
        self.0.job(job).and_then(|known| known.runner_id).expect("a runner has it")
    }

    /// Gives a dead runner and its job up once its removal was refused for that job; or at once, where the job is over.
    #[track_caller]
    pub fn let_go_once_refused(&self, id: u64) {
        let refused = |seen: &Snapshot| {
            let of_it = |path: &str| path.rsplit('/').next() == Some(&id.to_string());
            // GitHub's status, or Azure DevOps'.
            let refused = |status| matches!(status, Some(422 | 400));
            seen.requests.iter().any(|r| r.method == "DELETE" && of_it(&r.path) && refused(r.status))
                || !seen.runners.iter().any(|runner| runner.id == id && runner.busy)
        };
        self.wait("a busy registration's removal is refused", LIMIT, refused);
        assert!(self.let_go(id));
    }

    /// OSCR's requests so far, as `POST registration-token 201`; ids become `ID`.
    pub fn calls(&self) -> Vec<String> {
        let call = |request: oscr_sim::forge::RequestRecord| {
            let path = request.path.trim_start_matches("/api/v3");
            let tail = path.strip_prefix(BELOW).unwrap_or(path);
            let tail = tail.trim_start_matches('/');
            let tail = if tail.parse::<u64>().is_ok() { "ID" } else { tail };
            let status = request.status.map_or("-".to_owned(), |status| status.to_string());
            format!("{} {tail} {status}", request.method)
        };
        self.api_requests().into_iter().map(call).collect()
    }

    /// The kinds of all events, in order.
    pub fn kinds(&self) -> Vec<String> {
        self.events().into_iter().map(|event| event.kind).collect()
    }

    /// A fault of OSCR's own requests to a path that contains `path`.
    pub fn fault(&self, path: &str, fault: Fault) {
        let matching = Match { path_contains: Some(path.to_owned()), agent: Some(false), ..fault.matching };
        self.add_fault(Fault { matching, ..fault });
    }

    /// What a container proves its rights with: a service principal's secret if there is one, else a personal access token.
    pub fn secret(&self) -> String {
        let principal = self.orders().service_principals.first().map(|principal| principal.client_secret.clone());
        principal.unwrap_or_else(|| self.pat())
    }

    /// All that may be in no log.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets = self.issued();
        secrets.extend([self.pat(), self.secret()]);
        // A forge can be told that no token is good.
        secrets.retain(|secret| !secret.is_empty());
        secrets
    }

    /// A registration token, as a person gets it from GitHub's pages.
    pub fn registration_token(&self) -> String {
        let answer = self.post("registration-token", "");
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// A just-in-time configuration, as somebody else's program makes it.
    pub fn jit_config(&self, name: &str) -> String {
        let ask = format!(r#"{{"name":"{name}","runner_group_id":1,"labels":["self-hosted"],"work_folder":"_work"}}"#);
        let answer = self.post("generate-jitconfig", &ask);
        answer["encoded_jit_config"].as_str().expect("a configuration").to_owned()
    }

    /// The agents that it offers.
    #[allow(dead_code, reason = "the table of faults does not need it")]
    pub fn downloads(&self) -> serde_json::Value {
        self.send("GET", "downloads", "")
    }

    fn post(&self, what: &str, body: &str) -> serde_json::Value {
        self.send("POST", what, body)
    }

    fn send(&self, method: &str, what: &str, body: &str) -> serde_json::Value {
        let mut stream = TcpStream::connect(self.address()).expect("the forge listens");
        let request = format!(
            "{method} {BELOW}/{what} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             User-Agent: test\r\nAccept: application/vnd.github+json\r\nX-GitHub-Api-Version: 2022-11-28\r\n\
             Authorization: Bearer {}\r\n\r\n{body}",
            self.address(),
            body.len(),
            self.pat()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("head and body");
        serde_json::from_str(body).expect("JSON")
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let violations = self.contract_violations();
        if std::thread::panicking() {
            for event in self.events() {
                eprintln!("forge event: {event:?}");
            }
            for request in self.requests() {
                eprintln!(
                    "forge: {} {} {} {:?} fault={}",
                    request.at, request.method, request.path, request.status, request.fault
                );
            }
            eprintln!("forge runners: {:#?}", self.runners());
            eprintln!("violations: {violations:#?}");
            return;
        }
        assert_eq!(violations, Vec::<String>::new(), "GitHub's contract was broken");
    }
}
