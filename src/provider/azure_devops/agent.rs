//! Azure DevOps' own agent: what is fixed about it, and what its end means.

use nix::sys::signal::Signal;

use super::exceptions::BYPASS;
use crate::init::Ended;
use crate::provider::contract::Reading;
use crate::provider::facts::{AgentFacts, JobSign, LabelledBy, Line, Meaning, ProxyVariables, Sign, StopPlan};

/// The program that configures itself and listens.
pub(super) const LISTENER: &str = "bin/Agent.Listener";

/// The file of user capabilities: the agent reads it when it configures itself and for each session.
pub(super) const CAPABILITIES: &str = ".capabilities";

/// The official agent.
pub(crate) const AGENT: AgentFacts = AgentFacts {
    title: "Azure Pipelines agent",
    listener: LISTENER,
    job: JobSign::Worker("Agent.Worker"),
    words: &[
        Line::timed("Listening for Jobs", Meaning::Listening),
        Line::timed("Running job: ", Meaning::Running),
        Line::timed("Job ", Meaning::Completed(" completed with result: ")),
        // The last line of a job's name that has several.
        Line::new("", "", Meaning::Completed(" completed with result: ")),
        // Only its configure step says it, in a picture.
        Line::new("agent v", "", Meaning::Version),
        Line::new("A session for this agent already exists.", "", Meaning::Sign(Sign::Conflict)),
        Line::timed("Agent connect error: ", Meaning::Sign(Sign::Disconnected)),
        Line::timed("Agent reconnected.", Meaning::Sign(Sign::Reconnected)),
        Line::new("Agent update in progress, do not shutdown agent.", "", Meaning::Sign(Sign::Updating)),
    ],
    traces: &[],
    process_end: None,
    worker_codes: &[],
    own_codes: &[0, 1, 2, 3, 4],
    configuration: &[".agent", ".credentials", ".credentials_rsaparams", CAPABILITIES, BYPASS],
    env: &[],
    env_allowed: &[
        "AGENT_ACKNOWLEDGE_NO_UPDATES",
        "AGENT_DOCKER_MTU_VALUE",
        "AGENT_ENABLE_PROGRESSIVE_RETRY_BACKOFF",
        "AZP_AGENT_DOCKER_INIT_OPTION",
        "AZP_AGENT_DOWNGRADE_DISABLED",
        "AZP_AGENT_USE_HOST_GROUP_ID",
        "AZP_ENHANCED_WORKER_CRASH_HANDLING",
        "DOTNET_*",
        "FAIL_JOB_WHEN_AGENT_DIES",
        "PROCESS_SIGINT_TIMEOUT",
        "PROCESS_SIGTERM_TIMEOUT",
        "USE_GRACEFUL_PROCESS_SHUTDOWN",
        "VSO_AGENT_IGNORE",
        "VSTS_AGENT_CHANNEL_TIMEOUT",
        "VSTS_HTTP_PROXY",
        "VSTS_HTTP_PROXY_BASICAUTH",
        "VSTS_HTTP_PROXY_PASSWORD",
        "VSTS_HTTP_PROXY_USERNAME",
        "VSTS_HTTP_RETRY",
        "VSTS_HTTP_TIMEOUT",
    ],
    env_kept_back: &[],
    input_prefix: "VSTS_AGENT_INPUT_",
    // Whatever this does not name, and is shorter than 1024 characters, everybody who can see the pool can read.
    unpublished: Some("VSO_AGENT_IGNORE"),
    proxy: Some(ProxyVariables {
        address: "VSTS_HTTP_PROXY",
        user: "VSTS_HTTP_PROXY_USERNAME",
        password: "VSTS_HTTP_PROXY_PASSWORD",
        basic: "VSTS_HTTP_PROXY_BASICAUTH",
    }),
    // The agent runs nothing of ours around a job.
    docker_label: LabelledBy::Root,
    hooks: None,
    // There is no drain: SIGTERM cancels the job as well, and gives it no more than 30 s to say so.
    stop: StopPlan { finish: None, abort: Signal::SIGINT },
};

/// What the listener's end means; `job_seen` when a worker ran.
pub(super) fn read_exit(ended: Ended, job_seen: bool) -> Reading {
    let title = AGENT.title;
    match ended {
        // Asked to update itself after its job: the next one will say so before it takes another.
        Ended::Code(0 | 2 | 3 | 4) if job_seen => Reading::Done,
        Ended::Code(0) => {
            Reading::Lost(format!("the {title} ended by itself without a job: its registration may be gone"))
        }
        Ended::Code(1) => Reading::Lost(format!("the {title} gave up (code 1)")),
        Ended::Code(2) => Reading::Retry(format!("the {title} ended with a fault that it calls retryable (code 2)")),
        Ended::Code(code @ (3 | 4)) => {
            Reading::Outdated(format!("Azure DevOps wants another version of the {title} (code {code})"))
        }
        Ended::Code(code @ (126 | 127)) => Reading::Fatal(format!("the {title} cannot run here (code {code})")),
        other => Reading::Retry(format!("the {title} died ({other})")),
    }
}
