//! The life of an incarnation: from the environment to an exit code.
//!
//! [`run`] proves the configuration and sets up what every phase needs; [`incarnation`] tells the story.

mod backoff;
mod children;
mod cleaning;
mod docker;
mod doctor;
mod hardware;
mod incarnation;
mod job;
mod listening;
mod numbers;
pub mod posture;
mod private;
mod privileges;
mod registering;
mod removal;
mod report;
mod retiring;
mod secrets;
mod state;
mod stop;
mod trust;
mod update;
mod waiting;
mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid};

use crate::agent::{env, hooks, root, system_env, worker};
use crate::config::name::hostname;
use crate::config::{Common, Environment, Hardware, Problem, SecretSource};
use crate::control::{self, Board};
use crate::docker::engine;
use crate::exit;
use crate::init::account::{Account, Accounts};
use crate::init::{Role, Signals, adopt_orphans};
use crate::log;
use crate::os::Identity;
use crate::os::access::{READ, WRITE, may};
use crate::provider::{Configured, Provider, SharedDirectory, configure};
use crate::resource::Locks;
use crate::workspace::{Origin, Owned, Slate, Space, Trash, taint, take_for_root};
use children::{Children, Starter, attend};
pub use doctor::doctor;
use hardware::Guard;
use incarnation::Incarnation;
use numbers::Numbers;
use posture::Posture;
use state::StateFile;
use stop::Stop;

/// `oscr-entry run`: one incarnation.
#[must_use]
pub fn run(signals: Signals) -> ExitCode {
    // From here on not even root in the container may look into this process, and no core dump is made of it. An execution
    // undoes the former, so this is also the first thing that our next self does.
    if let Err(error) = prctl::set_dumpable(false).and_then(|()| no_core_dumps()) {
        return fatal(&format!("this process cannot be protected from others: {error}"), exit::SOFTWARE);
    }
    if let Err(blind) = worker::prove_mounted() {
        return misconfigured(&[Problem::of("/proc", &blind, blind.cure())]);
    }
    let variables = match secrets::environment_without_trace() {
        Ok(variables) => variables,
        Err(error) => {
            return fatal(&format!("the environment cannot be taken over: {error}"), exit::SOFTWARE);
        }
    };
    let environment = Environment::new(variables);
    let configured = match configure(&environment) {
        Ok(configured) => configured,
        Err(problems) => return misconfigured(&problems),
    };
    log::start(configured.common.log_format, configured.common.log_level);
    let prepared = match Prepared::new(&environment, configured) {
        Ok(prepared) => prepared,
        Err(problems) => return misconfigured(&problems),
    };
    if let Err(error) = privileges::give_up(prepared.common.sudo, prepared.common.docker.engine.is_some()) {
        return fatal(&format!("capabilities cannot be given up: {error}"), exit::SOFTWARE);
    }
    // As it is from now on.
    if let Some(problem) = invisible(prepared.identity.as_ref()) {
        return misconfigured(&[problem]);
    }
    prepared.say_posture(&secrets::given(&environment));
    // It holds what was given as plain variables.
    drop(environment);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fatal(&format!("the event loop cannot be made: {error}"), exit::SOFTWARE);
        }
    };
    let code = tokio::task::LocalSet::new().block_on(&runtime, prepared.live(signals));
    ExitCode::from(code)
}

/// Sets the soft limit alone: a job that wants to look into a crash of its own may raise it again.
fn no_core_dumps() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)
}

fn misconfigured(problems: &[Problem]) -> ExitCode {
    let count = problems.len();
    let noun = if count == 1 { "problem" } else { "problems" };
    eprintln!("oscr-entry: {count} {noun} in the configuration:");
    for problem in problems {
        eprintln!("  - {}", log::redacted(&problem.to_string()));
    }
    eprintln!("See docs/configuration.md; `oscr-entry check` prints what is in force.");
    ExitCode::from(exit::CONFIG)
}

fn fatal(message: &str, code: u8) -> ExitCode {
    eprintln!("oscr-entry: {}", log::redacted(message));
    ExitCode::from(code)
}

/// Everything that can be proved and set up before the first event.
struct Prepared {
    common: Common,
    provider: Box<dyn Provider>,
    /// The user to become; `None` when we are not root.
    identity: Option<Identity>,
    agent_env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    state: StateFile,
    owned: Owned,
    slate: Slate,
    locks: Option<Locks>,
    board: Board,
    numbers: Numbers,
}

