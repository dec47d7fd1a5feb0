//! GitHub's own runner: what is fixed about it, and what its end means.

use nix::sys::signal::Signal;

use super::{job, payload};
use crate::init::Ended;
use crate::provider::contract::Reading;
use crate::provider::facts::{AgentFacts, JobHooks, JobSign, LabelledBy, Line, Meaning, ProcessEnd, Sign, StopPlan};

/// The program that configures itself, listens and removes itself.
pub(super) const LISTENER: &str = "bin/Runner.Listener";

/// The official runner.
pub(crate) const AGENT: AgentFacts = AgentFacts {
    title: "GitHub Actions runner",
    listener: LISTENER,
    job: JobSign::Worker("Runner.Worker"),
    words: &[
        Line::timed("Listening for Jobs", Meaning::Listening),
        Line::timed("Running job: ", Meaning::Running),
        Line::timed("Job ", Meaning::Completed(" completed with result: ")),
        Line::new("Current runner version: '", "'", Meaning::Version),
        Line::new("Registration ", " was not found.", Meaning::Sign(Sign::Unknown)),
        Line::new("An error occurred: Registration ", " was not found.", Meaning::Sign(Sign::Unknown)),
        Line::timed("Runner connect error: Registration ", Meaning::Sign(Sign::Unknown)),
        Line::new("A session for this runner already exists.", "", Meaning::Sign(Sign::Conflict)),
        Line::timed("Runner connect error: ", Meaning::Sign(Sign::Disconnected)),
        // Of a server's own (GHES); github.com's runner says nothing when its polls work again.
        Line::timed("Runner reconnected.", Meaning::Sign(Sign::Reconnected)),
        Line::new("Runner update in progress, do not shutdown runner.", "", Meaning::Sign(Sign::Updating)),
    ],
    traces: &[
        ("BrokerMessageListener", "Acknowledging runner request ", Sign::Acquiring),
        ("Runner", "Acknowledge returned job-not-found ", Sign::Refused),
        ("Runner", "Skipping message Job.", Sign::Skipped),
        ("JobDispatcher", "Job cancellation request ", Sign::Cancelled),
        // Of its settings, and of its credentials. Each is written by now.
        ("Runner", "Runner configuration was updated.", Sign::Reconfigured),
        ("Runner", "No session restart needed for config type: ", Sign::Reconfigured),
    ],
    process_end: Some(ProcessEnd {
        source: "ProcessInvokerWrapper",
        before: "Finished process ",
        between: " with exit code ",
    }),
    worker_codes: &[(100, "succeeded"), (102, "failed"), (103, "canceled")],
    own_codes: &[0, 1, 2, 3, 4, 7],
    configuration: &[".runner", ".credentials", ".credentials_rsaparams", ".runner_migrated", ".credentials_migrated"],
    env: &[
        // Without it, a version that GitHub refuses ends the listener with 1, like many other things.
        ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1"),
        // Without it, a listener that passes its job over says nothing.
        ("ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT", "1"),
        // By its prefix each line of a job's message is known, and shown to nobody.
        ("ACTIONS_RUNNER_DISABLE_STDOUT_MULTILINE_LOG_PREFIXING", "0"),
    ],
    env_allowed: &[
        "ACTIONS_RUNNER_*",
        "ACTIONS_CACHE_URL",
        "ACTIONS_RESULTS_URL",
        "DOTNET_*",
        "GITHUB_ACTIONS_RUNNER_*",
        "GITHUB_ACTIONS_SERVICE_EXIT_AFTER_N_FAILURES",
        "PIPELINE_JOB_OOMSCOREADJ",
        "RUNNER_TOOL_CACHE",
        "RUNNER_TOOLSDIRECTORY",
        "RUNNER_LOGSIZE",
        "RUNNER_LOGRETENTION",
        "RUNNER_PERFLOG",
        "WORKER_LOGSIZE",
        "WORKER_LOGRETENTION",
    ],
    // With it the listener ends with 100 and the job's result, and not with what its end means here.
    env_kept_back: &["ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED"],
    input_prefix: "ACTIONS_RUNNER_INPUT_",
    docker_label: LabelledBy::File(".runner"),
    hooks: Some(JobHooks {
        job_started: "ACTIONS_RUNNER_HOOK_JOB_STARTED",
        job_completed: "ACTIONS_RUNNER_HOOK_JOB_COMPLETED",
        describe: job::describe,
        payload: "GITHUB_EVENT_PATH",
        origin: payload::origin,
        step_variables: "GITHUB_ENV",
        annotation: job::annotation,
    }),
    unpublished: None,
    proxy: None,
    // There is no drain: SIGTERM cancels the job as well, and gives it no more than 30 s to say so.
    stop: StopPlan { finish: None, abort: Signal::SIGINT },
};

