//! What the forge knows: runners, sessions, jobs, tokens, and how a job finds a runner.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::app::AppToken;
use super::containers::ContainerSpec;
use super::faults::Fault;
use super::orders::{Orders, Removal};
use super::scope::Scope;
use crate::protocol::{JobMessage, JobResult, Message, Step};

/// A job as a client asks for it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobSpec {
    /// The display name.
    pub name: String,
    /// `owner/name`; any runner's own when absent.
    pub repository: Option<String>,
    /// The runner must have all of them.
    pub labels: Vec<String>,
    /// The pool of Azure DevOps whose agents may take it.
    pub pool: Option<String>,
    /// What the agent's capabilities must have: `NAME`, or `NAME -equals VALUE`.
    pub demands: Vec<String>,
    /// The runner's name must contain this: a whole name, or the host name that all names of one container share.
    pub runner: Option<String>,
    /// The steps.
    pub steps: Vec<Step>,
    /// Shorthand for one step.
    pub script: Option<String>,
    /// The job's outputs, each an expression such as `steps.ID.outputs.NAME`.
    pub outputs: BTreeMap<String, String>,
    /// The event's name; `push` when absent.
    pub event: Option<String>,
    /// The event's payload.
    pub payload: serde_json::Value,
    /// The container that the steps run in.
    pub container: Option<ContainerSpec>,
    /// Containers beside the steps, by the names that the network has for them.
    pub services: BTreeMap<String, ContainerSpec>,
    /// `false` where no registry serves the job's images: they are there already, and the stand-in does not pull them. GitHub
    /// has no such setting.
    pub pull: Option<bool>,
}

impl JobSpec {
    /// A job of one step.
    #[must_use]
    pub fn script(name: &str, script: &str) -> Self {
        Self { name: name.into(), script: Some(script.into()), ..Self::default() }
    }

    /// A job of several steps.
    #[must_use]
    pub fn steps(name: &str, steps: Vec<Step>) -> Self {
        Self { name: name.into(), steps, ..Self::default() }
    }
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// No runner yet.
    Queued,
    /// Offered to a runner.
    Assigned,
    /// Acquired by the runner.
    InProgress,
    /// Over.
    Completed,
}

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: u64,
    /// Its display name.
    pub name: String,
    /// Where it is.
    pub status: JobStatus,
    /// How it ended.
    pub result: Option<JobResult>,
    /// `owner/name`.
    pub repository: Option<String>,
    /// The runner that has or had it.
    pub runner: Option<String>,
    /// That runner's id.
    pub runner_id: Option<u64>,
    /// What was stored of its log: that of each step when the step is over. Lost is what a killed worker had not stored.
    pub log: String,
    /// All lines as they came, for whoever looks while it runs. The real forges do not keep them.
    pub live: String,
    /// What stands on its page: errors of its steps.
    pub annotations: Vec<String>,
    /// Its outputs, of GitHub's jobs.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// What its steps wrote for people, likewise.
    #[serde(default)]
    pub summary: String,
    /// When it was submitted.
    pub queued_at: Timestamp,
    /// When it was acquired.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Whether a user asked to cancel it.
    pub cancel_requested: bool,
    #[serde(skip)]
    pub(crate) spec: JobSpec,
    #[serde(skip)]
    pub(crate) token: String,
    #[serde(skip)]
    pub(crate) lease: Option<Instant>,
}

/// A label as the REST answers have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its id.
    pub id: u64,
    /// Its text.
    pub name: String,
    /// `read-only` or `custom`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A registration as the control plane shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunnerView {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `online` while an agent has a session.
    pub status: String,
    /// It has a job.
    pub busy: bool,
    /// One job only.
    pub ephemeral: bool,
    /// Made by `generate-jitconfig`.
    pub jit: bool,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// `repos/o/r`, `orgs/o`, `enterprises/e`.
    pub scope: String,
    /// The job it has.
    pub job: Option<u64>,
    /// The agent's version.
    pub version: Option<String>,
    /// The group's id.
    pub group_id: u64,
    /// The pool, if it is an agent of Azure DevOps.
    #[serde(default)]
    pub pool: Option<String>,
    /// What such an agent published about itself.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What an agent of Azure DevOps published about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Found by the agent, its environment included.
    pub system: BTreeMap<String, String>,
    /// Given by its owner.
    pub user: BTreeMap<String, String>,
}

