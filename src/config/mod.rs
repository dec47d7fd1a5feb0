//! The environment becomes one typed configuration, once, before anything else happens.
//!
//! [`Reader`] collects every problem; [`Common`] is what all providers share. A provider reads its own settings with the
//! same reader (`src/provider/<name>/settings.rs`).

pub mod name;
mod policy;
pub mod reader;
pub mod secret;
pub mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use tracing_subscriber::filter::LevelFilter;

pub use reader::{Environment, Problem, Read, Reader};
pub use secret::{Secret, SecretError, SecretSource};

use crate::docker::{Endpoint, engine};
use crate::log::Format;
use crate::policy::Policy;
use crate::resource::{LockPlace, MOST, Wanted, WantedError};
use name::Naming;

/// The settings that every provider has.
#[derive(Debug, Clone)]
pub struct Common {
    /// How runners are named.
    pub naming: Naming,
    /// Labels, or `None` for the default ones.
    pub labels: Option<Vec<String>>,
    /// Where jobs work.
    pub work_directory: PathBuf,
    /// Directories whose content survives jobs.
    pub caches: Vec<PathBuf>,
    /// How many bytes each of them may have.
    pub cache_cap: Option<u64>,
    /// What is done about changes outside of what is wiped.
    pub taint: Taint,
    /// One registration for many jobs.
    pub persistent: bool,
    /// The user of the agent: `USER[:GROUP]`.
    pub agent_user: String,
    /// Bound of a drain.
    pub stop_timeout: Duration,
    /// Grace after a cancel.
    pub kill_timeout: Duration,
    /// Shortest life of an incarnation.
    pub min_uptime: Duration,
    /// Up to how long a container waits before its first request, if others may have started with it.
    pub start_jitter: Duration,
    /// Where replicas share a registration token.
    pub token_cache: Option<PathBuf>,
    /// More variables for the agent.
    pub job_env: Vec<String>,
    /// What the watchdog goes by.
    pub watch: Watch,
    /// Whether newer agents than the image's are fetched.
    pub agent_update: AgentUpdate,
    /// Where the containers of a host share the archives of such agents.
    pub agent_cache: Option<PathBuf>,
    /// Docker for jobs.
    pub docker: DockerForJobs,
    /// Whether jobs may gain privileges, for images with sudo.
    pub sudo: bool,
    /// Which jobs may run.
    pub policy: Policy,
    /// Whether the agent may have group 0 for the Docker socket.
    pub docker_gid0: bool,
    /// How many bytes must be free on disk for a job; `None` for the usual.
    pub min_free: Option<u64>,
    /// Where metrics are served.
    pub metrics_address: Option<SocketAddr>,
    /// Where metrics are written.
    pub metrics_file: Option<PathBuf>,
    /// Shared hardware, if a job needs any.
    pub hardware: Option<Hardware>,
    /// How to reach the forge.
    pub network: Network,
    /// The form of the log.
    pub log_format: Format,
    /// The least important events to log.
    pub log_level: LevelFilter,
    /// Where OSCR's own directories lie.
    pub places: Places,
}

/// Shared hardware that a job needs.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Which.
    pub wanted: Wanted,
    /// Where its locks are.
    pub place: LockPlace,
    /// When the resource is taken; `None` leaves it to the agent's abilities.
    pub scope: Option<LockScope>,
    /// How long a job may wait.
    pub timeout: Option<Duration>,
    /// How long a holder may listen without a job.
    pub idle: Duration,
    /// How long a hook between holders may take.
    pub hook_timeout: Duration,
}

/// Docker for jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerForJobs {
    /// Where it is, if the user says so.
    pub host: Option<Endpoint>,
    /// How long it may take to answer; zero does not ask.
    pub wait: Duration,
    /// An engine of our own.
    pub engine: Option<engine::Settings>,
}

/// When a resource is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockScope {
    /// By a job, before its first step.
    Job,
    /// Before listening.
    Listener,
}