impl Prepared {
    fn new(environment: &Environment, configured: Configured) -> Result<Self, Vec<Problem>> {
        let Configured { common, provider, notes, .. } = configured;
        let board = Board::new(provider.name(), &provider.scope());
        for note in notes {
            tracing::info!("{note}");
        }
        let mut problems = Vec::new();
        let (account, identity) = agent_account(&common, &mut problems);
        if let Err(error) = root::check(&common.places.agent(), provider.agent().listener) {
            problems.push(Problem::of(
                "image",
                &error,
                "use an image made for this CI_PROVIDER, or add the agent to it",
            ));
        }
        for source in &secrets::given(environment) {
            if let Some(identity) = &identity
                && let Err(problem) = secrets::guard(source, identity)
            {
                problems.push(problem);
            }
        }
        // Before anything is read from them or written into them.
        for place in [common.places.state(), common.places.run()] {
            if let Err(error) = take_for_root(&place) {
                problems.push(Problem::of("image", &error, "give the container the capability CHOWN"));
            }
        }
        let state = StateFile::open(&common.places.state())
            .map_err(|error| {
                problems.push(Problem::of("image", &error, "make that place writable for this container's user"))
            })
            .ok();
        let owned = Owned::take(&common.work_directory)
            .map_err(|error| {
                let cure = "give each container a directory of its own, best none at all: /work inside the container";
                problems.push(Problem::of("RUNNER_WORKDIR", &error, cure));
            })
            .ok();
        let bundle = trust::bundle(&common)
            .map_err(|error| problems.push(Problem::of("OSCR_CA_FILE", &error, "check that it is a readable PEM file")))
            .ok()
            .flatten();
        let shims = hooks::write_shims(&common.places)
            .map_err(|error| {
                problems.push(Problem::of("image", &error, "make /run/oscr writable for this container's user"))
            })
            .ok();
        let mut shared = provider.shared_directories();
        let agents = |place| SharedDirectory { setting: "OSCR_AGENT_CACHE", place, threat: "write there" };
        shared.extend(common.agent_cache.as_deref().map(agents));
        problems.extend(shared.into_iter().filter_map(|directory| roots_alone(directory, identity.as_ref())));
        let locks = common.hardware.as_ref().and_then(|hardware| {
            let locks = Locks::open(&hardware.place)
                .map_err(|error| problems.push(Problem::of("RUNNER_LOCK_DIR", &error, "see docs/shared-hardware.md")))
                .ok()?;
            if let Some(identity) = &identity {
                problems.extend(out_of_reach(&locks, hardware, identity));
            }
            Some(locks)
        });
        let slate = slate(&common, &account);
        problems.extend(survivors(&slate, &common));
        provider.http().observe(numbers::count_request);
        let numbers = Numbers::prepare(&common, identity.as_ref(), &mut problems);
        let (Some(state), Some(owned), Some(shims), true) = (state, owned, shims, problems.is_empty()) else {
            return Err(problems);
        };
        let system_file = common.places.system_environment();
        let system = system_env::read(&system_file).unwrap_or_else(|why| {
            tracing::warn!("{} has no effect: {why}", system_file.display());
            Vec::new()
        });
        let agent_env = env::build(&env::Sources {
            environment,
            system: &system,
            account: &account,
            facts: provider.agent(),
            job_env: &common.job_env,
            network: &common.network,
            ca_bundle: bundle.as_deref(),
            hooks: Some((&shims.job_started, &shims.job_completed)),
        });
        Ok(Self { common, provider, identity, agent_env, state, owned, slate, locks, board, numbers })
    }

    /// What is weaker here than it could be, once, at start.
    fn say_posture(&self, secrets: &[SecretSource]) {
        let sources: Vec<&SecretSource> = secrets.iter().collect();
        let posture = Posture::look(&self.common, &sources, self.identity.as_ref());
        for weakness in &posture.weaknesses {
            tracing::warn!("{weakness}");
        }
        let secrets = sources.into_iter().map(ToString::to_string).collect();
        self.board.set_posture(&posture, secrets, posture.weaknesses.clone());
    }