impl Capabilities {
    /// Whether a demand is met.
    fn meets(&self, demand: &str) -> bool {
        let (name, wanted) = match demand.split_once(" -equals ") {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (demand.trim(), None),
        };
        self.user.iter().chain(&self.system).any(|(key, value)| {
            key.eq_ignore_ascii_case(name) && wanted.is_none_or(|wanted| value.eq_ignore_ascii_case(wanted))
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub id: u64,
    pub name: String,
    pub scope: Scope,
    pub labels: Vec<Label>,
    pub group_id: u64,
    pub ephemeral: bool,
    pub jit: bool,
    pub version: Option<String>,
    pub registered: bool,
    pub session: Option<u64>,
    pub job: Option<u64>,
    /// Gets one more job although its registration is gone.
    pub crossing: bool,
    /// Its registration was used up by a lost assignment: it polls for ever.
    pub ghost: bool,
    /// Ephemeral, and has had its job.
    pub spent: bool,
    /// What it was offered was refused when it asked for it: it counts as busy with it until the lease is over, and may get
    /// another job.
    pub refused: bool,
    /// Busy until then, although its job is over.
    pub sticky: Option<Instant>,
    pub capabilities: Capabilities,
    pub created: Timestamp,
    /// It asked at the side channel.
    pub stand_in: bool,
}

/// What a registration is made of, besides its scope and its labels.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registration {
    pub name: String,
    /// The runner group's name.
    pub group: Option<String>,
    /// One job, then the registration goes.
    pub ephemeral: bool,
    /// Made by `generate-jitconfig`, and so for one job.
    pub jit: bool,
    pub version: String,
}

impl Runner {
    /// Whether its polls and its requests for tokens are answered: it is registered, or was when its job was given.
    pub(crate) fn is_known(&self) -> bool {
        self.registered || self.job.is_some() || self.ghost || self.crossing
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.job.is_some() || self.sticky.is_some()
    }

    pub(crate) fn is_azure(&self) -> bool {
        matches!(self.scope, Scope::Pool(..))
    }

    /// Whether it is an agent that a server that wants `wanted` tells to update.
    pub(crate) fn is_outdated(&self, wanted: Option<&str>) -> bool {
        let numbers = |text: &str| text.split('.').filter_map(|part| part.parse().ok()).collect::<Vec<u64>>();
        let own = self.version.as_deref().unwrap_or_default();
        self.is_azure() && wanted.is_some_and(|wanted| numbers(own) < numbers(wanted))
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub runner: u64,
    pub polls: u32,
    pub last_poll: Instant,
    pub messages: VecDeque<Message>,
    /// It was told to update.
    pub refreshed: bool,
    /// Who polls says that it has a job, and is asked to take none.
    pub busy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Registration,
    Remove,
}

#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub scope: Scope,
    pub expires: Timestamp,
}

/// A request that the forge saw. Values of tokens are never kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Running number.
    pub n: u64,
    /// When it came.
    pub at: Timestamp,
    /// The method.
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// The query string.
    pub query: Option<String>,
    /// The answer's status; none while in flight, or when the connection was cut.
    pub status: Option<u16>,
    /// When that was on its way.
    pub answered: Option<Timestamp>,
    /// `none`, `basic`, `bearer` and so on, the scheme alone.
    pub auth_kind: String,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// It came from a stand-in agent, or from GitHub's own runner.
    pub agent: bool,
    /// A fault decided the answer.
    pub fault: bool,
}

/// Something notable, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Running number, from 1.
    pub n: u64,
    /// When.
    pub at: Timestamp,
    /// `runner_registered`, `runner_online`, `runner_offline`, `runner_unregistered`, `job_queued`, `job_assigned`,
    /// `job_started`, `job_lost`, `job_requeued`, `job_finished`, `app_token`.
    pub kind: String,
    /// The runner's name.
    pub runner: Option<String>,
    /// The job's id.
    pub job: Option<u64>,
    /// The job's name.
    pub job_name: Option<String>,
    /// Result or reason.
    pub detail: Option<String>,
}