/// What the watchdog goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// How often the forge is asked about an idle runner; `None` is never.
    pub interval: Option<Duration>,
    /// How long it may call a runner offline that listens.
    pub offline: Duration,
    /// How long a job may be without a worker.
    pub worker: Duration,
    /// How long a runner may be idle.
    pub max_idle: Option<Duration>,
    /// How long a job may run.
    pub job_max: Option<Duration>,
}

/// Whether newer agents than the image's are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentUpdate {
    /// Where the forge gives no jobs to old ones, in time.
    Auto,
    /// As soon as one is offered.
    Yes,
    /// Never.
    No,
}

/// What is done about changes outside of what is wiped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taint {
    /// No further job.
    Refuse,
    /// A line in the log.
    Warn,
    /// Nothing.
    Off,
}

/// How to reach the forge: proxies and trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Proxy for `http://`.
    pub http_proxy: Option<String>,
    /// Proxy for `https://`.
    pub https_proxy: Option<String>,
    /// Hosts without proxy.
    pub no_proxy: Option<String>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where OSCR's own directories and the image's parts lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// Places below `root`, which is `/` but in tests.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The root itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A place where a container engine writes.
    #[must_use]
    pub fn of_engine(&self, path: &str) -> PathBuf {
        self.at(path)
    }

    /// Docker's socket by both of its paths: one is usually a link to the other.
    #[must_use]
    pub fn docker_sockets(&self) -> [PathBuf; 2] {
        ["run/docker.sock", "var/run/docker.sock"].map(|path| self.at(path))
    }

    /// The pristine agent of the image.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.at("opt/oscr/agent")
    }

    /// What the image says of its agent.
    #[must_use]
    pub fn agent_release(&self) -> PathBuf {
        self.at("opt/oscr/agent.json")
    }

    /// What was fetched and can be fetched again. Root's alone.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.at("var/cache/oscr")
    }

    /// Agents that were fetched in place of the image's.
    #[must_use]
    pub fn fetched_agents(&self) -> PathBuf {
        self.cache().join("agents")
    }

    /// Archives of such agents, where containers do not share them.
    #[must_use]
    pub fn agent_archives(&self) -> PathBuf {
        self.cache().join("archives")
    }

    /// The pristine home of the image.
    #[must_use]
    pub fn pristine_home(&self) -> PathBuf {
        self.at("opt/oscr/home")
    }

    /// Where each incarnation's agent root is made.
    #[must_use]
    pub fn agent_roots(&self) -> PathBuf {
        self.at("runner")
    }

    /// What survives a restart, for root alone.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.at("var/lib/oscr")
    }

    /// What was moved out of a job's reach and is yet to be removed. Beside the state, and like it root's alone.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.state().join("trash")
    }

    /// What the wiped places were like before the first job. Beside the state, and like it root's alone.
    #[must_use]
    pub fn marks(&self) -> PathBuf {
        self.state().join("marks.json")
    }

    /// The control socket and the hook shims.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.at("run/oscr")
    }

    /// The user's hooks.
    #[must_use]
    pub fn hooks(&self) -> PathBuf {
        self.at("etc/oscr/hooks.d")
    }

    /// What the image sets for everybody who logs in.
    #[must_use]
    pub fn system_environment(&self) -> PathBuf {
        self.at("etc/environment")
    }

    /// The directories for temporary files that any user can write.
    #[must_use]
    pub fn temporary(&self) -> [PathBuf; 5] {
        ["tmp", "var/tmp", "dev/shm", "dev/mqueue", "run/lock"].map(|place| self.at(place))
    }

    /// Where a session of this user would keep its sockets and the like.
    #[must_use]
    pub fn session(&self, user: Uid) -> PathBuf {
        self.at("run/user").join(user.to_string())
    }

    /// What the kernel says about the container's limits.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        self.at("sys/fs/cgroup")
    }

    /// Docker's socket, if mounted.
    #[must_use]
    pub fn docker_socket(&self) -> PathBuf {
        self.at("var/run/docker.sock")
    }
}