    async fn live(mut self, signals: Signals) -> u8 {
        let children = Children::default();
        let stop = Stop::new(self.common.stop_timeout);
        if adopt_orphans() == Role::Bystander {
            tracing::warn!("not PID 1 and not allowed to be a subreaper: what a job leaves behind may escape");
        }
        let socket = control::socket(&self.common.places);
        let listener = match control::server::bind(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!("the control socket {} cannot be made: {error}", socket.display());
                return exit::SOFTWARE;
            }
        };
        let (orders_sender, orders) = tokio::sync::mpsc::unbounded_channel();
        tokio::task::spawn_local(control::server::serve(listener, self.board.clone(), orders_sender));
        self.board.set_space(space(&self.common));
        self.numbers.start(&self.board);
        let starter =
            Starter::new(children.clone(), self.identity, self.agent_env, self.provider.agent(), self.common.sudo);
        let guard = self.common.hardware.clone().zip(self.locks).map(|(hardware, locks)| {
            let hooks = self.common.places.hooks();
            Rc::new(Guard::new(hardware, locks, starter.clone(), hooks, self.board.clone()))
        });
        let custody = cleaning::custody(&self.common, &*self.provider, &self.slate, starter.identity.as_ref());
        let incarnation = Incarnation::new(
            self.common,
            Rc::from(self.provider),
            starter,
            self.slate,
            self.state,
            self.board,
            stop.clone(),
            guard,
            orders,
            self.numbers,
            custody,
        );
        let _owned = self.owned;
        tokio::select! {
            code = incarnation.live() => code,
            fault = attend(signals, children, stop) => {
                // The loop ends only when the kernel takes the signal descriptor away from us.
                tracing::error!("signals cannot be read any more: {fault:?}");
                exit::SOFTWARE
            }
        }
    }
}

/// Where jobs need disk space.
fn space(common: &Common) -> Space {
    let [temporary, ..] = common.places.temporary();
    Space::new(common.min_free, &common.work_directory, [common.places.agent_roots(), temporary])
}

/// That the agent's processes cannot be seen: then nobody could tell a job's hook from another's, nor when a job is over.
fn invisible(agent: Option<&Identity>) -> Option<Problem> {
    let blind = worker::prove_visible(agent).err()?;
    Some(Problem::of("/proc", &blind, blind.cure()))
}