/// A copy of what tests and clients look at.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// All registrations.
    pub runners: Vec<RunnerView>,
    /// All jobs.
    pub jobs: Vec<Job>,
    /// All requests.
    pub requests: Vec<RequestRecord>,
    /// All events.
    pub events: Vec<Event>,
}

/// Why a registration did not go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DeleteOutcome {
    Deleted,
    Missing,
    Busy(String),
}

/// What a poll finds.
#[derive(Debug)]
pub(crate) enum Polled {
    Message(Message),
    Nothing,
    /// The poll ends without one.
    Ended,
    Gone,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub orders: Orders,
    pub faults: Vec<Fault>,
    pub runners: BTreeMap<u64, Runner>,
    pub sessions: BTreeMap<u64, Session>,
    pub jobs: BTreeMap<u64, Job>,
    pub tokens: HashMap<String, Token>,
    pub app_tokens: HashMap<String, AppToken>,
    /// Of service principals, and until when they are good.
    pub access_tokens: HashMap<String, Timestamp>,
    pub requests: Vec<RequestRecord>,
    pub violations: Vec<String>,
    pub events: Vec<Event>,
    pub echo: bool,
    /// How many stand-ins were about to open a session.
    pub lives: u64,
    pub last_id: u64,
    pub last_request: u64,
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn next_request(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }

    /// The forge's clock.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
            .checked_add(jiff::SignedDuration::from_secs(self.orders.clock_offset_s))
            .unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn event(&mut self, kind: &str, runner: Option<u64>, job: Option<u64>, detail: Option<String>) {
        let event = Event {
            n: self.events.len() as u64 + 1,
            at: Timestamp::now(),
            kind: kind.into(),
            runner: runner.and_then(|id| self.runners.get(&id)).map(|r| r.name.clone()),
            job,
            job_name: job.and_then(|id| self.jobs.get(&id)).map(|j| j.name.clone()),
            detail,
        };
        if self.echo {
            println!("{}", event_line(&event));
        }
        self.events.push(event);
    }

    // Tokens.

    pub(crate) fn new_token(&mut self, kind: TokenKind, scope: Scope) -> (String, Timestamp) {
        let value = random_token(29);
        let life = jiff::SignedDuration::from_secs(self.orders.token_lifetime_s);
        let expires = self.now().checked_add(life).unwrap_or(Timestamp::MAX);
        let token = Token { kind, scope, expires };
        self.tokens.insert(value.clone(), token);
        (value, expires)
    }

    /// Whether a token is good for this. A registration token also removes, as tuist and others found.
    pub(crate) fn token_is_good(&self, value: &str, kind: TokenKind, scope: &Scope) -> bool {
        self.tokens.get(value).is_some_and(|t| {
            (t.kind == kind || t.kind == TokenKind::Registration) && t.scope == *scope && t.expires > self.now()
        })
    }

    // Registrations.

    pub(crate) fn registered(&self, scope: &Scope) -> impl Iterator<Item = &Runner> {
        self.runners.values().filter(move |r| r.registered && r.scope == *scope)
    }

    pub(crate) fn named(&self, scope: &Scope, name: &str) -> Option<u64> {
        self.registered(scope).find(|r| r.name.eq_ignore_ascii_case(name)).map(|r| r.id)
    }

    /// Makes a registration. `labels` are complete.
    pub(crate) fn add_runner(&mut self, scope: Scope, labels: &[String], ask: &Registration) -> u64 {
        let id = self.next_id();
        let labels = labels
            .iter()
            .map(|name| Label { id: self.next_id(), name: name.clone(), kind: label_kind(name).into() })
            .collect();
        let group_id = ask
            .group
            .as_ref()
            .and_then(|g| self.orders.runner_groups.iter().position(|o| o.eq_ignore_ascii_case(g)))
            .map_or(1, |at| at as u64 + 1);
        let runner = Runner {
            id,
            name: ask.name.clone(),
            scope,
            labels,
            group_id,
            ephemeral: ask.ephemeral || ask.jit,
            jit: ask.jit,
            version: Some(ask.version.clone()).filter(|v| !v.is_empty()),
            registered: true,
            session: None,
            job: None,
            crossing: false,
            ghost: false,
            spent: false,
            refused: false,
            sticky: None,
            capabilities: Capabilities::default(),
            created: Timestamp::now(),
            stand_in: false,
        };
        self.runners.insert(id, runner);
        self.event("runner_registered", Some(id), None, None);
        id
    }