impl Common {
    /// Reads the common settings; problems go to the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let naming = Naming::read(reader);
        let labels = reader.list("RUNNER_LABELS");
        if let Some(bad) =
            labels.iter().flatten().find(|label| label.chars().any(char::is_control) || label.len() > 256)
        {
            reader.problem("RUNNER_LABELS", format!("{bad:?} is no label"), "use short words separated by commas");
        }
        let work_directory = PathBuf::from(work_directory(reader));
        let plain = work_directory.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !work_directory.is_absolute() || work_directory.components().count() < 2 || !plain {
            reader.problem(
                "RUNNER_WORKDIR",
                format!("{} is not an absolute path below /", work_directory.display()),
                "use a directory that nothing else uses, such as /work: it is wiped",
            );
        }
        let persistent = reader.flag("RUNNER_PERSISTENT");
        let ephemeral = reader.foreign("EPHEMERAL").and_then(|value| {
            let flag = reader::parse_flag(&value);
            match flag {
                Some(_) => reader.note("EPHEMERAL was read as the opposite of RUNNER_PERSISTENT"),
                None => {
                    reader.problem("EPHEMERAL", format!("{value:?} is neither true nor false"), "use true or false")
                }
            }
            flag
        });
        if persistent.is_some() && ephemeral.is_some() && persistent == ephemeral {
            reader.problem("RUNNER_PERSISTENT", "and EPHEMERAL contradict each other", "keep RUNNER_PERSISTENT only");
        }
        let caches = caches(reader);
        let token_cache = reader.text("OSCR_TOKEN_CACHE").map(PathBuf::from);
        if token_cache.as_ref().is_some_and(|directory| !directory.is_absolute()) {
            reader.problem("OSCR_TOKEN_CACHE", "is not an absolute path", "write /var/cache/oscr/tokens, and mount it");
        }
        let agent_cache = reader.text("OSCR_AGENT_CACHE").map(PathBuf::from);
        if agent_cache.as_ref().is_some_and(|directory| !directory.is_absolute()) {
            reader.problem("OSCR_AGENT_CACHE", "is not an absolute path", "write /var/cache/oscr/shared, and mount it");
        }
        let hardware = Hardware::read(reader);
        let network = Network::read(reader);
        Self {
            naming,
            labels,
            work_directory,
            persistent: persistent.or(ephemeral.map(|ephemeral| !ephemeral)).unwrap_or(false),
            agent_user: reader.text("OSCR_AGENT_USER").unwrap_or_else(|| "runner".to_owned()),
            stop_timeout: reader.duration("OSCR_STOP_TIMEOUT", Duration::from_secs(30 * 60)),
            kill_timeout: reader.duration("OSCR_KILL_TIMEOUT", Duration::from_secs(30)),
            min_uptime: reader.duration("OSCR_MIN_UPTIME", Duration::from_secs(10)),
            start_jitter: reader.duration("OSCR_START_JITTER", Duration::from_secs(2)),
            token_cache,
            watch: Watch::read(reader),
            caches,
            cache_cap: reader.size("OSCR_CACHE_MAX"),
            taint: reader.choice(
                "OSCR_TAINT",
                &[("refuse", Taint::Refuse), ("warn", Taint::Warn), ("off", Taint::Off)],
                Taint::Refuse,
            ),
            agent_update: AgentUpdate::read(reader),
            agent_cache,
            job_env: reader.list("OSCR_JOB_ENV").unwrap_or_default(),
            docker: DockerForJobs::read(reader),
            sudo: reader.flag("OSCR_SUDO").unwrap_or(false),
            policy: policy::read(reader),
            docker_gid0: reader.flag("OSCR_DOCKER_GID0").unwrap_or(false),
            min_free: reader.size("OSCR_MIN_FREE"),
            metrics_address: metrics_address(reader),
            metrics_file: metrics_file(reader),
            hardware,
            network,
            log_format: reader.choice("OSCR_LOG", &[("text", Format::Text), ("json", Format::Json)], Format::Text),
            log_level: reader.choice(
                "OSCR_LOG_LEVEL",
                &[
                    ("error", LevelFilter::ERROR),
                    ("warn", LevelFilter::WARN),
                    ("info", LevelFilter::INFO),
                    ("debug", LevelFilter::DEBUG),
                ],
                LevelFilter::INFO,
            ),
            places: Places::below(PathBuf::from(reader.text("OSCR_ROOT").unwrap_or_else(|| "/".to_owned()))),
        }
    }
}

