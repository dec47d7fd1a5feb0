//! What is wrong with a configuration in this container: the one judgement that `run` starts by, and `check` and `doctor` tell.
//!
//! Nothing is changed for it; what has to be tried is taken back.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;

use nix::unistd::Uid;

use super::accounts::agent_account;
use super::docker_findings;
use super::ground::{Ground, shared};
use super::noexec::noexec;
use super::numbers::Numbers;
use super::proof::{closed_above, could_be_roots_alone, lasting_temporary, locks};
use super::secrets;
use super::state::StateFile;
use crate::agent::interpreter::{Interpreters, program};
use crate::agent::{directory, hook_files};
use crate::config::{Common, Environment, Problem};
use crate::control;
use crate::docker::engine;
use crate::init::account::Account;
use crate::os::{Identity, caps};
use crate::provider::{Forges, Provider};
use crate::workspace::trial::could_write;
use crate::workspace::{FirstMarks, RootsLock, Slate, Trash, could_take, could_take_for_root};

/// The judgement.
pub(super) struct Judged {
    /// Who jobs run as.
    pub account: Account,
    /// The user to become; `None` when we are not root.
    pub identity: Option<Identity>,
    /// Whether the image has its agent.
    pub agent: Option<Problem>,
    /// What is wrong with the directory of locks.
    pub locks: Vec<Problem>,
    /// All other reasons not to start.
    pub problems: Vec<Problem>,
    /// What works, and not as it should.
    pub warnings: Vec<Problem>,
}

impl Judged {
    /// All reasons not to start.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.agent.into_iter().chain(self.problems).chain(self.locks).collect()
    }
}

/// Judges this configuration here.
pub(super) fn judge(forges: Forges, environment: &Environment, common: &Common, provider: &dyn Provider) -> Judged {
    let mut problems = Vec::new();
    let (account, identity) = agent_account(common, &mut problems);
    let agent = directory::check(&common.places.agent(), provider.agent().listener)
        .err()
        .map(|error| Problem::of("image", &error, "use an image made for this CI_PROVIDER, or add the agent to it"));
    let given = secrets::given(forges, environment);
    if let Some(identity) = &identity {
        problems.extend(given.iter().filter_map(|source| secrets::could_guard(source, identity).err()));
    }
    // A runner that lives here has its own address and work directory in use.
    let lives = UnixStream::connect(control::socket(&common.places)).is_ok();
    problems.extend(own_places(common));
    let slate = slate(common, &account);
    let known = problems.iter().any(|problem| problem.setting == "OSCR_AGENT_USER");
    let mut endangered = Ground::new(common, provider, &account, &slate, &given, environment).problems();
    // One who is no user for jobs needs no other home.
    endangered.retain(|problem| !known || problem.setting != "OSCR_AGENT_USER");
    if !lives && !endangered.iter().any(|problem| problem.setting == "RUNNER_WORKDIR") {
        problems.extend(could_take(&common.work_directory).err().map(|error| {
            let cure = "give each container a directory of its own, best none at all: /work inside the container";
            Problem::of("RUNNER_WORKDIR", &error, cure)
        }));
    }
    let at_fault = |setting: &str| endangered.iter().any(|problem| problem.setting == setting);
    let private = shared(common, provider).into_iter().filter(|shared| !at_fault(shared.setting));
    problems.extend(private.filter_map(|shared| could_be_roots_alone(&shared, identity.as_ref())));
    let locks = locks(common, identity.as_ref()).err().unwrap_or_default();
    let found = |problem: &Problem| locks.iter().any(|found| found.setting == problem.setting);
    let written = !at_fault("OSCR_METRICS_FILE");
    problems.extend(endangered.into_iter().filter(|problem| !found(problem)));
    problems.extend(lasting_temporary(&slate, environment));
    problems.extend(closed_above(common, identity.as_ref()));
    problems.extend(Numbers::could_prepare(common, identity.as_ref(), lives, written));
    let (unfit, mut warnings) = noexec(common, &slate);
    problems.extend(unfit);
    let path = std::env::var_os("PATH");
    warnings.extend(without_sudo(common, path.as_deref()));
    warnings.extend(without_client(common, path.as_deref()));
    warnings.extend(without_rights(common, caps::can_be_given("SYS_ADMIN")));
    problems.extend(without_engine(common, engine::PATH.as_ref()));
    // Without a user nobody can say what that user may.
    if identity.is_some() || !Uid::effective().is_root() {
        let hooks = hook_files::look(
            &common.places.hooks(),
            common.hardware.is_some(),
            provider.agent(),
            (environment, &common.places.system_environment()),
            identity.as_ref(),
            &Interpreters::of(&common.places),
        );
        problems.extend(hooks.problems);
        warnings.extend(hooks.warnings);
    }
    Judged { account, identity, agent, locks, problems, warnings }
}

/// How an image gets what it lacks.
const BUILD: &str = "of the images that COMPOSE_FILE names in .env, the last file's is used: run `docker compose build`, which builds that one";

/// Jobs that may use sudo where there is none: the image is not the one that was meant. Not a problem, for another program of the
/// image's may be what gives them rights.
fn without_sudo(common: &Common, path: Option<&OsStr>) -> Option<Problem> {
    let missing = common.sudo && program("sudo", path).is_none();
    missing.then(|| {
        let cure = format!("{BUILD} with sudo, or take compose.sudo.yml out");
        Problem::of("OSCR_SUDO", "jobs are to have sudo, and this image has none", cure)
    })
}

