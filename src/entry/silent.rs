//! Places that do not answer, because they lie on a mount whose server is gone. Whoever looks at one waits for it without a word, so
//! all that settings name are asked for before anything else is done with them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::work::each_within;
use crate::config::table::COMMON;
use crate::config::{Environment, Problem};
use crate::provider::{Configured, Forges, configure};
use crate::resource::LockPlace;
use crate::shown::shown;

/// How long a place may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The configuration, unless a place that it names does not answer: then nobody looks any further.
///
/// # Errors
/// Such places, or every problem found in it.
pub(super) fn configure_in_time(forges: Forges, environment: &Environment) -> Result<Configured, Vec<Problem>> {
    let silent = silent(forges, environment);
    if silent.is_empty() { configure(forges, environment) } else { Err(silent) }
}

fn silent(forges: Forges, environment: &Environment) -> Vec<Problem> {
    let mut places = environment.places(COMMON.iter().chain(forges.0.iter().flat_map(|forge| forge.settings)));
    if environment.get("RUNNER_RESOURCE_ID").is_some() && environment.get("RUNNER_LOCK_DIR").is_none() {
        places.push(("RUNNER_LOCK_DIR".to_owned(), Path::new(LockPlace::USUAL)));
    }
    let looks = places.iter().map(|(_, place)| {
        let place = place.to_path_buf();
        move || drop(fs::metadata(place))
    });
    let answers = each_within(PATIENCE, looks);
    let silent = places.iter().zip(answers).filter(|(_, answer)| answer.is_none());
    silent.map(|((setting, place), _)| silence(setting, place)).collect()
}

/// That a place does not answer in time, and what to do.
pub(super) fn silence(setting: &str, place: &Path) -> Problem {
    let place = shown(&place.to_string_lossy());
    let what = format!("{place} does not answer within {}", humantime::format_duration(PATIENCE));
    Problem::of(setting, what, "look after the file system there: is its server gone?")
}
