//! What the forge can be told to do otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::app::AppOrders;
use crate::protocol::{ExitOrder, Trouble};
use crate::scale::Scale;

/// When an ephemeral runner's registration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// When its job is completed.
    Completion,
    /// As soon as a job is assigned.
    Assignment,
    /// Not at all: the service forgot.
    Never,
}

/// Assignments that come to nothing: the acquire request is refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostAssignments {
    /// How many more.
    pub times: u32,
    /// 404, 409 or 422.
    pub status: u16,
    /// The registration is used up all the same, so that the listener becomes a ghost.
    pub consume: bool,
}

/// Makes a listener end with an exit code.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerExit {
    /// The code.
    pub code: i32,
    /// What it prints.
    #[serde(default)]
    pub text: Option<String>,
    /// How many more listeners.
    #[serde(default = "once")]
    pub times: u32,
    /// Only the runner of this name.
    #[serde(default)]
    pub runner: Option<String>,
    /// When the session is created (true), or while it listens (false).
    #[serde(default)]
    pub at_session: bool,
}

fn once() -> u32 {
    1
}

impl ListenerExit {
    /// The form that travels.
    #[must_use]
    pub fn order(&self) -> ExitOrder {
        ExitOrder { code: self.code, text: self.text.clone() }
    }
}

/// Makes listeners misbehave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTrouble {
    /// How.
    pub kind: Trouble,
    /// How many more listeners.
    #[serde(default = "once")]
    pub times: u32,
}

/// A service principal that may manage agents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePrincipal {
    /// The directory's id.
    pub tenant: String,
    /// The application's id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
}

/// Requests of GitHub's runner that are refused.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusals {
    /// With which status.
    pub status: u16,
    /// How many more; all of them when absent.
    #[serde(default)]
    pub times: Option<u32>,
}

/// Another version that GitHub's runner is told to replace itself with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// Which.
    pub version: String,
    /// Where it is; at this forge when absent.
    #[serde(default)]
    pub url: Option<String>,
    /// Its SHA-256; of the forge's own package that one's when empty, of another none.
    #[serde(default)]
    pub sha256: String,
}

/// What is wrong with the offered package of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageFault {
    /// None is offered.
    None,
    /// It is offered with another file's checksum.
    Hash,
    /// It is offered, and not there.
    Missing,
    /// What is offered says that it is another version.
    Version,
}