    /// Takes a registration away, whatever it is doing.
    pub(crate) fn unregister(&mut self, id: u64, why: &str) {
        if let Some(runner) = self.runners.get_mut(&id)
            && runner.registered
        {
            runner.registered = false;
            self.event("runner_unregistered", Some(id), None, Some(why.into()));
        }
    }

    /// What `DELETE …/runners/{id}` does.
    pub(crate) fn delete_runner(&mut self, scope: &Scope, id: u64) -> DeleteOutcome {
        let crosses = self.orders.cross_deletes > 0;
        let Some(runner) = self.runners.get_mut(&id).filter(|r| r.registered && r.scope == *scope) else {
            return DeleteOutcome::Missing;
        };
        if runner.is_busy() {
            return DeleteOutcome::Busy(runner.name.clone());
        }
        if crosses {
            runner.crossing = true;
            self.orders.cross_deletes -= 1;
        }
        self.unregister(id, "deleted");
        DeleteOutcome::Deleted
    }

    pub(crate) fn is_online(&self, runner: &Runner) -> bool {
        runner.session.is_some()
    }

    pub(crate) fn view(&self, runner: &Runner) -> RunnerView {
        RunnerView {
            id: runner.id,
            name: runner.name.clone(),
            status: if self.is_online(runner) { "online" } else { "offline" }.into(),
            busy: runner.is_busy(),
            ephemeral: runner.ephemeral,
            jit: runner.jit,
            labels: runner.labels.iter().map(|l| l.name.clone()).collect(),
            scope: runner.scope.to_string(),
            job: runner.job,
            version: runner.version.clone(),
            group_id: runner.group_id,
            pool: match &runner.scope {
                Scope::Pool(_, name) => Some(name.clone()),
                _ => None,
            },
            capabilities: runner.capabilities.clone(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            runners: self.runners.values().filter(|r| r.registered).map(|r| self.view(r)).collect(),
            jobs: self.jobs.values().cloned().collect(),
            requests: self.requests.clone(),
            events: self.events.clone(),
        }
    }

    // Sessions.

    pub(crate) fn open_session(&mut self, runner: u64) -> u64 {
        let id = self.next_id();
        let session = Session {
            runner,
            polls: 0,
            last_poll: Instant::now(),
            messages: VecDeque::new(),
            refreshed: false,
            busy: false,
        };
        self.sessions.insert(id, session);
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.session = Some(id);
        }
        self.event("runner_online", Some(runner), None, None);
        id
    }