/// What the runner says before it tells why it gives up.
const LAST_WORDS: &str = "An error occurred: ";
/// What it makes of a 403 without an answer that it can read: it takes each for the end of its version.
const BARE_REFUSAL: &str = "Error: Forbidden";
/// What such a refusal can mean.
const CAUSES: &str = "either this version of the runner is too old (pull an image with a newer one, or set \
    OSCR_AGENT_UPDATE=true), or GitHub, or a proxy on the way, refuses this runner (look at the IP allow list and the policies \
    of its organization or enterprise, and at the proxy)";

/// What the listener's end means; `job_seen` when a worker ran, `words` are its last ones.
pub(super) fn read_exit(ended: Ended, job_seen: bool, words: &[String]) -> Reading {
    let title = AGENT.title;
    match ended {
        _ if job_seen && matches!(ended, Ended::Code(0 | 2)) => Reading::Done,
        Ended::Code(0) => Reading::Lost(format!("the {title} ended by itself: its registration is gone or consumed")),
        // A registration that is not known is one of its many causes.
        Ended::Code(1) => Reading::Lost(format!("the {title} gave up (code 1)")),
        Ended::Code(2) => Reading::Retry(format!("the {title} ended with a fault that it calls retryable (code 2)")),
        Ended::Code(code @ (3 | 4)) => {
            Reading::Outdated(format!("the {title} was told to update itself (code {code})"))
        }
        Ended::Code(5) => Reading::Retry(format!("the {title} found another session under its name (code 5)")),
        Ended::Code(6) => Reading::Retry(format!("the {title} was given a new configuration (code 6)")),
        Ended::Code(7) => read_refusal(words),
        Ended::Code(code @ (126 | 127)) => Reading::Fatal(format!("the {title} cannot run here (code {code})")),
        other => Reading::Retry(format!("the {title} died ({other})")),
    }
}

/// Any 403 to a poll ends the listener with 7; its words alone tell whether GitHub spoke of its version.
fn read_refusal(words: &[String]) -> Reading {
    let title = AGENT.title;
    match words.iter().rev().find_map(|line| line.strip_prefix(LAST_WORDS)) {
        Some(why) if !why.contains(BARE_REFUSAL) && why.contains("deprecated") => {
            Reading::Outdated(format!("GitHub does not accept this version of the {title} any more (code 7)"))
        }
        why => Reading::Refused {
            what: format!(
                "GitHub refuses this {title} its jobs and does not say why (code 7): {}",
                why.unwrap_or("it left without a word")
            ),
            causes: CAUSES,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_of_its_own_about_the_version_make_a_refused_runner_outdated() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|line| (*line).to_owned()).collect();
            read_exit(Ended::Code(7), false, &words)
        };
        let deprecated = "Runner version v2.338.0 is deprecated and cannot receive messages.";
        let own = format!("An error occurred: {deprecated}");
        // What else it says comes through another pipe, sooner or later.
        for words in [&[own.as_str()][..], &[own.as_str(), "Listening for Jobs"]] {
            assert!(matches!(read(words), Reading::Outdated(_)), "{words:?}");
        }
        let bare = format!("An error occurred: Error: Forbidden {deprecated}");
        for (words, shown) in [
            (&[bare.as_str()][..], deprecated),
            (&["Listening for Jobs", bare.as_str(), "Listening for Jobs"], deprecated),
            (&["An error occurred: Forbidden by policy"], "Forbidden by policy"),
            (&[], "without a word"),
        ] {
            match read(words) {
                Reading::Refused { what, causes } => {
                    assert!(what.contains(shown) && what.contains("code 7"), "{what}");
                    assert!(causes.contains("too old") && causes.contains("IP allow list"), "{causes}");
                }
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }
}
