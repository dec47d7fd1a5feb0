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

/// That the agent's processes cannot be seen: then nobody could tell a job's hook from another's, nor when a job is over.
pub(super) fn invisible(agent: Option<&Identity>) -> Option<Problem> {
    let blind = worker::prove_visible(agent).err()?;
    Some(Problem::of("/proc", &blind, blind.cure()))
}

/// A directory that containers share and no job may reach, or it could do what is said.
pub(super) fn roots_alone(directory: SharedDirectory<'_>, agent: Option<&Identity>) -> Option<Problem> {
    let SharedDirectory { setting, place: directory, threat } = directory;
    let problem = |what: String, cure: &str| Problem::of(setting, what, cure);
    let Some(agent) = agent else {
        let what = format!("needs a container that runs as root: every job could {threat}");
        return Some(problem(what, "unset it, or let the container start as root"));
    };
    if let Err(error) = private::prepare(directory) {
        return Some(problem(error.to_string(), "mount a volume of root's there, for the runners of this host alone"));
    }
    may(agent, directory, READ | WRITE | 1).then(|| {
        let what = format!("{} can be opened by the agent's user, and so by every job", directory.display());
        problem(what, "give it to root, with mode 0700")
    })
}

/// What would survive jobs without, or by more than, the user's word.
pub(super) fn survivors(slate: &Slate, common: &Common) -> Vec<Problem> {
    let apart: Vec<PathBuf> = common.hardware.iter().map(|hardware| hardware.place.directory.clone()).collect();
    let unnamed = slate.unnamed_mounts(&apart).into_iter().map(|mount| {
        let what = format!("{} is mounted where everything is wiped for each job, and is not named", mount.display());
        let cure = "name it, to keep its content from job to job; or mount it elsewhere, or read-only";
        Problem::of("OSCR_CACHE_DIRS", what, cure)
    });
    let too_much = slate.kept_too_much().into_iter().map(|kept| {
        let what = format!("with {} nothing there would be wiped", kept.display());
        Problem::of("OSCR_CACHE_DIRS", what, "name the directory inside that is to survive, such as /work/_tool")
    });
    unnamed.chain(too_much).collect()
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