    pub(crate) fn close_session(&mut self, id: u64) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        let mut unstarted = None;
        if let Some(runner) = self.runners.get_mut(&session.runner) {
            runner.session = None;
            let assigned = |job: &u64| self.jobs.get(job).is_some_and(|j| j.status == JobStatus::Assigned);
            unstarted = runner.job.filter(|job| !runner.refused && assigned(job));
            if unstarted.is_some() {
                runner.job = None;
            }
        }
        self.event("runner_offline", Some(session.runner), None, None);
        if let Some(job) = unstarted {
            self.requeue(job);
        }
    }

    /// How the next listener is to misbehave.
    pub(crate) fn take_trouble(&mut self) -> Option<crate::protocol::Trouble> {
        let order = self.orders.listener_trouble.as_mut().filter(|order| order.times > 0)?;
        order.times -= 1;
        Some(order.kind)
    }

    /// All that the worker needs for a job.
    pub(crate) fn job_message(&self, id: u64) -> Option<JobMessage> {
        let job = self.jobs.get(&id)?;
        Some(JobMessage {
            id,
            name: job.name.clone(),
            repository: job.repository.clone().unwrap_or_default(),
            token: job.token.clone(),
            steps: job.spec.steps.clone(),
        })
    }

    /// Takes a job that was assigned to this runner; otherwise the status to refuse with.
    pub(crate) fn acquire(&mut self, id: u64, runner: Option<u64>) -> Result<(), u16> {
        let mine = self
            .jobs
            .get(&id)
            .is_some_and(|j| j.status == JobStatus::Assigned && j.runner_id.is_some() && j.runner_id == runner);
        if !mine {
            return Err(404);
        }
        if let Some(lost) = self.orders.lost_assignments.as_mut().filter(|l| l.times > 0) {
            lost.times -= 1;
            let (status, consume) = (lost.status, lost.consume);
            self.lose(id, consume);
            return Err(status);
        }
        self.start(id);
        Ok(())
    }

    /// Keeps a job's lease. False when there is none to keep.
    pub(crate) fn renew(&mut self, id: u64) -> bool {
        let lease = Duration::from_millis(self.orders.job_lease_ms);
        match self.jobs.get_mut(&id).and_then(|j| j.lease.as_mut()) {
            Some(until) => {
                *until = Instant::now() + lease;
                true
            }
            None => false,
        }
    }

    pub(crate) fn take_listener_exit(&mut self, runner: u64, at_session: bool) -> Option<crate::protocol::ExitOrder> {
        let meant = self.is_to_exit(runner, at_session);
        let exit = self.orders.listener_exit.as_mut().filter(|_| meant)?;
        exit.times -= 1;
        Some(exit.order())
    }

    fn is_to_exit(&self, runner: u64, at_session: bool) -> bool {
        let name = self.runners.get(&runner).map(|r| &r.name);
        self.orders.listener_exit.as_ref().is_some_and(|exit| {
            exit.times > 0 && exit.at_session == at_session && (exit.runner.is_none() || exit.runner.as_ref() == name)
        })
    }

    /// Whether the side channel has something for a stand-in that polls: its poll ends without a message, so that it asks there.
    pub(crate) fn side_waits(&self, runner: u64) -> bool {
        self.runners.get(&runner).is_some_and(|r| r.stand_in) && self.is_to_exit(runner, false)
    }

    /// What the message queue has now. `first` is the look at the start of a poll.
    pub(crate) fn poll(&mut self, session: u64, first: bool, last: bool) -> Polled {
        let Some(runner) = self.sessions.get(&session).map(|s| s.runner) else {
            return Polled::Gone;
        };
        if self.side_waits(runner) {
            return Polled::Ended;
        }
        if let Some(message) = self.sessions.get_mut(&session).and_then(|s| s.messages.pop_front()) {
            return Polled::Message(message);
        }
        if let Some(version) = self.orders.wanted_azure_version.clone()
            && self.runners.get(&runner).is_some_and(|r| r.is_outdated(Some(&version)))
            && let Some(session) = self.sessions.get_mut(&session).filter(|s| !s.refreshed)
        {
            session.refreshed = true;
            return Polled::Message(Message::Refresh { version });
        }
        let ends = first || last || self.orders.end_polls_on_delete;
        match self.runners.get(&runner) {
            Some(r) if !r.is_known() && ends => Polled::Gone,
            _ => Polled::Nothing,
        }
    }

    // Jobs.

    pub(crate) fn submit(&mut self, mut spec: JobSpec) -> u64 {
        let id = self.next_id();
        if let Some(run) = spec.script.take() {
            spec.steps.push(Step { run, ..Step::default() });
        }
        if spec.name.is_empty() {
            spec.name = format!("job-{id}");
        }
        let job = Job {
            id,
            name: spec.name.clone(),
            status: JobStatus::Queued,
            result: None,
            repository: spec.repository.clone(),
            runner: None,
            runner_id: None,
            log: String::new(),
            live: String::new(),
            annotations: Vec::new(),
            outputs: BTreeMap::new(),
            summary: String::new(),
            queued_at: Timestamp::now(),
            started_at: None,
            finished_at: None,
            cancel_requested: false,
            spec,
            token: random_token(40),
            lease: None,
        };
        self.jobs.insert(id, job);
        self.event("job_queued", None, Some(id), None);
        id
    }

    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let status = job.status;
        if status == JobStatus::Completed {
            return true;
        }
        job.cancel_requested = true;
        let runner = job.runner_id;
        if status == JobStatus::Queued {
            self.complete(id, JobResult::Canceled);
        } else if let Some(session) = runner.and_then(|r| self.runners.get(&r)).and_then(|r| r.session)
            && let Some(session) = self.sessions.get_mut(&session)
        {
            session.messages.push_back(Message::Cancel { id, limit_ms: self.orders.worker_kill_ms });
        }
        true
    }

    fn requeue(&mut self, id: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status = JobStatus::Queued;
            job.runner = None;
            job.runner_id = None;
            job.lease = None;
            self.event("job_requeued", None, Some(id), None);
        }
    }

    /// The acquire request came to nothing: somebody else gets the job.
    pub(crate) fn lose(&mut self, id: u64, consume: bool) {
        let Some(runner) = self.jobs.get(&id).and_then(|j| j.runner_id) else {
            return;
        };
        self.event("job_lost", Some(runner), Some(id), None);
        if let Some(r) = self.runners.get_mut(&runner) {
            r.job = None;
            r.ghost = consume;
        }
        if consume {
            self.unregister(runner, "consumed by a lost assignment");
        }
        self.requeue(id);
    }

    /// A runner's request for its job is refused for good: the forge believes in the two until the lease is over.
    pub(crate) fn refuse(&mut self, id: u64, runner: u64) {
        let lease = Duration::from_millis(self.orders.job_lease_ms);
        let offered = |j: &&mut Job| j.status == JobStatus::Assigned && j.runner_id == Some(runner);
        let Some(job) = self.jobs.get_mut(&id).filter(offered) else {
            return;
        };
        job.lease = Some(Instant::now() + lease);
        if let Some(r) = self.runners.get_mut(&runner) {
            r.refused = true;
        }
        self.event("job_lost", Some(runner), Some(id), None);
    }

    /// A job that was refused, and whose runner has another now.
    fn abandon_unheld(&mut self, id: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.runner_id = None;
        }
        self.complete(id, JobResult::Abandoned);
    }

    pub(crate) fn start(&mut self, id: u64) {
        let lease = Duration::from_millis(self.orders.job_lease_ms);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status = JobStatus::InProgress;
            job.started_at = Some(Timestamp::now());
            job.lease = Some(Instant::now() + lease);
            let runner = job.runner_id;
            self.event("job_started", runner, Some(id), None);
        }
    }

    pub(crate) fn complete(&mut self, id: u64, result: JobResult) {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.status != JobStatus::Completed) else {
            return;
        };
        job.status = JobStatus::Completed;
        job.result = Some(result);
        job.finished_at = Some(Timestamp::now());
        job.lease = None;
        let runner = job.runner_id;
        self.event("job_finished", runner, Some(id), Some(result.word().to_lowercase()));
        let Some(runner) = runner else { return };
        let sticky = match self.orders.sticky_busy_ms {
            0 => None,
            time => Some(Instant::now() + Duration::from_millis(time)),
        };
        let Some(r) = self.runners.get_mut(&runner) else {
            return;
        };
        r.job = None;
        r.refused = false;
        r.spent = r.ephemeral;
        r.sticky = sticky;
        if r.ephemeral && self.orders.ephemeral_removal == Removal::Completion {
            self.unregister(runner, "its job is done");
        }
    }

    /// Gives a runner up as one that was silent for too long: its session is over, and its job is abandoned, or offered anew
    /// if it was not begun. False when there is no such runner.
    pub(crate) fn let_go(&mut self, runner: u64) -> bool {
        let Some((session, job, refused)) = self.runners.get(&runner).map(|r| (r.session, r.job, r.refused)) else {
            return false;
        };
        if let Some(session) = session {
            self.close_session(session);
        }
        let begun = |id: &u64| self.jobs.get(id).is_some_and(|j| j.status == JobStatus::InProgress);
        if let Some(job) = job.filter(|id| refused || begun(id)) {
            self.complete(job, JobResult::Abandoned);
        }
        true
    }

    /// Ends the sessions and abandons the jobs of runners that were silent for too long.
    fn expire(&mut self) {
        let limit = Duration::from_millis(self.orders.session_timeout_ms);
        let silent: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.polls == 0 && s.last_poll.elapsed() > limit)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.close_session(id);
        }
        let now = Instant::now();
        let abandoned: Vec<u64> =
            self.jobs.values().filter(|j| j.lease.is_some_and(|l| l < now)).map(|j| j.id).collect();
        for id in abandoned {
            self.complete(id, JobResult::Abandoned);
        }
    }

    /// Everything that follows from what is: sessions and leases that ran out, jobs that find a runner.
    pub(crate) fn settle(&mut self) {
        if !self.orders.hold_leases {
            self.expire();
        }
        let now = Instant::now();
        for runner in self.runners.values_mut() {
            runner.sticky = runner.sticky.filter(|until| *until > now);
        }
        let queued: Vec<u64> = self.jobs.values().filter(|j| j.status == JobStatus::Queued).map(|j| j.id).collect();
        for id in queued {
            self.assign(id);
        }
    }

    fn assign(&mut self, id: u64) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let taker = self.sessions.iter().find_map(|(session, s)| {
            let runner = self.runners.get(&s.runner)?;
            (s.polls > 0
                && !s.busy
                && s.messages.is_empty()
                && !runner.is_outdated(self.orders.wanted_azure_version.as_deref())
                && suits(runner, &job.spec))
            .then_some((*session, runner.id))
        });
        let (Some((session, runner)), Some(job)) = (taker, self.jobs.get_mut(&id)) else {
            return;
        };
        let Some(r) = self.runners.get_mut(&runner) else {
            return;
        };
        let gone = r.job.replace(id);
        r.refused = false;
        r.crossing = false;
        let ephemeral = r.ephemeral;
        job.status = JobStatus::Assigned;
        job.runner = Some(r.name.clone());
        job.runner_id = Some(runner);
        job.repository.get_or_insert_with(|| r.scope.default_repository());
        let message = Message::Job { id, name: job.name.clone(), offered: None };
        if let Some(session) = self.sessions.get_mut(&session) {
            session.messages.push_back(message);
        }
        self.event("job_assigned", Some(runner), Some(id), None);
        if let Some(gone) = gone {
            self.abandon_unheld(gone);
        }
        if ephemeral && self.orders.ephemeral_removal == Removal::Assignment {
            self.unregister(runner, "a job was assigned");
        }
    }
}