/// Jobs that have a Docker and no client for it. Not a problem, for some programs speak to the socket themselves.
fn without_client(common: &Common, path: Option<&OsStr>) -> Option<Problem> {
    let missing = docker_findings::endpoint(common).is_some() && program("docker", path).is_none();
    missing.then(|| {
        let what = "jobs are to have Docker, and this image has no client (`docker`), which container jobs and most steps need";
        Problem::of("image", what, format!("{BUILD} with the client (OSCR_DOCKER=cli or engine)"))
    })
}

/// An engine of the runner's own that is not there: no life would ever take a job.
fn without_engine(common: &Common, path: &OsStr) -> Option<Problem> {
    let missing = common.docker.engine.is_some() && program("dockerd", Some(path)).is_none();
    missing.then(|| {
        let cure = format!("{BUILD} with the engine (OSCR_DOCKER=engine), or take compose.docker-own.yml out");
        Problem::of(
            "OSCR_DOCKERD",
            "jobs are to have an engine of their own, and this image has none (`dockerd`)",
            cure,
        )
    })
}

/// An engine of the runner's own in a container that is no sandbox and has no rights either. Not a problem: a sandbox may call its rights
/// otherwise.
fn without_rights(common: &Common, may_mount: bool) -> Option<Problem> {
    (common.docker.engine.is_some() && !may_mount).then(|| {
        let what = "jobs are to have an engine of their own, and this container may not mount (SYS_ADMIN), which every engine must";
        let cure = "give the container a runtime that is a sandbox, such as OSCR_RUNTIME=sysbox-runc; or OSCR_PRIVILEGED=true, with which \
                    every job is root on the machine";
        Problem::of("OSCR_DOCKERD", what, cure)
    })
}

/// The places that PID 1 writes in.
fn own_places(common: &Common) -> Vec<Problem> {
    let (state, run) = (common.places.state(), common.places.run());
    let mut problems = Vec::new();
    for place in [&state, &run] {
        let taken = could_take_for_root(place).err();
        problems.extend(taken.map(|error| Problem::of("image", &error, "give the container the capability CHOWN")));
    }
    problems.extend(
        StateFile::could_open(&state)
            .err()
            .map(|error| Problem::of("image", &error, "make that place writable for this container's user")),
    );
    problems.extend(could_write(&run).err().map(|error| {
        let what = format!("{} cannot be written: {error}", run.display());
        Problem::of("image", what, "make that place writable for this container's user")
    }));
    problems
}

/// What is emptied before and after each job.
pub(super) fn slate(common: &Common, account: &Account) -> Slate {
    let places = &common.places;
    let mut temporary = places.temporary().to_vec();
    temporary.push(places.session(account.identity.uid));
    if common.docker.engine.is_some() {
        // An engine of our own, and a job with it, is root in there: nothing of it is for the next one.
        temporary.push(engine::DATA.into());
    }
    Slate {
        work: common.work_directory.clone(),
        agent_directories: places.agent_directories(),
        roots: RootsLock::below(&places.run()),
        temporary,
        home: account.home.clone(),
        pristine_home: places.pristine_home(),
        agent: account.identity.clone(),
        kept: common.caches.iter().map(|cache| cache.place.clone()).collect(),
        // An ordinary user has no place that its jobs cannot reach.
        trash: Uid::effective().is_root().then(|| Trash::at(places.trash())),
        origin: if Uid::effective().is_root() { FirstMarks::at(places.marks()) } else { FirstMarks::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Reader;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    /// A configuration, and a place for programs.
    fn with(name: &'static str, value: &'static str) -> (Common, tempfile::TempDir) {
        let environment = Environment::from([(name, value)]);
        let common = Common::read(&mut Reader::new(&environment, vec![crate::config::table::COMMON]));
        (common, tempfile::tempdir().unwrap())
    }

    fn add(programs: &tempfile::TempDir, name: &str) {
        let file = programs.path().join(name);
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn an_image_without_the_sudo_that_jobs_are_to_have_is_told() {
        let (on, programs) = with("OSCR_SUDO", "true");
        let path = Some(programs.path().as_os_str());
        assert_eq!(without_sudo(&on, path).unwrap().setting, "OSCR_SUDO");
        assert_eq!(without_sudo(&Common { sudo: false, ..on.clone() }, path), None);
        add(&programs, "sudo");
        assert_eq!(without_sudo(&on, path), None);
    }

    #[test]
    fn an_image_without_the_client_for_the_docker_that_jobs_have_is_told() {
        let (on, programs) = with("DOCKER_HOST", "tcp://docker:2375");
        let path = Some(programs.path().as_os_str());
        assert!(without_client(&on, path).unwrap().to_string().contains("no client"));
        let (mut off, _) = with("DOCKER_HOST", "");
        off.places = crate::config::Places::below(programs.path().to_owned());
        assert_eq!(without_client(&off, path), None);
        add(&programs, "docker");
        assert_eq!(without_client(&on, path), None);
    }

    #[test]
    fn an_image_without_the_engine_that_it_is_to_start_is_told() {
        let (on, programs) = with("OSCR_DOCKERD", "true");
        let path = programs.path().as_os_str();
        assert_eq!(without_engine(&on, path).unwrap().setting, "OSCR_DOCKERD");
        let off = with("OSCR_DOCKERD", "false").0;
        assert_eq!(without_engine(&off, path), None);
        assert!(without_rights(&on, false).unwrap().to_string().contains("OSCR_RUNTIME"));
        assert_eq!((without_rights(&on, true), without_rights(&off, false)), (None, None));
        add(&programs, "dockerd");
        assert_eq!(without_engine(&on, path), None);
    }
}
