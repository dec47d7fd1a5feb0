//! The settings that every provider has.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

use super::caches::{Cache, caches};
use super::docker::DockerForJobs;
use super::hardware::Hardware;
use super::name::Naming;
use super::network::Network;
use super::others;
use super::places::Places;
use super::policy;
use super::reader::Reader;
use super::update::AgentUpdate;
use super::values::parse_flag;
use super::watch::Watch;
use crate::log::Format;
use crate::policy::Policy;
use crate::shown::{quoted, shown};

/// With less, a job that is cancelled is killed more often than not.
const ENOUGH_TO_CANCEL: Duration = Duration::from_secs(20);

/// The longest label that GitHub takes, in characters.
const LONGEST_LABEL: usize = 256;

/// The settings that every provider has.
#[derive(Debug, Clone)]
pub struct Common {
    /// How runners are named.
    pub naming: Naming,
    /// Labels, or `None` for the default ones.
    pub labels: Option<Vec<String>>,
    /// Labels besides, each with the setting that adds it.
    pub added_labels: Vec<(String, String)>,
    /// Where jobs work.
    pub work_directory: PathBuf,
    /// Directories whose content survives jobs.
    pub caches: Vec<Cache>,
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

impl Common {
    /// Reads the common settings; problems go to the reader.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let naming = Naming::read(reader);
        let labels = reader.list("RUNNER_LABELS");
        let added_labels = reader.lists("OSCR_ADD_LABELS_*");
        let own = labels.iter().flatten().map(|label| ("RUNNER_LABELS", label));
        for (setting, label) in own.chain(added_labels.iter().map(|(setting, label)| (setting.as_str(), label))) {
            if label.chars().any(char::is_control) || label.chars().count() > LONGEST_LABEL {
                let cure = format!("use words of {LONGEST_LABEL} characters at most, separated by commas");
                reader.problem(setting, format!("{} is no label", quoted(label)), cure);
            } else {
                look_at_label(reader, setting, label);
            }
        }
        let work_directory: PathBuf = Path::new(&work_directory(reader)).components().collect();
        let plain = work_directory.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        if !work_directory.is_absolute() || work_directory.components().count() < 2 || !plain {
            reader.problem(
                "RUNNER_WORKDIR",
                format!("{} is not an absolute path below /", shown(&work_directory.to_string_lossy())),
                "use a directory that nothing else uses, such as /work: it is wiped",
            );
        }
        let persistent = reader.flag("RUNNER_PERSISTENT");
        let ephemeral = reader.foreign("EPHEMERAL").and_then(|value| {
            let flag = parse_flag(&value);
            match flag {
                Some(_) => reader.note("EPHEMERAL was read as the opposite of RUNNER_PERSISTENT"),
                None => reader.problem(
                    "EPHEMERAL",
                    format!("{} is neither true nor false", quoted(&value)),
                    "use true or false",
                ),
            }
            flag
        });
        if persistent.is_some() && ephemeral.is_some() && persistent == ephemeral {
            reader.problem("RUNNER_PERSISTENT", "and EPHEMERAL contradict each other", "keep RUNNER_PERSISTENT only");
        }
        let mut job_env = reader.list("OSCR_JOB_ENV").unwrap_or_default();
        job_env.extend(reader.lists("OSCR_ADD_JOB_ENV_*").into_iter().map(|(_, name)| name));
        let caches = caches(reader);
        let agent_cache = reader.text("OSCR_AGENT_CACHE").map(PathBuf::from);
        if agent_cache.as_ref().is_some_and(|directory| !directory.is_absolute()) {
            reader.problem("OSCR_AGENT_CACHE", "is not an absolute path", "write /var/cache/oscr/shared, and mount it");
        }
        others::note(reader);
        let hardware = Hardware::read(reader);
        let network = Network::read(reader);
        Self {
            naming,
            labels,
            added_labels,
            work_directory,
            persistent: persistent.or(ephemeral.map(|ephemeral| !ephemeral)).unwrap_or(false),
            agent_user: reader.text("OSCR_AGENT_USER").unwrap_or_else(|| "runner".to_owned()),
            stop_timeout: reader.duration("OSCR_STOP_TIMEOUT", Duration::from_secs(30 * 60)),
            kill_timeout: kill_timeout(reader),
            min_uptime: reader.duration("OSCR_MIN_UPTIME", Duration::from_secs(10)),
            start_jitter: reader.duration("OSCR_START_JITTER", Duration::from_secs(2)),
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
            job_env,
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

/// Says what one label or capability holds that jobs hardly ask for.
pub(crate) fn look_at_label(reader: &mut Reader<'_>, setting: &str, label: &str) {
    if let Some(odd) = label.chars().find(|c| c.is_whitespace() || "\"'`[]{}();|$".contains(*c)) {
        reader.warning(format!(
            "{setting}: {} is one label with {odd:?} in it, and only a job that asks for exactly this gets it: labels are separated by commas",
            quoted(label)
        ));
    }
}

fn kill_timeout(reader: &mut Reader<'_>) -> Duration {
    let problems = reader.problems();
    let timeout = reader.duration("OSCR_KILL_TIMEOUT", Duration::from_secs(30));
    if timeout < ENOUGH_TO_CANCEL && problems == reader.problems() {
        reader.warning(format!(
            "OSCR_KILL_TIMEOUT is {}, and an agent needs 12 to 23 s to cancel its job: its steps get SIGINT, 7.5 s later SIGTERM \
             and 2.5 s later SIGKILL, and then it stores what the job said. Killed before that, it never tells the forge that \
             the job is over, and a runner stays there that is busy with it: give it 20s or more",
            humantime::format_duration(timeout)
        ));
    }
    timeout
}

fn work_directory(reader: &mut Reader<'_>) -> String {
    let mut known = reader.text("RUNNER_WORKDIR");
    // Others have it relative to the agent.
    for (name, path) in
        [("AZP_WORK", reader.foreign("AZP_WORK")), ("RUNNER_WORK_DIRECTORY", reader.foreign("RUNNER_WORK_DIRECTORY"))]
    {
        match path {
            Some(path) if path.starts_with('/') && known.is_none() => {
                reader.note(format!("{name} was read as RUNNER_WORKDIR"));
                known = Some(path);
            }
            Some(_) => reader.note(format!("{name} has no effect: jobs work in RUNNER_WORKDIR")),
            None => {}
        }
    }
    known.unwrap_or_else(|| "/work".to_owned())
}

fn metrics_address(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let text = reader.text("OSCR_METRICS_ADDR")?;
    let address = text.parse().ok();
    if address.is_none() {
        reader.problem(
            "OSCR_METRICS_ADDR",
            format!("{} is no address with a port", quoted(&text)),
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
            format!("{} is not the absolute path of a file", shown(&path.to_string_lossy())),
            "mount the collector's directory and name it, such as /var/lib/oscr-metrics",
        );
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, table};

    #[test]
    fn too_little_time_for_a_cancel_is_a_warning_that_says_why() {
        let warnings = |given: &str| {
            let environment = Environment::from([("OSCR_KILL_TIMEOUT", given)]);
            let mut reader = Reader::new(&environment, vec![table::COMMON]);
            Common::read(&mut reader);
            reader.finish().map(|read| read.warnings).unwrap_or_default()
        };
        for short in ["0", "1", "19s"] {
            let [ref warning] = warnings(short)[..] else { panic!("{short}: {:?}", warnings(short)) };
            for part in ["OSCR_KILL_TIMEOUT", "12 to 23 s", "never tells the forge", "20s or more"] {
                assert!(warning.contains(part), "{part}: {warning}");
            }
        }
        for enough in ["", "20", "30s", "1m", "soon"] {
            assert!(warnings(enough).is_empty(), "{enough}: {:?}", warnings(enough));
        }
    }
}