fn work_directory(reader: &mut Reader<'_>) -> String {
    let own = reader.text("RUNNER_WORKDIR");
    // Microsoft's container has it relative to the agent.
    match reader.foreign("AZP_WORK") {
        Some(path) if path.starts_with('/') && own.is_none() => {
            reader.note("AZP_WORK was read as RUNNER_WORKDIR");
            path
        }
        given => {
            if given.is_some() {
                reader.note("AZP_WORK has no effect: jobs work in RUNNER_WORKDIR");
            }
            own.unwrap_or_else(|| "/work".to_owned())
        }
    }
}

fn metrics_address(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let text = reader.text("OSCR_METRICS_ADDR")?;
    let address = text.parse().ok();
    if address.is_none() {
        reader.problem(
            "OSCR_METRICS_ADDR",
            format!("{text:?} is no address with a port"),
            "write 0.0.0.0:9464 for all of the container's addresses, or 127.0.0.1:9464 for itself alone",
        );
    }
    address
}

fn metrics_file(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(reader.text("OSCR_METRICS_FILE")?);
    if !path.is_absolute() || path.file_name().is_none() {
        reader.problem(
            "OSCR_METRICS_FILE",
            format!("{} is not the absolute path of a file", path.display()),
            "mount the collector's directory and name it, such as /var/lib/oscr-metrics",
        );
        return None;
    }
    Some(path)
}

impl AgentUpdate {
    fn read(reader: &mut Reader<'_>) -> Self {
        let Some(value) = reader.text("OSCR_AGENT_UPDATE") else { return Self::Auto };
        match (value.eq_ignore_ascii_case("auto"), reader::parse_flag(&value)) {
            (true, _) => Self::Auto,
            (_, Some(true)) => Self::Yes,
            (_, Some(false)) => Self::No,
            (_, None) => {
                let what = format!("{value:?} is neither auto, nor true, nor false");
                reader.problem("OSCR_AGENT_UPDATE", what, "use auto, true or false");
                Self::Auto
            }
        }
    }
}

impl Watch {
    fn read(reader: &mut Reader<'_>) -> Self {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        Self {
            interval: some(reader.duration("OSCR_WATCH_INTERVAL", Duration::from_secs(10 * 60))),
            offline: reader.duration("OSCR_OFFLINE_TIMEOUT", Duration::from_secs(3 * 60)),
            worker: reader.duration("OSCR_WORKER_TIMEOUT", Duration::from_secs(60)),
            max_idle: reader.optional_duration("OSCR_MAX_IDLE"),
            job_max: reader.optional_duration("OSCR_JOB_MAX"),
        }
    }
}

impl DockerForJobs {
    fn read(reader: &mut Reader<'_>) -> Self {
        let tls = reader.foreign("DOCKER_TLS_VERIFY").is_some_and(|value| value != "0");
        let host = reader.text("DOCKER_HOST").and_then(|value| match Endpoint::parse(&value, tls) {
            Ok(endpoint) => Some(endpoint),
            Err(what) => {
                reader.problem("DOCKER_HOST", what, "write unix:///run/docker.sock or tcp://docker:2375");
                None
            }
        });
        let own = reader.flag("OSCR_DOCKERD").unwrap_or(false);
        if own && host.is_some() {
            reader.problem("OSCR_DOCKERD", "and DOCKER_HOST name two engines", "keep one of them");
        }
        let mtu = reader.text("OSCR_DOCKERD_MTU").and_then(|value| {
            let mtu = value.parse().ok().filter(|mtu| (68..=u16::MAX).contains(mtu));
            if mtu.is_none() {
                reader.problem("OSCR_DOCKERD_MTU", format!("{value:?} is no MTU"), "write a number such as 1400");
            }
            mtu
        });
        let mirrors = reader.list("OSCR_DOCKERD_MIRRORS").unwrap_or_default();
        let storage = reader.text("OSCR_DOCKERD_STORAGE");
        let default = Duration::from_secs(if own || host.is_some() { 60 } else { 0 });
        let wait = reader.duration("OSCR_DOCKER_WAIT", default);
        Self { host, wait, engine: own.then_some(engine::Settings { mirrors, mtu, storage }) }
    }
}

