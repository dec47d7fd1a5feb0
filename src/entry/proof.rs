//! What is proved of the container before anything begins: that no job reaches what is not for jobs, and that its end can be seen.

use std::path::{Path, PathBuf};

use super::private;
use crate::agent::{env, worker};
use crate::config::{Common, Environment, Hardware, Problem};
use crate::os::Identity;
use crate::os::access::{READ, WRITE, may};
use crate::os::attempt::can_list;
use crate::provider::SharedDirectory;
use crate::resource::Locks;
use crate::workspace::Slate;

/// How a directory for root alone is had.
const VOLUME_OF_ROOTS: &str = "mount a volume of root's there, for the runners of this host alone";

/// That the agent's processes cannot be seen: then nobody could tell a job's hook from another's, nor when a job is over.
pub(super) fn invisible(agent: Option<&Identity>) -> Option<Problem> {
    let blind = worker::prove_visible(agent).err()?;
    Some(Problem::of("/proc", &blind, blind.cure()))
}

/// Whether [`roots_alone`] would find nothing wrong. Nothing is made or closed.
pub(super) fn could_be_roots_alone(directory: &SharedDirectory<'_>, agent: Option<&Identity>) -> Option<Problem> {
    let SharedDirectory { setting, place, threat } = directory;
    if agent.is_none() {
        let what = format!("needs a container that runs as root: every job could {threat}");
        return Some(Problem::of(setting, what, "unset it, or let the container start as root"));
    }
    let error = private::look(place).err()?;
    Some(Problem::of(setting, error.to_string(), VOLUME_OF_ROOTS))
}

/// A directory that containers share and no job may reach, or it could do what is said.
pub(super) fn roots_alone(shared: &SharedDirectory<'_>, agent: Option<&Identity>) -> Option<Problem> {
    let problem = |what: String, cure: &str| Problem::of(shared.setting, what, cure);
    let (agent, directory) = match agent {
        Some(agent) => (agent, shared.place),
        None => return could_be_roots_alone(shared, agent),
    };
    if let Err(error) = private::prepare(directory) {
        return Some(problem(error.to_string(), VOLUME_OF_ROOTS));
    }
    may(agent, directory, READ | WRITE | 1).then(|| {
        let what = format!("{} can be opened by the agent's user, and so by every job", directory.display());
        problem(what, "give it to root, with mode 0700")
    })
}

/// That the directory for temporary files that the agent is told of is not emptied: what a job leaves there would be the next one's.
pub(super) fn lasting_temporary(slate: &Slate, environment: &Environment) -> Option<Problem> {
    let directory = Path::new(environment.get(env::TEMPORARY)?);
    (!slate.is_emptied(directory)).then(|| {
        let what = format!("{} is not emptied after each job, so the next one would find it", directory.display());
        let cure =
            format!("name a place that is, such as /tmp, {} or a directory in it; or unset it", slate.work.display());
        Problem::of(env::TEMPORARY, what, cure)
    })
}

/// That a directory above the agent's own or above the work directory is closed to the agent's user. The agent lists them all, up to
/// `/`, before it does anything else; from a place that it cannot list it would end each time, with a new registration.
pub(super) fn closed_above(common: &Common, agent: Option<&Identity>) -> Vec<Problem> {
    let roots = common.places.agent_directories();
    let roots = roots.canonicalize().unwrap_or(roots);
    let first_closed = |place: &Path, above: usize| {
        let mut directories: Vec<&Path> = place.ancestors().skip(above).collect();
        directories.reverse();
        directories.into_iter().find(|directory| can_list(agent, directory) == Some(false)).map(Path::to_owned)
    };
    let work = first_closed(&common.work_directory, 1);
    let root = first_closed(&roots, 0).filter(|closed| Some(closed) != work.as_ref());
    let problem = |setting, closed: Option<PathBuf>, elsewhere: &str| {
        let closed = closed?;
        let shown = closed.display();
        let what = format!(
            "the agent's user cannot list {shown}, and the agent lists each directory above its own and above its work"
        );
        Some(Problem::of(setting, what, format!("chmod o+rx {shown}{elsewhere}")))
    };
    let work = problem("RUNNER_WORKDIR", work, ", or name a place below directories that everybody can list");
    work.into_iter().chain(problem("image", root, " where the image is made")).collect()
}

/// The locks of the hardware that jobs need, if there is any: they must exclude all others, and be out of jobs' reach.
pub(super) fn locks(common: &Common, agent: Option<&Identity>) -> Result<Option<Locks>, Vec<Problem>> {
    let Some(hardware) = &common.hardware else { return Ok(None) };
    let locks = Locks::open(&hardware.place)
        .map_err(|error| vec![Problem::of("RUNNER_LOCK_DIR", &error, "see docs/shared-hardware.md")])?;
    let problems = agent.map(|agent| out_of_reach(&locks, hardware, agent)).unwrap_or_default();
    if problems.is_empty() { Ok(Some(locks)) } else { Err(problems) }
}

/// The agent's user must not be able to take a lock, or to free one.
pub(super) fn out_of_reach(locks: &Locks, hardware: &Hardware, agent: &Identity) -> Vec<Problem> {
    let exposed = locks.exposed_to(agent, &hardware.wanted).into_iter();
    exposed.map(|what| Problem::of("RUNNER_LOCK_DIR", what, Locks::CLOSE)).collect()
}
