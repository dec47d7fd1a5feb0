//! The environment becomes one typed configuration, once, before anything else happens.
//!
//! [`Reader`] collects every problem; [`Common`] is what all providers share. A provider reads its own settings with the
//! same reader (`src/provider/<name>/settings.rs`).

pub mod name;
pub mod reader;
pub mod secret;
pub mod table;

use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

pub use reader::{Environment, Problem, Read, Reader};
pub use secret::{Secret, SecretError, SecretSource};

use crate::log::Format;
use crate::resource::{Wanted, WantedError, attempt};
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
    /// More variables for the agent.
    pub job_env: Vec<String>,
    /// Whether the agent may have group 0 for the Docker socket.
    pub docker_gid0: bool,
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
    /// The lock directory.
    pub directory: PathBuf,
    /// When the resource is taken; `None` leaves it to the agent's abilities.
    pub scope: Option<LockScope>,
    /// How long a job may wait.
    pub timeout: Option<Duration>,
    /// How long a holder may listen without a job.
    pub idle: Duration,
    /// How long a hook between holders may take.
    pub hook_timeout: Duration,
    /// Whether NFS will do.
    pub allow_nfs: bool,
}

/// When a resource is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockScope {
    /// By a job, before its first step.
    Job,
    /// Before listening.
    Listener,
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

    /// The pristine agent of the image.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.at("opt/oscr/agent")
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

    /// The directories for temporary files that any user can write.
    #[must_use]
    pub fn temporary(&self) -> [PathBuf; 4] {
        [self.at("tmp"), self.at("var/tmp"), self.at("dev/shm"), self.at("run/lock")]
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
        let work_directory = PathBuf::from(reader.text("RUNNER_WORKDIR").unwrap_or_else(|| "/work".to_owned()));
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
            job_env: reader.list("OSCR_JOB_ENV").unwrap_or_default(),
            docker_gid0: reader.flag("OSCR_DOCKER_GID0").unwrap_or(false),
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

impl Hardware {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let directory = PathBuf::from(reader.text("RUNNER_LOCK_DIR").unwrap_or_else(|| "/var/lock/oscr".to_owned()));
        if !directory.is_absolute() {
            reader.problem("RUNNER_LOCK_DIR", "is not an absolute path", "write /var/lock/oscr, and mount it");
        }
        let words = [("job", Some(LockScope::Job)), ("listener", Some(LockScope::Listener))];
        let scope = reader.choice("OSCR_LOCK_SCOPE", &words, None);
        let timeout = reader.duration("OSCR_LOCK_TIMEOUT", Duration::ZERO);
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
        if wanted.ids().len() > attempt::MOST {
            reader.problem("RUNNER_RESOURCE_ID", format!("names more than {} resources", attempt::MOST), "name fewer");
        }
        let timeout = (!timeout.is_zero()).then_some(timeout);
        Some(Self { wanted, directory, scope, timeout, idle, hook_timeout, allow_nfs })
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