/// Whether a runner may take a job now.
fn suits(runner: &Runner, spec: &JobSpec) -> bool {
    (runner.registered || runner.crossing)
        && (!runner.is_busy() || runner.refused)
        && !runner.spent
        && spec
            .pool
            .as_ref()
            .is_none_or(|p| matches!(&runner.scope, Scope::Pool(_, own) if own.eq_ignore_ascii_case(p)))
        && (spec.demands.is_empty() || runner.is_azure())
        && spec.demands.iter().all(|demand| runner.capabilities.meets(demand))
        && spec.repository.as_ref().is_none_or(|r| runner.scope.serves(r))
        && spec.runner.as_ref().is_none_or(|part| runner.name.contains(part))
        && spec.labels.iter().all(|l| runner.labels.iter().any(|have| have.name.eq_ignore_ascii_case(l)))
}

fn label_kind(name: &str) -> &'static str {
    const SYSTEM: [&str; 7] = ["self-hosted", "linux", "windows", "macos", "x64", "arm", "arm64"];
    if SYSTEM.iter().any(|s| s.eq_ignore_ascii_case(name)) { "read-only" } else { "custom" }
}

/// Upper-case letters and digits, as registration tokens are.
pub(crate) fn random_token(len: usize) -> String {
    let mut bytes = vec![0_u8; len];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes.iter().map(|b| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(b % 32)])).collect()
}

/// One line for people.
pub(crate) fn event_line(event: &Event) -> String {
    let runner = event.runner.as_deref().unwrap_or("-");
    let job = event.job_name.as_deref().unwrap_or("-");
    let detail = event.detail.as_deref().unwrap_or("");
    let at = event.at.strftime("%Y-%m-%dT%H:%M:%SZ");
    let text = match event.kind.as_str() {
        "runner_registered" => format!("runner registered    {runner}"),
        "runner_online" => format!("runner online        {runner}"),
        "runner_offline" => format!("runner offline       {runner}"),
        "runner_unregistered" => format!("runner unregistered  {runner} ({detail})"),
        "job_queued" => format!("job queued           {job}"),
        "job_assigned" => format!("job assigned         {job} to {runner}"),
        "job_started" => format!("job started          {job} on {runner}"),
        "job_lost" => format!("job lost             {job} by {runner}"),
        "job_requeued" => format!("job requeued         {job}"),
        "job_finished" => format!("job finished         {job} on {runner}: {detail}"),
        other => format!("{other} {runner} {job} {detail}"),
    };
    format!("{at} {text}")
}
