//! Mounts from which nothing can be executed, where something must be.

use std::fs;
use std::path::Path;

use crate::config::{Common, Problem};
use crate::os::mounts::{self, Mount, under};
use crate::workspace::Slate;

/// What cannot work, and what will work less well.
pub(super) fn noexec(common: &Common, slate: &Slate) -> (Vec<Problem>, Vec<Problem>) {
    let mounts = mounts::list().unwrap_or_default();
    let found = |setting: &str, place: &Path, what: &str| {
        let real = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
        let mount = under(&mounts, &real).filter(|mount| !mount.executable)?;
        Some(Problem::of(setting, format!("{} is mounted noexec: {what}", place.display()), cure(mount)))
    };
    let places = &common.places;
    let agent = [
        (places.agent_directories(), "the agent cannot be started there"),
        (places.agent(), "the agent's programs cannot be executed there"),
    ];
    let problems = agent.iter().filter_map(|(place, what)| found("mounts", place, what)).collect();
    let less = "what jobs build or fetch there cannot be executed";
    let mut of_jobs = vec![("RUNNER_WORKDIR", common.work_directory.as_path())];
    of_jobs.extend(slate.own_home().map(|home| ("mounts", home.as_path())));
    of_jobs.extend(common.caches.iter().map(|cache| (cache.setting, cache.place.as_path())));
    // Every engine mounts /dev/shm so, and nobody expects programs in the others.
    let temporary = ["tmp", "var/tmp"].map(|place| places.root().join(place));
    of_jobs.extend(temporary.iter().map(|place| ("mounts", place.as_path())));
    let mut warnings: Vec<Problem> =
        of_jobs.into_iter().filter_map(|(setting, place)| found(setting, place, less)).collect();
    warnings.dedup();
    (problems, warnings)
}

fn cure(mount: &Mount) -> String {
    let point = mount.point.display();
    if mount.in_memory() {
        format!("mount it with exec: docker run --tmpfs {point}:exec, in Compose tmpfs: {point}:exec")
    } else {
        format!("mount {point} from a file system of the host that is not mounted noexec")
    }
}