/// Everything adjustable while the forge runs; `POST /_sim/orders` takes any part of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Orders {
    /// Personal access tokens that are valid.
    pub pats: Vec<String>,
    /// A GitHub App, if there is one.
    pub app: Option<AppOrders>,
    /// Scopes (`orgs/acme`, `pools/acme/Default`) and organisations of Azure DevOps (`acme`) that answer 403 or 404.
    pub deny: BTreeMap<String, u16>,
    /// When not empty, all other scopes answer 404.
    pub only_scopes: Vec<String>,
    /// What has another name by now: `repos/o/old` and `repos/o/new`, or organisations of Azure DevOps.
    pub renamed: BTreeMap<String, String>,
    /// Runner groups of organisations and enterprises, ids 1, 2, …
    pub runner_groups: Vec<String>,
    /// Life of registration and remove tokens.
    pub token_lifetime_s: i64,
    /// The forge's clock is off by this much, in every `Date` and `expires_at`.
    pub clock_offset_s: i64,
    /// When ephemeral registrations go.
    pub ephemeral_removal: Removal,
    /// Assignments that come to nothing.
    pub lost_assignments: Option<LostAssignments>,
    /// Makes listeners end with a code.
    pub listener_exit: Option<ListenerExit>,
    /// So many session requests are refused with 409.
    pub session_conflicts: u32,
    /// How long the stand-ins' times are, as a part of the official agents'.
    pub time_scale: Scale,
    /// Interval at which agents retry a session conflict, in place of 30 s by the scale.
    pub conflict_retry_ms: Option<u64>,
    /// After which they give up with code 5, in place of 4 min by the scale.
    pub conflict_limit_ms: Option<u64>,
    /// A port that GitHub's stand-in keeps when it is configured by token. As the official runner, it keeps none but 80 and 443
    /// where they are the scheme's own.
    pub default_port: Option<u16>,
    /// The traces of each agent mix on its standard output. Otherwise they do in the seventeenth of each thirty lives.
    pub mixed_traces: bool,
    /// So many deletions of idle runners are answered with 204 although a job is about to be assigned.
    pub cross_deletes: u32,
    /// A poll in flight ends at once when the registration goes, instead of at its time limit.
    pub end_polls_on_delete: bool,
    /// Length of a long poll.
    pub poll_timeout_ms: u64,
    /// A session without a poll for this long is dropped.
    pub session_timeout_ms: u64,
    /// A job that is not renewed for this long is abandoned (upstream: 10 min).
    pub job_lease_ms: u64,
    /// Neither of these two times is ever over: the forge believes in a silent runner's session and job until it is told to
    /// let the runner go.
    pub hold_leases: bool,
    /// Wait of agents after a failed poll or session, in place of their own by the scale.
    pub agent_backoff_ms: Option<u64>,
    /// Time between SIGINT and SIGTERM to a step, in place of 7.5 s by the scale.
    pub sigint_ms: Option<u64>,
    /// Time between SIGTERM and SIGKILL to a step, in place of 2.5 s by the scale.
    pub sigterm_ms: Option<u64>,
    /// A cancelled worker is killed after this long; the forge says 15 s more. Not scaled: it is the forge's.
    pub worker_kill_ms: u64,
    /// Requests per hour.
    pub rate_limit: u64,
    /// Requests used up so far; at the limit every request is refused.
    pub rate_used: u64,
    /// Seconds until the count starts anew.
    pub rate_reset_s: i64,
    /// Newest version of GitHub's agent, as the downloads say.
    pub latest_version: String,
    /// Newest version of the Azure Pipelines agent, as the packages say.
    pub latest_azure_version: String,
    /// What is wrong with the offered packages, of both.
    pub package_fault: Option<PackageFault>,
    /// Pools of every organisation; their ids are 1, 2, …
    pub pools: Vec<String>,
    /// Those of them that may be seen, but not managed.
    pub unmanaged_pools: Vec<String>,
    /// What a wrong credential gets from Azure DevOps: 401, or 203 or 302 that lead to a page for people.
    pub sign_in: u16,
    /// Service principals that are valid.
    pub service_principals: Vec<ServicePrincipal>,
    /// Life of their access tokens.
    pub access_token_lifetime_s: i64,
    /// Azure Pipelines agents older than this are told to update, and get no job.
    pub wanted_azure_version: Option<String>,
    /// A registration is busy for so long after its job is over.
    pub sticky_busy_ms: u64,
    /// Makes listeners misbehave.
    pub listener_trouble: Option<ListenerTrouble>,
    /// Polls of GitHub's runner that fail as they begin.
    pub refuse_polls: Option<Refusals>,
    /// Its acknowledgements of an offered job. Refused with 404, 409 or 422 the job is gone, although the forge believes for a
    /// lease that the runner has it.
    pub refuse_acknowledge: Option<Refusals>,
    /// Its requests for the job, likewise.
    pub refuse_acquire: Option<Refusals>,
    /// Its renewals.
    pub refuse_renew: Option<Refusals>,
    /// So many polls of it, those in flight included, are told that there is no such runner.
    pub forget_polls: u32,
    /// Its version is too old for every poll that begins.
    pub deprecated: bool,
    /// The next poll, one in flight included, is told to update.
    pub refresh: Option<Refresh>,
    /// The next poll of GitHub's runner, one in flight included, is told that its `runner` or `credentials` configuration has changed.
    pub reconfigure: Option<String>,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            pats: Vec::new(),
            app: None,
            deny: BTreeMap::new(),
            only_scopes: Vec::new(),
            renamed: BTreeMap::new(),
            runner_groups: vec!["Default".into()],
            token_lifetime_s: 3600,
            clock_offset_s: 0,
            ephemeral_removal: Removal::Completion,
            lost_assignments: None,
            listener_exit: None,
            session_conflicts: 0,
            time_scale: Scale::default(),
            conflict_retry_ms: None,
            conflict_limit_ms: None,
            default_port: None,
            mixed_traces: false,
            cross_deletes: 0,
            end_polls_on_delete: false,
            poll_timeout_ms: 50_000,
            session_timeout_ms: 10_000,
            job_lease_ms: 10_000,
            hold_leases: false,
            agent_backoff_ms: None,
            sigint_ms: None,
            sigterm_ms: None,
            worker_kill_ms: 285_000,
            rate_limit: 5000,
            rate_used: 0,
            rate_reset_s: 3600,
            latest_version: crate::AGENT_VERSION.into(),
            latest_azure_version: crate::AZURE_AGENT_VERSION.into(),
            package_fault: None,
            pools: vec!["Default".into()],
            unmanaged_pools: Vec::new(),
            sign_in: 401,
            service_principals: Vec::new(),
            access_token_lifetime_s: 3599,
            wanted_azure_version: None,
            sticky_busy_ms: 0,
            listener_trouble: None,
            refuse_polls: None,
            refuse_acknowledge: None,
            refuse_acquire: None,
            refuse_renew: None,
            forget_polls: 0,
            deprecated: false,
            refresh: None,
            reconfigure: None,
        }
    }
}
