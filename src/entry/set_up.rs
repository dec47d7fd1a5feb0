//! Jobs that fail before their hook, in the step "Set up job": nothing else here would show that each one does.

use std::ffi::OsString;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::ending::Ending;
use super::means::Means;
use super::state::StateFile;
use crate::init::Ended;
use crate::metrics::{self, JobResult};
use crate::workspace::{Slate, trial};

/// So many in a row are no accident.
const IN_A_ROW: u32 = 3;
/// Where agents have their jobs' temporary files, in the work directory.
const TEMPORARY: &str = "_temp";
/// How long making and removing some files may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is to say about so many jobs in a row, if it is anything yet.
fn words(jobs: u32) -> Option<String> {
    (jobs >= IN_A_ROW).then(|| {
        format!(
            "{jobs} jobs in a row failed before they reached their hook: look at the step \"Set up job\" on the page of the last one"
        )
    })
}

fn count(state: &mut StateFile, jobs: u32) {
    metrics::jobs_without_hook(jobs);
    if state.content.without_hook != jobs {
        state.content.without_hook = jobs;
        state.save_or_warn();
    }
}

/// A job has reached its hook: those before it are history.
pub(super) fn reached_hook(state: &mut StateFile) {
    count(state, 0);
}

/// Whether a job tells anything by ending before its hook. One that somebody cancelled, or whose agent died, may have found nothing
/// wrong.
fn tells(ending: &Ending, result: JobResult) -> bool {
    *ending == (Ending::JobDone { by_us: false }) && result == JobResult::Failed
}

/// A job whose hook never came is over.
pub(super) fn ended_without_hook(means: &Means, state: &mut StateFile, ending: &Ending, result: JobResult) {
    if means.provider.agent().hooks.is_none() || !tells(ending, result) {
        return;
    }
    count(state, state.content.without_hook.saturating_add(1));
    match words(state.content.without_hook) {
        Some(words) => tracing::warn!("{words}"),
        None => tracing::info!("the job failed before it reached its hook"),
    }
}

/// Whether a job could begin, where several did not: the agent's user tries. What cannot be tried is in no job's way.
///
/// # Errors
/// With what it could not make or remove.
pub(super) async fn try_places(means: &Means, state: &StateFile, slate: &Slate) -> Result<(), String> {
    let jobs = state.content.without_hook;
    metrics::jobs_without_hook(jobs);
    let Some(words) = words(jobs) else { return Ok(()) };
    means.board.wrong(&words);
    let places = [slate.work.clone(), slate.work.join(TEMPORARY)].into_iter().chain(slate.own_home().cloned());
    let arguments: Vec<OsString> = [trial::COMMAND.into()].into_iter().chain(places.map(OsString::from)).collect();
    let mut trial = match means.starter.ourselves(&arguments) {
        Ok(trial) => trial,
        Err(error) => {
            tracing::warn!("the places of jobs cannot be tried: {error}");
            return Ok(());
        }
    };
    match timeout(PATIENCE, trial.ended()).await {
        Ok(Ended::Code(code)) if code == i32::from(trial::FAILED) => {
            let said = trial.tail.last_words().await.join("; ");
            Err(format!("{words}; the agent's user cannot work there: {said}"))
        }
        Ok(Ended::Code(0)) => Ok(()),
        Ok(ended) => {
            tracing::warn!("the places of jobs could not be tried ({ended})");
            Ok(())
        }
        Err(_) => {
            trial.signal(Signal::SIGKILL);
            let waited = humantime::format_duration(PATIENCE);
            Err(format!("{words}; making a file for the agent's user takes longer than {waited}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ending::Why;
    use super::*;

    #[test]
    fn only_a_job_that_failed_by_itself_tells_anything() {
        let done = Ending::JobDone { by_us: false };
        assert!(tells(&done, JobResult::Failed));
        for result in JobResult::ALL.into_iter().filter(|result| *result != JobResult::Failed) {
            assert!(!tells(&done, result), "{result:?}");
        }
        for ending in [Ending::JobDone { by_us: true }, Ending::JobBroken(String::new()), Ending::Stopped(Why::Asked)] {
            assert!(!tells(&ending, JobResult::Failed), "{ending:?}");
        }
    }

    #[test]
    fn three_in_a_row_are_told() {
        assert_eq!((words(0), words(IN_A_ROW - 1)), (None, None));
        let words = words(IN_A_ROW).unwrap_or_default();
        assert!(words.starts_with("3 jobs in a row") && words.contains("\"Set up job\""), "{words}");
    }
}