/// The variables by which agents know of their caches. Whoever sets one wants it to last.
const CACHES_OF_AGENTS: [&str; 3] =
    ["RUNNER_TOOL_CACHE", "AGENT_TOOLSDIRECTORY", "ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE"];

fn caches(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let mut named: Vec<(&str, String)> =
        reader.list("OSCR_CACHE_DIRS").into_iter().flatten().map(|path| ("OSCR_CACHE_DIRS", path)).collect();
    named.extend(CACHES_OF_AGENTS.iter().filter_map(|name| Some((*name, reader.foreign(name)?))));
    let mut caches = Vec::new();
    for (name, path) in named {
        let path = PathBuf::from(path);
        let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if path.is_absolute() && plain && path.components().count() > 1 {
            // Without a slash at the end and the like, so that it can be compared.
            caches.push(path.components().collect());
        } else {
            reader.problem(
                name,
                format!("{} is not an absolute path below /", path.display()),
                "write /work/_tool, say",
            );
        }
    }
    caches
}

impl Hardware {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let directory = PathBuf::from(reader.text("RUNNER_LOCK_DIR").unwrap_or_else(|| LockPlace::USUAL.to_owned()));
        if !directory.is_absolute() {
            reader.problem("RUNNER_LOCK_DIR", "is not an absolute path", "write /var/lock/oscr, and mount it");
        }
        let words = [("job", Some(LockScope::Job)), ("listener", Some(LockScope::Listener))];
        let scope = reader.choice("OSCR_LOCK_SCOPE", &words, None);
        let timeout = reader.optional_duration("OSCR_LOCK_TIMEOUT");
        let idle = reader.duration("OSCR_LOCK_IDLE", Duration::from_secs(60));
        let hook_timeout = reader.duration("OSCR_LOCK_HOOK_TIMEOUT", Duration::from_secs(60));
        let allow_nfs = reader.flag("OSCR_LOCK_ALLOW_NFS").unwrap_or(false);
        let wanted = reader.text("RUNNER_RESOURCE_ID")?;
        let wanted: Wanted = match wanted.parse() {
            Ok(wanted) => wanted,
            Err(error) => {
                let error: WantedError = error;
                reader.problem(
                    "RUNNER_RESOURCE_ID",
                    error.to_string(),
                    "write board-1, or a,b for all of several, or a|b for any",
                );
                return None;
            }
        };
        if wanted.ids().len() > MOST {
            reader.problem("RUNNER_RESOURCE_ID", format!("names more than {} resources", MOST), "name fewer");
        }
        let place = LockPlace { directory, allow_nfs };
        Some(Self { wanted, place, scope, timeout, idle, hook_timeout })
    }
}

impl Network {
    fn read(reader: &mut Reader<'_>) -> Self {
        let mut proxy = |name| {
            let value = reader.text(name)?;
            if !value.starts_with("http://") && !value.starts_with("https://") {
                let shown = reader::redact_credentials(&value);
                reader.problem(name, format!("{shown:?} is no proxy URL"), "write http://host:port");
                return None;
            }
            // The password in it must not reach the log by way of somebody's error message.
            if let Some((_, rest)) = value.split_once("://")
                && let Some((credentials, _)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
                && let Some((_, password)) = credentials.split_once(':')
            {
                crate::log::redact(password);
            }
            Some(value)
        };
        let http_proxy = proxy("HTTP_PROXY");
        let https_proxy = proxy("HTTPS_PROXY");
        let ca_file = reader.text("OSCR_CA_FILE").map(PathBuf::from);
        if let Some(file) = &ca_file
            && let Err(error) = std::fs::File::open(file)
        {
            reader.problem(
                "OSCR_CA_FILE",
                format!("{} cannot be read: {error}", file.display()),
                "mount a PEM file there, or unset it",
            );
        }
        Self { http_proxy, https_proxy, no_proxy: reader.text("NO_PROXY"), ca_file }
    }
}