/// A directory that containers share and no job may reach, or it could do what is said.
fn roots_alone(directory: SharedDirectory<'_>, agent: Option<&Identity>) -> Option<Problem> {
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

/// What is emptied before and after each job.
fn slate(common: &Common, account: &Account) -> Slate {
    let places = &common.places;
    let mut temporary = places.temporary().to_vec();
    temporary.push(places.session(account.identity.uid));
    if common.docker.engine.is_some() {
        // An engine of our own, and a job with it, is root in there: nothing of it is for the next one.
        temporary.push(engine::DATA.into());
    }
    Slate {
        work: common.work_directory.clone(),
        agent_roots: places.agent_roots(),
        temporary,
        home: account.home.clone(),
        pristine_home: places.pristine_home(),
        agent: account.identity.clone(),
        kept: common.caches.clone(),
        // An ordinary user has no place that its jobs cannot reach.
        trash: Uid::effective().is_root().then(|| Trash::at(places.trash())),
        origin: if Uid::effective().is_root() { Origin::at(places.marks()) } else { Origin::default() },
    }
}

/// What would survive jobs without, or by more than, the user's word.
fn survivors(slate: &Slate, common: &Common) -> Vec<Problem> {
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

/// The agent's user must not be able to take a lock, or to free one.
fn out_of_reach(locks: &Locks, hardware: &Hardware, agent: &Identity) -> Vec<Problem> {
    let exposed = locks.exposed_to(agent, &hardware.wanted).into_iter();
    exposed.map(|what| Problem::of("RUNNER_LOCK_DIR", what, Locks::CLOSE)).collect()
}

/// The agent's account, and the identity to become, with the group of a mounted Docker socket.
fn agent_account(common: &Common, problems: &mut Vec<Problem>) -> (Account, Option<Identity>) {
    let accounts = Accounts::default();
    let root = Uid::effective().is_root();
    let spec = if root { common.agent_user.clone() } else { Uid::effective().to_string() };
    let mut account = match accounts.resolve(&spec) {
        Ok(account) => account,
        Err(error) => {
            problems.push(Problem::of("OSCR_AGENT_USER", &error, "name a user of this image, or its number"));
            let identity = Identity { uid: Uid::effective(), gid: Gid::effective(), groups: Vec::new() };
            let nobody = Account { name: spec, identity, home: PathBuf::from("/"), shell: PathBuf::from("/bin/sh") };
            // Without an identity: what it could read is no further problem, and no reason to change a file.
            return (nobody, None);
        }
    };
    if !root {
        return (account, None);
    }
    if account.identity.uid.is_root() {
        problems.push(Problem::of(
            "OSCR_AGENT_USER",
            "jobs may not run as root: they could read every secret",
            "name an ordinary user, such as runner",
        ));
        return (account, None);
    }
    if let Some(gid) = docker_group(&common.places.docker_socket()) {
        if gid.as_raw() == 0 && !common.docker_gid0 {
            tracing::warn!(
                "Docker's socket belongs to group 0, which the agent is not given; OSCR_DOCKER_GID0=true allows it"
            );
        } else if !account.identity.groups.contains(&gid) {
            account.identity.groups.push(gid);
        }
    }
    // What root belongs to by /etc/group came with the image, and was not meant for jobs.
    let roots = accounts.resolve("0").map(|root| root.identity.groups).unwrap_or_default();
    let own = nix::unistd::getgroups().unwrap_or_default();
    account.identity.groups = with_added_groups(account.identity.groups, &own, &roots);
    let identity = account.identity.clone();
    (account, Some(identity))
}

/// The agent's groups, and those that the container was given besides (`group_add`, `docker run --group-add`): they say which
/// devices jobs may use. Never group 0, whose files are root's.
fn with_added_groups(mut groups: Vec<Gid>, container: &[Gid], roots: &[Gid]) -> Vec<Gid> {
    for gid in container {
        if gid.as_raw() != 0 && !roots.contains(gid) && !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    groups
}

fn docker_group(socket: &std::path::Path) -> Option<Gid> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::metadata(socket).ok()?;
    meta.file_type().is_socket().then(|| Gid::from_raw(meta.gid()))
}

/// `oscr-entry baseline`: the last step of building an image.
#[must_use]
pub fn baseline(root: &Path) -> ExitCode {
    match taint::write_baseline(root) {
        Ok(files) => {
            println!("{files} files are what they should be");
            ExitCode::SUCCESS
        }
        Err(error) => fatal(&format!("the baseline cannot be written: {error}"), exit::SOFTWARE),
    }
}

/// `oscr-entry check`: validates, prints what is in force, asks nobody.
///
/// # Errors
/// When standard output is gone.
pub fn check(out: &mut dyn io::Write) -> io::Result<ExitCode> {
    let environment = Environment::new(std::env::vars_os());
    let configured = match configure(&environment) {
        Ok(configured) => configured,
        Err(problems) => return Ok(misconfigured(&problems)),
    };
    writeln!(out, "The configuration is complete. Registers with {}.", configured.provider.scope())?;
    let mut effective = configured.effective;
    let rule = update::Rule::of(&configured.common, configured.provider.as_ref());
    effective.insert("OSCR_AGENT_UPDATE".to_owned(), rule.to_string());
    for (name, value) in &effective {
        writeln!(out, "  {name:<26} {}", log::redacted(value))?;
    }
    for note in &configured.notes {
        writeln!(out, "Note: {}", log::redacted(note))?;
    }
    let mut problems = Vec::new();
    let (_, identity) = agent_account(&configured.common, &mut problems);
    problems.extend(invisible(identity.as_ref()));
    if !problems.is_empty() {
        return Ok(misconfigured(&problems));
    }
    let posture = Posture::look(&configured.common, &configured.provider.secrets(), identity.as_ref());
    write!(out, "The posture of this process, and of jobs:\n{posture}")?;
    Ok(ExitCode::from(exit::DONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_added_to_the_container_reach_the_agent_but_roots_own_do_not() {
        let gids = |raw: &[u32]| raw.iter().copied().map(Gid::from_raw).collect::<Vec<_>>();
        let groups = with_added_groups(gids(&[1001, 20]), &gids(&[0, 6, 20, 4711]), &gids(&[0, 6]));
        assert_eq!(groups, gids(&[1001, 20, 4711]));
    }

    #[test]
    fn fuzz_settings() {
        const TOKEN: &str = "fuzzed-token-that-nobody-may-see";
        crate::fuzz::run("settings", |bytes| {
            use std::os::unix::ffi::OsStrExt;
            let variables = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (&line[..at], &line[at + 1..]);
                let text = String::from_utf8_lossy(name);
                // Files are another matter: their names must not lead to what blocks, and their content is not given here.
                if text.ends_with("_FILE") || text == "OSCR_ROOT" {
                    return None;
                }
                let secret = ["PAT", "TOKEN", "KEY", "SECRET", "JITCONFIG"].iter().any(|word| text.contains(word));
                let value = if secret && !value.is_empty() { TOKEN.as_bytes() } else { value };
                Some((std::ffi::OsStr::from_bytes(name).to_owned(), std::ffi::OsStr::from_bytes(value).to_owned()))
            });
            let environment = Environment::new(variables.collect::<Vec<_>>());
            match configure(&environment) {
                Ok(configured) => {
                    let shown = format!("{:?} {:?}", configured.notes, configured.effective);
                    assert!(!shown.contains(TOKEN), "{shown}");
                    configured.effective.keys().cloned().collect::<Vec<_>>().join(" ")
                }
                Err(problems) => {
                    assert!(!problems.is_empty());
                    for problem in &problems {
                        assert!(!problem.cure.is_empty() && !problem.to_string().contains(TOKEN), "{problem}");
                    }
                    problems.iter().map(|problem| crate::fuzz::kind(&problem.to_string())).collect()
                }
            }
        });
    }
}
